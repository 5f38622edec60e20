"""OpenAI's images as values in, values out."""

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

from jobs.contract import FailureKind, MediaTask, Task, Usage
from jobs.providers.adapter import Account, RemoteOutput, Response, State
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.prices import Price, PriceTable, load_prices
from jobs.providers.vendors.openai import OpenAI

PRICES = load_prices()
ADAPTER = OpenAI()
ACCOUNT = Account("main", "https://api.test/v1", "key-1", OpenAI.models, {"X-Version": "3"})
DRAW = MediaTask("image", "A boat", model="gpt-image-2")
MINI = replace(DRAW, model="gpt-image-1-mini")
PIXELS = base64.b64encode(b"pixels").decode()


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    return Response(status, httpx.Headers(headers or {}), data, now)


def made(**changes: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 100},
        "output_tokens": 1000,
        "total_tokens": 1100,
    }
    return {
        "created": 1795000000,
        "data": [{"b64_json": PIXELS}],
        "size": "1024x1024",
        "quality": "medium",
        "output_format": "png",
        "usage": usage,
    } | changes


def parsed(body: object, **headers: str) -> State:
    return ADAPTER.parse("submit", answer(200, body, headers))


# --------------------------------------------------------------------------- requests


def test_request() -> None:
    options = {"quality": "low", "n": 2, "prompt": "other", "model": "dear"}
    request = ADAPTER.submit(replace(DRAW, aspect_ratio="3:2", options=options), ACCOUNT)
    assert (request.method, request.url) == ("POST", "https://api.test/v1/images/generations")
    assert request.headers == {"Authorization": "Bearer key-1", "X-Version": "3"}
    assert request.json == {
        "model": "gpt-image-2",
        "prompt": "A boat",
        "size": "1536x1024",
        "quality": "low",
        "n": 2,
    }


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, None),
        ({"aspect_ratio": "1:1"}, "1024x1024"),
        ({"aspect_ratio": "16:9"}, "1536x864"),
        ({"resolution": "2048x1152"}, "2048x1152"),
        ({"aspect_ratio": "1:1", "options": {"size": "auto"}}, "auto"),
    ],
)
def test_sizes(changes: dict[str, Any], size: str | None) -> None:
    task = replace(DRAW, **changes)
    ADAPTER.check(task, ACCOUNT, PRICES)
    assert ADAPTER.submit(task, ACCOUNT).json.get("size") == size


def test_the_account_names_the_model() -> None:
    account = replace(ACCOUNT, models={"image": "gpt-image-1-mini"})
    task = replace(DRAW, model=None)
    assert ADAPTER.submit(task, account).json["model"] == "gpt-image-1-mini"
    assert ADAPTER.model(task, ACCOUNT) == "gpt-image-2"
    with pytest.raises(ProviderError, match="no model is named"):
        ADAPTER.check(task, replace(ACCOUNT, models={}), PRICES)


@pytest.mark.parametrize(
    "task",
    [
        replace(DRAW, medium="audio"),
        replace(DRAW, medium="video"),
        replace(DRAW, prompt="  "),
        replace(DRAW, prompt="x" * 32_001),
        replace(DRAW, images=("https://x.test/a.png",)),
        replace(DRAW, duration_seconds=3),
        replace(DRAW, aspect_ratio="7:1"),
        replace(DRAW, resolution="1080p"),
        replace(DRAW, resolution="1000x1000"),
        replace(DRAW, resolution="3200x1024"),
        replace(DRAW, resolution="4096x4096"),
        replace(DRAW, resolution="0000x0000"),
        replace(DRAW, options={"quality": "hd"}),
        replace(DRAW, options={"quality": ["low"]}),
        replace(DRAW, options={"quality": "max"}),
        replace(DRAW, options={"n": 11}),
        replace(DRAW, options={"n": "2"}),
        replace(DRAW, options={"n": True}),
        replace(DRAW, options={"stream": True}),
        replace(DRAW, options={"output_format": "svg"}),
        replace(MINI, aspect_ratio="16:9"),
        replace(MINI, resolution="1536x864"),
        replace(MINI, options={"quality": "xhigh"}),
    ],
)
def test_what_it_cannot_draw(task: Task) -> None:
    with pytest.raises(ProviderError) as caught:
        ADAPTER.check(task, ACCOUNT, PRICES)
    failure = caught.value.failure
    assert (failure.kind, failure.code) == (FailureKind.INVALID, "invalid_task")
    assert (failure.provider, failure.accepted) == ("openai", "no")


def test_what_it_can_draw() -> None:
    for task in (
        replace(MINI, aspect_ratio="2:3", options={"quality": "high", "n": 10}),
        replace(DRAW, model="gpt-image-2-2026-04-21", resolution="3840x2160"),
        replace(DRAW, model="gpt-image-2.5-flare", options={"quality": "max"}),
        replace(DRAW, options={"stream": False, "output_format": "webp"}),
    ):
        ADAPTER.check(task, ACCOUNT, PRICES)


def test_a_model_that_was_shut_down_has_no_price() -> None:
    with pytest.raises(ProviderError) as caught:
        ADAPTER.check(replace(DRAW, model="gpt-image-1"), ACCOUNT, PRICES)
    assert caught.value.failure.code == "unknown_price"
    assert PRICES.of("openai", OpenAI.models["image"]).output > 0


# --------------------------------------------------------------------------- answers, money


def test_pictures_are_in_the_answer_and_their_tokens_are_the_price() -> None:
    body = made(data=[{"b64_json": PIXELS}, {"b64_json": PIXELS}])
    state = parsed(body, **{"x-request-id": "req_1"})
    assert (state.phase, state.ref, state.external_id) == ("succeeded", None, "req_1")
    assert state.outputs == (RemoteOutput(data=b"pixels"),) * 2
    assert state.usage == Usage(100, 1000, items=2)
    assert state.metadata == {"size": "1024x1024", "quality": "medium", "output_format": "png"}
    # 100 x 500 + 1000 x 3000, by the million
    for task in (DRAW, None):
        assert ADAPTER.cost("gpt-image-2", state, PRICES, task) == Decimal("3.05")


def test_other_servers_send_links_and_count_pictures() -> None:
    state = parsed({"created": 1, "data": [{"url": "https://x.test/a.png"}]})
    assert state.outputs == (RemoteOutput("https://x.test/a.png"),)
    assert (state.external_id, state.usage) == (None, Usage(items=1))
    prices = PriceTable({("openai", "sdxl"): Price(item=Decimal(2))})
    task = replace(DRAW, model="sdxl")
    assert ADAPTER.cost("sdxl", state, prices, task) == 2
    assert ADAPTER.estimate(replace(task, options={"n": 3}), "sdxl", prices) == 6


def test_a_picture_without_a_count_of_tokens_is_not_free() -> None:
    state = parsed(made(usage=None))
    estimate = ADAPTER.estimate(DRAW, "gpt-image-2", PRICES)
    assert ADAPTER.cost("gpt-image-2", state, PRICES, DRAW) == estimate > 12


def test_estimates_grow_with_what_is_asked_for() -> None:
    low = replace(DRAW, options={"quality": "low"})
    tall = replace(low, resolution="1024x2048")
    three = replace(low, options={"quality": "low", "n": 3})
    # two tokens of words and 272 of a picture
    assert ADAPTER.estimate(low, "gpt-image-2", PRICES) == Decimal("0.817")
    assert ADAPTER.estimate(tall, "gpt-image-2", PRICES) == Decimal("1.633")
    assert ADAPTER.estimate(three, "gpt-image-2", PRICES) == Decimal("2.449")


def test_embeddings_with_a_date_are_still_embeddings() -> None:
    body = {
        "object": "list",
        "created": 1795000000,
        "data": [{"index": 0, "embedding": [1, 2]}],
        "usage": {"prompt_tokens": 3},
    }
    assert parsed(body).vectors == ((1.0, 2.0),)


@pytest.mark.parametrize("data", [[], None])
def test_an_answer_without_pictures_is_billed(data: Any) -> None:
    state = parsed(made(data=data))
    assert (state.phase, state.outputs) == ("succeeded", ())
    assert ADAPTER.cost("gpt-image-2", state, PRICES, DRAW) == Decimal("3.05")


@pytest.mark.parametrize(
    "body",
    [
        b'{"created": 1}',
        {"created": 1, "data": 3},
        {"created": 1, "data": [3]},
        {"created": 1, "data": [{}]},
        made(data=[{"b64_json": "%%"}]),
        made(data=[{"b64_json": 3}]),
        made(data=[{"url": "file:///etc/passwd"}]),
        made(data=[{"url": None}]),
        made(usage={"input_tokens": 3}),
        made(usage={"input_tokens": "x", "output_tokens": 1}),
    ],
)
def test_garbled(body: object) -> None:
    with pytest.raises(Garbled):
        parsed(body)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "moderation_blocked", FailureKind.POLICY),
        (400, "content_policy_violation", FailureKind.POLICY),
        (400, "billing_hard_limit_reached", FailureKind.QUOTA),
        (400, "invalid_value", FailureKind.INVALID),
    ],
)
def test_errors(status: int, code: str, kind: FailureKind) -> None:
    error = {"message": "no", "type": "image_generation_user_error", "code": code, "param": None}
    failure = ADAPTER.classify("submit", answer(status, {"error": error}))
    assert (failure.kind, failure.code, failure.accepted) == (kind, code, "no")
