"""OpenAI's background responses as values in, values out."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import EmbedTask, FailureKind, MediaTask, Task, TextTask, TokenPrice, Usage
from jobs.providers.adapter import Account, State
from jobs.providers.errors import Garbled
from jobs.providers.vendors.openai import OpenAI
from jobs.providers.vendors.openai_responses import OpenAIResponses
from tests.unit.values import GARBLED, NOW, PRICES, refused, response

RESPONSES = OpenAIResponses()
ACCOUNT = Account("main", "https://api.test/v1", "key-1", headers={"OpenAI-Project": "p"})
TEXT = TextTask("gpt-4o-mini", "Write a chapter.", system="Be brief.", temperature=0.5)

USAGE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 0},
    "output_tokens": 500,
    "output_tokens_details": {"reasoning_tokens": 300},
    "total_tokens": 1500,
}


def message(*parts: Any) -> dict[str, Any]:
    return {"type": "message", "id": "m1", "role": "assistant", "content": list(parts)}


def said(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def refusing(words: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": words}


THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}


def parsed(**changes: Any) -> State:
    body = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-4o-mini-2024-07-18",
        "output": [THOUGHT, message(said("Once."))],
        "usage": USAGE,
    }
    return RESPONSES.parse("poll", response(200, body | changes))


def test_request() -> None:
    request = RESPONSES.submit(replace(TEXT, max_tokens=99), ACCOUNT)
    assert (request.method, request.url) == ("POST", "https://api.test/v1/responses")
    assert request.headers == {"Authorization": "Bearer key-1", "OpenAI-Project": "p"}
    assert request.json == {
        "model": "gpt-4o-mini",
        "input": "Write a chapter.",
        "background": True,
        "instructions": "Be brief.",
        "temperature": 0.5,
        "max_output_tokens": 99,
    }
    bare = RESPONSES.submit(TextTask("gpt-4o-mini", "x"), ACCOUNT)
    assert set(bare.json) == {"model", "input", "background"}


def test_polls_and_cancels() -> None:
    poll, cancel = RESPONSES.poll({"id": "r1"}, ACCOUNT), RESPONSES.cancel({"id": "r1"}, ACCOUNT)
    assert poll is not None
    assert cancel is not None
    assert (poll.method, poll.url) == ("GET", "https://api.test/v1/responses/r1")
    assert (cancel.method, cancel.url) == ("POST", "https://api.test/v1/responses/r1/cancel")
    assert (
        poll.headers
        == cancel.headers
        == {
            "Authorization": "Bearer key-1",
            "OpenAI-Project": "p",
        }
    )
    assert (poll.json, cancel.json) == (None, None)


def test_the_account_has_no_list() -> None:
    assert RESPONSES.find(ACCOUNT) is None
    assert RESPONSES.listed(NOW, response(200, {}), ACCOUNT).tasks == ()


@pytest.mark.parametrize(
    "task",
    [
        replace(TEXT, temperature=2.1),
        replace(TEXT, temperature=-0.1),
        replace(TEXT, max_tokens=15),
        replace(TEXT, max_tokens=0),
        replace(TEXT, prompt="  "),
        replace(TEXT, model=""),
        EmbedTask("text-embedding-3-small", ("a",)),
        MediaTask("image", "A boat"),
    ],
)
def test_what_cannot_be_done(task: Task) -> None:
    assert refused(RESPONSES, task, ACCOUNT) == "invalid_task"


def test_what_can_be_done() -> None:
    for task in (TEXT, replace(TEXT, temperature=2), replace(TEXT, max_tokens=16)):
        RESPONSES.check(task, ACCOUNT, PRICES)
    assert refused(RESPONSES, replace(TEXT, model="gpt-99"), ACCOUNT) == "unknown_price"


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("queued", "queued"),
        ("in_progress", "running"),
        ("completed", "succeeded"),
        ("incomplete", "succeeded"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("rebooting", "unknown"),
    ],
)
def test_every_status(status: str, phase: str) -> None:
    state = parsed(status=status)
    assert state.phase == phase
    assert state.done is (phase in ("succeeded", "failed", "cancelled"))
    assert (state.ref, state.external_id) == ({"id": "resp_1"}, "resp_1")
    assert (state.failure is not None) is (phase == "failed")
    assert state.text == ("Once." if phase == "succeeded" else None)
    assert state.metadata["status"] == status


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", "failed"])
@pytest.mark.parametrize("output", [None, []])
def test_nothing_is_told_before_the_end(status: str, output: Any) -> None:
    state = parsed(status=status, output=output, usage=None)
    assert state.usage == Usage()
    assert RESPONSES.cost("gpt-4o-mini", state, PRICES, TEXT) == 0


def test_text_and_its_price_are_those_of_openai() -> None:
    state = parsed(output=[message(said("Once "), said("upon ")), THOUGHT, message(said("a."))])
    assert state.text == "Once upon a."
    assert state.usage == Usage(1000, 500, 400)
    assert state.metadata["model"] == "gpt-4o-mini-2024-07-18"
    # 600 x 15 + 400 x 7.5 + 500 x 60, by the million
    assert RESPONSES.cost("gpt-4o-mini", state, PRICES, TEXT) == Decimal("0.042")
    assert RESPONSES.cost("gpt-4o-mini-2024-07-18", state, PRICES, None) == Decimal("0.042")
    own = replace(TEXT, model="house", price=TokenPrice(Decimal("0.001"), Decimal("0.002")))
    assert RESPONSES.cost("house", state, PRICES, own) == Decimal(2)
    expected = OpenAI().estimate(TEXT, TEXT.model, PRICES)
    assert RESPONSES.estimate(TEXT, TEXT.model, PRICES) == expected > 0


def test_text_without_a_count_is_not_free() -> None:
    state = parsed(usage=None)
    estimate = RESPONSES.estimate(TEXT, TEXT.model, PRICES)
    assert RESPONSES.cost(TEXT.model, state, PRICES, TEXT) == estimate > 0


def test_what_was_used_before_it_was_cancelled() -> None:
    state = parsed(status="cancelled", output=[])
    assert RESPONSES.cost("gpt-4o-mini", state, PRICES, TEXT) == Decimal("0.042")


FILTERED = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
CUT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}


@pytest.mark.parametrize(
    ("changes", "kind", "code", "words"),
    [
        (
            {"output": [message(refusing("I can't."))]},
            FailureKind.POLICY,
            "content_filter",
            "I can't.",
        ),
        (
            {"output": [message(said("Well, "), refusing("no."))]},
            FailureKind.POLICY,
            "content_filter",
            "no.",
        ),
        (FILTERED, FailureKind.POLICY, "content_filter", "withheld"),
        (FILTERED | {"output": []}, FailureKind.POLICY, "content_filter", "withheld"),
        (CUT | {"output": [THOUGHT]}, FailureKind.INVALID, "max_tokens", "used up"),
        ({"output": [THOUGHT]}, FailureKind.UNKNOWN, "empty_answer", "empty"),
        ({"output": []}, FailureKind.UNKNOWN, "empty_answer", "empty"),
    ],
)
def test_an_end_without_an_answer_is_billed(
    changes: Any, kind: FailureKind, code: str, words: str
) -> None:
    state = parsed(**changes)
    assert state.failure is not None
    assert (state.phase, state.failure.kind, state.failure.code) == ("failed", kind, code)
    assert words in state.failure.message
    assert (state.failure.accepted, state.failure.provider) == ("yes", "openai_responses")
    assert RESPONSES.cost("gpt-4o-mini", state, PRICES, TEXT) == Decimal("0.042")


@pytest.mark.parametrize("reason", ["max_output_tokens", "max_messages", "steered", "new", None])
def test_text_that_was_cut_is_text(reason: str | None) -> None:
    state = parsed(status="incomplete", incomplete_details={"reason": reason})
    assert (state.phase, state.text) == ("succeeded", "Once.")
    assert state.metadata["finish_reason"] == (reason or "incomplete")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        ({"code": "server_error"}, FailureKind.TRANSIENT, "server_error"),
        ({"code": "vector_store_timeout"}, FailureKind.TRANSIENT, "vector_store_timeout"),
        ({"code": "rate_limit_exceeded"}, FailureKind.RATE_LIMIT, "rate_limit_exceeded"),
        ({"code": "insufficient_quota"}, FailureKind.QUOTA, "insufficient_quota"),
        ({"code": "invalid_prompt"}, FailureKind.INVALID, "invalid_prompt"),
        ({"code": "data_residency_mismatch"}, FailureKind.INVALID, "data_residency_mismatch"),
        ({"code": "bio_policy"}, FailureKind.POLICY, "bio_policy"),
        (
            {"code": "misalignment_policy_violation"},
            FailureKind.POLICY,
            "misalignment_policy_violation",
        ),
        (
            {"code": "image_content_policy_violation"},
            FailureKind.POLICY,
            "image_content_policy_violation",
        ),
        ({"code": "something_new"}, FailureKind.UNKNOWN, "something_new"),
        (None, FailureKind.UNKNOWN, "failed"),
    ],
)
def test_failed_responses(error: Any, kind: FailureKind, code: str) -> None:
    failure = parsed(status="failed", error=error, output=[], usage=None).failure
    assert failure is not None
    assert (failure.kind, failure.code, failure.accepted) == (kind, code, "yes")
    assert failure.message


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../models"},
        {"id": ""},
        {"id": "a/b"},
        {"id": "a?b"},
        {"output": 3},
        {"output": ["text"]},
        {"output": [{}]},
        {"output": [{"type": "message"}]},
        {"output": [message({"type": "output_text"})]},
        {"output": [message({"type": "output_text", "text": 3})]},
        {"usage": {"input_tokens": "many"}},
        {"usage": 3},
        {"error": "no", "status": "failed"},
        {"incomplete_details": "no"},
    ],
)
def test_garbled_responses(changes: Any) -> None:
    with pytest.raises(Garbled):
        parsed(**changes)


@pytest.mark.parametrize("body", [*GARBLED, b'{"id": "r1"}', b'{"status": "queued"}'])
def test_garbled(body: bytes) -> None:
    with pytest.raises(Garbled):
        RESPONSES.parse("submit", response(200, body))


def test_errors_are_those_of_openai() -> None:
    body = {"error": {"message": "no", "code": "insufficient_quota", "type": "x"}}
    failure = RESPONSES.classify("submit", response(429, body))
    assert (failure.kind, failure.code) == (FailureKind.QUOTA, "insufficient_quota")
    assert failure.provider == "openai_responses"
    gone = {"error": {"message": "not found", "type": "invalid_request_error", "code": None}}
    assert RESPONSES.classify("poll", response(404, gone)).kind is FailureKind.GONE
    assert RESPONSES.classify("submit", response(404, gone)).kind is FailureKind.INVALID
