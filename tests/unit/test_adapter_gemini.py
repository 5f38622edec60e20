"""Gemini's `generateContent` as values in, values out."""

from __future__ import annotations

import base64
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import EmbedTask, FailureKind, MediaTask, Task, TextTask, TokenPrice, Usage
from jobs.providers.adapter import Account, RemoteOutput, State
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.prices import Price, PriceTable
from jobs.providers.vendors.gemini import Gemini
from tests.unit.values import GARBLED, PRICES, refused, response

GEMINI = Gemini()
ACCOUNT = Account("main", "https://api.test/v1beta", "key-1", Gemini.models, {"X-Team": "a"})
TEXT = TextTask("gemini-2.5-flash", "Write a chapter.", system="Be brief.", temperature=0.5)
IMAGE = MediaTask("image", "A boat")
PAINTER = "gemini-3.1-flash-image"
PNG = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(b"png").decode()}}

COUNTS = {
    "promptTokenCount": 1000,
    "cachedContentTokenCount": 400,
    "candidatesTokenCount": 200,
    "thoughtsTokenCount": 300,
    "totalTokenCount": 1500,
}
DRAWN = {
    "promptTokenCount": 10,
    "candidatesTokenCount": 1150,
    "thoughtsTokenCount": 90,
    "candidatesTokensDetails": [
        {"modality": "IMAGE", "tokenCount": 1120},
        {"modality": "TEXT", "tokenCount": 30},
    ],
}


def candidate(*parts: Any, **changes: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": list(parts)}
    return {"content": content, "finishReason": "STOP", "index": 0} | changes


def parsed(**changes: Any) -> State:
    body = {
        "candidates": [candidate({"text": "Once."})],
        "usageMetadata": COUNTS,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r1",
    }
    return GEMINI.parse("submit", response(200, body | changes))


# --------------------------------------------------------------------------- requests


def test_text_request() -> None:
    request = GEMINI.submit(replace(TEXT, max_tokens=99), ACCOUNT)
    url = "https://api.test/v1beta/models/gemini-2.5-flash:generateContent"
    assert (request.method, request.url) == ("POST", url)
    assert request.headers == {"x-goog-api-key": "key-1", "X-Team": "a"}
    assert request.json == {
        "contents": [{"role": "user", "parts": [{"text": "Write a chapter."}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"temperature": 0.5, "maxOutputTokens": 99},
    }
    bare = GEMINI.submit(TextTask("models/gemini-2.5-flash", "x"), ACCOUNT)
    assert bare.url == url
    assert set(bare.json) == {"contents"}


def test_image_request() -> None:
    data = "data:image/png;base64,aGk="
    given = ("https://x.test/a.jpg?sig=1", "https://x.test/plain", data)
    task = replace(IMAGE, images=given, aspect_ratio="16:9", resolution="2K", options={"seed": 7})
    request = GEMINI.submit(task, ACCOUNT)
    assert request.url == f"https://api.test/v1beta/models/{PAINTER}:generateContent"
    assert request.json["contents"][0]["parts"] == [
        {"text": "A boat"},
        {"fileData": {"fileUri": "https://x.test/a.jpg?sig=1", "mimeType": "image/jpeg"}},
        {"fileData": {"fileUri": "https://x.test/plain"}},
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
    ]
    assert request.json["generationConfig"] == {
        "responseModalities": ["IMAGE"],
        "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"},
        "seed": 7,
    }
    plain = GEMINI.submit(IMAGE, ACCOUNT).json["generationConfig"]
    assert plain == {"responseModalities": ["IMAGE"]}


def test_default_model_for_images_only() -> None:
    assert GEMINI.model(IMAGE, ACCOUNT) == PAINTER
    assert GEMINI.model(replace(IMAGE, model="own"), ACCOUNT) == "own"
    with pytest.raises(ProviderError, match="none is configured"):
        GEMINI.model(IMAGE, replace(ACCOUNT, models={}))


@pytest.mark.parametrize(
    "task",
    [
        replace(TEXT, temperature=2.1),
        replace(TEXT, temperature=-0.1),
        replace(TEXT, max_tokens=0),
        replace(TEXT, prompt=" "),
        replace(TEXT, model=""),
        EmbedTask("gemini-2.5-flash", ("a",)),
        MediaTask("video", "A boat"),
        MediaTask("audio", "A boat"),
        replace(IMAGE, prompt=""),
        replace(IMAGE, aspect_ratio="7:5"),
        replace(IMAGE, resolution="1080p"),
        replace(IMAGE, duration_seconds=5),
        replace(IMAGE, images=("http://x.test/a.png",)),
        replace(IMAGE, images=("data:text/html;base64,aGk=",)),
        replace(IMAGE, images=("data:image/png;base64,%%",)),
        replace(IMAGE, images=("https://x.test/a.png",) * 15),
    ],
)
def test_what_cannot_be_made(task: Task) -> None:
    assert refused(GEMINI, task, ACCOUNT) == "invalid_task"


def test_what_can_be_made() -> None:
    shaped = replace(IMAGE, aspect_ratio="21:9", resolution="4K", images=("https://x.test/a",) * 14)
    for task in (TEXT, replace(TEXT, temperature=2), IMAGE, shaped):
        GEMINI.check(task, ACCOUNT, PRICES)


@pytest.mark.parametrize("name", ["../files", "a/b", "gemini:x", "..", "a?b", "models/"])
def test_a_model_that_would_change_the_path(name: str) -> None:
    own = TokenPrice(Decimal("0.1"), Decimal("0.1"))
    hostile = replace(TEXT, model=name, price=own)
    assert refused(GEMINI, hostile, ACCOUNT) == "invalid_task"
    with pytest.raises(ProviderError):
        GEMINI.submit(hostile, ACCOUNT)


def test_unknown_prices() -> None:
    assert refused(GEMINI, replace(TEXT, model="gemini-99"), ACCOUNT) == "unknown_price"
    assert refused(GEMINI, replace(IMAGE, model="gemini-99"), ACCOUNT) == "unknown_price"


def test_every_default_model_has_a_price() -> None:
    for model in Gemini.models.values():
        assert PRICES.of("gemini", model).input > 0


# --------------------------------------------------------------------------- answers


def test_text_and_its_price() -> None:
    state = parsed()
    assert (state.phase, state.text, state.external_id) == ("succeeded", "Once.", "r1")
    assert (state.ref, state.outputs, state.failure) == (None, (), None)
    # thoughts are output, too
    assert state.usage == Usage(1000, 500, 400)
    assert state.metadata["finish_reason"] == "STOP"
    assert state.metadata["model"] == "gemini-2.5-flash"
    # 600 x 30 + 400 x 3 + 500 x 250, by the million
    assert GEMINI.cost("gemini-2.5-flash", state, PRICES, TEXT) == Decimal("0.1442")
    own = replace(TEXT, model="house", price=TokenPrice(Decimal("0.001"), Decimal("0.002")))
    assert GEMINI.cost("house", state, PRICES, own) == Decimal(2)


def test_counts_of_zero_are_left_out() -> None:
    assert parsed(usageMetadata={"promptTokenCount": 5}).usage == Usage(5, 0, 0)
    counts = {"promptTokenCount": 5, "toolUsePromptTokenCount": 3}
    assert parsed(usageMetadata=counts).usage == Usage(8, 0, 0)


def test_thoughts_are_no_text() -> None:
    parts = [{"text": "Hm.", "thought": True}, {"text": "Once "}, {"text": "upon."}]
    assert parsed(candidates=[candidate(*parts)]).text == "Once upon."


def test_an_image_and_its_price() -> None:
    draft = {**PNG, "thought": True}
    state = parsed(candidates=[candidate(draft, {"text": "Here:"}, PNG)], usageMetadata=DRAWN)
    assert state.phase == "succeeded"
    assert state.outputs == (RemoteOutput(data=b"png"),)
    assert state.usage == Usage(10, 1240, items=1)
    assert state.metadata["image_tokens"] == 1120
    # 10 x 50 + 120 x 300 + 1120 x 6000, by the million
    assert GEMINI.cost(PAINTER, state, PRICES, IMAGE) == Decimal("6.7565")


def test_an_image_without_details_costs_the_dearer_way() -> None:
    counts = {"promptTokenCount": 10, "candidatesTokenCount": 1150, "thoughtsTokenCount": 90}
    state = parsed(candidates=[candidate(PNG)], usageMetadata=counts)
    assert GEMINI.cost(PAINTER, state, PRICES, None) == Decimal("6.9275")


def test_a_price_by_the_image() -> None:
    prices = PriceTable({("gemini", "m"): Price(item=Decimal(4))})
    state = parsed(candidates=[candidate(PNG), candidate(PNG)])
    assert GEMINI.cost("m", state, prices, None) == 8
    assert GEMINI.estimate(replace(IMAGE, model="m"), "m", prices) == 4


def test_image_tokens_without_a_price_of_their_own_cost_what_others_do() -> None:
    prices = PriceTable({("gemini", "m"): Price(output=Decimal(100))})
    state = parsed(candidates=[candidate(PNG)], usageMetadata=DRAWN)
    assert GEMINI.cost("m", state, prices, None) == Decimal("0.124")


def test_estimates() -> None:
    text = replace(TEXT, system=None, prompt="four", max_tokens=1000)
    estimate = GEMINI.estimate(text, "gemini-2.5-flash", PRICES)
    assert estimate == Decimal(30 + 250 * 1000) / 1_000_000
    small = GEMINI.estimate(IMAGE, PAINTER, PRICES)
    large = GEMINI.estimate(replace(IMAGE, resolution="4K"), PAINTER, PRICES)
    more = GEMINI.estimate(replace(IMAGE, images=("https://x.test/a",)), PAINTER, PRICES)
    assert Decimal("6.7") < small < more < large


@pytest.mark.parametrize(
    ("finish", "kind"),
    [
        ("SAFETY", FailureKind.POLICY),
        ("RECITATION", FailureKind.POLICY),
        ("BLOCKLIST", FailureKind.POLICY),
        ("PROHIBITED_CONTENT", FailureKind.POLICY),
        ("SPII", FailureKind.POLICY),
        ("IMAGE_SAFETY", FailureKind.POLICY),
        ("IMAGE_PROHIBITED_CONTENT", FailureKind.POLICY),
        ("IMAGE_RECITATION", FailureKind.POLICY),
        ("MODEL_ARMOR", FailureKind.POLICY),
        ("ESCALATION", FailureKind.POLICY),
        ("LANGUAGE", FailureKind.INVALID),
        ("PUP_LIMITED_DISABLED", FailureKind.AUTH),
        ("NO_IMAGE", FailureKind.UNKNOWN),
        ("IMAGE_OTHER", FailureKind.UNKNOWN),
        ("MALFORMED_RESPONSE", FailureKind.UNKNOWN),
    ],
)
@pytest.mark.parametrize("parts", [(), ({"text": "half"},)])
def test_bad_ends_are_billed(finish: str, kind: FailureKind, parts: Any) -> None:
    state = parsed(candidates=[candidate(*parts, finishReason=finish)])
    assert state.failure is not None
    assert (state.phase, state.failure.kind, state.failure.code) == ("failed", kind, finish)
    assert (state.failure.accepted, state.failure.provider) == ("yes", "gemini")
    assert GEMINI.cost("gemini-2.5-flash", state, PRICES, TEXT) == Decimal("0.1442")


def test_the_vendors_own_words_for_a_bad_end() -> None:
    ended = {"finishReason": "SAFETY", "finishMessage": "Too wild."}
    failure = parsed(candidates=[{"index": 0, **ended}]).failure
    assert failure is not None
    assert failure.message == "Too wild."


@pytest.mark.parametrize("counts", [{}, {"usageMetadata": None}])
def test_a_blocked_prompt_without_counts_costs_nothing(counts: Any) -> None:
    body = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **counts}
    state = GEMINI.parse("submit", response(200, body))
    assert state.failure is not None
    assert (state.phase, state.failure.kind) == ("failed", FailureKind.POLICY)
    assert state.failure.code == state.metadata["finish_reason"] == "PROHIBITED_CONTENT"
    assert state.external_id is None
    assert GEMINI.cost("gemini-2.5-flash", state, PRICES, TEXT) == 0


def test_a_blocked_prompt_with_counts_costs_what_they_say() -> None:
    blocked = {"candidates": [], "promptFeedback": {"blockReason": "OTHER"}}
    state = parsed(**blocked, usageMetadata={"promptTokenCount": 1000})
    assert state.failure is not None
    assert GEMINI.cost("gemini-2.5-flash", state, PRICES, TEXT) == Decimal("0.03")


def test_feedback_that_blocks_nothing() -> None:
    assert parsed(promptFeedback={"safetyRatings": []}).phase == "succeeded"


@pytest.mark.parametrize(
    ("candidates", "kind", "code"),
    [
        ([candidate(finishReason="MAX_TOKENS")], FailureKind.INVALID, "max_tokens"),
        ([candidate(finishReason="CONTINUATION")], FailureKind.INVALID, "max_tokens"),
        ([candidate()], FailureKind.UNKNOWN, "empty_answer"),
        ([{"finishReason": "OTHER"}], FailureKind.UNKNOWN, "empty_answer"),
        ([{"content": {"role": "model"}}], FailureKind.UNKNOWN, "empty_answer"),
        ([], FailureKind.UNKNOWN, "empty_answer"),
        (None, FailureKind.UNKNOWN, "empty_answer"),
    ],
)
def test_nothing_in_the_answer(candidates: Any, kind: FailureKind, code: str) -> None:
    failure = parsed(candidates=candidates).failure
    assert failure is not None
    assert (failure.kind, failure.code, failure.accepted) == (kind, code, "yes")


@pytest.mark.parametrize("finish", ["STOP", "MAX_TOKENS", "CONTINUATION", "OTHER", "NEW", None])
def test_text_is_an_answer_however_it_ended(finish: str | None) -> None:
    state = parsed(candidates=[candidate({"text": "Once."}, finishReason=finish)])
    assert (state.phase, state.text) == ("succeeded", "Once.")


@pytest.mark.parametrize(
    "changes",
    [
        {"candidates": [3]},
        {"candidates": 3},
        {"candidates": [candidate({"text": 3})]},
        {"candidates": [candidate("text")]},
        {"candidates": [candidate({"inlineData": {}})]},
        {"candidates": [candidate({"inlineData": {"data": "%%"}})]},
        {"candidates": [candidate({"inlineData": {"data": None}})]},
        {"candidates": [candidate(PNG)], "usageMetadata": {"candidatesTokensDetails": [{}]}},
        {"usageMetadata": None},
        {"usageMetadata": {"promptTokenCount": "many"}},
        {"promptFeedback": "no", "candidates": []},
    ],
)
def test_garbled_content(changes: Any) -> None:
    with pytest.raises(Garbled):
        parsed(**changes)


@pytest.mark.parametrize("body", [*GARBLED, b'{"candidates": []}', b'{"promptFeedback": {}}'])
def test_garbled(body: bytes) -> None:
    with pytest.raises(Garbled):
        GEMINI.parse("submit", response(200, body))


# --------------------------------------------------------------------------- errors


def detail(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def violated(*quotas: str) -> dict[str, Any]:
    return detail("QuotaFailure", violations=[{"quotaId": quota} for quota in quotas])


MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
INVALID_KEY = detail("ErrorInfo", reason="API_KEY_INVALID", domain="googleapis.com")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"status": "INVALID_ARGUMENT"}, FailureKind.INVALID),
        (400, {"status": "INVALID_ARGUMENT", "details": [INVALID_KEY]}, FailureKind.AUTH),
        (400, {"status": "FAILED_PRECONDITION"}, FailureKind.QUOTA),
        (401, {"status": "UNAUTHENTICATED"}, FailureKind.AUTH),
        (403, {"status": "PERMISSION_DENIED"}, FailureKind.AUTH),
        (
            403,
            {
                "status": "PERMISSION_DENIED",
                "details": [detail("ErrorInfo", reason="BILLING_DISABLED")],
            },
            FailureKind.QUOTA,
        ),
        (404, {"status": "NOT_FOUND"}, FailureKind.INVALID),
        (429, {"status": "RESOURCE_EXHAUSTED"}, FailureKind.RATE_LIMIT),
        (
            429,
            {"status": "RESOURCE_EXHAUSTED", "details": [violated(MINUTE)]},
            FailureKind.RATE_LIMIT,
        ),
        (
            429,
            {"status": "RESOURCE_EXHAUSTED", "details": [violated(MINUTE, DAY)]},
            FailureKind.QUOTA,
        ),
        (
            429,
            {"status": "RESOURCE_EXHAUSTED", "message": "Your prepayment credits are depleted."},
            FailureKind.QUOTA,
        ),
        (500, {"status": "INTERNAL"}, FailureKind.TRANSIENT),
        (503, {"status": "UNAVAILABLE"}, FailureKind.TRANSIENT),
        (504, {"status": "DEADLINE_EXCEEDED"}, FailureKind.TRANSIENT),
        (418, {"status": "UNAVAILABLE", "details": "what"}, FailureKind.TRANSIENT),
        (418, {"status": "NEW", "details": [3, {"@type": 3}]}, FailureKind.UNKNOWN),
        (
            429,
            {"status": "NEW", "details": [detail("QuotaFailure", violations=3)]},
            FailureKind.RATE_LIMIT,
        ),
    ],
)
@pytest.mark.parametrize("in_a_list", [False, True])
def test_errors(status: int, error: dict[str, Any], kind: FailureKind, in_a_list: bool) -> None:
    body = {"error": {"code": status, "message": "no", **error}}
    failure = GEMINI.classify("submit", response(status, [body] if in_a_list else body))
    assert (failure.kind, failure.code) == (kind, error["status"])
    assert failure.message == error.get("message", "no")
    assert failure.accepted == ("unknown" if status >= 500 else "no")
    assert failure.retry_after is None


@pytest.mark.parametrize(
    ("delay", "headers", "seconds"),
    [
        ("34s", {}, 34),
        ("1.5s", {}, 1.5),
        ("34s", {"retry-after": "7"}, 7),
        ("soon", {}, None),
        (None, {}, None),
    ],
)
def test_the_wait_is_in_the_body(
    delay: str | None, headers: dict[str, str], seconds: float | None
) -> None:
    info = detail("RetryInfo", retryDelay=delay)
    error = {"status": "RESOURCE_EXHAUSTED", "details": [violated(MINUTE), info]}
    failure = GEMINI.classify("submit", response(429, {"error": error}, headers))
    assert (failure.kind, failure.retry_after) == (FailureKind.RATE_LIMIT, seconds)


def test_nothing_to_poll_or_ask() -> None:
    assert GEMINI.poll({}, ACCOUNT) is None
    assert GEMINI.cancel({}, ACCOUNT) is None
    assert GEMINI.find(ACCOUNT) is None
