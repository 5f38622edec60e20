"""The sandbox's background responses, over real HTTP."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from jobs.sandbox import Sandbox

RESPONSES = "/openai/v1/responses"
KEY = {"Authorization": "Bearer key-0001"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(steps=2) as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, headers=KEY) as client:
        yield client


def ask(prompt: Any, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "input": prompt, "background": True, **more}


async def made(http: httpx.AsyncClient, prompt: str, **more: Any) -> Any:
    response = await http.post(RESPONSES, json=ask(prompt, **more))
    assert response.status_code == 200, response.text
    return response.json()


async def poll(http: httpx.AsyncClient, name: str, times: int = 1) -> Any:
    for _ in range(times):
        state = await http.get(f"{RESPONSES}/{name}")
    return state.json()


def cents(usage: Any, input_price: int = 15, output_price: int = 60) -> Decimal:
    total = usage["input_tokens"] * input_price + usage["output_tokens"] * output_price
    return Decimal(total) / 1_000_000


async def test_it_moves_step_by_step_and_is_billed(
    http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    first = await made(http, "A lighthouse [job:ai/1]", instructions="Be brief.")
    assert (first["status"], first["background"], first["output"]) == ("queued", True, [])
    assert first["usage"] is None
    assert [charge.net > 0 for charge in sandbox.bill.charges] == [True]
    states = [await poll(http, first["id"]) for _ in range(3)]
    assert [state["status"] for state in states] == ["in_progress", "completed", "completed"]
    assert states[1] == states[2]
    (item,) = states[1]["output"]
    assert item["type"] == "message"
    assert "lighthouse" in item["content"][0]["text"].lower()
    charge = sandbox.bill.charges[0]
    assert (charge.provider, charge.operation, charge.marker) == ("openai", "responses", "ai/1")
    assert (charge.external_id, charge.net) == (first["id"], cents(states[1]["usage"]))


async def test_a_model_that_thinks(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    first = await made(http, "A tale of tides", model="gpt-5-mini")
    done = await poll(http, first["id"], 2)
    assert [item["type"] for item in done["output"]] == ["reasoning", "message"]
    used = done["usage"]
    assert 0 < used["output_tokens_details"]["reasoning_tokens"] < used["output_tokens"]
    assert sandbox.bill.charges[0].net == cents(used, 25, 200)


async def test_without_the_background_it_is_done_at_once(http: httpx.AsyncClient) -> None:
    done = await made(http, "A tale", background=False)
    assert done["status"] == "completed"
    refused = await http.post(f"{RESPONSES}/{done['id']}/cancel")
    assert refused.status_code == 400
    unkept = await made(http, "A tale", background=False, store=False)
    assert (await http.get(f"{RESPONSES}/{unkept['id']}")).status_code == 404


async def test_the_limit_is_kept(http: httpx.AsyncClient) -> None:
    first = await made(http, "A tale of tides", max_output_tokens=20)
    done = await poll(http, first["id"], 2)
    assert (done["status"], done["usage"]["output_tokens"]) == ("incomplete", 20)
    assert done["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize(
    ("polls", "status", "share"), [(0, "cancelled", 0), (1, "cancelled", 2), (2, "completed", 1)]
)
async def test_cancelling_takes_back_what_was_not_used(
    http: httpx.AsyncClient, sandbox: Sandbox, polls: int, status: str, share: int
) -> None:
    first = await made(http, "A tale of tides")
    if polls:
        await poll(http, first["id"], polls)
    whole = sandbox.bill.charges[0].cents
    for _ in range(2):  # the second one changes nothing
        state = (await http.post(f"{RESPONSES}/{first['id']}/cancel")).json()
        assert state["status"] == status
        net = sandbox.bill.charges[0].net
        assert net == (cents(state["usage"]) if share else 0)
        assert (net == whole) is (share == 1)


@pytest.mark.parametrize(
    ("fault", "status", "billed"),
    [
        ("policy", "incomplete", True),
        ("refusal", "completed", True),
        ("fail", "failed", False),
        ("stall", "in_progress", True),
    ],
)
async def test_ends(
    http: httpx.AsyncClient, sandbox: Sandbox, fault: str, status: str, billed: bool
) -> None:
    first = await made(http, f"A tale [fault:{fault}]")
    done = await poll(http, first["id"], 5)
    assert done["status"] == status
    assert (done["error"] is not None) is (fault == "fail")
    assert (sandbox.bill.charges[0].net > 0) is billed
    parts = [part["type"] for item in done["output"] for part in item["content"]]
    assert ("refusal" in parts) is (fault == "refusal")
    if fault == "fail":  # cancelling takes nothing back twice
        await http.post(f"{RESPONSES}/{first['id']}/cancel")
        assert sandbox.bill.charges[0].net == 0


async def test_a_failing_one_that_is_cancelled_is_refunded_once(
    http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    first = await made(http, "A tale [fault:fail]")
    await http.post(f"{RESPONSES}/{first['id']}/cancel")
    assert sandbox.bill.charges[0].net == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ([], 400, None),
        ({"model": "gpt-4o-mini"}, 400, "missing_required_parameter"),
        (ask("x", tools=[]), 400, "unknown_parameter"),
        (ask("x", stream=True), 400, "invalid_value"),
        (ask("x", temperature=2.5), 400, "invalid_value"),
        (ask("x", max_output_tokens=15), 400, "invalid_value"),
        (ask(""), 400, "invalid_value"),
        (ask("x", store=False), 400, None),
        (ask("x", model="gpt-0"), 404, "model_not_found"),
    ],
)
async def test_bad_requests_are_refused_unbilled(
    http: httpx.AsyncClient, sandbox: Sandbox, body: Any, status: int, code: str | None
) -> None:
    response = await http.post(RESPONSES, json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert sandbox.bill.charges == []


async def test_messages_are_read(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    parts = [{"type": "input_text", "text": "A tale [job:ai/7]"}]
    response = await http.post(RESPONSES, json=ask([{"role": "user", "content": parts}]))
    assert response.status_code == 200
    assert sandbox.bill.charges[0].marker == "ai/7"


async def test_a_response_is_seen_by_its_own_key_only(http: httpx.AsyncClient) -> None:
    path = f"{RESPONSES}/{(await made(http, 'x'))['id']}"
    other, bad = {"Authorization": "Bearer key-0002"}, {"Authorization": "Bearer bad-key"}
    assert (await http.get(path, headers=other)).status_code == 404
    assert (await http.post(f"{path}/cancel", headers=other)).status_code == 404
    assert (await http.get(f"{RESPONSES}/none")).status_code == 404
    assert (await http.get(path, headers=bad)).status_code == 401
    assert (await http.post(RESPONSES, json=ask("x"), headers=bad)).status_code == 401


async def test_faults_of_every_stage(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    faults = "[fault:429*1] [fault:500-after*1] [fault:poll-503*1] [fault:cancel-500*1]"
    prompt = f"A tale [job:ai/9] {faults}"
    statuses = [(await http.post(RESPONSES, json=ask(prompt))).status_code for _ in range(3)]
    assert statuses == [429, 500, 200]
    assert len(sandbox.bill.charges) == 2
    path = f"{RESPONSES}/{sandbox.bill.charges[1].external_id}"
    assert [(await http.get(path)).status_code for _ in range(2)] == [503, 200]
    assert [(await http.post(f"{path}/cancel")).status_code for _ in range(2)] == [500, 200]
