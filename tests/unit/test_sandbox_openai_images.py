"""The sandbox's OpenAI images, over real HTTP."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from PIL import Image

from jobs.sandbox import Sandbox

DRAW = "/openai/v1/images/generations"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": "Bearer key-0001"}
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers) as client:
        yield client


def body(prompt: str = "A boat", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-image-2", "prompt": prompt, **more}


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
async def test_pictures_are_real_and_each_its_own(http: httpx.AsyncClient, kind: str) -> None:
    asked = body(n=2, size="1536x1024", output_format=kind, quality="low")
    answer = await http.post(DRAW, json=asked)
    told = answer.json()
    assert (told["size"], told["quality"], told["output_format"]) == ("1536x1024", "low", kind)
    contents = [base64.b64decode(item["b64_json"]) for item in told["data"]]
    for number, content in enumerate(contents):
        image = Image.open(io.BytesIO(content))
        image.load()
        assert image.format == kind.upper()
        assert image.size == (320, 214)
        assert f"{answer.headers['x-request-id']}/{number}".encode() in content
    assert "x-ratelimit-remaining-requests" in answer.headers


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ({"quality": "low"}, 272),
        ({"quality": "medium", "size": "1024x1536", "n": 2}, 3168),
        ({}, 4160),
        ({"quality": "auto", "size": "auto"}, 4160),
    ],
)
async def test_they_cost_what_their_usage_says(
    http: httpx.AsyncClient, sandbox: Sandbox, asked: Any, tokens: int
) -> None:
    answer = await http.post(DRAW, json=body("A boat [job:t/1]", **asked))
    usage = answer.json()["usage"]
    assert usage["output_tokens"] == usage["output_tokens_details"]["image_tokens"] == tokens
    assert usage["total_tokens"] == usage["input_tokens"] + tokens
    (charge,) = sandbox.bill.charges
    assert charge.cents == Decimal(usage["input_tokens"] * 500 + tokens * 3000) / 1_000_000
    assert (charge.operation, charge.marker) == ("images.generations", "t/1")
    assert charge.external_id == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"model": "gpt-image-2"}, (400, "missing_required_parameter", "prompt")),
        (body(""), (400, "invalid_value", "prompt")),
        (body(n=11), (400, "invalid_value", "n")),
        (body(quality="hd"), (400, "invalid_value", "quality")),
        (body(response_format="url"), (400, "unknown_parameter", "response_format")),
        (body(stream=True), (400, "invalid_value", "stream")),
        (body(size="1000x1000"), (400, "invalid_value", "size")),
        (body(size="0000x0000"), (400, "invalid_value", "size")),
        (body(size="big"), (400, "invalid_value", "size")),
        (body(size="1536x864", model="gpt-image-1-mini"), (400, "invalid_value", "size")),
        (body(model="gpt-image-1"), (404, "model_not_found", "model")),
        (body("[fault:policy]"), (400, "moderation_blocked", None)),
    ],
)
async def test_bad_requests_are_refused_unbilled(
    http: httpx.AsyncClient, sandbox: Sandbox, asked: Any, expected: Any
) -> None:
    answer = await http.post(DRAW, json=asked)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == expected
    assert sandbox.bill.charges == []


async def test_faults_and_keys(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    assert (await http.post(DRAW, json=body("[fault:429]"))).status_code == 429
    no_key = {"Authorization": ""}
    assert (await http.post(DRAW, json=body(), headers=no_key)).status_code == 401
    assert sandbox.bill.charges == []
    assert (await http.post(DRAW, json=body("[fault:500-after]"))).status_code == 500
    assert len(sandbox.bill.charges) == 1
    assert "stall" in (await http.post(DRAW, json=body("[fault:stall]"))).json()["error"]
