"""The sandbox's Freepik, over real HTTP."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from jobs.providers.prices import load_prices
from jobs.sandbox import Sandbox
from jobs.sandbox.prices import FREEPIK

AI = "/freepik/v1/ai"
KLING = "image-to-video/kling-v2-1-pro"
KEY = {"x-magnific-api-key": "key-0001"}
PICTURE = {"prompt": "Waves [job:t/1]", "resolution": "1k", "aspect_ratio": "classic_4_3"}
VIDEO = {"image": "https://x.test/a.png", "duration": "5"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(steps=2) as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, headers=KEY) as client:
        yield client


async def make(http: httpx.AsyncClient, body: Any = PICTURE, path: str = "mystic") -> str:
    response = await http.post(f"{AI}/{path}", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["data"]["task_id"])


async def look(http: httpx.AsyncClient, name: str, family: str = "mystic") -> Any:
    return (await http.get(f"{AI}/{family}/{name}")).json()["data"]


async def test_an_image(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    made = (await http.post(f"{AI}/mystic", json=PICTURE)).json()["data"]
    assert (made["status"], made["generated"]) == ("CREATED", [])
    half = await look(http, made["task_id"])
    assert (half["status"], half["generated"]) == ("IN_PROGRESS", [])
    done = await look(http, made["task_id"])
    assert (done["status"], done["has_nsfw"]) == ("COMPLETED", [False])
    async with httpx.AsyncClient() as anyone:  # no key is needed
        content = (await anyone.get(done["generated"][0])).content
    assert Image.open(io.BytesIO(content)).size == (320, 240)
    (charge,) = sandbox.bill.charges
    assert charge.net == 12
    assert (charge.marker, charge.external_id) == ("t/1", made["task_id"])
    assert (charge.provider, charge.operation, charge.model) == ("freepik", "mystic", "mystic")


async def test_a_video_is_elsewhere(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    name = await make(http, VIDEO, KLING)
    assert (await http.get(f"{AI}/{KLING}/{name}")).status_code == 404
    assert (await http.get(f"{AI}/mystic/{name}")).status_code == 404
    family = "image-to-video/kling-v2-1"
    await look(http, name, family)
    (url,) = (await look(http, name, family))["generated"]
    with av.open(io.BytesIO((await http.get(url)).content), "r") as container:
        assert container.duration == 5_000_000
    assert sandbox.bill.charges[0].net == 49


@pytest.mark.parametrize(
    ("path", "body", "cents"),
    [
        ("mystic", {}, "12"),
        ("mystic", PICTURE | {"resolution": "4k"}, "38"),
        (KLING, VIDEO | {"duration": "10"}, "98"),
        ("image-to-video/kling-v2-1-std", VIDEO, "28"),
        ("image-to-video/kling-v2-6-pro", {"prompt": "x", "duration": "5"}, "70"),
        ("video/kling-v3-pro", {"prompt": "x", "duration": "3"}, "50.4"),
    ],
)
async def test_prices(
    http: httpx.AsyncClient, sandbox: Sandbox, path: str, body: Any, cents: str
) -> None:
    await make(http, body, path)
    assert sandbox.bill.charges[0].net == Decimal(cents)


def test_prices_equal_the_adapters_price_table() -> None:
    table = load_prices()
    for model, cents in FREEPIK.items():
        price = table.of("freepik", model)
        assert price.item + price.output_second == cents


@pytest.mark.parametrize("fault", ["fail", "policy"])
async def test_failed_tasks_cost_nothing(
    http: httpx.AsyncClient, sandbox: Sandbox, fault: str
) -> None:
    name = await make(http, PICTURE | {"prompt": f"x [fault:{fault}]"})
    await look(http, name)
    failed = await look(http, name)
    assert failed == {"task_id": name, "status": "FAILED", "generated": []}
    assert sandbox.bill.charges[0].net == 0


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("mystic", PICTURE | {"resolution": "8k"}, "resolution"),
        ("mystic", PICTURE | {"aspect_ratio": "4:3"}, "aspect_ratio"),
        ("mystic", PICTURE | {"filter_nsfw": False}, "filter_nsfw"),
        ("mystic", PICTURE | {"surprise": 1}, "surprise"),
        (KLING, {"duration": "5"}, "image"),
        (KLING, VIDEO | {"image": "data:image/png;base64,aGk="}, "image"),
        (KLING, VIDEO | {"image": ""}, "image"),
        (KLING, VIDEO | {"duration": 5}, "duration"),
        (KLING, VIDEO | {"duration": "7"}, "duration"),
        (KLING, VIDEO | {"aspect_ratio": "widescreen_16_9"}, "aspect_ratio"),
        (KLING, VIDEO | {"prompt": "a" * 2501}, "prompt"),
        ("video/kling-v3-pro", {"prompt": "x", "duration": "16"}, "duration"),
    ],
)
async def test_bad_requests_are_refused_unbilled(
    http: httpx.AsyncClient, sandbox: Sandbox, path: str, body: Any, field: str
) -> None:
    response = await http.post(f"{AI}/{path}", json=body)
    assert response.status_code == 400
    assert response.headers["content-type"].startswith("application/problem+json")
    problem = response.json()
    assert problem["message"]
    assert problem["invalid_params"][0]["name"] == field
    assert problem["invalid_params"][0]["reason"]
    assert sandbox.bill.charges == []


async def test_other_refusals(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    for path, body, status in (("mystic", [], 400), ("no-such-model", {}, 404)):
        response = await http.post(f"{AI}/{path}", json=body)
        assert (response.status_code, bool(response.json()["message"])) == (status, True)
    name = await make(http)
    assert (await http.delete(f"{AI}/mystic/{name}")).status_code == 404
    assert len(sandbox.bill.charges) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer key-0001"}, 401),
        ({"x-magnific-api-key": "bad-key"}, 401),
        ({"x-freepik-api-key": "key-0001"}, 200),
    ],
)
async def test_keys_by_the_new_header_or_the_old(
    http: httpx.AsyncClient, sandbox: Sandbox, headers: dict[str, str], status: int
) -> None:
    name = await make(http)
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers) as other:
        made = await other.post(f"{AI}/mystic", json=PICTURE)
        seen = await other.get(f"{AI}/mystic/{name}")
    assert [made.status_code, seen.status_code] == [status, status]
    assert made.is_success or made.json()["message"]


async def test_a_task_is_seen_by_its_own_key_only(http: httpx.AsyncClient) -> None:
    name = await make(http)
    other = {"x-magnific-api-key": "key-0002"}
    assert (await http.get(f"{AI}/mystic/{name}", headers=other)).status_code == 404


async def test_faults_at_every_stage(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    for fault, status in (("429", 429), ("quota", 402), ("auth", 401), ("503", 503)):
        body = {"prompt": f"[fault:{fault}]"}
        refused = await http.post(f"{AI}/mystic", json=body)
        assert (refused.status_code, bool(refused.json()["message"])) == (status, True)
        assert ("retry-after" in refused.headers) == (status in {429, 503})
    assert sandbox.bill.charges == []
    name = await make(http, {"prompt": "[fault:poll-500*1] [fault:expired*1]"})
    assert (await http.get(f"{AI}/mystic/{name}")).status_code == 500
    await look(http, name)
    (url,) = (await look(http, name))["generated"]
    assert (await http.get(url)).status_code == 404
    assert (await http.get(url)).status_code == 200
