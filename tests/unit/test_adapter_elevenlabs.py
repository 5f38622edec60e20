"""ElevenLabs' protocol as values in, values out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from jobs.contract import FailureKind, MediaTask, Task, TextTask, Usage
from jobs.providers.adapter import Account, RemoteOutput, Response
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.prices import load_prices
from jobs.providers.vendors.elevenlabs import LONGEST, ElevenLabs

PRICES = load_prices()
ADAPTER = ElevenLabs()
ACCOUNT = Account("main", "https://api.test/v1", "key-1", ElevenLabs.models, {"X-Region": "eu"})
SPEECH = MediaTask("audio", "Once upon a time.", model="eleven_multilingual_v2")
MP3 = {"Content-Type": "audio/mpeg"}


def answer(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        status, httpx.Headers(headers or {}), body, datetime(2026, 11, 20, 12, tzinfo=UTC)
    )


def error(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> Any:
    body = json.dumps({"detail": detail}).encode()
    return ADAPTER.classify("submit", answer(status, body, headers))


# --------------------------------------------------------------------------- requests


def test_request() -> None:
    request = ADAPTER.submit(SPEECH, ACCOUNT)
    assert request.method == "POST"
    assert request.url == (
        "https://api.test/v1/text-to-speech/JBFqnCBsd6RMkjVDRZzb?output_format=mp3_44100_128"
    )
    assert request.headers == {"xi-api-key": "key-1", "X-Region": "eu"}
    assert request.json == {"text": "Once upon a time.", "model_id": "eleven_multilingual_v2"}


def test_options_find_their_places() -> None:
    options = {
        "voice": "abc123",
        "output_format": "opus_48000_96",
        "voice_settings": {"stability": 0.1, "style": 0.2},
        "stability": 0.5,
        "seed": 7,
        "language_code": "de",
        "text": "something else",
    }
    request = ADAPTER.submit(replace(SPEECH, options=options), ACCOUNT)
    assert request.url.endswith("/text-to-speech/abc123?output_format=opus_48000_96")
    assert request.json == {
        "text": "Once upon a time.",
        "model_id": "eleven_multilingual_v2",
        "voice_settings": {"stability": 0.5, "style": 0.2},
        "seed": 7,
        "language_code": "de",
    }


def test_the_account_has_a_voice_a_model_and_headers() -> None:
    models = {"audio": "eleven_flash_v2_5", "voice": "house1"}
    account = replace(ACCOUNT, models=models, headers={"xi-api-key": "theirs"})
    request = ADAPTER.submit(replace(SPEECH, model=None), account)
    assert "/text-to-speech/house1?" in request.url
    assert request.json["model_id"] == "eleven_flash_v2_5"
    assert request.headers == {"xi-api-key": "theirs"}


def test_the_same_task_asks_for_the_same_thing_and_another_voice_for_another() -> None:
    first = ADAPTER.submit(SPEECH, ACCOUNT).fingerprint(ACCOUNT)
    elsewhere = replace(ACCOUNT, base_url="https://eu.test/v1", api_key="key-2")
    assert ADAPTER.submit(SPEECH, elsewhere).fingerprint(elsewhere) == first
    other = replace(SPEECH, options={"voice": "abc"})
    assert ADAPTER.submit(other, ACCOUNT).fingerprint(ACCOUNT) != first


@pytest.mark.parametrize(
    "task",
    [
        TextTask("gpt-4o", "x"),
        replace(SPEECH, medium="video"),
        replace(SPEECH, prompt=" \n"),
        replace(SPEECH, prompt="x" * 10_001),
        replace(SPEECH, images=("https://x.test/a.png",)),
        replace(SPEECH, duration_seconds=3),
        replace(SPEECH, options={"voice": "../history"}),
        replace(SPEECH, options={"voice": "a/b?c"}),
        replace(SPEECH, options={"output_format": "pcm_16000"}),
        replace(SPEECH, options={"output_format": "mp3&x=1"}),
        replace(SPEECH, options={"stability": 1.1}),
        replace(SPEECH, options={"voice_settings": {"speed": 0.5}}),
        replace(SPEECH, options={"voice_settings": [1]}),
        replace(SPEECH, options={"style": "much"}),
        replace(SPEECH, options={"speed": float("nan")}),
        replace(SPEECH, options={"seed": -1}),
        replace(SPEECH, options={"seed": True}),
    ],
)
def test_what_it_cannot_speak(task: Task) -> None:
    with pytest.raises(ProviderError) as caught:
        ADAPTER.check(task, ACCOUNT, PRICES)
    failure = caught.value.failure
    assert (failure.kind, failure.code) == (FailureKind.INVALID, "invalid_task")
    assert (failure.provider, failure.accepted) == ("elevenlabs", "no")


def test_what_it_can_speak() -> None:
    longest = replace(SPEECH, prompt="x" * 10_000)
    options = {"stability": 0, "speed": 1.2, "seed": 4294967295, "output_format": "wav_44100"}
    for task in (SPEECH, longest, replace(SPEECH, options=options), replace(SPEECH, model=None)):
        ADAPTER.check(task, ACCOUNT, PRICES)


def test_a_model_a_voice_and_a_price_are_needed() -> None:
    nothing = replace(ACCOUNT, models={})
    for task, reason in (
        (replace(SPEECH, model=None), "no model is named"),
        (SPEECH, "a voice must be an id"),
    ):
        with pytest.raises(ProviderError, match=reason):
            ADAPTER.check(task, nothing, PRICES)
    with pytest.raises(ProviderError) as caught:
        ADAPTER.check(replace(SPEECH, model="eleven_v99"), ACCOUNT, PRICES)
    assert caught.value.failure.code == "unknown_price"


# --------------------------------------------------------------------------- answers, money


def test_the_body_is_the_sound() -> None:
    headers = {**MP3, "request-id": "r1", "character-cost": "17"}
    state = ADAPTER.parse("submit", answer(200, b"ID3...", headers))
    assert (state.phase, state.ref, state.external_id) == ("succeeded", None, "r1")
    assert state.outputs == (RemoteOutput(data=b"ID3..."),)
    assert state.usage == Usage(characters=17, items=1)
    assert ADAPTER.cost("eleven_multilingual_v2", state, PRICES, None) == Decimal("0.17")


@pytest.mark.parametrize(
    ("told", "characters"),
    [("17", 17), ("8.5", 9), ("0", 0), ("-3", 0), ("many", 0), ("nan", 0), ("Infinity", 0)],
)
def test_what_the_header_counts(told: str, characters: int) -> None:
    state = ADAPTER.parse("submit", answer(200, b"x", {**MP3, "character-cost": told}))
    assert state.usage.characters == characters


@pytest.mark.parametrize(
    ("model", "cents"), [("eleven_multilingual_v2", "0.17"), ("eleven_flash_v2_5", "0.09")]
)
def test_where_it_is_not_told_the_text_counts(model: str, cents: str) -> None:
    state = ADAPTER.parse("submit", answer(200, b"x", MP3))
    task = replace(SPEECH, model=model)
    assert (state.external_id, state.usage.characters) == (None, 0)
    assert ADAPTER.cost(model, state, PRICES, task) == Decimal(cents)
    assert ADAPTER.estimate(task, model, PRICES) == Decimal(cents)
    assert ADAPTER.cost(model, state, PRICES, None) == 0


def test_models_with_a_known_length_have_prices() -> None:
    for model in {*LONGEST, ElevenLabs.models["audio"]}:
        assert PRICES.of("elevenlabs", model).character > 0


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", MP3),
        (b'{"detail": "x"}', {"content-type": "application/json"}),
        (b"<html>", {"content-type": "text/html; charset=utf-8"}),
        (b"sound", {}),
    ],
)
def test_what_is_no_sound_is_garbled(body: bytes, headers: Mapping[str, str]) -> None:
    with pytest.raises(Garbled):
        ADAPTER.parse("submit", answer(200, body, headers))


def test_there_is_nothing_to_poll_or_ask() -> None:
    assert ADAPTER.poll({}, ACCOUNT) is None
    assert ADAPTER.cancel({}, ACCOUNT) is None
    assert ADAPTER.find(ACCOUNT) is None
    assert ADAPTER.listed(datetime.now(UTC), answer(200, b"{}"), ACCOUNT).tasks == ()


# --------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "quota_exceeded", FailureKind.QUOTA),
        (400, "quota_exceeded", FailureKind.QUOTA),
        (402, "insufficient_credits", FailureKind.QUOTA),
        (401, "invalid_api_key", FailureKind.AUTH),
        (400, "invalid_api_key", FailureKind.AUTH),
        (401, "detected_unusual_activity", FailureKind.AUTH),
        (429, "system_busy", FailureKind.RATE_LIMIT),
        (429, "concurrent_limit_exceeded", FailureKind.RATE_LIMIT),
        (400, "too_many_concurrent_requests", FailureKind.RATE_LIMIT),
        (403, "content_against_policy", FailureKind.POLICY),
        (401, "max_character_limit_exceeded", FailureKind.INVALID),
        (404, "voice_not_found", FailureKind.INVALID),
        (400, "never_heard_of", FailureKind.INVALID),
    ],
)
@pytest.mark.parametrize("field", ["code", "status"])
def test_codes_go_before_the_status(status: int, code: str, kind: FailureKind, field: str) -> None:
    failure = error(status, {field: code, "message": "no"})
    assert (failure.kind, failure.code, failure.message) == (kind, code, "no")
    assert failure.accepted == "no"


def test_an_unknown_code_leaves_it_to_the_older_name() -> None:
    detail = {"type": "rate_limit_error", "code": "new_word", "status": "system_busy"}
    assert error(400, detail).kind is FailureKind.RATE_LIMIT


def test_other_shapes_of_errors() -> None:
    listed = [{"type": "missing", "loc": ["body", "text"], "msg": "Field required"}]
    failure = error(422, listed)
    assert failure.kind is FailureKind.INVALID
    assert failure.message == "body.text: Field required"
    assert error(404, "Not Found").message == "Not Found"
    busy = error(429, {"code": "system_busy"}, {"retry-after": "7"})
    assert (busy.kind, busy.retry_after) == (FailureKind.RATE_LIMIT, 7)
    for odd in ([], [1], 3, None, {"code": None}, [{"loc": None}]):
        assert error(500, odd).kind is FailureKind.TRANSIENT
    assert error(500, {"code": "system_busy"}).accepted == "unknown"
