"""Stability has no SDK: plain httpx, as its documentation shows it, beside our adapter."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import pytest
from PIL import Image

from jobs.contract import FailureKind, MediaTask
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices
from jobs.sandbox import Sandbox
from tests.contract.harness import KEY, billed, by_adapter, provider

PRICES = load_prices()


def png() -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (32, 16), "red").save(target, "PNG")
    return target.getvalue()


def inline(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def size_of(content: bytes) -> tuple[str | None, tuple[int, int]]:
    image = Image.open(io.BytesIO(content))
    return image.format, image.size


async def posted(sandbox: Sandbox, path: str, accept: str, **form: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {KEY}", "accept": accept}
    parts = [
        (name, (None, value) if isinstance(value, str) else ("image.png", value))
        for name, value in form.items()
    ]
    async with httpx.AsyncClient(base_url=f"{sandbox.url}/stability", headers=headers) as http:
        return await http.post(path, files=parts)


@pytest.mark.parametrize("accept", ["image/*", "application/json"])
async def test_a_picture(sandbox: Sandbox, accept: str) -> None:
    theirs = await posted(
        sandbox, "/v2beta/stable-image/generate/sd3", "image/*",
        prompt="A boat", model="sd3.5-large", aspect_ratio="3:2", output_format="jpeg", seed="5",
    )  # fmt: skip
    asked = provider("stability", f"{sandbox.url}/stability/v2beta", headers={"Accept": accept})
    options = {"output_format": "jpeg", "seed": 5}
    task = MediaTask("image", "A boat", "sd3.5-large", aspect_ratio="3:2", options=options)
    ours = await by_adapter(asked, task)
    picture = ours.outputs[0].data
    assert picture is not None
    assert size_of(picture) == size_of(theirs.content)
    assert ours.metadata == {
        "finish_reason": theirs.headers["finish-reason"],
        "seed": theirs.headers["seed"],
    }
    cost = asked.adapter.cost("sd3.5-large", ours, PRICES, task)
    assert billed(sandbox) == [cost, cost]


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
async def test_an_upscale(sandbox: Sandbox, accept: str) -> None:
    made = await posted(
        sandbox, "/v2beta/stable-image/upscale/creative", "image/*", prompt="A boat", image=png()
    )
    headers = {"authorization": f"Bearer {KEY}", "accept": "image/*"}
    url = f"{sandbox.url}/stability/v2beta/results/{made.json()['id']}"
    async with httpx.AsyncClient(headers=headers) as http:
        theirs = await http.get(url)
        while theirs.status_code == 202:
            theirs = await http.get(url)
    asked = provider("stability", f"{sandbox.url}/stability/v2beta", headers={"Accept": accept})
    task = MediaTask("image", "A boat", "upscale/creative", images=(inline(png()),))
    ours = await by_adapter(asked, task)
    picture = ours.outputs[0].data
    assert picture is not None
    assert size_of(picture) == size_of(theirs.content) == ("PNG", (320, 160))
    assert ours.metadata["finish_reason"] == theirs.headers["finish-reason"]
    cost = asked.adapter.cost("upscale/creative", ours, PRICES, task)
    assert billed(sandbox) == [cost, cost]


async def test_a_filtered_picture(sandbox: Sandbox) -> None:
    prompt = "A boat [fault:refusal]"
    theirs = await posted(
        sandbox, "/v2beta/stable-image/generate/core", "application/json", prompt=prompt
    )
    asked = provider("stability", f"{sandbox.url}/stability/v2beta")
    ours = await by_adapter(asked, MediaTask("image", prompt))
    assert ours.failure is not None
    assert ours.failure.kind is FailureKind.POLICY
    assert ours.failure.code.upper() == theirs.json()["finish_reason"]
    cost = asked.adapter.cost("core", ours, PRICES, None)
    assert billed(sandbox) == [cost, cost]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("policy", FailureKind.POLICY), ("quota", FailureKind.QUOTA), ("429", FailureKind.RATE_LIMIT)],
)
async def test_an_error(sandbox: Sandbox, fault: str, kind: FailureKind) -> None:
    prompt = f"A boat [fault:{fault}]"
    theirs = await posted(sandbox, "/v2beta/stable-image/generate/core", "image/*", prompt=prompt)
    with pytest.raises(ProviderError) as caught:
        await by_adapter(
            provider("stability", f"{sandbox.url}/stability/v2beta"), MediaTask("image", prompt)
        )
    failure = caught.value.failure
    assert (failure.kind, failure.code) == (kind, theirs.json()["name"])
    assert failure.message == theirs.json()["errors"][0]
    assert billed(sandbox) == []


async def test_a_task_the_vendor_does_not_have(sandbox: Sandbox) -> None:
    asked = provider("stability", f"{sandbox.url}/stability/v2beta")
    request = asked.adapter.poll({"id": "a" * 64}, asked.account)
    assert request is not None
    async with httpx.AsyncClient() as http:
        answer = await http.get(request.url, headers=dict(request.headers))
    assert answer.status_code == 404
    assert answer.json()["name"] == "not_found"
