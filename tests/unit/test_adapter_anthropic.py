"""Anthropic's messages as values in, values out."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import EmbedTask, FailureKind, MediaTask, Task, TextTask, TokenPrice, Usage
from jobs.providers.adapter import Account
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.vendors.anthropic import MAX_TOKENS, Anthropic
from tests.unit.values import GARBLED, PRICES, refused, response

ANTHROPIC = Anthropic()
ACCOUNT = Account("main", "https://api.test/v1", "key-1")
NEWER = replace(ACCOUNT, headers={"Anthropic-Version": "2026-10-21", "X-Team": "a"})
TEXT = TextTask("claude-haiku-4-5", "Write a chapter.", system="Be brief.", temperature=0.5)


def message(**changes: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 500,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 400,
        "output_tokens": 200,
    }
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [{"type": "text", "text": "Once."}],
        "stop_reason": "end_turn",
        "stop_details": None,
        "usage": usage,
    } | changes


def parsed(**changes: Any) -> Any:
    return ANTHROPIC.parse("submit", response(200, message(**changes)))


def test_request() -> None:
    request = ANTHROPIC.submit(replace(TEXT, max_tokens=99), ACCOUNT)
    assert (request.method, request.url) == ("POST", "https://api.test/v1/messages")
    assert request.headers == {"x-api-key": "key-1", "anthropic-version": "2023-06-01"}
    assert request.json == {
        "model": "claude-haiku-4-5",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "Write a chapter."}],
        "system": "Be brief.",
        "temperature": 0.5,
    }
    bare = ANTHROPIC.submit(TextTask("claude-haiku-4-5", "x"), ACCOUNT)
    assert set(bare.json) == {"model", "max_tokens", "messages"}
    assert bare.json["max_tokens"] == MAX_TOKENS
    assert request.fingerprint(ACCOUNT) != bare.fingerprint(ACCOUNT)


def test_the_accounts_headers_win_however_they_are_written() -> None:
    """Two versions in one request would leave the choice to the vendor."""
    headers = ANTHROPIC.submit(TEXT, NEWER).headers
    assert headers == {"x-api-key": "key-1", "anthropic-version": "2026-10-21", "X-Team": "a"}


@pytest.mark.parametrize(
    "task",
    [
        replace(TEXT, temperature=1.1),
        replace(TEXT, temperature=-0.1),
        replace(TEXT, max_tokens=0),
        replace(TEXT, prompt="  "),
        replace(TEXT, model=""),
        EmbedTask("claude-haiku-4-5", ("a",)),
        MediaTask("image", "A boat"),
    ],
)
def test_what_cannot_be_done(task: Task) -> None:
    assert refused(ANTHROPIC, task, ACCOUNT) == "invalid_task"


def test_what_can_be_done() -> None:
    for task in (TEXT, replace(TEXT, temperature=0), replace(TEXT, temperature=1)):
        ANTHROPIC.check(task, ACCOUNT, PRICES)
    assert ANTHROPIC.model(TEXT, ACCOUNT) == "claude-haiku-4-5"


def test_a_temperature_needs_the_older_version() -> None:
    assert refused(ANTHROPIC, TEXT, NEWER) == "invalid_task"
    later = replace(ACCOUNT, headers={"anthropic-version": "2027-01-01"})
    assert refused(ANTHROPIC, TEXT, later) == "invalid_task"
    ANTHROPIC.check(replace(TEXT, temperature=None), NEWER, PRICES)


def test_unknown_price() -> None:
    assert refused(ANTHROPIC, replace(TEXT, model="claude-99"), ACCOUNT) == "unknown_price"
    own = replace(TEXT, model="claude-99", price=TokenPrice(Decimal("0.001"), Decimal("0.002")))
    ANTHROPIC.check(own, ACCOUNT, PRICES)


def test_message_and_its_price() -> None:
    state = parsed()
    assert (state.phase, state.text, state.external_id) == ("succeeded", "Once.", "msg_1")
    assert (state.ref, state.failure) == (None, None)
    assert state.usage == Usage(1000, 200, 400)
    assert state.metadata == {"finish_reason": "end_turn", "model": "claude-haiku-4-5-20251001"}
    # 600 x 100 + 400 x 10 + 200 x 500, by the million
    assert ANTHROPIC.cost("claude-haiku-4-5", state, PRICES, TEXT) == Decimal("0.164")
    assert ANTHROPIC.cost("claude-haiku-4-5-20251001", state, PRICES, None) == Decimal("0.164")


def test_usage_without_a_cache() -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": None}
    assert parsed(usage=usage).usage == Usage(5, 2, 0)


def test_the_estimate_reckons_with_the_limit_that_is_sent() -> None:
    prompt = replace(TEXT, system=None, prompt="four")
    limited = ANTHROPIC.estimate(replace(prompt, max_tokens=1000), TEXT.model, PRICES)
    assert limited == (Decimal(100) + 500 * 1000) / 1_000_000
    unlimited = ANTHROPIC.estimate(prompt, TEXT.model, PRICES)
    assert unlimited == (Decimal(100) + 500 * MAX_TOKENS) / 1_000_000


def test_only_text_is_text() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": "Once "},
        {"type": "server_tool_use", "id": "x", "name": "web_search", "input": {}},
        {"type": "text", "text": "upon."},
    ]
    assert parsed(content=blocks).text == "Once upon."


@pytest.mark.parametrize(
    "stop",
    [
        "end_turn",
        "stop_sequence",
        "max_tokens",
        "pause_turn",
        "tool_use",
        "model_context_window_exceeded",
        "something_new",
        None,
    ],
)
def test_text_is_an_answer_however_it_ended(stop: str | None) -> None:
    state = parsed(stop_reason=stop)
    assert (state.phase, state.text) == ("succeeded", "Once.")
    assert state.metadata["finish_reason"] == stop


HARM = {"type": "refusal", "category": "bio", "explanation": "No."}


@pytest.mark.parametrize(
    ("changes", "kind", "code", "words"),
    [
        (
            {"stop_reason": "refusal", "stop_details": HARM, "content": []},
            FailureKind.POLICY,
            "bio",
            "No.",
        ),
        ({"stop_reason": "refusal"}, FailureKind.POLICY, "refusal", "refused"),
        (
            {"stop_reason": "refusal", "stop_details": {"category": None, "explanation": None}},
            FailureKind.POLICY,
            "refusal",
            "refused",
        ),
        ({"stop_reason": "max_tokens", "content": []}, FailureKind.INVALID, "max_tokens", "used"),
        (
            {"stop_reason": "model_context_window_exceeded", "content": []},
            FailureKind.INVALID,
            "max_tokens",
            "used",
        ),
        ({"content": []}, FailureKind.UNKNOWN, "empty_answer", "empty"),
        ({"stop_reason": "tool_use", "content": []}, FailureKind.UNKNOWN, "empty_answer", "empty"),
    ],
)
def test_a_200_that_is_a_failure_is_billed(
    changes: Any, kind: FailureKind, code: str, words: str
) -> None:
    state = parsed(**changes)
    assert state.phase == "failed"
    assert (state.failure.kind, state.failure.code) == (kind, code)
    assert words in state.failure.message
    assert (state.failure.accepted, state.failure.provider) == ("yes", "anthropic")
    assert ANTHROPIC.cost("claude-haiku-4-5", state, PRICES, TEXT) == Decimal("0.164")


@pytest.mark.parametrize(
    "changes",
    [
        {"content": None},
        {"content": ["text"]},
        {"content": [{"text": "no type"}]},
        {"content": [{"type": "text"}]},
        {"content": [{"type": "text", "text": 3}]},
        {"usage": None},
        {"usage": {"input_tokens": 1}},
        {"usage": {"input_tokens": "many", "output_tokens": 1}},
        {"stop_reason": "refusal", "stop_details": "no"},
    ],
)
def test_garbled_messages(changes: Any) -> None:
    with pytest.raises(Garbled):
        parsed(**changes)


@pytest.mark.parametrize("body", [*GARBLED, b'{"id": "msg_1", "content": []}'])
def test_garbled(body: bytes) -> None:
    with pytest.raises(Garbled):
        ANTHROPIC.parse("submit", response(200, body))


CREDIT = "Your credit balance is too low to access the API."
OWN_CAP = "You have reached your specified API usage limits. You will regain access on 2026-12-01."
WORKSPACE_CAP = "You have reached your specified workspace API usage limits."


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (400, {"type": "invalid_request_error"}, FailureKind.INVALID, "invalid_request_error"),
        (
            400,
            {"type": "invalid_request_error", "message": CREDIT},
            FailureKind.QUOTA,
            "invalid_request_error",
        ),
        (
            400,
            {"type": "invalid_request_error", "message": OWN_CAP},
            FailureKind.QUOTA,
            "invalid_request_error",
        ),
        (
            400,
            {"type": "invalid_request_error", "message": WORKSPACE_CAP},
            FailureKind.QUOTA,
            "invalid_request_error",
        ),
        (401, {"type": "authentication_error"}, FailureKind.AUTH, "authentication_error"),
        (402, {"type": "billing_error"}, FailureKind.QUOTA, "billing_error"),
        (403, {"type": "permission_error"}, FailureKind.AUTH, "permission_error"),
        (404, {"type": "not_found_error"}, FailureKind.INVALID, "not_found_error"),
        (413, {"type": "request_too_large"}, FailureKind.INVALID, "request_too_large"),
        (429, {"type": "rate_limit_error"}, FailureKind.RATE_LIMIT, "rate_limit_error"),
        (
            429,
            {
                "type": "rate_limit_error",
                "details": {"error_code": "enforced_spend_limit_reached"},
            },
            FailureKind.QUOTA,
            "enforced_spend_limit_reached",
        ),
        (
            429,
            {"type": "rate_limit_error", "details": {"error_code": "ramp_limit_exceeded"}},
            FailureKind.RATE_LIMIT,
            "ramp_limit_exceeded",
        ),
        (
            403,
            {"type": "permission_error", "details": {"error_code": "contract_spend_limit_reached"}},
            FailureKind.QUOTA,
            "contract_spend_limit_reached",
        ),
        (500, {"type": "api_error"}, FailureKind.TRANSIENT, "api_error"),
        (504, {"type": "timeout_error"}, FailureKind.TRANSIENT, "timeout_error"),
        (529, {"type": "overloaded_error"}, FailureKind.TRANSIENT, "overloaded_error"),
        (
            418,
            {"type": "overloaded_error", "details": 3},
            FailureKind.TRANSIENT,
            "overloaded_error",
        ),
        (418, {"type": "something_new"}, FailureKind.UNKNOWN, "something_new"),
    ],
)
def test_errors(status: int, error: dict[str, Any], kind: FailureKind, code: str) -> None:
    body = {"type": "error", "error": {"message": "no", **error}, "request_id": "req_1"}
    failure = ANTHROPIC.classify("submit", response(status, body, {"retry-after": "4"}))
    assert (failure.kind, failure.code) == (kind, code)
    assert failure.message == error.get("message", "no")
    assert failure.retry_after == 4
    assert failure.accepted == ("unknown" if status >= 500 else "no")


def test_nothing_to_poll_or_ask() -> None:
    assert ANTHROPIC.poll({}, ACCOUNT) is None
    assert ANTHROPIC.cancel({}, ACCOUNT) is None
    assert ANTHROPIC.find(ACCOUNT) is None
    with pytest.raises(ProviderError, match="only text"):
        ANTHROPIC.model(MediaTask("video", "x"), ACCOUNT)
