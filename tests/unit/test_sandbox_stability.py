"""The sandbox's Stability, over real HTTP."""

from __future__ import annotations

import base64
import io
import tomllib
from collections.abc import AsyncIterator
from decimal import Decimal
from importlib.resources import files
from typing import Any

import httpx
import pytest
from PIL import Image

from jobs.sandbox import Sandbox
from jobs.sandbox.prices import STABILITY_PRICES

BASE = "/stability/v2beta"
CORE, ULTRA, SD3 = (f"{BASE}/stable-image/generate/{name}" for name in ("core", "ultra", "sd3"))
CREATIVE = f"{BASE}/stable-image/upscale/creative"
KEY = {"Authorization": "Bearer key-0001", "Accept": "application/json"}


def png(width: int = 40, height: int = 20) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (width, height)).save(target, "PNG")
    return target.getvalue()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(steps=2) as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, headers=KEY) as client:
        yield client


def form(prompt: str = "A boat", image: bytes | None = None, **more: str) -> list[Any]:
    """Multipart, whether there is a file or not."""
    fields: list[Any] = [
        (name, (None, value)) for name, value in {"prompt": prompt, **more}.items()
    ]
    return [*fields, ("image", ("image.png", image))] if image is not None else fields


def looked_at(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def test_prices_equal_the_adapters_price_table() -> None:
    table = tomllib.loads(files("jobs.providers").joinpath("prices.toml").read_text())
    for model, cents in STABILITY_PRICES.items():
        assert Decimal(table["stability"][model]["item"]) == cents


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
async def test_a_picture_as_json_and_as_bytes(
    http: httpx.AsyncClient, sandbox: Sandbox, kind: str
) -> None:
    asked = form("A boat [job:t/1]", output_format=kind, aspect_ratio="16:9", seed="7")
    told = (await http.post(CORE, files=asked)).json()
    assert (told["finish_reason"], told["seed"]) == ("SUCCESS", 7)
    answer = await http.post(CORE, files=asked, headers={"Accept": "image/*"})
    assert answer.headers["content-type"] == f"image/{kind}"
    assert (answer.headers["finish-reason"], answer.headers["seed"]) == ("SUCCESS", "7")
    pictures = [base64.b64decode(told["image"]), answer.content]
    for content, charge in zip(pictures, sandbox.bill.charges, strict=True):
        image = looked_at(content)
        assert (image.format, image.size) == (kind.upper(), (320, 180))
        assert charge.external_id.encode() in content
        assert (charge.model, charge.marker) == ("core", "t/1")
        assert charge.cents == 3


async def test_a_picture_from_a_picture_keeps_its_ratio(
    http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    for path, more in ((ULTRA, {}), (SD3, {"mode": "image-to-image", "model": "sd3.5-medium"})):
        asked = form("A boat", png(40, 20), strength="0.5", **more)
        told = (await http.post(path, files=asked)).json()
        assert looked_at(base64.b64decode(told["image"])).size == (320, 160)
    assert [charge.cents for charge in sandbox.bill.charges] == [8, Decimal("3.5")]


async def test_an_upscale_is_polled_for(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    made = await http.post(CREATIVE, files=form("A boat", png(20, 40), output_format="webp"))
    name = made.json()["id"]
    first, second, third = [await http.get(f"{BASE}/results/{name}") for _ in range(3)]
    assert (first.status_code, first.json()) == (202, {"id": name, "status": "in-progress"})
    assert (second.status_code, third.json()) == (200, second.json())
    assert looked_at(base64.b64decode(second.json()["result"])).size == (160, 320)
    as_bytes = await http.get(f"{BASE}/results/{name}", headers={"Accept": "*/*"})
    assert as_bytes.headers["content-type"] == "image/webp"
    assert as_bytes.headers["finish-reason"] == "SUCCESS"
    assert [charge.cents for charge in sandbox.bill.charges] == [60]


async def test_another_keys_task_is_unknown(http: httpx.AsyncClient) -> None:
    name = (await http.post(CREATIVE, files=form("x", png()))).json()["id"]
    other = {"Authorization": "Bearer key-0002"}
    assert (await http.get(f"{BASE}/results/{name}", headers=other)).status_code == 404
    assert (await http.get(f"{BASE}/results/none")).json()["name"] == "not_found"


@pytest.mark.parametrize(
    ("path", "asked", "field"),
    [
        (CORE, form(""), "prompt"),
        (CORE, form(aspect_ratio="4:3"), "aspect_ratio"),
        (CORE, form(output_format="gif"), "output_format"),
        (CORE, form(seed="-1"), "seed"),
        (CORE, form(volume="3"), "volume"),
        (CORE, form("x", png()), "image"),
        (ULTRA, form("x", png()), "strength"),
        (ULTRA, form("x", b"none", strength="0.1"), "image"),
        (SD3, form(model="sd9"), "model"),
        (SD3, form("x", png(), strength="0.1"), "image"),
        (SD3, form(mode="image-to-image"), "image"),
        (
            SD3,
            form("x", png(), strength="0.1", mode="image-to-image", aspect_ratio="1:1"),
            "aspect_ratio",
        ),
        (CREATIVE, form(), "image"),
        (CREATIVE, form("x", png(), creativity="0.6"), "creativity"),
    ],
)
async def test_bad_requests_are_refused_unbilled(
    http: httpx.AsyncClient, sandbox: Sandbox, path: str, asked: Any, field: str
) -> None:
    answer = await http.post(path, files=asked)
    assert (answer.status_code, answer.json()["name"]) == (400, "bad_request")
    assert answer.json()["errors"][0].startswith(f"{field}: ")
    assert sandbox.bill.charges == []


async def test_other_bad_requests(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    assert (await http.post(CORE, data={"prompt": "x"})).status_code == 400
    gif = {"Accept": "image/gif"}
    assert (await http.post(CORE, files=form(), headers=gif)).status_code == 400
    assert (await http.post(f"{BASE}/nothing")).json()["name"] == "not_found"
    for header in ("", "Bearer bad-key", "Basic eDp5"):
        headers = {"Authorization": header}
        for asked in (http.post(CORE, files=form(), headers=headers),
                      http.get(f"{BASE}/results/x", headers=headers)):  # fmt: skip
            answer = await asked
            assert (answer.status_code, answer.json()["name"]) == (401, "unauthorized")
    assert sandbox.bill.charges == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("429", (429, "rate_limit_exceeded")),
        ("quota", (402, "payment_required")),
        ("auth", (401, "unauthorized")),
        ("invalid", (400, "bad_request")),
        ("policy", (403, "content_moderation")),
        ("503", (503, "service_unavailable")),
    ],
)
@pytest.mark.parametrize("path", [CORE, CREATIVE])
async def test_faults_in_the_vendors_words(
    http: httpx.AsyncClient, sandbox: Sandbox, path: str, fault: str, expected: Any
) -> None:
    image = png() if path == CREATIVE else None
    answer = await http.post(path, files=form(f"x [fault:{fault}]", image))
    assert (answer.status_code, answer.json()["name"]) == expected
    assert sandbox.bill.charges == []


async def test_a_filtered_picture_is_billed(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    told = (await http.post(CORE, files=form("x [fault:refusal]"))).json()
    assert told["finish_reason"] == "CONTENT_FILTERED"
    made = (await http.post(CREATIVE, files=form("x [fault:refusal]", png()))).json()
    states = [await http.get(f"{BASE}/results/{made['id']}") for _ in range(2)]
    assert states[1].json()["finish_reason"] == "CONTENT_FILTERED"
    assert [charge.net for charge in sandbox.bill.charges] == [3, 60]


async def test_an_upscale_can_stall_and_polls_can_fail(http: httpx.AsyncClient) -> None:
    made = await http.post(CREATIVE, files=form("[fault:stall] [fault:poll-500*1]", png()))
    url = f"{BASE}/results/{made.json()['id']}"
    assert [(await http.get(url)).status_code for _ in range(5)] == [500, 202, 202, 202, 202]


@pytest.mark.parametrize(("path", "fault"), [(CORE, "stall"), (CORE, "fail"), (CREATIVE, "fail")])
async def test_faults_that_mean_nothing(http: httpx.AsyncClient, path: str, fault: str) -> None:
    image = png() if path == CREATIVE else None
    answer = await http.post(path, files=form(f"[fault:{fault}]", image))
    assert (answer.status_code, fault in answer.json()["error"]) == (400, True)
