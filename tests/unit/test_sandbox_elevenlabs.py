"""The sandbox's ElevenLabs, over real HTTP."""

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

from jobs.sandbox import Sandbox
from jobs.sandbox.prices import SPEECH_PRICES

SPEAK = "/elevenlabs/v1/text-to-speech/voice1"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=sandbox.url, headers={"xi-api-key": "key-0001"}
    ) as client:
        yield client


def body(text: str = "Hello there", **more: Any) -> dict[str, Any]:
    return {"text": text, "model_id": "eleven_multilingual_v2", **more}


def test_prices_equal_the_adapters_price_table() -> None:
    table = tomllib.loads(files("jobs.providers").joinpath("prices.toml").read_text())
    for model, price in SPEECH_PRICES.items():
        assert Decimal(table["elevenlabs"][model]["character"]) == price.thousand


@pytest.mark.parametrize(
    ("asked", "mime", "container", "rate"),
    [
        (None, "audio/mpeg", "mp3", 44100),
        ("mp3_22050_32", "audio/mpeg", "mp3", 22050),
        ("opus_48000_64", "audio/ogg", "ogg", 48000),
        ("wav_16000", "audio/wav", "wav", 16000),
    ],
)
async def test_sounds_are_real_and_each_its_own(
    http: httpx.AsyncClient, asked: str | None, mime: str, container: str, rate: int
) -> None:
    query = {"output_format": asked} if asked else {}
    first, second = [await http.post(SPEAK, params=query, json=body()) for _ in range(2)]
    assert first.headers["content-type"] == mime
    with av.open(io.BytesIO(first.content), "r") as sound:
        assert sound.format.name == container
        assert sound.streams.audio[0].rate == rate
    assert first.headers["request-id"].encode() in first.content
    assert first.content != second.content


@pytest.mark.parametrize(
    ("model", "characters", "cents"),
    [("eleven_multilingual_v2", 21, "0.21"), ("eleven_flash_v2_5", 11, "0.11")],
)
async def test_it_costs_what_its_header_says(
    http: httpx.AsyncClient, sandbox: Sandbox, model: str, characters: int, cents: str
) -> None:
    answer = await http.post(SPEAK, json=body("A tale [job:things/1]", model_id=model))
    assert answer.headers["character-cost"] == str(characters)
    (charge,) = sandbox.bill.charges
    assert (charge.cents, charge.marker, charge.model) == (Decimal(cents), "things/1", model)
    assert charge.external_id == answer.headers["request-id"]
    assert (charge.provider, charge.operation) == ("elevenlabs", "text-to-speech")


@pytest.mark.parametrize(
    ("path", "asked", "expected"),
    [
        (SPEAK, body(""), (422, None)),
        (SPEAK, body(volume=3), (422, None)),
        (SPEAK, body(voice_settings={"stability": 2}), (422, None)),
        (SPEAK, [], (422, None)),
        (SPEAK, body(model_id="eleven_v99"), (400, "model_not_found")),
        (SPEAK, body("x" * 10_001), (400, "max_character_limit_exceeded")),
        (SPEAK + "?output_format=mp3_1", body(), (400, "invalid_output_format")),
        ("/elevenlabs/v1/text-to-speech/missing1", body(), (404, "voice_not_found")),
        ("/elevenlabs/v1/nothing", body(), (404, None)),
    ],
)
async def test_bad_requests_are_refused_unbilled(
    http: httpx.AsyncClient, sandbox: Sandbox, path: str, asked: Any, expected: Any
) -> None:
    answer = await http.post(path, json=asked)
    detail = answer.json()["detail"]
    code = detail["code"] if isinstance(detail, dict) else None
    assert (answer.status_code, code) == expected
    assert detail
    assert sandbox.bill.charges == []


@pytest.mark.parametrize("headers", [{}, {"xi-api-key": "bad-key"}, {"Authorization": "Bearer k"}])
async def test_keys_are_checked(sandbox: Sandbox, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers) as http:
        answer = await http.post(SPEAK, json=body())
    assert (answer.status_code, answer.json()["detail"]["status"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("429=7", 429, "system_busy"),
        ("quota", 401, "quota_exceeded"),
        ("auth", 401, "invalid_api_key"),
        ("invalid", 400, "invalid_parameters"),
        ("policy", 403, "content_against_policy"),
    ],
)
async def test_faults_in_the_vendors_words(
    http: httpx.AsyncClient, sandbox: Sandbox, fault: str, status: int, code: str
) -> None:
    answer = await http.post(SPEAK, json=body(f"x [fault:{fault}]"))
    assert (answer.status_code, answer.json()["detail"]["code"]) == (status, code)
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
    assert sandbox.bill.charges == []


async def test_faults_after_it_was_billed(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    assert (await http.post(SPEAK, json=body("[fault:500-after]"))).status_code == 500
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(SPEAK, json=body("[fault:cut]"))
    assert len(sandbox.bill.charges) == 2
    assert (await http.post(SPEAK, json=body("[fault:stall]"))).status_code == 400
