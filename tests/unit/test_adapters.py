"""Providers' protocols as values in, values out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from jobs.contract import (
    CallResult,
    EmbedTask,
    FailureKind,
    MediaTask,
    Output,
    Task,
    TextTask,
    TokenPrice,
    Usage,
)
from jobs.providers import results
from jobs.providers.adapter import Account, Adapter, Op, Page, RemoteOutput, State
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.prices import Price, PriceTable, load_prices
from jobs.providers.registry import ADAPTERS, ProviderSettings, build_providers
from jobs.providers.vendors.freepik import Freepik
from jobs.providers.vendors.openai import OpenAI
from jobs.providers.vendors.replicate import Replicate
from jobs.providers.vendors.runway import Runway
from tests.unit.values import GARBLED, NOW, PRICES, response
from tests.unit.values import refused as refused_by

OPENAI, REPLICATE = OpenAI(), Replicate()
RUNWAY, FREEPIK = Runway(), Freepik()
ACCOUNT = Account("main", "https://api.test/v1", "key-1", Replicate.models, {"X-Version": "3"})

TEXT = TextTask("gpt-4o-mini", "Write a chapter.", system="Be brief.", temperature=0.5)
VIDEO = MediaTask(
    "video",
    "A boat",
    model="kwaivgi/kling-v2.1",
    images=("https://x.test/a.png",),
    duration_seconds=5,
    aspect_ratio="16:9",
    options={"seed": 7},
)


def refused(adapter: Adapter, task: Task) -> str:
    return refused_by(adapter, task, ACCOUNT)


# --------------------------------------------------------------------------- errors of all


@pytest.mark.parametrize(
    ("op", "status", "kind", "accepted"),
    [
        ("submit", 400, FailureKind.INVALID, "no"),
        ("submit", 401, FailureKind.AUTH, "no"),
        ("submit", 402, FailureKind.QUOTA, "no"),
        ("submit", 404, FailureKind.INVALID, "no"),
        ("poll", 404, FailureKind.GONE, "no"),
        ("poll", 410, FailureKind.GONE, "no"),
        ("submit", 408, FailureKind.TRANSIENT, "unknown"),
        ("submit", 422, FailureKind.INVALID, "no"),
        ("submit", 429, FailureKind.RATE_LIMIT, "no"),
        ("submit", 500, FailureKind.TRANSIENT, "unknown"),
        ("submit", 599, FailureKind.TRANSIENT, "unknown"),
        ("poll", 503, FailureKind.TRANSIENT, "no"),
        ("submit", 302, FailureKind.UNKNOWN, "no"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": null}', b'{"detail": "x"}'])
def test_status_decides_where_the_body_says_nothing(
    op: Op, status: int, kind: FailureKind, accepted: str, body: bytes
) -> None:
    adapters: list[Adapter] = list(ADAPTERS.values())
    for adapter in adapters:
        failure = adapter.classify(op, response(status, body))
        assert (failure.kind, failure.accepted) == (kind, accepted)
        assert failure.provider == adapter.name
        assert failure.message
        assert failure.code == f"http_{status}"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Fri, 20 Nov 2026 11:00:00 GMT"}, 0),
        (
            {
                "retry-after": "Fri, 20 Nov 2026 13:00:30 GMT",
                "date": "Fri, 20 Nov 2026 13:00:00 GMT",
            },
            30,
        ),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"x-should-retry": "false"}, 60),
        ({"x-should-retry": "false", "retry-after": "600"}, 600),
        ({"x-should-retry": "true", "retry-after": "2"}, 2),
    ],
)
def test_how_long_the_server_wants_us_to_wait(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    failure = OPENAI.classify("submit", response(429, {}, headers))
    assert failure.kind is FailureKind.RATE_LIMIT
    assert failure.retry_after == seconds


def test_a_server_may_call_an_error_passing() -> None:
    failure = OPENAI.classify("submit", response(400, {}, {"x-should-retry": "true"}))
    assert failure.kind is FailureKind.TRANSIENT


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (429, {"code": "insufficient_quota"}, FailureKind.QUOTA),
        (429, {"type": "insufficient_quota", "code": None}, FailureKind.QUOTA),
        (429, {"code": "project_spend_limit_exceeded"}, FailureKind.QUOTA),
        (429, {"code": "rate_limit_exceeded"}, FailureKind.RATE_LIMIT),
        (503, {"code": "slow_down"}, FailureKind.RATE_LIMIT),
        (400, {"code": "moderation_blocked"}, FailureKind.POLICY),
        (404, {"code": "model_not_found"}, FailureKind.INVALID),
        (403, {"code": "invalid_api_key"}, FailureKind.AUTH),
    ],
)
def test_openai_codes_go_before_the_status(
    status: int, error: dict[str, Any], kind: FailureKind
) -> None:
    body = {"error": {"message": "no", **error}}
    failure = OPENAI.classify("submit", response(status, body, {"x-should-retry": "true"}))
    assert failure.kind is kind
    assert failure.message == "no"
    assert failure.code == (error.get("code") or error.get("type"))


def test_a_5xx_may_have_been_accepted_whatever_its_code() -> None:
    failure = OPENAI.classify("submit", response(503, {"error": {"code": "slow_down"}}))
    assert failure.accepted == "unknown"


# --------------------------------------------------------------------------- openai


def completion(**changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "Once.", "refusal": None}}
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    return {"id": "chatcmpl-1", "choices": [choice], "usage": usage} | changes


def choice(content: str | None, finish: str = "stop", refusal: str | None = None) -> Any:
    return [{"finish_reason": finish, "message": {"content": content, "refusal": refusal}}]


def test_chat_request() -> None:
    request = OPENAI.submit(replace(TEXT, max_tokens=99), ACCOUNT)
    assert (request.method, request.url) == ("POST", "https://api.test/v1/chat/completions")
    assert request.headers == {"Authorization": "Bearer key-1", "X-Version": "3"}
    assert request.json == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Write a chapter."},
        ],
        "temperature": 0.5,
        "max_completion_tokens": 99,
    }


def test_embedding_request() -> None:
    task = EmbedTask("text-embedding-3-small", ("a", "b"), dimensions=256)
    request = OPENAI.submit(task, ACCOUNT)
    assert request.url == "https://api.test/v1/embeddings"
    assert request.json == {
        "model": "text-embedding-3-small",
        "input": ["a", "b"],
        "dimensions": 256,
    }


def test_completion_and_its_price() -> None:
    state = OPENAI.parse("submit", response(200, completion()))
    assert (state.phase, state.text, state.ref) == ("succeeded", "Once.", None)
    assert state.external_id == "chatcmpl-1"
    assert state.usage == Usage(1000, 500, 400)
    # 600 x 15 + 400 x 7.5 + 500 x 60, by the million
    assert OPENAI.cost("gpt-4o-mini", state, PRICES, TEXT) == Decimal("0.042")
    assert OPENAI.cost("gpt-4o-mini-2024-07-18", state, PRICES, None) == Decimal("0.042")
    own = replace(TEXT, model="house", price=TokenPrice(Decimal("0.001"), Decimal("0.002")))
    assert OPENAI.cost("house", state, PRICES, own) == Decimal(2)
    assert OPENAI.estimate(own, "house", PRICES) > 0


@pytest.mark.parametrize(
    ("choices", "kind", "code"),
    [
        (choice(None, refusal="I can't."), FailureKind.POLICY, "content_filter"),
        (choice("half", "content_filter"), FailureKind.POLICY, "content_filter"),
        (choice("", "length"), FailureKind.INVALID, "max_tokens"),
        (choice(None), FailureKind.UNKNOWN, "empty_answer"),
    ],
)
def test_a_200_that_is_a_failure_is_billed(choices: Any, kind: FailureKind, code: str) -> None:
    state = OPENAI.parse("submit", response(200, completion(choices=choices)))
    assert state.phase == "failed"
    assert state.failure is not None
    assert (state.failure.kind, state.failure.code) == (kind, code)
    assert state.failure.accepted == "yes"
    assert OPENAI.cost("gpt-4o-mini", state, PRICES, TEXT) == Decimal("0.042")


def test_vectors_in_order() -> None:
    data = [{"index": 1, "embedding": [3, 4.5]}, {"index": 0, "embedding": [1, 2]}]
    body = {"data": data, "usage": {"prompt_tokens": 10, "total_tokens": 10}}
    state = OPENAI.parse("submit", response(200, body))
    assert state.vectors == ((1.0, 2.0), (3.0, 4.5))
    cost = OPENAI.cost("text-embedding-3-small", state, PRICES, None)
    assert cost == Decimal("0.00002")


@pytest.mark.parametrize(
    "body",
    [
        *GARBLED,
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
        b'{"data": [1]}',
    ],
)
def test_openai_garbled(body: bytes) -> None:
    with pytest.raises(Garbled):
        OPENAI.parse("submit", response(200, body))


def test_a_missing_vector_is_garbled() -> None:
    body = {"data": [{"index": 1, "embedding": [1]}], "usage": {"prompt_tokens": 1}}
    with pytest.raises(Garbled):
        OPENAI.parse("submit", response(200, body))


@pytest.mark.parametrize(
    "task",
    [
        replace(TEXT, temperature=2.1),
        replace(TEXT, temperature=-0.1),
        replace(TEXT, max_tokens=0),
        replace(TEXT, prompt="  "),
        replace(TEXT, model=""),
        EmbedTask("text-embedding-3-small", ()),
        EmbedTask("text-embedding-3-small", ("a",) * 2049),
        EmbedTask("text-embedding-3-small", ("a", " ")),
        VIDEO,
    ],
)
def test_what_openai_cannot_do(task: Task) -> None:
    assert refused(OPENAI, task) == "invalid_task"


def test_what_openai_can_do() -> None:
    for task in (TEXT, replace(TEXT, temperature=0), replace(TEXT, temperature=2)):
        OPENAI.check(task, ACCOUNT, PRICES)
    OPENAI.check(EmbedTask("text-embedding-3-small", ("a",)), ACCOUNT, PRICES)


def test_openai_has_nothing_to_poll_or_ask() -> None:
    assert OPENAI.poll({}, ACCOUNT) is None
    assert OPENAI.cancel({}, ACCOUNT) is None
    assert OPENAI.find(ACCOUNT) is None


# --------------------------------------------------------------------------- replicate


def prediction(**changes: Any) -> dict[str, Any]:
    return {
        "id": "p1",
        "model": "kwaivgi/kling-v2.1",
        "version": "hidden",
        "status": "starting",
        "input": {
            "prompt": "A boat",
            "image": "https://x.test/a.png",
            "duration": 5,
            "aspect_ratio": "16:9",
            "seed": 7,
        },
        "output": None,
        "error": None,
        "logs": "",
        "created_at": "2026-11-20T12:00:00.123456Z",
        "metrics": {},
    } | changes


def parsed(**changes: Any) -> State:
    return REPLICATE.parse("poll", response(200, prediction(**changes)))


@pytest.mark.parametrize(
    ("model", "path", "version"),
    [
        ("owner/name", "/models/owner/name/predictions", None),
        ("owner/name:abc", "/predictions", "abc"),
        ("abc123", "/predictions", "abc123"),
    ],
)
def test_prediction_request(model: str, path: str, version: str | None) -> None:
    request = REPLICATE.submit(replace(VIDEO, model=model), ACCOUNT)
    assert (request.method, request.url) == ("POST", f"https://api.test/v1{path}")
    assert request.json.get("version") == version
    assert request.json["input"] == prediction()["input"]
    assert request.headers["Authorization"] == "Bearer key-1"


def test_several_images_and_options_that_win() -> None:
    images = ("https://x.test/a.png", "https://x.test/b.png")
    task = replace(VIDEO, images=images, options={"duration": 6.5})
    sent = REPLICATE.submit(task, ACCOUNT).json["input"]
    assert (sent["image"], sent["images"], sent["duration"]) == (images[0], list(images), 6.5)


def test_default_model_per_medium() -> None:
    assert REPLICATE.model(replace(VIDEO, model=None), ACCOUNT) == "minimax/video-01"
    nothing = replace(ACCOUNT, models={})
    with pytest.raises(ProviderError, match="none is configured for video"):
        REPLICATE.model(replace(VIDEO, model=None), nothing)


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("starting", "queued"),
        ("processing", "running"),
        ("succeeded", "succeeded"),
        ("failed", "failed"),
        ("canceled", "cancelled"),
        ("aborted", "cancelled"),
        ("rebooting", "unknown"),
    ],
)
def test_every_status(status: str, phase: str) -> None:
    state = parsed(status=status)
    assert state.phase == phase
    assert state.done is (phase in ("succeeded", "failed", "cancelled"))
    assert (state.external_id, state.ref) == ("p1", {"id": "p1"})
    assert (state.failure is not None) is (phase == "failed")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (None, ()),
        ("https://x.test/a.mp4", (RemoteOutput("https://x.test/a.mp4"),)),
        (["https://x.test/1", "https://x.test/2"], (1, 2)),
        ({"video": "https://x.test/v", "parts": [{"x": "https://x.test/p"}], "n": 3}, (1, 2)),
        ("data:image/png;base64,aGk=", (RemoteOutput(data=b"hi"),)),
        (["just ", "text"], ()),
        (12, ()),
    ],
)
def test_output_is_any_json(output: Any, expected: tuple[Any, ...]) -> None:
    outputs = parsed(status="succeeded", output=output).outputs
    assert len(outputs) == len(expected)
    if expected and isinstance(expected[0], RemoteOutput):
        assert outputs == expected


def test_progress_is_the_last_figure_of_the_logs() -> None:
    assert parsed(logs="Using seed: 3\n 10%|#\n 45%|####\n").progress == 45
    assert parsed(logs="120%").progress == 100
    assert parsed(logs="starting").progress is None
    assert parsed(logs=None).progress is None


def money(model: str, **changes: Any) -> Decimal:
    return REPLICATE.cost(model, parsed(**changes), PRICES, None)


def test_cost_by_run_time_item_and_length() -> None:
    ran = {"metrics": {"predict_time": 2.345}}
    one, two = "https://x.test/1", ["https://x.test/1", "https://x.test/2"]
    assert money("sandbox/video", status="succeeded", output=one, **ran) == Decimal("11.725")
    assert money("sandbox/video", status="canceled", **ran) == Decimal("11.725")
    assert money("sandbox/video", status="aborted") == 0
    assert money("sandbox/video", status="failed", **ran) == 0
    assert money("sandbox/image", status="succeeded", output=two, **ran) == Decimal("0.6")
    assert money("sandbox/image", status="canceled", **ran) == 0
    assert money("kwaivgi/kling-v2.1", status="succeeded", output=one) == 25
    assert money("kwaivgi/kling-v2.1:abc", status="succeeded", output=one, input={}) == 25


def test_success_without_a_run_time_is_not_free() -> None:
    assert money("sandbox/video", status="succeeded", output="https://x.test/1") == 25


def test_estimates() -> None:
    assert REPLICATE.estimate(VIDEO, "kwaivgi/kling-v2.1", PRICES) == 25
    longer = replace(VIDEO, duration_seconds=10)
    assert REPLICATE.estimate(longer, "kwaivgi/kling-v2.1", PRICES) == 50
    assert REPLICATE.estimate(VIDEO, "minimax/video-01", PRICES) == 50
    assert REPLICATE.estimate(VIDEO, "sandbox/video", PRICES) == 25


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("The input or output was flagged as sensitive. (E005)", FailureKind.POLICY),
        ("NSFW content detected", FailureKind.POLICY),
        ("Prediction interrupted; please retry (code: PA)", FailureKind.TRANSIENT),
        ("Prediction failed: CUDA out of memory", FailureKind.UNKNOWN),
        (None, FailureKind.UNKNOWN),
    ],
)
def test_failed_predictions(error: str | None, kind: FailureKind) -> None:
    failure = parsed(status="failed", error=error).failure
    assert failure is not None
    assert failure.kind is kind
    assert failure.message


@pytest.mark.parametrize(
    "body",
    [
        *GARBLED,
        b'{"id": "p1"}',
        b'{"id": "../x", "status": "starting"}',
        b'{"id": "", "status": "starting"}',
        b'{"id": "p1", "status": "succeeded", "output": "data:a;base64,%%"}',
        b'{"id": "p1", "status": "succeeded", "metrics": 3}',
    ],
)
def test_replicate_garbled(body: bytes) -> None:
    with pytest.raises(Garbled):
        REPLICATE.parse("submit", response(201, body))


def test_polls_and_cancels() -> None:
    poll, cancel = REPLICATE.poll({"id": "p1"}, ACCOUNT), REPLICATE.cancel({"id": "p1"}, ACCOUNT)
    assert poll is not None
    assert cancel is not None
    assert (poll.method, poll.url) == ("GET", "https://api.test/v1/predictions/p1")
    assert (cancel.method, cancel.url) == ("POST", "https://api.test/v1/predictions/p1/cancel")


@pytest.mark.parametrize(
    "task",
    [
        replace(VIDEO, prompt="", images=()),
        replace(VIDEO, duration_seconds=0),
        replace(VIDEO, duration_seconds=11),
        replace(VIDEO, aspect_ratio="wide"),
        replace(VIDEO, images=("/etc/passwd",)),
        TEXT,
    ],
)
def test_what_replicate_cannot_make(task: Task) -> None:
    assert refused(REPLICATE, task) == "invalid_task"


def test_unknown_prices_are_refused() -> None:
    assert refused(REPLICATE, replace(VIDEO, model="some/thing")) == "unknown_price"
    assert refused(OPENAI, replace(TEXT, model="gpt-99")) == "unknown_price"


# --------------------------------------------------------------------------- replicate's list


SINCE = NOW - timedelta(seconds=5)


def listed(*items: dict[str, Any], next_url: str | None = None) -> Page:
    body = response(200, {"results": list(items), "next": next_url})
    return REPLICATE.listed(SINCE, body, ACCOUNT)


def matched(page: Page, task: MediaTask = VIDEO) -> list[str]:
    """Ids of those that our request may have made."""
    sent = REPLICATE.submit(task, ACCOUNT).fingerprint(ACCOUNT)
    return [item.external_id for item in page.tasks if item.answers(sent, ACCOUNT)]


def test_identical_input_and_model_since_the_intent() -> None:
    old = "2026-11-20T11:59:54Z"
    page = listed(
        prediction(id="other", input=prediction()["input"] | {"seed": 8}),
        prediction(id="more", input=prediction()["input"] | {"extra": 1}),
        prediction(id="model", model="someone/else"),
        prediction(id="ours"),
        prediction(id="forgotten", input={}, data_removed=True),
        prediction(id="old", created_at=old),
    )
    assert matched(page) == ["ours"]
    tasks = {item.external_id: item for item in page.tasks}
    assert tasks["ours"].ref == {"id": "ours"}
    assert [name for name, item in tasks.items() if not item.requests] == ["forgotten"]
    assert [name for name, item in tasks.items() if not item.runs(VIDEO.model or "")] == ["model"]
    assert "old" not in tasks


def test_numbers_are_what_they_count() -> None:
    """Many a server writes 2 where it was told 2.0."""
    task = replace(VIDEO, options={"strength": 2.0, "more": [{"deep": 1.0}], "half": 0.5})
    given = REPLICATE.submit(task, ACCOUNT).json["input"] | {"strength": 2, "more": [{"deep": 1}]}
    assert matched(listed(prediction(input=given)), task) == [prediction()["id"]]
    assert matched(listed(prediction(input=given | {"half": 0.6})), task) == []


def test_what_cannot_be_read_hides_no_other() -> None:
    page = listed(prediction(id="odd", output="data:;base64,%"), prediction(id="ours"))
    assert [item.state.phase for item in page.tasks] == ["unknown", "queued"]
    assert matched(page) == ["odd", "ours"]


def test_by_version() -> None:
    task = replace(VIDEO, model="owner/name:abc")
    page = listed(prediction(id="a", version="abc"), prediction(id="b"))
    assert matched(page, task) == ["a"]
    assert [item.external_id for item in page.tasks if item.runs(task.model or "")] == ["a"]


def test_pages_until_the_intent_and_our_key_stays_at_home() -> None:
    url = "https://evil.test/v1/predictions?cursor=abc%3D"
    page = listed(prediction(), next_url=url)
    assert page.next is not None
    assert page.next.url == "https://api.test/v1/predictions?cursor=abc%3D"
    assert listed(prediction(), next_url=None).next is None
    older = prediction(created_at="2026-11-20T11:00:00Z")
    assert listed(prediction(), older, next_url=url).next is None


@pytest.mark.parametrize("body", [{}, {"results": [{}]}, {"results": 3}, [], {"results": [1]}])
def test_garbled_list(body: Any) -> None:
    with pytest.raises(Garbled):
        REPLICATE.listed(NOW, response(200, body), ACCOUNT)


# --------------------------------------------------------------------------- prices, registry


def test_operators_own_prices(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[replicate]\n"my/model" = { as_of = 2026-11-02, item = "1.5" }\n'
        '"sandbox/image" = { as_of = 2026-11-02, item = "0.4" }\n',
        encoding="utf-8",
    )
    prices = load_prices(own)
    assert prices.of("replicate", "my/model") == Price(date(2026, 11, 2), item=Decimal("1.5"))
    assert prices.of("replicate", "sandbox/image").item == Decimal("0.4")
    assert prices.of("replicate", "sandbox/audio").item == Decimal("0.2")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{ as_of = 2026-11-02, item = 1.5 }", "in quotes"),
        ('{ as_of = 2026-11-02, item = "-1" }', "non-negative"),
        ('{ as_of = 2026-11-02, item = "cheap" }', "non-negative"),
        ('{ as_of = 2026-11-02, itme = "1" }', "unknown unit 'itme'"),
        ('{ item = "1" }', "as_of"),
        ('"1"', "as_of"),
    ],
)
def test_bad_prices_name_their_place(tmp_path: Path, entry: str, message: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(f'[p]\n"m" = {entry}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        load_prices(own)
    assert "own.toml: p.'m'" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read: No such file"),
        (b"[p", "own.toml: "),
        (b"p = 3", "own.toml: p: must be a provider's table"),
        (b"\xff\xfe", "no text in UTF-8"),
    ],
)
def test_a_bad_price_list_says_so(tmp_path: Path, content: bytes | None, message: str) -> None:
    own = tmp_path / "own.toml"
    if content is not None:
        own.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_prices(own)
    assert str(own) in str(caught.value)


def test_default_models_have_prices() -> None:
    for model in Replicate.models.values():
        assert PRICES.of("replicate", model).as_of <= NOW.date()


def test_empty_table() -> None:
    with pytest.raises(ProviderError) as caught:
        PriceTable({}).of("openai", "gpt-4o")
    assert caught.value.failure.code == "unknown_price"


def test_build_providers() -> None:
    providers = build_providers(
        {
            "openai": ProviderSettings(api_key=SecretStr("s3cret")),
            "cheap": ProviderSettings(
                adapter="replicate",
                base_url="http://127.0.0.1:1/v1/",
                account="second",
                models={"video": "a/b"},
            ),
        }
    )
    assert providers["openai"].account.base_url == "https://api.openai.com/v1"
    assert "s3cret" not in repr(providers)
    cheap = providers["cheap"]
    assert (cheap.adapter.name, cheap.account.name) == ("replicate", "second")
    assert cheap.account.base_url == "http://127.0.0.1:1/v1"
    assert cheap.account.models == {**Replicate.models, "video": "a/b"}


def test_a_provider_cannot_happen_by_accident() -> None:
    with pytest.raises(ValueError, match=r"no adapter 'replicate-sandbox'.*openai, .*replicate"):
        build_providers({"replicate-sandbox": ProviderSettings()})
    with pytest.raises(ValidationError):
        ProviderSettings.model_validate({"api_kee": "x"})


# --------------------------------------------------------------------------- results


def test_results_survive_json() -> None:
    output = Output(
        "main", "k", "u", "video/mp4", "video", 3, "ab", "f.mp4", 16, 9, duration_seconds=1.5
    )
    result = CallResult(
        "p",
        "m",
        "x1",
        Decimal("0.00002"),
        Usage(1, 2, 1, Decimal("2.345"), 4),
        "text",
        ((0.25, 1.0),),
        (output,),
        {"a": [1]},
    )
    text = json.dumps(results.to_json(result))
    assert results.is_kept(json.loads(text))
    assert results.from_json(json.loads(text)) == result
    bare = CallResult("p", "m", None, Decimal(0))
    assert results.from_json(json.loads(json.dumps(results.to_json(bare)))) == bare
    assert not results.is_kept(results.to_json(bare, kept=False))


# --------------------------------------------------------------------------- what a person tells


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=list(ADAPTERS))
def test_what_a_person_calls_a_task_can_be_polled_or_is_refused(adapter: Adapter) -> None:
    """An id typed by hand goes into a path: nothing in it may lead elsewhere."""
    for hostile in ("", "../v1/x", "a/b", "a?b", "a#b", "ä b"):
        assert adapter.ref(hostile, "some-model") is None
    ref = adapter.ref("task-7", "some-model")
    if ref is not None:
        asked = adapter.poll(ref, ACCOUNT)
        assert asked is not None
        assert asked.method == "GET"
        assert asked.url.startswith(f"{ACCOUNT.base_url}/")
        assert "task-7" in asked.url
