"""The sandbox's Runway, over real HTTP."""

from __future__ import annotations

import io
import tomllib
from collections.abc import AsyncIterator
from decimal import Decimal
from importlib.resources import files
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from jobs.sandbox import Sandbox
from jobs.sandbox.prices import RUNWAY_IMAGE, RUNWAY_VIDEO

V1 = "/runway/v1"
KEY = {"Authorization": "Bearer key-0001", "X-Runway-Version": "2024-11-06"}
TEXT = {"model": "gen4.5", "promptText": "Waves [job:t/1]", "ratio": "1280:720", "duration": 2}
FRAME = {
    "model": "gen4_turbo",
    "promptImage": "https://x.test/a.png",
    "ratio": "720:1280",
    "duration": 2,
}
PICTURE = {"model": "gen4_image", "promptText": "Waves", "ratio": "720:720"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(steps=2) as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, headers=KEY) as client:
        yield client


async def make(http: httpx.AsyncClient, body: Any = TEXT, endpoint: str = "text_to_video") -> str:
    response = await http.post(f"{V1}/{endpoint}", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


async def look(http: httpx.AsyncClient, name: str) -> Any:
    return (await http.get(f"{V1}/tasks/{name}")).json()


def spoken(prompt: str) -> dict[str, Any]:
    return TEXT | {"promptText": prompt}


async def test_a_task_moves_and_tells_its_cost(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    made = (await http.post(f"{V1}/text_to_video", json=TEXT)).json()
    assert made["estimatedCost"] == {"credits": 24}
    half = await look(http, made["id"])
    assert (half["status"], half["progress"], half["estimatedCost"]["credits"]) == (
        "RUNNING",
        0.5,
        24,
    )
    done = await look(http, made["id"])
    assert (done["status"], done["cost"]) == ("SUCCEEDED", {"credits": 24})
    (charge,) = sandbox.bill.charges
    assert (charge.net, charge.external_id, charge.marker) == (Decimal(24), made["id"], "t/1")
    assert (charge.provider, charge.operation, charge.model) == (
        "runway",
        "text_to_video",
        "gen4.5",
    )


async def test_outputs_are_real(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    video = await make(http, FRAME, "image_to_video")
    picture = await make(http, PICTURE, "text_to_image")
    for name in (video, picture):
        await look(http, name)
    (url,) = (await look(http, video))["output"]
    async with httpx.AsyncClient() as anyone:  # no key is needed
        content = (await anyone.get(url)).content
    with av.open(io.BytesIO(content), "r") as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (180, 320)
        assert container.duration == 2_000_000
    (url,) = (await look(http, picture))["output"]
    assert Image.open(io.BytesIO((await http.get(url)).content)).size == (320, 320)
    assert [charge.cents for charge in sandbox.bill.charges] == [Decimal(10), Decimal(5)]


@pytest.mark.parametrize(("polls", "net"), [(0, "0"), (1, "24"), (2, "24")])
async def test_deleting_pays_back_only_what_had_not_begun(
    http: httpx.AsyncClient, sandbox: Sandbox, polls: int, net: str
) -> None:
    name = await make(http)
    for _ in range(polls):
        await look(http, name)
    deleted = await http.delete(f"{V1}/tasks/{name}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert sandbox.bill.charges[0].net == Decimal(net)
    for again in (http.get, http.delete):
        gone = await again(f"{V1}/tasks/{name}")
        assert (gone.status_code, gone.json()) == (404, {"error": "Could not find Task"})
    assert (await http.get(f"/runway/files/{name}/video-0.mp4")).status_code == 404


@pytest.mark.parametrize(
    ("fault", "code"), [("fail", "INTERNAL.BAD_OUTPUT.CODE01"), ("policy", "SAFETY.INPUT.TEXT")]
)
async def test_failed_tasks_cost_nothing(
    http: httpx.AsyncClient, sandbox: Sandbox, fault: str, code: str
) -> None:
    name = await make(http, spoken(f"x [fault:{fault}]"))
    await look(http, name)
    failed = await look(http, name)
    assert (failed["status"], failed["failureCode"], failed["cost"]) == (
        "FAILED",
        code,
        {"credits": 0},
    )
    assert failed["failure"]
    await http.delete(f"{V1}/tasks/{name}")  # takes nothing back a second time
    assert sandbox.bill.charges[0].net == 0


@pytest.mark.parametrize(
    ("endpoint", "body", "field"),
    [
        ("text_to_video", [], "body"),
        ("text_to_video", {}, "model"),
        ("text_to_video", TEXT | {"model": "gen4_turbo"}, "model"),
        ("text_to_video", TEXT | {"ratio": "960:960"}, "ratio"),
        ("text_to_video", TEXT | {"ratio": "16:9"}, "ratio"),
        ("text_to_video", TEXT | {"duration": 11}, "duration"),
        ("text_to_video", TEXT | {"duration": "5"}, "duration"),
        ("text_to_video", TEXT | {"surprise": 1}, "surprise"),
        ("text_to_video", TEXT | {"promptText": ""}, "promptText"),
        ("text_to_video", TEXT | {"promptText": "\N{WHALE}" * 501}, "promptText"),
        ("text_to_video", {"model": "gen4.5", "promptText": "x", "ratio": "1280:720"}, "duration"),
        ("text_to_video", TEXT | {"model": "veo3.1", "duration": 5}, "duration"),
        ("image_to_video", {k: FRAME[k] for k in ("model", "ratio")}, "promptImage"),
        ("image_to_video", FRAME | {"promptImage": "http://x.test/a.png"}, "promptImage"),
        ("image_to_video", FRAME | {"promptImage": "https://10.0.0.1/a.png"}, "promptImage"),
        ("text_to_image", PICTURE | {"model": "gen4_image_turbo"}, "referenceImages"),
        ("text_to_image", PICTURE | {"duration": 5}, "duration"),
    ],
)
async def test_bad_requests_are_refused_unbilled(
    http: httpx.AsyncClient, sandbox: Sandbox, endpoint: str, body: Any, field: str
) -> None:
    response = await http.post(f"{V1}/{endpoint}", json=body)
    problem = response.json()
    assert (response.status_code, problem["error"]) == (400, "Validation of body failed")
    assert problem["issues"][0]["path"][0] == field
    assert problem["issues"][0]["message"]
    assert sandbox.bill.charges == []


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Authorization", "", 401),
        ("Authorization", "Bearer bad-key", 401),
        ("X-Runway-Version", "", 400),
        ("X-Runway-Version", "2020-01-01", 400),
    ],
)
async def test_keys_and_versions_are_checked(
    http: httpx.AsyncClient, header: str, value: str, status: int
) -> None:
    name = await make(http)
    asked = [
        await http.post(f"{V1}/text_to_video", json=TEXT, headers={header: value}),
        await http.get(f"{V1}/tasks/{name}", headers={header: value}),
        await http.delete(f"{V1}/tasks/{name}", headers={header: value}),
    ]
    assert [response.status_code for response in asked] == [status] * 3
    assert all(response.json()["error"] for response in asked)


async def test_a_task_is_seen_by_its_own_key_only(http: httpx.AsyncClient) -> None:
    name = await make(http)
    other = {"Authorization": "Bearer key-0002"}
    assert (await http.get(f"{V1}/tasks/{name}", headers=other)).status_code == 404
    assert (await http.get(f"{V1}/nothing")).json()["error"]


async def test_faults_at_every_stage(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    for fault, status in (("429", 429), ("quota", 400), ("auth", 401), ("503", 503), ("529", 529)):
        refused = await http.post(f"{V1}/text_to_video", json=spoken(f"[fault:{fault}]"))
        assert (refused.status_code, bool(refused.json()["error"])) == (status, True)
    assert sandbox.bill.charges == []
    name = await make(http, spoken("[fault:poll-500*1] [fault:cancel-503*1] [fault:expired*1]"))
    assert (await http.get(f"{V1}/tasks/{name}")).status_code == 500
    await look(http, name)
    (url,) = (await look(http, name))["output"]
    assert (await http.get(url)).status_code == 404
    assert (await http.get(url)).status_code == 200
    assert (await http.delete(f"{V1}/tasks/{name}")).status_code == 503
    assert (await http.delete(f"{V1}/tasks/{name}")).status_code == 204


def test_prices_equal_the_adapters_price_table() -> None:
    table = tomllib.loads(files("jobs.providers").joinpath("prices.toml").read_text())["runway"]
    for model, credit in RUNWAY_VIDEO.items():
        assert Decimal(table[model]["output_second"]) == credit
    for model, (_, dearest) in RUNWAY_IMAGE.items():
        assert Decimal(table[model]["item"]) == dearest
