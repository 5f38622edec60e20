"""The sandbox's Anthropic protocol, over real HTTP."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from jobs.sandbox import Sandbox

MESSAGES = "/anthropic/v1/messages"
OLD = {"x-api-key": "key-0001", "anthropic-version": "2023-06-01"}
NEW = {"Authorization": "Bearer key-0001", "anthropic-version": "2026-10-21"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, headers=OLD) as client:
        yield client


def ask(prompt: Any, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "claude-haiku-4-5", "max_tokens": 4000, "messages": messages, **more}


async def test_a_message_is_billed_by_its_usage(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    response = await http.post(MESSAGES, json=ask("A lighthouse [job:ai/1]", system="Be brief."))
    body = response.json()
    assert response.status_code == 200
    assert response.headers["request-id"].startswith("req_")
    assert (body["type"], body["role"], body["stop_reason"]) == ("message", "assistant", "end_turn")
    assert body["model"] == "claude-haiku-4-5-20251001"
    assert "lighthouse" in body["content"][0]["text"].lower()
    used = body["usage"]
    charge = sandbox.bill.charges[0]
    assert (charge.provider, charge.operation, charge.marker) == ("anthropic", "messages", "ai/1")
    assert charge.external_id == body["id"]
    cents = Decimal(used["input_tokens"] * 100 + used["output_tokens"] * 500) / 1_000_000
    assert charge.cents == cents > 0


async def test_the_limit_is_kept(http: httpx.AsyncClient) -> None:
    body = (await http.post(MESSAGES, json=ask("A tale of tides", max_tokens=20))).json()
    assert (body["stop_reason"], body["usage"]["output_tokens"]) == ("max_tokens", 20)


async def test_blocks_of_text_are_read(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    blocks = [{"type": "text", "text": "A tale [job:ai/7]"}]
    assert (await http.post(MESSAGES, json=ask(blocks, system=blocks))).status_code == 200
    assert sandbox.bill.charges[0].marker == "ai/7"


@pytest.mark.parametrize(("fault", "category"), [("policy", "general_harms"), ("refusal", None)])
async def test_refusals_are_billed(
    http: httpx.AsyncClient, sandbox: Sandbox, fault: str, category: str | None
) -> None:
    body = (await http.post(MESSAGES, json=ask(f"A tale [fault:{fault}]"))).json()
    assert body["stop_reason"] == "refusal"
    assert body["stop_details"]["category"] == category
    assert sandbox.bill.charges[0].net > 0


@pytest.mark.parametrize(
    ("body", "expected", "words"),
    [
        ([], (400, "invalid_request_error"), "JSON"),
        (
            {"model": "claude-haiku-4-5", "max_tokens": 1},
            (400, "invalid_request_error"),
            "messages",
        ),
        (ask("x", tools=[]), (400, "invalid_request_error"), "tools"),
        (ask("x", stream=True), (400, "invalid_request_error"), "stream"),
        (ask("x", temperature=1.5), (400, "invalid_request_error"), "temperature"),
        (ask("x", max_tokens=0), (400, "invalid_request_error"), "max_tokens"),
        (ask(""), (400, "invalid_request_error"), "content"),
        (ask("x", model="claude-0"), (404, "not_found_error"), "claude-0"),
    ],
)
async def test_bad_requests_are_refused_unbilled(
    http: httpx.AsyncClient, sandbox: Sandbox, body: Any, expected: Any, words: str
) -> None:
    response = await http.post(MESSAGES, json=body)
    problem = response.json()
    assert problem["type"] == "error"
    assert (response.status_code, problem["error"]["type"]) == expected
    assert words in problem["error"]["message"]
    assert problem["request_id"] == response.headers["request-id"]
    assert sandbox.bill.charges == []


async def test_the_new_version_takes_no_temperature(
    http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    warm = ask("x", temperature=0.5)
    assert (await http.post(MESSAGES, json=warm)).status_code == 200
    refused = await http.post(MESSAGES, json=warm, headers=NEW)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("temperature: ")
    async with httpx.AsyncClient(base_url=sandbox.url, headers=NEW) as newer:
        assert (await newer.post(MESSAGES, json=ask("x"))).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"anthropic-version": "2023-06-01"}, 401, "authentication_error"),
        (OLD | {"x-api-key": "bad-key"}, 401, "authentication_error"),
        (NEW | {"Authorization": "Bearer bad-key"}, 401, "authentication_error"),
        ({"x-api-key": "key-0001"}, 400, "invalid_request_error"),
        (OLD | {"anthropic-version": "2020-01-01"}, 400, "invalid_request_error"),
    ],
)
async def test_keys_and_versions_are_checked(
    sandbox: Sandbox, headers: dict[str, str], status: int, kind: str
) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers) as http:
        response = await http.post(MESSAGES, json=ask("x"))
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
    assert sandbox.bill.charges == []


@pytest.mark.parametrize(
    ("fault", "expected", "billed"),
    [
        ("429=3", (429, "rate_limit_error"), 0),
        ("529=3", (529, "overloaded_error"), 0),
        ("529-after=3", (529, "overloaded_error"), 1),
        ("500", (500, "api_error"), 0),
        ("504", (504, "timeout_error"), 0),
        ("quota", (402, "billing_error"), 0),
        ("auth", (401, "authentication_error"), 0),
        ("invalid", (400, "invalid_request_error"), 0),
    ],
)
async def test_faults(
    http: httpx.AsyncClient, sandbox: Sandbox, fault: str, expected: Any, billed: int
) -> None:
    response = await http.post(MESSAGES, json=ask(f"x [fault:{fault}]"))
    assert (response.status_code, response.json()["error"]["type"]) == expected
    assert ("retry-after" in response.headers) is fault.endswith("=3")
    assert len(sandbox.bill.charges) == billed


async def test_no_such_path(http: httpx.AsyncClient) -> None:
    response = await http.get("/anthropic/v1/nothing")
    assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found_error")
