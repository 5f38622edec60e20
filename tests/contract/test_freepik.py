"""Freepik: plain HTTP, as its documentation has it, and our adapter read the same things.

There is no SDK, so the requests here are the documented ones, field by field.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from jobs.contract import FailureKind, MediaTask
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices
from jobs.sandbox import Sandbox
from tests.contract.harness import KEY, billed, by_adapter, provider

PRICES = load_prices()
IMAGE = "https://x.test/a.png"


async def by_hand(url: str, order: str, look: str, body: Any) -> Any:
    """The task as it ended, or the error that was met."""
    async with httpx.AsyncClient(headers={"x-magnific-api-key": KEY}) as http:
        made = await http.post(f"{url}/{order}", json=body)
        if not made.is_success:
            return made.json()
        name = made.json()["data"]["task_id"]
        for _ in range(3):
            data = (await http.get(f"{url}/{look}/{name}")).json()["data"]
        return data


@pytest.mark.parametrize(
    ("task", "order", "look", "body"),
    [
        (
            MediaTask("image", "A boat.", aspect_ratio="16:9", resolution="4k"),
            "mystic",
            "mystic",
            {"prompt": "A boat.", "aspect_ratio": "widescreen_16_9", "resolution": "4k"},
        ),
        (
            MediaTask("video", "A boat.", images=(IMAGE,), duration_seconds=10),
            "image-to-video/kling-v2-1-pro",
            "image-to-video/kling-v2-1",
            {"prompt": "A boat.", "image": IMAGE, "duration": "10"},
        ),
        (
            MediaTask("video", "A boat.", model="kling-v3-pro", aspect_ratio="1:1"),
            "video/kling-v3-pro",
            "video/kling-v3",
            {"prompt": "A boat.", "aspect_ratio": "1:1", "duration": "5"},
        ),
    ],
)
async def test_a_task(sandbox: Sandbox, task: MediaTask, order: str, look: str, body: Any) -> None:
    url = f"{sandbox.url}/freepik/v1/ai"
    theirs = await by_hand(url, order, look, body)
    freepik = provider("freepik", url)
    request = freepik.adapter.submit(task, freepik.account)
    assert (request.url, request.json) == (f"{url}/{order}", body)
    ours = await by_adapter(freepik, task)
    assert (ours.phase, theirs["status"]) == ("succeeded", "COMPLETED")
    assert ours.ref == {"id": ours.external_id, "path": look}
    assert [output.url.replace(ours.external_id or "", "") for output in ours.outputs] == [
        link.replace(theirs["task_id"], "") for link in theirs["generated"]
    ]
    model = freepik.adapter.model(task, freepik.account)
    cost = freepik.adapter.cost(model, ours, PRICES, None)
    assert cost == freepik.adapter.estimate(task, model, PRICES)
    assert billed(sandbox) == [cost, cost]


async def test_a_failed_task(sandbox: Sandbox) -> None:
    url, prompt = f"{sandbox.url}/freepik/v1/ai", "A boat. [fault:fail]"
    theirs = await by_hand(url, "mystic", "mystic", {"prompt": prompt})
    ours = await by_adapter(provider("freepik", url), MediaTask("image", prompt))
    assert (ours.phase, theirs["status"]) == ("failed", "FAILED")
    assert ours.failure is not None
    assert ours.failure.kind is FailureKind.UNKNOWN
    assert billed(sandbox) == [0, 0]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [({"resolution": "8k"}, FailureKind.INVALID), ({"prompt": "[fault:quota]"}, FailureKind.QUOTA)],
)
async def test_refusals(sandbox: Sandbox, wrong: dict[str, Any], kind: FailureKind) -> None:
    url = f"{sandbox.url}/freepik/v1/ai"
    body = {"prompt": "A boat."} | wrong
    theirs = await by_hand(url, "mystic", "mystic", body)
    with pytest.raises(ProviderError) as caught:
        await by_adapter(provider("freepik", url), MediaTask("image", "A boat.", options=wrong))
    failure = caught.value.failure
    assert failure.kind is kind
    assert failure.message.startswith(theirs["message"])
    for param in theirs.get("invalid_params", []):
        assert param["reason"] in failure.message, json.dumps(theirs)
    assert billed(sandbox) == []


async def test_the_old_header(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/freepik/v1/ai"
    old = provider("freepik", url, headers={"x-magnific-api-key": "", "x-freepik-api-key": KEY})
    assert (await by_adapter(old, MediaTask("image", "A boat."))).phase == "succeeded"


async def test_a_key_that_is_refused(sandbox: Sandbox) -> None:
    """By configuration alone: the account's own headers go over ours."""
    url = f"{sandbox.url}/freepik/v1/ai"
    bad = provider("freepik", url, headers={"x-magnific-api-key": "bad-key"})
    with pytest.raises(ProviderError) as caught:
        await by_adapter(bad, MediaTask("image", "A boat."))
    assert caught.value.failure.kind is FailureKind.AUTH
    assert caught.value.failure.message == "Invalid API key"
