"""Every metric of a worker: its name, type and labels.

A change here is a change of docs/metrics.md, and of someone's alerts.
"""

GOLDEN: dict[str, tuple[str, tuple[str, ...]]] = {
    "rowmill_jobs_started_total": ("counter", ("source", "lane")),
    "rowmill_jobs_finished_total": ("counter", ("source", "lane", "outcome")),
    "rowmill_job_wait_seconds": ("histogram", ("source", "lane")),
    "rowmill_job_run_seconds": ("histogram", ("source", "lane")),
    "rowmill_slots": ("gauge", ()),
    "rowmill_slots_used": ("gauge", ()),
    "rowmill_ready": ("gauge", ()),
    "rowmill_heartbeat_age_seconds": ("gauge", ()),
    "rowmill_settlements_pending": ("gauge", ()),
    "rowmill_event_loop_lag_seconds": ("histogram", ()),
    "rowmill_claim_seconds": ("histogram", ()),
    "rowmill_settle_seconds": ("histogram", ()),
    "rowmill_settle_batch_jobs": ("histogram", ()),
    "rowmill_database_errors_total": ("counter", ("kind",)),
    "rowmill_database_connections_opened_total": ("counter", ()),
    "rowmill_provider_calls_total": ("counter", ("provider", "outcome")),
    "rowmill_provider_call_seconds": ("histogram", ("provider",)),
    "rowmill_provider_failures_total": ("counter", ("provider", "kind")),
    "rowmill_provider_spend_cents_total": ("counter", ("provider",)),
    "rowmill_queue_jobs": ("gauge", ("lane", "source", "state")),
    "rowmill_queue_oldest_wait_seconds": ("gauge", ("lane", "source")),
    "rowmill_lane_paused": ("gauge", ("lane",)),
    "rowmill_lane_broken": ("gauge", ("lane",)),
    "rowmill_build_info": ("gauge", ("version",)),
    "process_cpu_seconds_total": ("counter", ()),
    "process_max_fds": ("gauge", ()),
    "process_open_fds": ("gauge", ()),
    "process_resident_memory_bytes": ("gauge", ()),
    "process_start_time_seconds": ("gauge", ()),
    "process_virtual_memory_bytes": ("gauge", ()),
}
