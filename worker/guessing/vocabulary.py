"""How people call the states of a job, its columns and its urgency. The likeliest word comes first.

Words are compared as `bare()` makes them: `InProgress`, `in-progress` and `IN_PROGRESS` are one.
"""

from __future__ import annotations

import re


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def bare(word: str) -> str:
    """`InProgress` → `in_progress`."""
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", word)
    return re.sub(r"[^a-z0-9]+", "_", word.lower()).strip("_")


STATUS = _words("""
    status state job_status job_state task_status processing_status processing_state
    generation_status run_status execution_status current_status current_state workflow_state
    phase stage
""")

STATES = {
    "ready": _words("""
        queued pending ready new waiting open todo to_do created submitted requested enqueued
        received available unprocessed not_started accepted initial idle in_queue wait inbox
        planned scheduled delayed retry retrying to_retry
    """),
    "running": _words("""
        processing running in_progress working busy active started executing ongoing doing
        claimed locked in_work in_process being_processed generating rendering inprogress
        picked_up taken
    """),
    "succeeded": _words("""
        completed succeeded done success finished complete successful processed ok
        ready_for_download generated rendered delivered answered sent published closed
        resolved
    """),
    "failed": _words("""
        failed error failure errored broken faulted dead crashed unsuccessful gave_up rejected
        exception fail aborted_with_error timed_out timeout expired
    """),
    "cancelled": _words("""
        cancelled canceled withdrawn aborted stopped revoked skipped cancel discarded
        abandoned deleted killed
    """),
}
"""`expired` and `skipped` are ends, too: better than none, worse than the words before them."""

WAITS_FOR_TIME = ("planned", "scheduled", "delayed", "retry", "retrying", "to_retry")
ASIDE = _words("""
    draft archived paused on_hold hold blocked suspended review in_review needs_review unknown
    none disabled hidden
""")
"""States a job may have that are none of ours: never used to fill a gap."""

PRIORITY = _words("priority prio urgency importance job_priority priority_level rank severity")
URGENT_FLAG = _words("urgent is_urgent express is_priority high_priority is_express rush")
RANKS = {
    4: _words("lowest very_low trivial bulk batch idle someday whenever background"),
    6: _words("low minor later deferred economy"),
    10: _words("normal medium default standard regular average moderate routine ordinary mid"),
    13: _words("soon elevated above_normal raised"),
    15: _words("high important major premium express"),
    18: _words("urgent highest very_high asap rush vip"),
    20: _words("critical immediate now emergency blocker realtime"),
}
"""From 1, the last, to 20, the first; 10 is what a row without a priority gets."""

KIND = _words("""
    job_type task_type kind job_kind task task_name job_name type operation action job_class
    work_type request_type job function handler
""")
LANE = _words("""
    provider generation_service service vendor engine ai_provider backend provider_name
    service_name
""")
TENANT = _words("""
    tenant_id tenant customer_id customer account_id account organization_id organisation_id
    org_id user_id workspace_id company_id team_id client_id owner_id owner user
    customer_number user_uuid profile_id created_by requested_by
""")
TENANT_TABLES = _words("""
    users user customers customer accounts account tenants tenant organizations organisations
    clients companies teams workspaces profiles
""")

RETRIES = _words("retry_count retries num_retries retries_count number_of_retries retried")
ATTEMPTS = _words("""
    attempts attempt_count tries attempt try_count num_attempts attempts_made attempts_count
    number_of_attempts
""")
MAX_RETRIES = _words("max_retries retry_limit max_retry_count maximum_retries retries_max")
MAX_ATTEMPTS = _words("max_attempts max_tries attempt_limit attempts_limit maximum_attempts")

SCHEDULE = _words("""
    scheduled_at scheduled_for run_at run_after not_before available_at execute_at start_after
    process_after visible_at delay_until scheduled_time available_from send_at publish_at
    execute_after
""")
MAYBE_SCHEDULE = _words("next_run_at next_attempt_at next_retry_at due_at due retry_at start_at")

STARTED = _words("""
    started_at processing_started_at start_time begun_at started_on started picked_up_at
    processing_at
""")
ENDED = _words("finished_at ended_at closed_at end_time finished ended finished_on ended_on")
"""Written however a job ended."""
SUCCEEDED = _words("""
    completed_at processed_at done_at succeeded_at completed_on answered_at generated_at
    resolved_at delivered_at completion_time completed
""")
FAILED = _words("failed_at errored_at failure_time")
CANCELLED = _words("cancelled_at canceled_at withdrawn_at")
UPDATED = _words("updated_at modified_at last_updated updated_on changed_at last_modified updated")

ERROR = _words("""
    error_message last_error error failure_reason error_text fail_reason last_error_message
    failure_message error_details error_detail err_msg traceback trouble
""")
PROGRESS = _words("progress progress_percentage progress_percent percent_complete percentage")
EXTERNAL = _words("""
    external_id external_job_id provider_job_id remote_id prediction_id provider_task_id
    external_task_id provider_request_id
""")
TEXT = _words("""
    response result_text output_text generated_text completion answer result output reply
""")
URL = _words("result_url output_url generated_url file_url video_url image_url audio_url")
SURE_URL = ("result_url", "output_url", "generated_url")
THUMBNAIL = _words("thumbnail_url preview_url")
METADATA = _words("output_metadata result_metadata provider_metadata")
DATA = _words("result output result_data output_data results data")
TOKENS = _words("tokens_used total_tokens tokens token_count tokens_total")
CENTS = _words("""
    cost_cents compute_cost_cents total_cost_cents actual_cost_cents provider_cost_cents
    spend_cents
""")
DOLLARS = _words("cost cost_usd total_cost actual_cost provider_cost spend_usd")
MILLISECONDS = _words("""
    processing_time_ms duration_ms elapsed_ms execution_time_ms run_time_ms took_ms runtime_ms
""")
SECONDS = _words("""
    actual_duration_seconds processing_seconds elapsed_seconds run_seconds
    processing_time_seconds
""")
MAYBE_SECONDS = _words("duration_seconds duration processing_time elapsed")
MODEL_USED, PROVIDER_USED = _words("model_used used_model"), _words("provider_used used_provider")
MEDIA = _words("output_file_id result_file_id output_media_id media_file_id")
