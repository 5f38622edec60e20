"""What the sandbox bills, and the faults it makes: for each, whether it was billed."""

import asyncio
import json
import os
import signal
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.sandbox import Sandbox
from jobs.sandbox.faults import UnknownFaultError, parse
from jobs.sandbox.prices import (
    ANTHROPIC_PRICES,
    CHAT_PRICES,
    EMBEDDING_PRICES,
    GEMINI_PRICES,
    IMAGE_PRICES,
    MEDIA_PRICES,
    TextPrice,
)

CHAT = "/openai/v1/chat/completions"
EMBED = "/openai/v1/embeddings"
PREDICT = "/replicate/v1/predictions"
KEY = {"Authorization": "Bearer key-0001"}


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path / "bill.jsonl", steps=2) as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, headers=KEY) as client:
        yield client


async def ask(http: httpx.AsyncClient, vendor: str, prompt: str) -> httpx.Response:
    """One paid submission to either vendor."""
    if vendor == "openai":
        messages = [{"role": "user", "content": prompt}]
        return await http.post(CHAT, json={"model": "gpt-4o-mini", "messages": messages})
    body = {"version": "sandbox/video", "input": {"prompt": prompt}}
    return await http.post(PREDICT, json=body)


async def poll(http: httpx.AsyncClient, made: httpx.Response, times: int = 1) -> Any:
    for _ in range(times):
        state = await http.get(made.json()["urls"]["get"])
    return state.json()


# ----------------------------------------------------------------------------- billing


def test_prices_equal_the_adapters_price_table() -> None:
    table = tomllib.loads(files("jobs.providers").joinpath("prices.toml").read_text())
    by_tokens: dict[str, dict[str, TextPrice]] = {
        "anthropic": ANTHROPIC_PRICES,
        "gemini": GEMINI_PRICES,
        "openai": {**CHAT_PRICES, **EMBEDDING_PRICES, **IMAGE_PRICES},
    }
    for provider, prices in by_tokens.items():
        for model, price in prices.items():
            entry = table[provider][model]
            assert Decimal(entry["input"]) == price.input
            assert Decimal(entry.get("output", "0")) == price.output
            assert Decimal(entry.get("output_image", "0")) == price.image
    for medium, media in MEDIA_PRICES.items():
        entry = table["replicate"][f"sandbox/{medium}"]
        assert Decimal(entry.get("run_second", "0")) == media.second
        assert Decimal(entry.get("item", "0")) == media.item


async def test_text_costs_what_its_usage_says(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    usage = (await ask(http, "openai", "A tale [job:ai_generations/1]")).json()["usage"]
    embed = {"model": "text-embedding-3-small", "input": ["one text", "another"]}
    tokens = (await http.post(EMBED, json=embed)).json()["usage"]["total_tokens"]
    chat, vectors = sandbox.bill.charges
    expected = Decimal(usage["prompt_tokens"] * 15 + usage["completion_tokens"] * 60) / 1_000_000
    assert (chat.provider, chat.operation, chat.model) == (
        "openai",
        "chat.completions",
        "gpt-4o-mini",
    )
    assert chat.cents == expected > 0
    assert chat.marker == "ai_generations/1"
    assert vectors.operation == "embeddings"
    assert vectors.cents == Decimal(tokens * 2) / 1_000_000


@pytest.mark.parametrize(
    ("model", "given", "cents"),
    [
        ("sandbox/video", {"duration": 2}, "6.5"),
        ("sandbox/video", {"duration": 7}, "16.5"),
        ("sandbox/image", {"num_outputs": 3}, "0.9"),
        ("sandbox/audio", {"duration": 9}, "0.2"),
    ],
)
async def test_media_cost_what_their_answer_says(
    http: httpx.AsyncClient, sandbox: Sandbox, model: str, given: Any, cents: str
) -> None:
    made = await http.post(PREDICT, json={"version": model, "input": given})
    done = await poll(http, made, times=2)
    charge = sandbox.bill.charges[0]
    assert charge.external_id == done["id"]
    assert charge.net == Decimal(cents)
    if model == "sandbox/video":
        assert Decimal(str(done["metrics"]["predict_time"])) * 5 == charge.net


@pytest.mark.parametrize(
    ("polls", "status", "net"), [(0, "aborted", "0"), (1, "canceled", "3.25"), (2, None, "6.5")]
)
async def test_cancelling_takes_back_what_was_not_used(
    http: httpx.AsyncClient, sandbox: Sandbox, polls: int, status: str | None, net: str
) -> None:
    made = await ask(http, "replicate", "waves")
    if polls:
        await poll(http, made, polls)
    for _ in range(2):  # the second one changes nothing
        state = (await http.post(made.json()["urls"]["cancel"])).json()
        assert state["status"] == (status or "succeeded")
        assert sandbox.bill.charges[0].net == Decimal(net)
    assert Decimal(str(state["metrics"].get("predict_time", 0))) * 5 == Decimal(net)


async def test_a_cancelled_image_was_not_delivered_and_costs_nothing(
    http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    made = await http.post(PREDICT, json={"version": "sandbox/image", "input": {}})
    await poll(http, made)
    assert (await http.post(made.json()["urls"]["cancel"])).json()["status"] == "canceled"
    assert sandbox.bill.charges[0].refunded == Decimal("0.3")


async def test_the_bill_can_be_read_and_shows_duplicates(http: httpx.AsyncClient) -> None:
    for prompt in ("a [job:t/1]", "b [job:t/1]", "c [job:t/2]", "no mark", "no mark"):
        await ask(http, "replicate", prompt)
    await ask(http, "openai", "another operation of [job:t/2]")
    bill = (await http.get("/bill")).json()
    assert [charge["marker"] for charge in bill["charges"]] == [
        "t/1", "t/1", "t/2", None, None, "t/2",
    ]  # fmt: skip
    summary = (await http.get("/bill/summary")).json()
    assert summary["charges"] == 6
    assert summary["total_cents"] == bill["total_cents"]
    assert summary["providers"]["replicate"] == {"charges": 5, "total_cents": "32.5"}
    assert summary["duplicate_charges"] == 1
    (duplicate,) = summary["duplicates"]
    assert (duplicate["marker"], duplicate["operation"]) == ("t/1", "predictions.video")
    assert duplicate["charge_ids"] == [charge["charge_id"] for charge in bill["charges"][:2]]


async def test_a_restarted_sandbox_remembers_its_bill(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bill.jsonl"
    for _ in range(2):
        async with (
            Sandbox(path, steps=2) as sandbox,
            httpx.AsyncClient(base_url=sandbox.url, headers=KEY) as http,
        ):
            await ask(http, "replicate", "a [job:t/1]")
            await ask(http, "replicate", "b [job:t/2] [fault:fail]")
            lines = [json.loads(line) for line in path.read_text().splitlines()]
    # Twice two charges, the word that each was told, and what failed being taken back.
    assert len(lines) == 10
    assert sandbox.bill.total_cents == Decimal(13)
    assert all(charge.told_at is not None for charge in sandbox.bill.charges)
    assert [len(charges) for charges in sandbox.bill.duplicates().values()] == [2]


# ------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("vendor", ["openai", "replicate"])
@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        ("429", {"openai": 429, "replicate": 429}),
        ("500", {"openai": 500, "replicate": 500}),
        ("503", {"openai": 503, "replicate": 503}),
        ("529", {"openai": 529, "replicate": 529}),
        ("quota", {"openai": 429, "replicate": 402}),
        ("auth", {"openai": 401, "replicate": 401}),
        ("invalid", {"openai": 400, "replicate": 422}),
    ],
)
async def test_refusals_are_not_billed_and_end_after_their_count(
    http: httpx.AsyncClient, sandbox: Sandbox, vendor: str, fault: str, statuses: dict[str, int]
) -> None:
    expected = statuses[vendor]
    prompt = f"x [job:t/1] [fault:{fault}*2]"
    for _ in range(2):
        response = await ask(http, vendor, prompt)
        assert response.status_code == expected
        body = response.json()
        assert body["error"]["message"] if vendor == "openai" else body["detail"]
        assert ("retry-after" in response.headers) == (fault in {"429", "503"})
    assert sandbox.bill.charges == []
    assert (await ask(http, vendor, prompt)).is_success
    assert (await ask(http, vendor, prompt.replace("t/1", "t/2"))).status_code == expected
    assert len(sandbox.bill.charges) == 1


async def test_retry_after_can_be_chosen_and_the_family_is_named(http: httpx.AsyncClient) -> None:
    response = await ask(http, "openai", "[fault:429=7]")
    assert response.headers["retry-after"] == "7"
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    quota = await ask(http, "openai", "[fault:quota]")
    assert quota.json()["error"]["code"] == "insufficient_quota"


@pytest.mark.parametrize("vendor", ["openai", "replicate"])
@pytest.mark.parametrize(
    ("fault", "billed"),
    [("disconnect-before", 0), ("disconnect", 0), ("disconnect-after", 1), ("cut", 1)],
)
async def test_a_dropped_connection_is_billed_only_after_acceptance(
    http: httpx.AsyncClient, sandbox: Sandbox, vendor: str, fault: str, billed: int
) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(http, vendor, f"[fault:{fault}]")
    assert len(sandbox.bill.charges) == billed


@pytest.mark.parametrize("vendor", ["openai", "replicate"])
async def test_a_garbled_answer_is_billed(
    http: httpx.AsyncClient, sandbox: Sandbox, vendor: str
) -> None:
    response = await ask(http, vendor, "[fault:garbled]")
    assert response.is_success
    with pytest.raises(json.JSONDecodeError):
        response.json()
    assert len(sandbox.bill.charges) == 1


@pytest.mark.parametrize("vendor", ["openai", "replicate"])
@pytest.mark.parametrize(
    ("fault", "told"), [("", True), ("disconnect-after", False), ("garbled", False)]
)
async def test_the_bill_says_whether_the_answer_was_told(
    http: httpx.AsyncClient, vendor: str, fault: str, told: bool
) -> None:
    with suppress(httpx.RemoteProtocolError):
        await ask(http, vendor, f"[job:t/1] [fault:{fault}*1]" if fault else "[job:t/1]")
    (charge,) = (await http.get("/bill")).json()["charges"]
    assert (charge["told_at"] is not None) is told
    met = (await http.get("/control/faults")).json()["met"]
    assert met == ([{"whose": "t/1", "fault": fault, "times": 1}] if fault else [])


async def test_an_accepted_request_can_answer_500(
    http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    assert (await ask(http, "replicate", "[fault:500-after]")).status_code == 500
    assert len(sandbox.bill.charges) == 1


@pytest.mark.parametrize(("fault", "billed"), [("hang", 0), ("hang-after", 1)])
async def test_a_hanging_request_ends_when_its_client_goes(
    http: httpx.AsyncClient, sandbox: Sandbox, fault: str, billed: int
) -> None:
    asked = asyncio.create_task(ask(http, "openai", f"[fault:{fault}]"))
    await sandbox.faults.hanging(1)
    asked.cancel()
    await sandbox.faults.hanging(0)
    assert len(sandbox.bill.charges) == billed


async def test_a_hanging_request_goes_on_when_released(
    http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    asked = asyncio.create_task(ask(http, "openai", "[fault:hang]"))
    await sandbox.faults.hanging(1)
    assert sandbox.bill.charges == []
    await http.delete("/control/faults")
    assert (await asked).status_code == 200
    await sandbox.bill.reaches(1)


async def test_a_slow_answer_was_billed_before_it_came(
    http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    asked = asyncio.create_task(ask(http, "openai", "[fault:slow=3600]"))
    await sandbox.bill.reaches(1)
    assert not asked.done()
    asked.cancel()
    assert (await ask(http, "openai", "[fault:slow=0]")).status_code == 200


async def test_refusals_for_content(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    filtered = (await ask(http, "openai", "[fault:policy]")).json()
    assert filtered["choices"][0]["finish_reason"] == "content_filter"
    refused = (await ask(http, "openai", "[fault:refusal]")).json()["choices"][0]["message"]
    assert refused["refusal"]
    assert refused["content"] is None
    assert all(charge.net > 0 for charge in sandbox.bill.charges)
    made = await ask(http, "replicate", "[fault:policy]")
    state = await poll(http, made, times=2)
    assert state["status"] == "failed"
    assert "sensitive" in state["error"]
    assert sandbox.bill.charges[2].net == 0


async def test_failed_predictions_cost_nothing_and_are_no_duplicates(
    http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    states = [
        await poll(http, await ask(http, "replicate", "x [job:t/1] [fault:fail*2]"), times=2)
        for _ in range(3)
    ]
    assert [state["status"] for state in states] == ["failed", "failed", "succeeded"]
    assert states[0]["error"]
    assert states[0]["metrics"] == {}
    assert sandbox.bill.total_cents == Decimal("6.5")
    assert sandbox.bill.duplicates() == {}


async def test_a_stalled_prediction_can_only_be_cancelled(http: httpx.AsyncClient) -> None:
    made = await ask(http, "replicate", "[fault:stall]")
    assert (await poll(http, made, times=9))["status"] == "processing"
    assert (await http.post(made.json()["urls"]["cancel"])).json()["status"] == "canceled"


@pytest.mark.parametrize(
    ("fault", "status"), [("expired", 404), ("expired=410", 410), ("download-503", 503)]
)
async def test_outputs_can_be_gone(http: httpx.AsyncClient, fault: str, status: int) -> None:
    done = await poll(http, await ask(http, "replicate", f"[fault:{fault}*1]"), times=2)
    assert (await http.get(done["output"])).status_code == status
    assert (await http.get(done["output"])).status_code == 200


async def test_downloads_and_polls_can_break(http: httpx.AsyncClient) -> None:
    made = await ask(http, "replicate", "[fault:poll-500*1] [fault:download-cut*1]")
    url = made.json()["urls"]["get"]
    assert (await http.get(url)).status_code == 500
    done = await poll(http, made, times=2)
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(done["output"])
    assert (await http.get(done["output"])).status_code == 200


async def test_faults_by_control_match_texts_and_count(
    http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    rule = {"fault": "500", "match": "moon", "times": 1}
    assert (await http.post("/control/faults", json=rule)).status_code == 201
    answers = [await ask(http, "openai", text) for text in ("the sun", "the moon", "the moon")]
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    sandbox.faults.add("list-429")
    assert (await http.get(PREDICT)).status_code == 429
    assert (await http.get("/control/faults")).json()["faults"][0]["times"] == 0
    await http.delete("/control/faults")
    assert (await http.get(PREDICT)).status_code == 200


async def test_an_outage_stops_both_vendors_and_the_files(http: httpx.AsyncClient) -> None:
    done = await poll(http, await ask(http, "replicate", "x"), times=2)
    await http.post("/control/outage", json={"on": True})
    down = [await ask(http, "openai", "x"), await ask(http, "replicate", "x")]
    down.append(await http.get(done["output"]))
    assert [answer.status_code for answer in down] == [503, 503, 503]
    assert (await http.get("/bill/summary")).json()["charges"] == 1
    await http.post("/control/outage", json={"on": False})
    assert (await ask(http, "openai", "x")).status_code == 200


@pytest.mark.parametrize("spec", ["429s", "disconect", "600", "hang=", "later-500", ""])
async def test_misspelt_faults_are_refused(http: httpx.AsyncClient, spec: str) -> None:
    with pytest.raises(UnknownFaultError):
        parse(spec)
    assert (await http.post("/control/faults", json={"fault": spec})).status_code == 400
    response = await ask(http, "openai", f"[fault:{spec}]")
    assert response.status_code == 400
    assert "unknown fault" in response.json()["error"]


# ----------------------------------------------------------------------------- process


async def test_as_a_process_it_tells_its_url_bills_and_drains(tmp_path: Path) -> None:
    bill = tmp_path / "bill.jsonl"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobs.sandbox", "--bill", str(bill), "--duration", "0",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    url = json.loads(await process.stdout.readline())["url"]
    async with httpx.AsyncClient(base_url=url, headers=KEY) as http:
        hung = asyncio.create_task(ask(http, "openai", "[job:t/1] [fault:hang]"))
        await ask(http, "replicate", "[job:t/2]")
        while (await http.get("/control/faults")).json()["hanging"] == 0:
            pass
        os.kill(process.pid, signal.SIGTERM)
        assert (await hung).status_code == 200
    assert await process.wait() == 0
    lines = [json.loads(line) for line in bill.read_text().splitlines()]
    assert [line["marker"] for line in lines if "marker" in line] == ["t/2", "t/1"]
    assert sum("told_of" in line for line in lines) == 2
