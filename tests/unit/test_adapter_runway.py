"""Runway's protocol as values in, values out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from jobs.contract import FailureKind, MediaTask, Task, TextTask
from jobs.providers.adapter import Account, RemoteOutput, Response, State
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.prices import load_prices
from jobs.providers.vendors.runway import MAX_DATA_URL, Runway
from jobs.providers.vendors.runway_models import MODES

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RUNWAY, PRICES = Runway(), load_prices()
ACCOUNT = Account("main", "https://api.test/v1", "key-1", Runway.models)
ID = "17f20503-6c24-4c16-946b-35dbbce2af2f"
IMAGE = "https://x.test/a.png"

VIDEO = MediaTask("video", "A boat", aspect_ratio="16:9", duration_seconds=6)
FRAME = replace(VIDEO, model="gen4_turbo", images=(IMAGE,))
PICTURE = MediaTask("image", "A boat", aspect_ratio="1:1")


def response(
    status: int, body: object = None, headers: Mapping[str, str] | None = None
) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, httpx.Headers(headers or {}), data, NOW)


def polled(status: str, **more: Any) -> State:
    body = {"id": ID, "status": status, "createdAt": "2026-11-20T12:00:00Z", **more}
    return RUNWAY.parse("poll", response(200, body))


def sent(task: MediaTask) -> Any:
    return RUNWAY.submit(task, ACCOUNT).json


# --------------------------------------------------------------------------- requests


def test_video_from_text() -> None:
    request = RUNWAY.submit(replace(VIDEO, options={"seed": 7}), ACCOUNT)
    assert (request.method, request.url) == ("POST", "https://api.test/v1/text_to_video")
    assert request.headers == {"Authorization": "Bearer key-1", "X-Runway-Version": "2024-11-06"}
    assert request.json == {
        "model": "gen4.5",
        "promptText": "A boat",
        "ratio": "1280:720",
        "duration": 6,
        "seed": 7,
    }


def test_video_from_an_image() -> None:
    request = RUNWAY.submit(replace(FRAME, prompt="", duration_seconds=None), ACCOUNT)
    assert request.url == "https://api.test/v1/image_to_video"
    assert request.json == {
        "model": "gen4_turbo",
        "promptImage": IMAGE,
        "ratio": "1280:720",
        "duration": 5,
    }


def test_first_and_last_frame() -> None:
    body = sent(replace(FRAME, model="veo3.1", images=(IMAGE, "data:image/png;base64,aGk=")))
    assert body["promptImage"] == [
        {"uri": IMAGE, "position": "first"},
        {"uri": "data:image/png;base64,aGk=", "position": "last"},
    ]
    assert sent(replace(FRAME, model="veo3.1", duration_seconds=None))["duration"] == 4


def test_image() -> None:
    request = RUNWAY.submit(replace(PICTURE, images=(IMAGE,)), ACCOUNT)
    assert request.url == "https://api.test/v1/text_to_image"
    assert request.json == {
        "model": "gen4_image",
        "promptText": "A boat",
        "referenceImages": [{"uri": IMAGE}],
        "ratio": "1080:1080",
    }


def test_the_version_can_be_another() -> None:
    newer = replace(ACCOUNT, headers={"x-runway-version": "2027-01-01", "X-Team": "a"})
    assert RUNWAY.submit(VIDEO, newer).headers == {
        "Authorization": "Bearer key-1",
        "x-runway-version": "2027-01-01",
        "X-Team": "a",
    }


def test_the_same_task_is_the_same_request() -> None:
    elsewhere = replace(ACCOUNT, base_url="http://127.0.0.1:1/v1", api_key="other")
    first, second = RUNWAY.submit(FRAME, ACCOUNT), RUNWAY.submit(FRAME, elsewhere)
    assert first.fingerprint(ACCOUNT) == second.fingerprint(elsewhere)
    other = RUNWAY.submit(replace(FRAME, duration_seconds=7), ACCOUNT)
    assert other.fingerprint(ACCOUNT) != first.fingerprint(ACCOUNT)


@pytest.mark.parametrize(
    ("model", "ratio", "resolution", "pixels"),
    [
        ("gen4.5", None, None, "1280:720"),
        ("gen4.5", "16:9", None, "1280:720"),
        ("gen4.5", "9:16", "720p", "720:1280"),
        ("gen4.5", "4:3", "720p", "1104:832"),
        ("gen4.5", "3:4", None, "832:1104"),
        ("gen4.5", "1:1", "720P", "960:960"),
        ("gen4.5", "21:9", None, "1584:672"),
        ("gen4.5", "832:1104", None, "832:1104"),
        ("gen4.5", None, "unheard of", "1280:720"),
        ("veo3.1", "9:16", "1080p", "1080:1920"),
        ("veo3.1", "16:9", "720p", "1280:720"),
        ("seedance2", "16:9", "720p", "16:9"),
    ],
)
def test_aspect_ratios_are_pixels_here(
    model: str, ratio: str | None, resolution: str | None, pixels: str
) -> None:
    task = replace(FRAME, model=model, aspect_ratio=ratio, resolution=resolution)
    assert sent(task)["ratio"] == pixels


def test_every_listed_ratio_stands_for_itself() -> None:
    for mode in MODES.values():
        assert [mode.pixels(ratio, None) for ratio in mode.ratios] == list(mode.ratios)


def test_polls_and_cancels() -> None:
    poll, cancel = RUNWAY.poll({"id": ID}, ACCOUNT), RUNWAY.cancel({"id": ID}, ACCOUNT)
    assert poll is not None
    assert cancel is not None
    assert (poll.method, poll.url) == ("GET", f"https://api.test/v1/tasks/{ID}")
    assert (cancel.method, cancel.url) == ("DELETE", f"https://api.test/v1/tasks/{ID}")
    assert cancel.headers["X-Runway-Version"] == "2024-11-06"
    assert RUNWAY.find(ACCOUNT) is None
    assert RUNWAY.listed(NOW, response(200, {}), ACCOUNT).tasks == ()


# --------------------------------------------------------------------------- what it can't make


@pytest.mark.parametrize(
    "task",
    [
        replace(VIDEO, prompt=" "),
        replace(VIDEO, model="gen4_turbo"),
        replace(VIDEO, duration_seconds=1),
        replace(VIDEO, duration_seconds=11),
        replace(VIDEO, aspect_ratio="1:1"),
        replace(VIDEO, aspect_ratio="wide"),
        replace(VIDEO, aspect_ratio="0:9"),
        replace(VIDEO, resolution="1080p"),
        replace(VIDEO, prompt="a" * 1001),
        replace(VIDEO, prompt="\N{WHALE}" * 501),
        replace(VIDEO, model="seedance2", duration_seconds=16),
        replace(FRAME, images=("http://x.test/a.png",)),
        replace(FRAME, images=("/etc/passwd",)),
        replace(FRAME, images=(IMAGE, IMAGE)),
        replace(FRAME, images=(IMAGE + "a" * 2048,)),
        replace(FRAME, images=("data:image/png;base64," + "a" * MAX_DATA_URL,)),
        replace(FRAME, model="gen4.5", prompt=""),
        replace(FRAME, model="veo3.1", duration_seconds=5),
        replace(PICTURE, model="gen4_image_turbo"),
        replace(PICTURE, model="gen4.5"),
        replace(PICTURE, images=(IMAGE,) * 4),
        MediaTask("audio", "A boat"),
        TextTask("gen4.5", "A boat"),
    ],
)
def test_what_runway_cannot_make(task: Task) -> None:
    with pytest.raises(ProviderError) as caught:
        RUNWAY.check(task, ACCOUNT, PRICES)
    failure = caught.value.failure
    assert (failure.kind, failure.code) == (FailureKind.INVALID, "invalid_task")


@pytest.mark.parametrize(
    "task",
    [
        VIDEO,
        FRAME,
        replace(FRAME, prompt=""),
        replace(FRAME, model="gen4.5"),
        replace(FRAME, model="veo3.1", images=(IMAGE, IMAGE), duration_seconds=8),
        replace(VIDEO, model="seedance2", aspect_ratio="992:432", duration_seconds=15),
        PICTURE,
        replace(PICTURE, model="gen4_image_turbo", images=(IMAGE,)),
    ],
)
def test_what_runway_can_make(task: MediaTask) -> None:
    RUNWAY.check(task, ACCOUNT, PRICES)


def test_unknown_prices_and_missing_models_are_refused() -> None:
    with pytest.raises(ProviderError, match="no price"):
        RUNWAY.check(replace(VIDEO, model="gen99"), ACCOUNT, PRICES)
    with pytest.raises(ProviderError, match="none is configured for video"):
        RUNWAY.model(VIDEO, replace(ACCOUNT, models={}))


def test_default_models_have_prices() -> None:
    for model in Runway.models.values():
        assert PRICES.of("runway", model).as_of <= NOW.date()
    assert all(PRICES.of("runway", model) for _, model in MODES)


# --------------------------------------------------------------------------- answers


def test_a_task_that_was_taken() -> None:
    state = RUNWAY.parse("submit", response(200, {"id": ID, "estimatedCost": {"credits": 30}}))
    assert (state.phase, state.external_id, state.ref) == ("queued", ID, {"id": ID})
    assert not state.done


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("PENDING", "queued"),
        ("THROTTLED", "queued"),
        ("RUNNING", "running"),
        ("SUCCEEDED", "succeeded"),
        ("FAILED", "failed"),
        ("CANCELLED", "cancelled"),
        ("REBOOTING", "unknown"),
    ],
)
def test_every_status(status: str, phase: str) -> None:
    state = polled(status)
    assert state.phase == phase
    assert (state.external_id, state.ref) == (ID, {"id": ID})
    assert (state.failure is not None) is (phase == "failed")
    assert state.metadata["status"] == status


def test_progress_and_outputs() -> None:
    assert polled("RUNNING", progress=0.25).progress == 25
    assert polled("RUNNING", progress=0).progress == 0
    assert polled("RUNNING", progress=1.2).progress == 100
    assert polled("RUNNING").progress is None
    done = polled("SUCCEEDED", output=["https://x.test/1", "https://x.test/2"])
    assert done.outputs == (RemoteOutput("https://x.test/1"), RemoteOutput("https://x.test/2"))
    assert done.usage.items == 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("SAFETY.INPUT.TEXT", FailureKind.POLICY),
        ("SAFETY.OUTPUT.VIDEO", FailureKind.POLICY),
        ("INPUT_PREPROCESSING.SAFETY.TEXT", FailureKind.POLICY),
        ("ASSET.INVALID", FailureKind.INVALID),
        ("INTERNAL.BAD_OUTPUT.CODE01", FailureKind.UNKNOWN),
        ("INTERNAL", FailureKind.TRANSIENT),
        ("INPUT_PREPROCESSING.INTERNAL", FailureKind.TRANSIENT),
        ("THIRD_PARTY.UNAVAILABLE", FailureKind.TRANSIENT),
        (None, FailureKind.TRANSIENT),
        ("SAFETYNET.FULL", FailureKind.UNKNOWN),
    ],
)
def test_failure_codes(code: str | None, kind: FailureKind) -> None:
    failure = polled("FAILED", failure="No.", failureCode=code, cost={"credits": 0}).failure
    assert failure is not None
    assert (failure.kind, failure.message, failure.code) == (kind, "No.", code or "failed")
    assert (failure.provider, failure.accepted) == ("runway", "yes")


def test_what_was_billed_is_not_tried_again_for_nothing() -> None:
    failure = polled("FAILED", failureCode="INTERNAL", cost={"credits": 25}).failure
    assert failure is not None
    assert failure.kind is FailureKind.UNKNOWN
    assert failure.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        {"id": ID},
        {"status": "RUNNING"},
        {"id": "../organization", "status": "RUNNING"},
        {"id": "", "status": "RUNNING"},
        {"id": 7, "status": "RUNNING"},
        {"id": ID, "status": "RUNNING", "progress": "half"},
        {"id": ID, "status": "SUCCEEDED", "output": 3},
        {"id": ID, "status": "SUCCEEDED", "output": ["file:///etc/passwd"]},
        {"id": ID, "status": "SUCCEEDED", "output": [None]},
        {"id": ID, "status": "SUCCEEDED", "cost": 3},
        {"id": ID, "status": "SUCCEEDED", "cost": {"credits": "many"}},
        {"id": ID, "status": "SUCCEEDED", "cost": {"credits": -1}},
        b'{"id": "a", "status": "SUCCEEDED", "cost": {"credits": NaN}}',
    ],
)
def test_garbled(body: Any) -> None:
    with pytest.raises(Garbled):
        RUNWAY.parse("poll", response(200, body))


def test_garbled_submission() -> None:
    for body in ({}, {"id": "a/b"}, {"id": None}):
        with pytest.raises(Garbled):
            RUNWAY.parse("submit", response(200, body))


# --------------------------------------------------------------------------- money


@pytest.mark.parametrize(
    ("task", "cents"),
    [
        (FRAME, "30"),
        (replace(FRAME, duration_seconds=None), "25"),
        (VIDEO, "72"),
        (replace(VIDEO, model="veo3.1", duration_seconds=None), "160"),
        (replace(VIDEO, options={"duration": 10}), "120"),
        (replace(VIDEO, model="seedance2", options={"duration": "auto"}), "540"),
        (PICTURE, "8"),
        (replace(PICTURE, options={"outputCount": 3}), "24"),
    ],
)
def test_estimates(task: MediaTask, cents: str) -> None:
    model = RUNWAY.model(task, ACCOUNT)
    assert RUNWAY.estimate(task, model, PRICES) == Decimal(cents)


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "CANCELLED"])
@pytest.mark.parametrize(("told", "cents"), [(0, "0"), (25, "25"), (12.5, "12.5")])
def test_cost_is_what_runway_says(status: str, told: float, cents: str) -> None:
    state = polled(status, cost={"credits": told})
    for task in (FRAME, None):  # a resumed task needs no more
        assert RUNWAY.cost("gen4_turbo", state, PRICES, task) == Decimal(cents)


def test_cost_when_runway_says_nothing() -> None:
    done, failed, gone = polled("SUCCEEDED"), polled("FAILED"), polled("CANCELLED")
    assert RUNWAY.cost("gen4_turbo", done, PRICES, FRAME) == 30
    assert RUNWAY.cost("gen4_turbo", gone, PRICES, FRAME) == 30
    assert RUNWAY.cost("gen4_turbo", failed, PRICES, FRAME) == 0
    assert RUNWAY.cost("gen4_turbo", done, PRICES, None) == 25
    two = polled("SUCCEEDED", output=["https://x.test/1", "https://x.test/2"])
    assert RUNWAY.cost("gen4_image", two, PRICES, None) == 16


# --------------------------------------------------------------------------- errors

TOO_BIG = {"code": "too_big", "path": ["duration"], "message": "Too big"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            400,
            {"error": "You do not have enough credits to run this task."},
            FailureKind.QUOTA,
            "You do not have enough credits to run this task.",
        ),
        (
            403,
            {"error": "Model variant gen9 is not available"},
            FailureKind.INVALID,
            "Model variant gen9 is not available",
        ),
        (
            400,
            {"error": "Validation of body failed", "issues": [TOO_BIG, "odd"], "docUrl": "x"},
            FailureKind.INVALID,
            "Validation of body failed; duration: Too big; odd",
        ),
        (401, {"error": "No."}, FailureKind.AUTH, "No."),
        (503, {"error": "not enough credits"}, FailureKind.TRANSIENT, "not enough credits"),
        (400, {"error": {"a": 1}, "issues": 3}, FailureKind.INVALID, "runway answered 400"),
    ],
)
def test_errors(status: int, body: Any, kind: FailureKind, message: str) -> None:
    failure = RUNWAY.classify("submit", response(status, body))
    assert (failure.kind, failure.message) == (kind, message)
    assert failure.accepted == ("unknown" if status >= 500 else "no")


def test_the_limit_of_a_day_is_not_asked_again_at_once() -> None:
    assert RUNWAY.classify("submit", response(429, {"error": "Limit."})).retry_after == 60
    told = RUNWAY.classify("submit", response(429, {}, {"retry-after": "3"}))
    assert told.retry_after == 3


def test_a_deleted_task_is_gone() -> None:
    failure = RUNWAY.classify("poll", response(404, {"error": "Could not find Task"}))
    assert failure.kind is FailureKind.GONE
