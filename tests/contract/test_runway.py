"""Runway: the official SDK and our adapter read the same things from the sandbox."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import FailureKind, MediaTask
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices
from jobs.sandbox import Sandbox
from tests.contract.harness import billed, by_adapter, by_sdk, needs_sdks, provider, wire

pytestmark = needs_sdks
PRICES = load_prices()
IMAGE = "https://x.test/a.png"
VIDEO = MediaTask("video", "A boat.", model="gen4.5", aspect_ratio="9:16", duration_seconds=3)
TEXT = {"model": "gen4.5", "prompt_text": "A boat.", "ratio": "720:1280", "duration": 3}


@pytest.mark.parametrize(
    ("task", "endpoint", "body"),
    [
        (VIDEO, "text_to_video", TEXT),
        (
            MediaTask("video", "", model="gen4_turbo", images=(IMAGE,), aspect_ratio="4:3"),
            "image_to_video",
            {"model": "gen4_turbo", "prompt_image": IMAGE, "ratio": "1104:832", "duration": 5},
        ),
        (
            MediaTask("video", "A boat.", model="veo3.1_fast", images=(IMAGE, IMAGE)),
            "image_to_video",
            {
                "model": "veo3.1_fast",
                "prompt_text": "A boat.",
                "prompt_image": [
                    {"uri": IMAGE, "position": "first"},
                    {"uri": IMAGE, "position": "last"},
                ],
                "ratio": "1280:720",
                "duration": 4,
            },
        ),
        (
            MediaTask("image", "A boat.", images=(IMAGE,), resolution="720p"),
            "text_to_image",
            {
                "model": "gen4_image",
                "prompt_text": "A boat.",
                "ratio": "1280:720",
                "reference_images": [{"uri": IMAGE}],
            },
        ),
    ],
)
async def test_a_task(sandbox: Sandbox, task: MediaTask, endpoint: str, body: Any) -> None:
    url = f"{sandbox.url}/runway/v1"
    theirs = await by_sdk("runway_tasks", url, endpoint=endpoint, body=body)
    runway = provider("runway", url)
    ours = await by_adapter(runway, task)
    assert theirs["kind"] == "AwaitableSucceeded"
    assert (theirs["seen"], theirs["progress"]) == (["RUNNING", "SUCCEEDED"], 0.5)
    assert ours.phase == "succeeded"
    assert [output.url.replace(ours.external_id or "", "") for output in ours.outputs] == [
        link.replace(theirs["id"], "") for link in theirs["output"]
    ]
    assert ours.metadata["credits"] == theirs["credits"]
    model = runway.adapter.model(task, runway.account)
    cost = runway.adapter.cost(model, ours, PRICES, None)
    assert cost == Decimal(str(theirs["credits"])) == Decimal(str(theirs["estimated"]))
    assert billed(sandbox) == [cost, cost]
    first, second = sandbox.bill.charges
    assert (first.model, first.operation) == (second.model, second.operation)


async def test_a_refused_request(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/runway/v1"
    wrong = TEXT | {"ratio": "16:9"}
    theirs = await by_sdk("runway_tasks", url, endpoint="text_to_video", body=wrong)
    bad = MediaTask("video", "A boat.", model="gen4.5", options={"ratio": "16:9"})
    with pytest.raises(ProviderError) as caught:
        await by_adapter(provider("runway", url), bad)
    failure = caught.value.failure
    assert failure.kind is FailureKind.INVALID
    assert failure.message.startswith(theirs["body"]["error"])
    assert theirs["body"]["issues"][0]["message"] in failure.message
    assert billed(sandbox) == []


async def test_a_failed_task(sandbox: Sandbox) -> None:
    url, prompt = f"{sandbox.url}/runway/v1", "A boat. [fault:policy]"
    body = TEXT | {"prompt_text": prompt}
    theirs = await by_sdk("runway_tasks", url, endpoint="text_to_video", body=body)
    runway = provider("runway", url)
    task = MediaTask("video", prompt, model="gen4.5", aspect_ratio="9:16", duration_seconds=3)
    ours = await by_adapter(runway, task)
    assert theirs["kind"] == "AwaitableFailed"
    assert ours.failure is not None
    assert (ours.failure.kind, ours.failure.code, ours.failure.message) == (
        FailureKind.POLICY,
        theirs["failure_code"],
        theirs["failure"],
    )
    assert runway.adapter.cost("gen4.5", ours, PRICES, task) == theirs["credits"] == 0
    assert billed(sandbox) == [0, 0]


async def test_no_credits_are_left(sandbox: Sandbox) -> None:
    url, prompt = f"{sandbox.url}/runway/v1", "A boat. [fault:quota]"
    body = TEXT | {"prompt_text": prompt}
    theirs = await by_sdk("runway_tasks", url, endpoint="text_to_video", body=body)
    with pytest.raises(ProviderError) as caught:
        await by_adapter(provider("runway", url), MediaTask("video", prompt, duration_seconds=3))
    failure = caught.value.failure
    assert (theirs["status"], failure.code) == (400, "http_400")
    assert (failure.kind, failure.message) == (FailureKind.QUOTA, theirs["body"]["error"])


async def test_what_is_deleted_is_gone(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/runway/v1"
    theirs = await by_sdk("runway_tasks", url, endpoint="text_to_video", body=TEXT, delete=True)
    assert theirs == {"status": 404, "body": {"error": "Could not find Task"}}
    runway = provider("runway", url)
    async with wire() as ours:
        request = runway.adapter.submit(VIDEO, runway.account)
        ref = (await ours.pay(runway, request, lambda: None)).ref or {}
        cancel = runway.adapter.cancel(ref, runway.account)
        assert cancel is not None
        assert (await ours.ask(runway, cancel, "cancel")).status == 204
        with pytest.raises(ProviderError) as caught:
            await ours.poll(runway, ref)
    assert caught.value.failure.kind is FailureKind.GONE
    assert billed(sandbox) == [Decimal(36), Decimal(0)]  # theirs had ended, ours had not begun
