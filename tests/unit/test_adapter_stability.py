"""Stability's protocol as values in, values out."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from jobs.contract import FailureKind, MediaTask, Task, TextTask
from jobs.providers.adapter import Account, Op, RemoteOutput, Response, State
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.inline import from_data_url
from jobs.providers.prices import load_prices
from jobs.providers.vendors.stability import ENDPOINTS, MAX_IMAGE, Stability

PRICES = load_prices()
ADAPTER = Stability()
ACCOUNT = Account("main", "https://api.test/v2beta", "key-1", Stability.models, {"X-App": "a"})
DATA_URL = "data:image/png;base64," + base64.b64encode(b"pixels").decode()
DRAW = MediaTask("image", "A boat", model="core", aspect_ratio="16:9")
UPSCALE = MediaTask("image", "A boat", model="upscale/creative", images=(DATA_URL,))
VARY = MediaTask("image", "A boat", model="ultra", images=(DATA_URL,), options={"strength": 0.5})
NAME = "a1" * 32


def answer(status: int, body: object = None, headers: Mapping[str, str] | None = None) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    return Response(status, httpx.Headers(headers or {}), data, now)


def parsed(
    body: object, status: int = 200, op: Op = "submit", headers: Mapping[str, str] | None = None
) -> State:
    return ADAPTER.parse(op, answer(status, body, headers))


def picture(**changes: Any) -> dict[str, Any]:
    image = base64.b64encode(b"pixels").decode()
    return {"image": image, "finish_reason": "SUCCESS", "seed": 42} | changes


# --------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("task", "path", "form"),
    [
        (DRAW, "generate/core", {"prompt": "A boat", "aspect_ratio": "16:9"}),
        (
            replace(DRAW, options={"seed": 7, "style_preset": "anime", "prompt": "other"}),
            "generate/core",
            {"prompt": "A boat", "aspect_ratio": "16:9", "seed": "7", "style_preset": "anime"},
        ),
        (
            replace(DRAW, model="sd3.5-large", aspect_ratio=None, options={"cfg_scale": 4.5}),
            "generate/sd3",
            {
                "prompt": "A boat",
                "model": "sd3.5-large",
                "mode": "text-to-image",
                "cfg_scale": "4.5",
            },
        ),
        (
            replace(VARY, model="sd3.5-medium"),
            "generate/sd3",
            {
                "prompt": "A boat",
                "model": "sd3.5-medium",
                "mode": "image-to-image",
                "image": b"pixels",
                "strength": "0.5",
            },
        ),
        (VARY, "generate/ultra", {"prompt": "A boat", "image": b"pixels", "strength": "0.5"}),
        (UPSCALE, "upscale/creative", {"prompt": "A boat", "image": b"pixels"}),
    ],
)
def test_requests_are_forms(task: MediaTask, path: str, form: Mapping[str, Any]) -> None:
    ADAPTER.check(task, ACCOUNT, PRICES)
    request = ADAPTER.submit(task, ACCOUNT)
    assert (request.method, request.json) == ("POST", None)
    assert request.url == f"https://api.test/v2beta/stable-image/{path}"
    assert request.headers == {
        "Authorization": "Bearer key-1",
        "Accept": "application/json",
        "X-App": "a",
    }
    assert request.form == form


def test_the_picture_is_part_of_what_is_asked_for() -> None:
    other = replace(UPSCALE, images=("data:image/png;base64,AAAA",))
    first, second = (ADAPTER.submit(task, ACCOUNT) for task in (UPSCALE, other))
    assert first.fingerprint(ACCOUNT) != second.fingerprint(ACCOUNT)
    assert first.fingerprint(ACCOUNT) == ADAPTER.submit(UPSCALE, ACCOUNT).fingerprint(ACCOUNT)


def test_the_default_model_and_headers_are_the_accounts() -> None:
    account = replace(ACCOUNT, models={"image": "ultra"}, headers={"Accept": "image/*"})
    request = ADAPTER.submit(replace(DRAW, model=None), account)
    assert request.url.endswith("/generate/ultra")
    assert request.headers["Accept"] == "image/*"
    with pytest.raises(ProviderError, match="no model is named"):
        ADAPTER.model(replace(DRAW, model=None), replace(ACCOUNT, models={}))


@pytest.mark.parametrize(
    "task",
    [
        TextTask("gpt-4o", "x"),
        replace(DRAW, medium="video"),
        replace(DRAW, prompt=" "),
        replace(DRAW, prompt="x" * 10_001),
        replace(DRAW, aspect_ratio="4:3"),
        replace(DRAW, resolution="1080p"),
        replace(DRAW, duration_seconds=5),
        replace(DRAW, images=(DATA_URL,)),
        replace(DRAW, options={"seed": -1}),
        replace(DRAW, options={"seed": "7"}),
        replace(DRAW, options={"style_preset": ["anime"]}),
        replace(DRAW, options={"style_preset": None}),
        replace(DRAW, options={"output_format": "gif"}),
        replace(DRAW, model="sd3.5-large", options={"cfg_scale": 11}),
        replace(VARY, options={}),
        replace(VARY, options={"strength": 1.5}),
        replace(VARY, images=(DATA_URL, DATA_URL)),
        replace(VARY, model="sd3.5-large", aspect_ratio="1:1"),
        replace(UPSCALE, images=()),
        replace(UPSCALE, images=("https://x.test/a.png",)),
        replace(UPSCALE, images=("data:image/png;base64,%%",)),
        replace(UPSCALE, images=("data:image/png;base64,",)),
        replace(UPSCALE, images=("data:," + "x" * (MAX_IMAGE + 1),)),
        replace(UPSCALE, aspect_ratio="1:1"),
        replace(UPSCALE, options={"creativity": 0.6}),
    ],
)
def test_what_it_cannot_make(task: Task) -> None:
    with pytest.raises(ProviderError) as caught:
        ADAPTER.check(task, ACCOUNT, PRICES)
    failure = caught.value.failure
    assert (failure.kind, failure.code) == (FailureKind.INVALID, "invalid_task")
    assert (failure.provider, failure.accepted) == ("stability", "no")


def test_every_model_has_a_price_and_no_other_is_sent() -> None:
    for model in [*ENDPOINTS, "sd3.5-large", "sd3.5-flash"]:
        assert PRICES.of("stability", model).item > 0
    for model in ("ultra2", "../user", "sd9"):
        with pytest.raises(ProviderError) as caught:
            ADAPTER.check(replace(DRAW, model=model), ACCOUNT, PRICES)
        assert caught.value.failure.kind is FailureKind.INVALID
    with pytest.raises(ProviderError, match="no model"):
        ADAPTER.submit(replace(DRAW, model="../user"), ACCOUNT)


@pytest.mark.parametrize(
    ("url", "data"), [("data:image/png;base64,aGk=", b"hi"), ("data:text/plain,h%69", b"hi")]
)
def test_data_urls(url: str, data: bytes) -> None:
    assert from_data_url(url) == data


@pytest.mark.parametrize("url", ["https://x.test/a", "data:", "data:a;base64,%%", ""])
def test_what_is_no_data_url(url: str) -> None:
    with pytest.raises(ValueError, match="not"):
        from_data_url(url)


# --------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("op", ["submit", "poll"])
@pytest.mark.parametrize("field", ["image", "result"])
def test_a_picture_as_json(op: Op, field: str) -> None:
    body = picture(image=None) | {field: picture()["image"]}
    state = parsed(body, op=op)
    assert (state.phase, state.ref) == ("succeeded", None)
    assert state.outputs == (RemoteOutput(data=b"pixels"),)
    assert state.metadata == {"finish_reason": "SUCCESS", "seed": "42"}
    assert ADAPTER.cost("core", state, PRICES, None) == 3


@pytest.mark.parametrize("op", ["submit", "poll"])
def test_a_picture_as_bytes(op: Op) -> None:
    headers = {"content-type": "image/webp", "finish-reason": "SUCCESS", "seed": "9"}
    state = parsed(b"pixels", op=op, headers=headers)
    assert (state.phase, state.outputs[0].data) == ("succeeded", b"pixels")
    assert state.metadata["seed"] == "9"
    bare = parsed(b"pixels", op=op, headers={"content-type": "image/png"})
    assert (bare.phase, bare.metadata["seed"]) == ("succeeded", None)


@pytest.mark.parametrize(
    ("finish", "kind"),
    [("CONTENT_FILTERED", FailureKind.POLICY), ("ERROR", FailureKind.UNKNOWN)],
)
def test_a_blurred_picture_is_a_refusal_and_billed(finish: str, kind: FailureKind) -> None:
    headers = {"content-type": "image/png", "finish-reason": finish}
    for state in (parsed(picture(finish_reason=finish)), parsed(b"blur", headers=headers)):
        assert (state.phase, state.outputs) == ("failed", ())
        assert state.failure is not None
        assert (state.failure.kind, state.failure.accepted) == (kind, "yes")
        assert state.failure.code == finish.lower()
        assert ADAPTER.cost("ultra", state, PRICES, DRAW) == 8


# --------------------------------------------------------------------------- later


@pytest.mark.parametrize(
    ("status", "body", "phase"),
    [
        (200, {"id": NAME}, "queued"),
        (202, {"id": NAME}, "running"),
        (202, {"id": NAME, "status": "in-progress"}, "running"),
        (202, {"id": NAME, "status": "napping"}, "unknown"),
    ],
)
def test_a_task_and_where_its_result_will_be(status: int, body: Any, phase: str) -> None:
    state = parsed(body, status)
    assert (state.phase, state.external_id) == (phase, NAME)
    assert state.ref is not None
    request = ADAPTER.poll(state.ref, ACCOUNT)
    assert request is not None
    assert (request.method, request.url) == ("GET", f"https://api.test/v2beta/results/{NAME}")
    assert request.headers["Authorization"] == "Bearer key-1"


def test_a_task_that_failed_without_a_picture_costs_nothing() -> None:
    body = {"id": NAME, "name": "content_moderation", "errors": ["flagged", "twice"]}
    state = parsed(body, op="poll")
    assert state.failure is not None
    assert (state.phase, state.failure.kind) == ("failed", FailureKind.POLICY)
    assert state.failure.message == "flagged; twice"
    assert ADAPTER.cost("upscale/creative", state, PRICES, UPSCALE) == 0
    other = parsed({"errors": ["out of memory"]}, op="poll")
    assert other.failure is not None
    assert other.failure.kind is FailureKind.UNKNOWN


def test_estimate_is_the_price() -> None:
    assert ADAPTER.estimate(UPSCALE, "upscale/creative", PRICES) == 60
    assert ADAPTER.estimate(DRAW, "sd3.5-large", PRICES) == Decimal("6.5")


def test_there_is_nothing_to_cancel_or_list() -> None:
    assert ADAPTER.cancel({"id": NAME}, ACCOUNT) is None
    assert ADAPTER.find(ACCOUNT) is None
    assert ADAPTER.listed(datetime.now(UTC), answer(200, {}), ACCOUNT).tasks == ()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"{}", b'{"id": "../user"}', b'{"id": ""}', b'{"id": "a b"}',
        b'{"id": null}', b'{"image": "%%"}', b'{"image": 3}', b'{"result": {"a": 1}}',
    ],
)  # fmt: skip
def test_garbled(body: bytes) -> None:
    with pytest.raises(Garbled):
        parsed(body)


def test_an_empty_picture_is_garbled() -> None:
    with pytest.raises(Garbled):
        parsed(b"", headers={"content-type": "image/png"})


# --------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("op", "status", "name", "kind"),
    [
        ("submit", 403, "content_moderation", FailureKind.POLICY),
        ("submit", 400, "content_moderation", FailureKind.POLICY),
        ("submit", 403, "permission_denied", FailureKind.AUTH),
        ("submit", 401, "unauthorized", FailureKind.AUTH),
        ("submit", 402, "payment_required", FailureKind.QUOTA),
        ("submit", 400, "bad_request", FailureKind.INVALID),
        ("submit", 413, "payload_too_large", FailureKind.INVALID),
        ("submit", 429, "rate_limit_exceeded", FailureKind.RATE_LIMIT),
        ("submit", 500, "internal_error", FailureKind.TRANSIENT),
        ("poll", 404, "not_found", FailureKind.GONE),
    ],
)
def test_errors(op: Op, status: int, name: str, kind: FailureKind) -> None:
    body = {"id": "e1", "name": name, "errors": ["first", "second"]}
    failure = ADAPTER.classify(op, answer(status, body))
    assert (failure.kind, failure.code, failure.message) == (kind, name, "first; second")
    assert failure.accepted == ("unknown" if status == 500 else "no")


def test_a_lock_out_lasts_a_minute_unless_told_otherwise() -> None:
    assert ADAPTER.classify("submit", answer(429, {})).retry_after == 60
    told = answer(429, {}, {"retry-after": "3"})
    assert ADAPTER.classify("submit", told).retry_after == 3
    assert ADAPTER.classify("submit", answer(503, {})).retry_after is None


@pytest.mark.parametrize("errors", ["words", None, 3, {"a": 1}, []])
def test_odd_errors(errors: Any) -> None:
    failure = ADAPTER.classify("submit", answer(400, {"name": ["x"], "errors": errors}))
    assert failure.kind is FailureKind.INVALID
    assert failure.message
