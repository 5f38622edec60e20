"""Freepik's protocol as values in, values out."""

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
from jobs.providers.adapter import Account, Op, RemoteOutput, Response, State
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.prices import load_prices
from jobs.providers.vendors.freepik import Freepik
from jobs.providers.vendors.freepik_models import MODELS

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FREEPIK, PRICES = Freepik(), load_prices()
ACCOUNT = Account("main", "https://api.test/v1/ai", "key-1", Freepik.models)
ID = "046b6c7f-0b8a-43b9-b35d-6489e6daee91"
IMAGE = "https://x.test/a.png"

PICTURE = MediaTask("image", "A boat", aspect_ratio="16:9")
VIDEO = MediaTask("video", "A boat", images=(IMAGE,), duration_seconds=10, aspect_ratio="16:9")
KLING_3 = replace(VIDEO, model="kling-v3-pro", images=(), duration_seconds=7)


def response(
    status: int,
    body: object = None,
    asked: str = "/mystic",
    headers: Mapping[str, str] | None = None,
) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, httpx.Headers(headers or {}), data, NOW, asked)


def parsed(status: str, asked: str = f"/mystic/{ID}", op: Op = "poll", **more: Any) -> State:
    body = {"data": {"task_id": ID, "status": status, "generated": [], **more}}
    return FREEPIK.parse(op, response(200, body, asked))


# --------------------------------------------------------------------------- requests


def test_image() -> None:
    request = FREEPIK.submit(replace(PICTURE, options={"model": "zen"}), ACCOUNT)
    assert (request.method, request.url) == ("POST", "https://api.test/v1/ai/mystic")
    assert request.headers == {"x-magnific-api-key": "key-1"}
    assert request.json == {
        "prompt": "A boat",
        "aspect_ratio": "widescreen_16_9",
        "resolution": "2k",
        "model": "zen",
    }


def test_video_follows_its_image() -> None:
    request = FREEPIK.submit(VIDEO, ACCOUNT)
    assert request.url == "https://api.test/v1/ai/image-to-video/kling-v2-1-pro"
    assert request.json == {"prompt": "A boat", "image": IMAGE, "duration": "10"}


def test_other_fields_of_other_models() -> None:
    request = FREEPIK.submit(replace(KLING_3, images=(IMAGE,)), ACCOUNT)
    assert request.url == "https://api.test/v1/ai/video/kling-v3-pro"
    assert request.json == {
        "prompt": "A boat",
        "start_image_url": IMAGE,
        "aspect_ratio": "16:9",
        "duration": "7",
    }


def test_inline_images_are_bare_base64() -> None:
    task = replace(VIDEO, images=("data:image/png;base64,aGk=",))
    assert FREEPIK.submit(task, ACCOUNT).json["image"] == "aGk="


@pytest.mark.parametrize(
    ("model", "medium", "path"),
    [
        ("text-to-video/wan-2-7", "video", "text-to-video/wan-2-7"),
        ("minimax-live", "video", "image-to-video/minimax-live"),
        ("flux-dev", "image", "text-to-image/flux-dev"),
    ],
)
def test_unlisted_models_are_paths(model: str, medium: Any, path: str) -> None:
    task = MediaTask(medium, "A boat", model=model, aspect_ratio="16:9")
    request = FREEPIK.submit(task, ACCOUNT)
    assert request.url == f"https://api.test/v1/ai/{path}"
    assert request.json == {"prompt": "A boat", "aspect_ratio": "16:9"}


@pytest.mark.parametrize(
    ("task", "model"),
    [
        (PICTURE, "mystic:2k"),
        (replace(PICTURE, resolution="4K"), "mystic:4k"),
        (replace(PICTURE, model="mystic:1k"), "mystic:1k"),
        (replace(PICTURE, options={"resolution": "4k"}), "mystic:4k"),
        (VIDEO, "kling-v2-1-pro:10"),
        (replace(VIDEO, duration_seconds=None), "kling-v2-1-pro:5"),
        (replace(VIDEO, duration_seconds=None, model="kling-v3-pro:12"), "kling-v3-pro:12"),
        (replace(VIDEO, duration_seconds=None, model="a/b"), "a/b"),
    ],
)
def test_the_model_names_what_is_priced(task: MediaTask, model: str) -> None:
    assert FREEPIK.model(task, ACCOUNT) == model


def test_the_old_host_and_other_headers() -> None:
    old = replace(ACCOUNT, base_url="https://api.freepik.com/v1/ai")
    assert FREEPIK.submit(PICTURE, old).headers == {"x-freepik-api-key": "key-1"}
    proxy = replace(ACCOUNT, headers={"X-Magnific-Api-Key": "theirs", "X-Team": "a"})
    assert FREEPIK.submit(PICTURE, proxy).headers == {
        "X-Magnific-Api-Key": "theirs",
        "X-Team": "a",
    }


def test_the_same_task_is_the_same_request() -> None:
    elsewhere = replace(ACCOUNT, base_url="http://127.0.0.1:1/v1", api_key="other")
    first, second = FREEPIK.submit(VIDEO, ACCOUNT), FREEPIK.submit(VIDEO, elsewhere)
    assert first.fingerprint(ACCOUNT) == second.fingerprint(elsewhere)
    other = FREEPIK.submit(replace(VIDEO, duration_seconds=5), ACCOUNT)
    assert other.fingerprint(ACCOUNT) != first.fingerprint(ACCOUNT)


# --------------------------------------------------------------------------- where a task is


@pytest.mark.parametrize(
    ("ordered", "look"),
    [
        ("mystic", "mystic"),
        ("image-to-video/kling-std", "image-to-video/kling"),
        ("image-to-video/kling-v2", "image-to-video/kling-v2"),
        ("image-to-video/kling-v2-1-std", "image-to-video/kling-v2-1"),
        ("image-to-video/kling-v2-1-pro", "image-to-video/kling-v2-1"),
        ("image-to-video/kling-v2-1-master", "image-to-video/kling-v2-1-master"),
        ("image-to-video/kling-v2-6-pro", "image-to-video/kling-v2-6"),
        ("video/kling-v3-pro", "video/kling-v3"),
        ("text-to-video/wan-2-7", "text-to-video/wan-2-7"),
    ],
)
def test_a_task_need_not_be_where_it_was_ordered(ordered: str, look: str) -> None:
    state = parsed("CREATED", f"/{ordered}", "submit")
    assert (state.phase, state.external_id) == ("queued", ID)
    assert state.ref == {"id": ID, "path": look}
    poll = FREEPIK.poll(state.ref, ACCOUNT)
    assert poll is not None
    assert (poll.method, poll.url) == ("GET", f"https://api.test/v1/ai/{look}/{ID}")
    asked = poll.url.removeprefix(ACCOUNT.base_url)
    assert parsed("IN_PROGRESS", asked).ref == state.ref


def test_nothing_can_be_cancelled_or_found() -> None:
    assert FREEPIK.cancel({"id": ID, "path": "mystic"}, ACCOUNT) is None
    assert FREEPIK.find(ACCOUNT) is None
    assert FREEPIK.listed(NOW, response(200, {}), ACCOUNT).tasks == ()


# --------------------------------------------------------------------------- what it can't make


@pytest.mark.parametrize(
    "task",
    [
        replace(PICTURE, prompt=" "),
        replace(PICTURE, resolution="8k"),
        replace(PICTURE, aspect_ratio="21:9"),
        replace(PICTURE, aspect_ratio="wide"),
        replace(PICTURE, images=(IMAGE,)),
        replace(PICTURE, model="kling-v3-pro"),
        replace(VIDEO, images=()),
        replace(VIDEO, images=(IMAGE, IMAGE)),
        replace(VIDEO, images=("/etc/passwd",)),
        replace(VIDEO, images=("data:image/png,abc",)),
        replace(VIDEO, duration_seconds=0),
        replace(VIDEO, duration_seconds=7),
        replace(VIDEO, resolution="720p"),
        replace(VIDEO, model="mystic"),
        replace(VIDEO, model="../account"),
        replace(VIDEO, model="a/b?c=d"),
        replace(VIDEO, prompt="a" * 2501),
        replace(KLING_3, duration_seconds=16),
        replace(KLING_3, aspect_ratio="4:3"),
        MediaTask("audio", "A boat"),
        TextTask("mystic", "A boat"),
    ],
)
def test_what_freepik_cannot_make(task: Task) -> None:
    with pytest.raises(ProviderError) as caught:
        FREEPIK.check(task, ACCOUNT, PRICES)
    failure = caught.value.failure
    assert (failure.kind, failure.code) == (FailureKind.INVALID, "invalid_task")


@pytest.mark.parametrize(
    "task",
    [
        PICTURE,
        replace(PICTURE, resolution="4k", aspect_ratio="4:5"),
        replace(PICTURE, prompt="a" * 2501),
        VIDEO,
        replace(VIDEO, prompt=""),
        replace(VIDEO, model="kling-v2-6-pro", images=()),
        KLING_3,
    ],
)
def test_what_freepik_can_make(task: MediaTask) -> None:
    FREEPIK.check(task, ACCOUNT, PRICES)


def test_unknown_prices_are_refused() -> None:
    with pytest.raises(ProviderError, match="no price") as caught:
        FREEPIK.check(replace(VIDEO, model="text-to-video/wan-2-7"), ACCOUNT, PRICES)
    assert caught.value.failure.code == "unknown_price"


def test_listed_models_have_prices() -> None:
    for model in (*Freepik.models.values(), *MODELS):
        assert PRICES.of("freepik", model).as_of <= NOW.date()


# --------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("CREATED", "queued"),
        ("IN_PROGRESS", "running"),
        ("COMPLETED", "succeeded"),
        ("FAILED", "failed"),
        ("PAUSED", "unknown"),
    ],
)
def test_every_status(status: str, phase: str) -> None:
    state = parsed(status)
    assert state.phase == phase
    assert (state.failure is not None) is (phase == "failed")
    assert (state.progress, state.metadata["status"]) == (None, status)


def test_a_failure_has_no_reason() -> None:
    failure = parsed("FAILED").failure
    assert failure is not None
    assert (failure.kind, failure.code, failure.provider, failure.accepted) == (
        FailureKind.UNKNOWN,
        "failed",
        "freepik",
        "yes",
    )
    assert failure.message


def test_outputs() -> None:
    state = parsed("COMPLETED", generated=["https://x.test/1", "https://x.test/2"])
    assert state.outputs == (RemoteOutput("https://x.test/1"), RemoteOutput("https://x.test/2"))
    assert state.usage.items == 2


def test_answers_without_a_wrapper() -> None:
    body = {"task_id": ID, "task_status": "IN_PROGRESS"}
    state = FREEPIK.parse("poll", response(200, body, f"/image-style-transfer/{ID}"))
    assert (state.phase, state.ref) == ("running", {"id": ID, "path": "image-style-transfer"})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        {"data": None},
        {"data": []},
        {"data": {}},
        {"data": {"task_id": ID}},
        {"data": {"status": "CREATED"}},
        {"data": {"task_id": "../../account", "status": "CREATED"}},
        {"data": {"task_id": "", "status": "CREATED"}},
        {"data": {"task_id": 7, "status": "CREATED"}},
        {"data": {"task_id": ID, "status": "COMPLETED", "generated": 3}},
        {"data": {"task_id": ID, "status": "COMPLETED", "generated": [None]}},
        {"data": {"task_id": ID, "status": "COMPLETED", "generated": ["file:///etc/passwd"]}},
    ],
)
def test_garbled(body: Any) -> None:
    with pytest.raises(Garbled):
        FREEPIK.parse("submit", response(200, body, "/mystic"))
    with pytest.raises(Garbled):
        FREEPIK.parse("poll", response(200, body, f"/mystic/{ID}"))


@pytest.mark.parametrize(
    ("op", "asked"),
    [("submit", ""), ("submit", "/"), ("submit", "/.."), ("submit", "/a b"), ("poll", f"/{ID}"),
     ("poll", f"/../{ID}")],
)  # fmt: skip
def test_an_answer_to_nothing(op: Op, asked: str) -> None:
    with pytest.raises(Garbled):
        parsed("CREATED", asked, op)


# --------------------------------------------------------------------------- money


@pytest.mark.parametrize(
    ("task", "cents"),
    [
        (PICTURE, "12"),
        (replace(PICTURE, resolution="4k"), "38"),
        (replace(PICTURE, options={"num_images": 3}), "36"),
        (VIDEO, "98"),
        (replace(VIDEO, duration_seconds=5), "49"),
        (KLING_3, "117.6"),
    ],
)
def test_estimates(task: MediaTask, cents: str) -> None:
    model = FREEPIK.model(task, ACCOUNT)
    assert FREEPIK.estimate(task, model, PRICES) == Decimal(cents)


@pytest.mark.parametrize(
    ("model", "status", "outputs", "cents"),
    [
        ("mystic:2k", "COMPLETED", 1, "12"),
        ("mystic:4k", "COMPLETED", 2, "76"),
        ("mystic:4k", "COMPLETED", 0, "38"),
        ("mystic:4k", "FAILED", 0, "0"),
        ("kling-v2-1-pro:10", "COMPLETED", 1, "98"),
        ("kling-v2-1-pro", "COMPLETED", 1, "49"),
        ("kling-v2-1-pro:10", "FAILED", 0, "0"),
    ],
)
def test_cost_needs_no_task(model: str, status: str, outputs: int, cents: str) -> None:
    state = parsed(status, generated=["https://x.test/1"] * outputs)
    assert FREEPIK.cost(model, state, PRICES, None) == Decimal(cents)


# --------------------------------------------------------------------------- errors

PARAMS = {"message": "Wrong.", "invalid_params": [{"name": "duration", "reason": "5 or 10"}, "odd"]}


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, {"message": "No."}, FailureKind.INVALID, "No."),
        (400, PARAMS, FailureKind.INVALID, "Wrong.; duration: 5 or 10; odd"),
        (400, {"problem": PARAMS}, FailureKind.INVALID, "Wrong.; duration: 5 or 10; odd"),
        (401, {"message": "Invalid API key"}, FailureKind.AUTH, "Invalid API key"),
        (402, {"message": "Pay."}, FailureKind.QUOTA, "Pay."),
        (429, {"message": "Free trial is over"}, FailureKind.QUOTA, "Free trial is over"),
        (429, {"message": "Slow down"}, FailureKind.RATE_LIMIT, "Slow down"),
        (503, {"message": "free trial"}, FailureKind.TRANSIENT, "free trial"),
        (400, {"message": 3, "invalid_params": 3}, FailureKind.INVALID, "freepik answered 400"),
    ],
)
def test_errors(status: int, body: Any, kind: FailureKind, message: str) -> None:
    failure = FREEPIK.classify("submit", response(status, body))
    assert (failure.kind, failure.message) == (kind, message)
    assert failure.accepted == ("unknown" if status >= 500 else "no")


def test_a_forgotten_task_is_gone() -> None:
    failure = FREEPIK.classify("poll", response(404, {"message": "Task not found"}))
    assert failure.kind is FailureKind.GONE
