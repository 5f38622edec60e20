"""Handlers: what they ask of a provider, and what they make of its answer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from aiohttp import web

from jobs.contract import (
    MAX_PAGE,
    CallResult,
    EmbedTask,
    Failed,
    Failure,
    FailureKind,
    Fetched,
    Job,
    MediaTask,
    Outcome,
    Output,
    RetryLater,
    Succeeded,
    Task,
    TextTask,
    TokenPrice,
    Usage,
    Yield,
)
from jobs.embed import BATCH, CHUNK, average, split
from jobs.network import HostPolicy, post
from jobs.outputs import OutputStore, key_for
from jobs.payload import Payload
from jobs.providers.errors import ProviderError
from jobs.registry import load
from jobs.statistics import measure

T = TypeVar("T")
CONTENT_ID = "7d1f2a60-0c4e-4f0e-9b2a-3b8f6f1d2c11"


@dataclass
class Recorder:
    """The worker's side of a handler: answers calls, and keeps what was asked.

    Like the real one it pays for a step once and reads it back after that.
    """

    answer: Callable[[str, Task], CallResult]
    client: httpx.AsyncClient | None = None
    outputs: OutputStore | None = None
    calls: list[tuple[str, str, Task]] = field(default_factory=list)
    steps: dict[str, CallResult] = field(default_factory=dict)
    percents: list[float] = field(default_factory=list)
    most_images: int = 100

    async def call(self, step: str, provider: str, task: Task) -> CallResult:
        if step not in self.steps:
            self.calls.append((step, provider, task))
            self.steps[step] = self.answer(step, task)
        return self.steps[step]

    def check(self, provider: str, task: Task) -> None:
        """Everything can be made here, of so many images."""
        if isinstance(task, MediaTask) and len(task.images) > self.most_images:
            message = f"at most {self.most_images} images"
            raise ProviderError(Failure(FailureKind.INVALID, message, provider=provider))

    def progress(self, percent: float) -> None:
        self.percents.append(percent)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        assert self.client is not None
        return await post(self.client, HostPolicy(["127.0.0.1"]), url, body, headers)

    async def fetch(
        self, url: str, headers: Mapping[str, str] | None = None, *, max_bytes: int = MAX_PAGE
    ) -> Fetched:
        raise AssertionError(f"nothing is fetched here: {url} {headers} {max_bytes}")

    async def turn(self, name: str, gap_seconds: float) -> None:
        raise AssertionError(f"nobody takes turns here: {name} {gap_seconds}")

    async def mail(self, message: EmailMessage) -> None:
        raise AssertionError(f"nothing is mailed here: {message}")

    async def offload(self, work: Callable[..., T], *args: Any) -> T:
        return work(*args)

    async def compute(
        self,
        work: Callable[..., T],
        *args: Any,
        timeout: float = 600,  # noqa: ARG002, ASYNC109
    ) -> T:
        return work(*args)

    def file(self, reference: str) -> AbstractAsyncContextManager[Path]:
        assert self.outputs is not None
        return self.outputs.borrow(reference)

    def link(self, reference: str) -> str | None:
        assert self.outputs is not None
        return self.outputs.link(reference)

    async def keep(self, path: Path, name: str) -> Output:
        assert self.outputs is not None
        return await self.outputs.keep_file(path, key_for("jobs", "42", name))


def never(step: str, task: Task) -> CallResult:
    raise AssertionError(f"nothing may be paid here: {step} {task}")


def job(kind: str, given: Mapping[str, Any], lane: str = "replicate", tries: int = 0) -> Job:
    return Job("jobs", "42", kind, lane, 1, tries, 3, "user", given)


async def run(ctx: Recorder, work: Job) -> Outcome:
    found = load().get(work.kind)
    assert found is not None
    return await found.handler(work, ctx)


async def succeed(ctx: Recorder, work: Job) -> Succeeded:
    outcome = await run(ctx, work)
    assert isinstance(outcome, Succeeded), outcome
    return outcome


async def fail(work: Job, answer: Callable[[str, Task], CallResult] = never) -> str:
    outcome = await run(Recorder(answer), work)
    assert isinstance(outcome, Failed), outcome
    return outcome.failure.message


# --------------------------------------------------------------------------- input


class Inner(Payload):
    content_id: int


class Outer(Payload):
    max_tokens: int
    inner: Inner


@pytest.mark.parametrize(
    "given",
    [
        {"max_tokens": 5, "inner": {"content_id": 7}},
        {"maxTokens": 5, "inner": {"contentId": 7}, "unknown": 1},
        {"MaxTokens": 5, "Inner": {"ContentId": 7}},
        {"MaxTokens": 9, "max_tokens": 5, "inner": {"content_id": 7, "contentId": 8}},
    ],
)
def test_every_spelling_of_a_field_is_understood(given: dict[str, Any]) -> None:
    read = Outer.model_validate(given)
    assert (read.max_tokens, read.inner.content_id) == (5, 7)


@pytest.mark.parametrize(
    ("kind", "given", "field_name"),
    [
        ("media:video", {}, "prompt"),
        ("media:video", {"prompt": "  ", "photos": []}, "prompt"),
        ("media:video", {"prompt": 7}, "prompt"),
        ("media:video", {"prompt": "x", "photos": "a.jpg"}, "photos"),
        ("media:video", {"prompt": "x", "duration_seconds": -1}, "duration_seconds"),
        (
            "media:video",
            {"prompt": "x", "generation_settings": {"model": 5}},
            "generation_settings.model",
        ),
        ("text", {"model": "m"}, "prompt"),
        ("text", {"model": "m", "prompt": " \n"}, "prompt"),
        ("text", {"prompt": "p"}, "model"),
        ("text", {"prompt": "p", "model": "m", "cost_per_input_token": "much"}, "cost_per_input"),
        ("background:embed_content", {"content_text": "x"}, "payload"),
        ("background:embed_content", {"payload": "x"}, "payload"),
        (
            "background:embed_content",
            {"payload": {"content_type": "chapter", "content_id": "7"}},
            "payload.content_id",
        ),
        (
            "background:content_statistics",
            {"payload": {"content_type": "page", "content_id": CONTENT_ID}},
            "payload.content_type",
        ),
        (
            "background:content_statistics",
            {"payload": {"content_type": "chapter", "content_id": CONTENT_ID}},
            "payload.content_id",
        ),
        ("background:deliver_webhook", {"payload": {}}, "payload.url"),
        ("background:deliver_webhook", {"payload": {"url": "http://8.8.8.8"}}, "payload.body"),
    ],
)
async def test_input_that_cannot_work_fails_at_once_naming_its_field(
    kind: str, given: dict[str, Any], field_name: str
) -> None:
    outcome = await run(Recorder(never), job(kind, given))
    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.INVALID
    assert outcome.failure.message.startswith(field_name)


async def test_secrets_never_show_in_an_error() -> None:
    payload = {"url": "https://example.com", "body": {}, "secret": "whsec_top?secret!"}
    message = await fail(job("background:deliver_webhook", {"payload": payload}))
    assert message.startswith("payload.secret: ")
    assert "top" not in message


# --------------------------------------------------------------------------- media

MAIN = Output(
    "main", "j/1/0.mp4", "https://cdn/0.mp4", "video/mp4", "video", 10, "ab", "0.mp4", 320, 180, 4.6
)
SMALL = Output(
    "thumbnail", "j/1/0-t.jpg", "https://cdn/t.jpg", "image/jpeg", "image", 3, "cd", "t.jpg", 32, 18
)
SOUND = Output(
    "main",
    "j/2/0.wav",
    "https://cdn/0.wav",
    "audio/wav",
    "audio",
    9,
    "ef",
    "0.wav",
    None,
    None,
    5.0,
)


def film(step: str, _task: Task) -> CallResult:
    outputs = (SOUND,) if step == "soundtrack" else (MAIN, SMALL)
    cost = Decimal("0.2") if step == "soundtrack" else Decimal(25)
    return CallResult("replicate", "sandbox/video", f"p-{step}", cost, outputs=outputs)


async def asked(kind: str, given: dict[str, Any]) -> MediaTask:
    ctx = Recorder(film)
    await succeed(ctx, job(kind, given))
    ((step, provider, task),) = ctx.calls
    assert (step, provider) == ("main", "replicate")
    assert isinstance(task, MediaTask)
    return task


PROJECT: dict[str, Any] = {
    "job_type": "video",
    "service": "replicate",
    "prompt": "A walk by the sea",
    "style": "classic",
    "title": "Holiday",
    "duration_minutes": 3,
    "duration_seconds": None,
    "aspect_ratio": "16:9",
    "resolution": "1080p",
    "photos": ["https://cdn/a.jpg", "https://cdn/b.jpg"],
    "generation_settings": {"model": "sandbox/video", "options": {"seed": 7}},
    "formats": ["mp4"],
}


async def test_a_video_is_asked_for_with_all_the_project_says() -> None:
    assert await asked("media:video", PROJECT) == MediaTask(
        medium="video",
        prompt="A walk by the sea\n\nStyle: classic",
        model="sandbox/video",
        images=("https://cdn/a.jpg", "https://cdn/b.jpg"),
        duration_seconds=None,
        aspect_ratio="16:9",
        resolution="1080p",
        options={"seed": 7},
    )


@pytest.mark.parametrize("kind", ["media:thumbnail", "media:audio"])
async def test_a_films_resolution_says_nothing_of_pictures_and_sound(kind: str) -> None:
    assert (await asked(kind, PROJECT)).resolution is None


@pytest.mark.parametrize(
    ("kind", "seconds", "setting", "expected"),
    [
        ("media:video", None, None, None),
        ("media:video", 8, None, 8),
        ("media:video", None, 6, 6),
        ("media:video", 8, 6, 8),
        ("media:preview", None, None, 5),
        ("media:preview", None, 3, 3),
        ("media:audio", 12, None, 12),
        ("media:thumbnail", 8, 6, None),
    ],
)
async def test_durations(
    kind: str, seconds: int | None, setting: int | None, expected: int | None
) -> None:
    settings = {"duration_seconds": setting}
    given = {**PROJECT, "duration_seconds": seconds, "generation_settings": settings}
    assert (await asked(kind, given)).duration_seconds == expected


@pytest.mark.parametrize(
    ("kind", "medium"),
    [
        ("media:video", "video"),
        ("media:preview", "video"),
        ("media:thumbnail", "image"),
        ("media:audio", "audio"),
    ],
)
async def test_mediums(kind: str, medium: str) -> None:
    task = await asked(kind, PROJECT)
    assert task.medium == medium
    assert bool(task.images) == (medium != "audio")


@pytest.mark.parametrize("settings", [None, [], "fast", 7, {}, {"soundtrack": "piano"}])
async def test_free_form_settings_set_nothing(settings: Any) -> None:
    task = await asked("media:video", {**PROJECT, "generation_settings": settings})
    assert (task.model, task.options) == (None, {})


@pytest.mark.parametrize(
    ("kind", "most", "images"),
    [
        ("media:video", 100, 2),
        ("media:video", 1, 1),
        ("media:thumbnail", 0, 0),
        ("media:video", 0, 2),  # the call says that it can't be made of photos
    ],
)
async def test_a_provider_gets_as_many_of_the_first_photos_as_it_takes(
    kind: str, most: int, images: int
) -> None:
    ctx = Recorder(film, most_images=most)
    photos = ("https://cdn/a.jpg", "https://cdn/b.jpg")
    await run(ctx, job(kind, {"prompt": "Waves", "photos": list(photos)}))
    ((_, _, task),) = ctx.calls
    assert isinstance(task, MediaTask)
    assert task.images == photos[:images]


async def test_photos_alone_are_enough() -> None:
    task = await asked("media:video", {**PROJECT, "prompt": None})
    assert task.prompt == "Holiday\n\nStyle: classic"


async def test_a_video_brings_its_outputs_cost_and_facts() -> None:
    done = await succeed(Recorder(film), job("media:video", PROJECT))
    assert done.outputs == (MAIN, SMALL)
    assert (done.cost_cents, done.external_id) == (Decimal(25), "p-main")
    assert (done.provider, done.model) == ("replicate", "sandbox/video")
    assert done.metadata["format"] == "mp4"
    assert done.metadata["duration"] == 4.6
    assert done.metadata["thumbnail"] == "https://cdn/t.jpg"
    json.dumps(done.metadata)  # it becomes a jsonb column


async def test_a_soundtrack_is_a_second_paid_step_that_a_retry_reads_back() -> None:
    settings = {"soundtrack": True, "soundtrack_model": "sandbox/audio"}
    work = job("media:video", {**PROJECT, "generation_settings": settings})
    ctx = Recorder(film)
    done = await succeed(ctx, work)
    assert await succeed(ctx, work) == done
    assert [(step, provider) for step, provider, _ in ctx.calls] == [
        ("main", "replicate"),
        ("soundtrack", "replicate"),
    ]
    track = ctx.calls[1][2]
    assert isinstance(track, MediaTask)
    assert (track.medium, track.model, track.duration_seconds) == ("audio", "sandbox/audio", 5)
    assert done.cost_cents == Decimal("25.2")
    assert done.outputs == (MAIN, SMALL)
    assert done.metadata["soundtrack"]["url"] == "https://cdn/0.wav"
    assert done.metadata["soundtrack"]["external_id"] == "p-soundtrack"


async def test_success_without_a_file_is_a_failure() -> None:
    def empty(_step: str, _task: Task) -> CallResult:
        return CallResult("replicate", "m", "p", Decimal(25))

    assert "no file" in await fail(job("media:video", PROJECT), empty)


# --------------------------------------------------------------------------- text

REQUEST: dict[str, Any] = {
    "prompt": "Write a page.",
    "system_prompt": "You are terse.",
    "temperature": "0.70",
    "max_tokens": 200,
    "model": "gpt-4o-mini",
    "version": "2024-07-18",
    "provider": "openai",
    "cost_per_input_token": "0.00000015",
    "cost_per_output_token": 6e-07,
    "capabilities": {"chat": True},
    "context_window": 128000,
    "model_max_tokens": 16384,
    "chapter_id": CONTENT_ID,
    "user_status": "active",
}


def prose(_step: str, _task: Task) -> CallResult:
    usage = Usage(input_tokens=12, output_tokens=30)
    cost = Decimal("0.00198")
    return CallResult("openai", "gpt-4o-mini", "c-1", cost, usage=usage, text="A page.")


async def test_a_text_is_asked_for_at_the_rows_own_price_in_cents() -> None:
    ctx = Recorder(prose)
    done = await succeed(ctx, job("text", REQUEST, "openai"))
    price = TokenPrice(Decimal("0.000015"), Decimal("0.00006"))
    task = TextTask("gpt-4o-mini", "Write a page.", "You are terse.", 0.7, 200, price)
    assert ctx.calls == [("main", "openai", task)]
    assert (done.text, done.tokens, done.cost_cents) == ("A page.", 42, Decimal("0.00198"))
    assert (done.provider, done.model, done.external_id) == ("openai", "gpt-4o-mini", "c-1")
    assert done.data["chapter_id"] == CONTENT_ID
    assert done.data["replace_content"] is False


async def test_half_a_price_and_missing_limits_are_left_to_the_provider() -> None:
    nothing = dict.fromkeys(("cost_per_output_token", "context_window", "model_max_tokens"))
    ctx = Recorder(prose)
    await succeed(ctx, job("text", {**REQUEST, **nothing, "max_tokens": None}, "openai"))
    task = ctx.calls[0][2]
    assert isinstance(task, TextTask)
    assert (task.price, task.max_tokens) == (None, None)


@pytest.mark.parametrize(
    ("changed", "field_name"),
    [
        ({"user_status": "suspended"}, "user_status"),
        ({"max_tokens": 20000}, "max_tokens"),
        ({"context_window": 300, "prompt": "many words " * 100}, "prompt"),
        ({"context_window": 150}, "prompt"),
        ({"model_status": "inactive"}, "model_status"),
        ({"model_status": "retired"}, "model_status"),
        ({"capabilities": {"chat": False}}, "capabilities"),
        ({"capabilities": {"text": False, "embeddings": True}}, "capabilities"),
        ({"capabilities": {"embeddings": True, "dimensions": 1536}}, "capabilities"),
        ({"capabilities": ["Embedding"]}, "capabilities"),
        ({"capabilities": {"chat": True, "systemPrompt": False}}, "system_prompt"),
        ({"capabilities": {"temperature": False}, "temperature": 0.9}, "temperature"),
    ],
)
async def test_what_cannot_work_is_refused_before_it_is_paid(
    changed: dict[str, Any], field_name: str
) -> None:
    message = await fail(job("text", {**REQUEST, **changed}, "openai"))
    assert message.startswith(f"{field_name}: ")


@pytest.mark.parametrize(
    ("changed", "numbers"),
    [
        ({"max_tokens": 20000}, ("20000", "16384")),
        ({"context_window": 300, "prompt": "many words " * 100}, ("222", "200", "300")),
    ],
)
async def test_a_refusal_tells_what_was_asked_and_what_there_is(
    changed: dict[str, Any], numbers: Sequence[str]
) -> None:
    message = await fail(job("text", {**REQUEST, **changed}, "openai"))
    assert all(number in message for number in numbers), message


@pytest.mark.parametrize(
    "stated",
    [
        None,
        {},
        [],
        "text",
        7,
        {"json_mode": False, "vision": False, "streaming": False},
        {"text": False, "chat": True},
        {"embeddings": True, "text-generation": True},
        {"embeddings": True, "streaming": True},
        {"text": "false", "system_prompt": 0, "temperature": None},
        ["chat", 5, None],
        {"system": False, "system_message": True},
    ],
)
async def test_only_a_clear_no_is_a_no(stated: Any) -> None:
    await succeed(Recorder(prose), job("text", {**REQUEST, "capabilities": stated}, "openai"))


async def test_a_temperature_nobody_chose_is_left_out_where_the_model_takes_none() -> None:
    for given in ("0.70", 0.7, None):
        ctx = Recorder(prose)
        changed = {"temperature": given, "capabilities": {"temperature": False}}
        await succeed(ctx, job("text", {**REQUEST, **changed}, "openai"))
        task = ctx.calls[0][2]
        assert isinstance(task, TextTask)
        assert task.temperature is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"provider_status": "maintenance"}, "ai_providers says maintenance of openai"),
        ({"provider_status": "inactive"}, "ai_providers says inactive of openai"),
        ({"model_status": "maintenance"}, "ai_models says maintenance of gpt-4o-mini"),
        (
            {"provider_status": "inactive", "model_status": "inactive", "prompt": ""},
            "ai_providers says inactive of openai",
        ),
    ],
)
async def test_what_may_not_be_used_now_waits_without_a_try_and_is_not_paid(
    changed: dict[str, Any], reason: str
) -> None:
    outcome = await run(Recorder(never), job("text", {**REQUEST, **changed}, "openai"))
    assert outcome == Yield(reason, 60.0, counts=False)


async def test_an_empty_answer_is_a_failure() -> None:
    def silent(_step: str, _task: Task) -> CallResult:
        return CallResult("openai", "gpt-4o-mini", "c-1", Decimal(1), text="")

    assert "no text" in await fail(job("text", REQUEST, "openai"), silent)


# --------------------------------------------------------------------------- embeddings


def vectors(_step: str, task: Task) -> CallResult:
    """A vector per text that depends on the text alone."""
    assert isinstance(task, EmbedTask)
    found = []
    for text in task.texts:
        raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:8]]
        norm = math.hypot(*raw)
        found.append([value / norm for value in raw])
    usage = Usage(input_tokens=len(task.texts) * 10, items=len(task.texts))
    cost = Decimal("0.001") * len(task.texts)
    return CallResult("openai", task.model, None, cost, usage=usage, vectors=found)


def content(text: str, **payload: Any) -> dict[str, Any]:
    return {
        "payload": {"content_type": "chapter", "content_id": CONTENT_ID, **payload},
        "content_text": text,
    }


async def test_a_short_text_is_one_call_and_its_own_vector() -> None:
    ctx = Recorder(vectors)
    done = await succeed(ctx, job("background:embed_content", content("Hello there.")))
    ((step, provider, task),) = ctx.calls
    assert (provider, task) == ("openai", EmbedTask("text-embedding-3-small", ("Hello there.",)))
    assert done.data["embedding"] == pytest.approx(list(ctx.steps[step].vectors[0]))
    assert done.data["content_id"] == CONTENT_ID
    assert (done.data["content_type"], done.data["model"]) == ("chapter", "text-embedding-3-small")
    assert (done.tokens, done.cost_cents) == (10, Decimal("0.001"))


def long_text() -> str:
    return "\n\n".join(f"Paragraph {number}. " + "word " * 1100 for number in range(BATCH + 8))


async def test_a_long_text_is_averaged_over_all_of_its_chunks() -> None:
    ctx = Recorder(vectors)
    done = await succeed(ctx, job("background:embed_content", content(long_text())))
    tasks = [task for _, _, task in ctx.calls if isinstance(task, EmbedTask)]
    assert [len(task.texts) for task in tasks] == [BATCH, 8]
    texts = [text for task in tasks for text in task.texts]
    every = [vector for result in ctx.steps.values() for vector in result.vectors]
    weighted = [
        sum(vector[i] * len(text) for vector, text in zip(every, texts, strict=True))
        for i in range(8)
    ]
    norm = math.sqrt(sum(value * value for value in weighted))
    assert done.data["embedding"] == pytest.approx([value / norm for value in weighted])
    assert math.hypot(*done.data["embedding"]) == pytest.approx(1.0)
    assert (done.tokens, done.cost_cents) == (400, Decimal("0.040"))
    assert ctx.percents == [50.0, 100.0]


async def test_a_retry_reads_its_vectors_back_and_an_edited_text_is_new_work() -> None:
    ctx = Recorder(vectors)
    done = await succeed(ctx, job("background:embed_content", content("One text.")))
    again = await succeed(ctx, job("background:embed_content", content("One text."), tries=1))
    assert again == done
    assert len(ctx.calls) == 1
    edited = await succeed(ctx, job("background:embed_content", content("Another."), tries=1))
    assert len(ctx.calls) == 2
    assert edited.data["embedding"] != done.data["embedding"]


async def test_a_large_model_is_asked_for_vectors_that_fit_the_column() -> None:
    ctx = Recorder(vectors)
    given = content("Hello.", model="text-embedding-3-large")
    await succeed(ctx, job("background:embed_content", given))
    assert ctx.calls[0][2] == EmbedTask("text-embedding-3-large", ("Hello.",), 1536)


async def test_missing_vectors_are_a_failure() -> None:
    def none(_step: str, _task: Task) -> CallResult:
        return CallResult("openai", "m", None, Decimal(0))

    assert "0 vectors" in await fail(job("background:embed_content", content("Hello.")), none)


async def test_a_text_of_nothing_is_not_paid_for() -> None:
    message = await fail(job("background:embed_content", content(" \n\n ")))
    assert message.startswith("content_text: ")


@pytest.mark.parametrize(
    "text",
    [
        "short",
        "one\n\ntwo\n\n\n three ",
        "A sentence. " * 2000,
        "x" * (3 * CHUNK + 5),
        "words and " * 3000 + "\n\n" + "文字。" * 5000,
        ". " + "y" * (2 * CHUNK),
        "",
    ],
)
def test_chunks_fit_and_lose_nothing(text: str) -> None:
    chunks = split(text)
    assert all(0 < len(chunk) <= CHUNK for chunk in chunks)
    assert "".join("".join(chunks).split()) == "".join(text.split())


def test_sentences_stay_whole_where_they_can() -> None:
    assert all(chunk.endswith(".") for chunk in split("A sentence of some words. " * 1000))


def test_the_average_of_opposites_is_zero_and_not_an_error() -> None:
    assert average([[1.0, 0.0], [-1.0, 0.0]], [5, 5]) == [0.0, 0.0]


# --------------------------------------------------------------------------- statistics


async def test_statistics_have_the_names_of_their_columns() -> None:
    text = "The cat sat on the mat. It was happy!\n\nThen it slept"
    done = await succeed(Recorder(never), job("background:content_statistics", content(text)))
    assert done.data == {
        "content_id": CONTENT_ID,
        "content_type": "chapter",
        "word_count": 12,
        "character_count": len(text),
        "sentence_count": 3,
        "paragraph_count": 2,
        "flesch_reading_ease": pytest.approx(206.835 - 1.015 * 4 - 84.6 * 13 / 12, abs=0.01),
        "flesch_kincaid_grade": pytest.approx(0.39 * 4 + 11.8 * 13 / 12 - 15.59, abs=0.01),
    }
    assert done.cost_cents == 0


def test_harder_prose_scores_harder() -> None:
    easy = measure("The dog ran. The sun was hot. We sat in the shade.")
    hard = measure(
        "Institutional considerations notwithstanding, comprehensive organizational "
        "restructuring necessitates extraordinary administrative coordination."
    )
    assert easy["flesch_reading_ease"] > 90
    assert hard["flesch_reading_ease"] < 0
    assert easy["flesch_kincaid_grade"] < 3
    assert hard["flesch_kincaid_grade"] > 20


@pytest.mark.parametrize(
    ("word", "syllables"),
    [
        ("cat", 1),
        ("made", 1),
        ("walked", 1),
        ("wanted", 2),
        ("table", 2),
        ("houses", 2),
        ("idea", 3),
        ("video", 3),
        ("being", 2),
        ("beautiful", 3),
        ("university", 5),
        ("science", 2),
        ("déjà", 2),
    ],
)
def test_syllables(word: str, syllables: int) -> None:
    grade = measure(word)["flesch_kincaid_grade"]
    assert grade == pytest.approx(0.39 + 11.8 * syllables - 15.59, abs=0.01)


@pytest.mark.parametrize("text", ["", "  \n\n ", "... !!! —"])
def test_a_text_without_words_has_no_score(text: str) -> None:
    found = measure(text)
    assert (found["word_count"], found["sentence_count"]) == (0, 0)
    assert found["flesch_reading_ease"] is found["flesch_kincaid_grade"] is None


@pytest.mark.parametrize("text", ["word " * 50_000, "incomprehensibilities" * 400, "文字" * 9000])
def test_scores_fit_their_columns(text: str) -> None:
    found = measure(text)
    for score in (found["flesch_reading_ease"], found["flesch_kincaid_grade"]):
        assert abs(Decimal(str(score))) < 1000
        assert Decimal(str(score)) == round(Decimal(str(score)), 2)


def test_numbers_and_abbreviations_within_words_end_no_sentence() -> None:
    assert measure("It costs 3.50 in total. It's well-known, isn't it?")["sentence_count"] == 2


# --------------------------------------------------------------------------- webhooks


@dataclass
class Receiver:
    """A customer's server."""

    url: str
    status: int = 200
    got: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    here = Receiver("")
    app = web.Application()
    app.router.add_post("/hook", here.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    here.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield here
    await runner.cleanup()


async def deliver(receiver: Receiver, tries: int = 0, **payload: Any) -> Outcome:
    given = {"payload": {"url": receiver.url, **payload}}
    async with httpx.AsyncClient(trust_env=False) as client:
        work = job("background:deliver_webhook", given, "background:deliver_webhook", tries)
        return await run(Recorder(never, client), work)


@pytest.mark.parametrize(
    ("secret", "key"),
    [("whsec_" + base64.b64encode(b"\x00\xffkey").decode(), b"\x00\xffkey"), ("plain", b"plain")],
)
async def test_a_webhook_is_signed_so_that_its_receiver_can_verify_it(
    receiver: Receiver, secret: str, key: bytes
) -> None:
    outcome = await deliver(
        receiver, body={"name": "Zoë"}, secret=secret, headers={"X-Shop": "7", "Webhook-Id": "no"}
    )
    assert isinstance(outcome, Succeeded)
    ((headers, body),) = receiver.got
    lower = {name.lower(): value for name, value in headers.items()}
    assert json.loads(body) == {"name": "Zoë"}
    assert (lower["content-type"], lower["x-shop"]) == ("application/json", "7")
    assert lower["webhook-id"].startswith("msg_")
    signed = f"{lower['webhook-id']}.{lower['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert lower["webhook-signature"] == f"v1,{expected}"


async def test_a_repeat_carries_the_same_id_and_without_a_secret_no_signature(
    receiver: Receiver,
) -> None:
    await deliver(receiver, body={})
    await deliver(receiver, tries=1, body={})
    first, second = ({k.lower(): v for k, v in headers.items()} for headers, _ in receiver.got)
    assert first["webhook-id"] == second["webhook-id"]
    assert "webhook-signature" not in first


@pytest.mark.parametrize(
    ("payload", "sent"),
    [
        ({"body": [1, 2]}, [1, 2]),
        ({"event": {"type": "done"}}, {"type": "done"}),
        ({"event": "done"}, {"type": "done"}),
        ({"event": "done", "body": {"id": 7}}, {"type": "done", "data": {"id": 7}}),
    ],
)
async def test_bodies_and_events(receiver: Receiver, payload: dict[str, Any], sent: Any) -> None:
    await deliver(receiver, **payload)
    assert json.loads(receiver.got[0][1]) == sent


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Succeeded),
        (204, Succeeded),
        (307, Failed),
        (400, Failed),
        (404, Failed),
        (410, Failed),
        (408, RetryLater),
        (429, RetryLater),
        (500, RetryLater),
        (503, RetryLater),
    ],
)
async def test_statuses(receiver: Receiver, status: int, outcome: type[Outcome]) -> None:
    receiver.status = status
    result = await deliver(receiver, body={})
    assert type(result) is outcome
    assert len(receiver.got) == 1
    if isinstance(result, Failed | RetryLater):
        assert str(status) in result.failure.message


async def test_nobody_listening_is_tried_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        outcome = await deliver(Receiver(f"http://127.0.0.1:{free.getsockname()[1]}/"), body={})
    assert isinstance(outcome, RetryLater)
    assert outcome.failure.kind is FailureKind.TRANSIENT


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "file:///etc/passwd", "nowhere"])
async def test_a_url_into_our_network_is_refused(url: str) -> None:
    outcome = await deliver(Receiver(url), body={})
    assert isinstance(outcome, Failed)
    assert outcome.failure.code == "host_refused"


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"x": "a\r\nInjected: 1"}])
async def test_headers_that_break_out_are_refused(
    receiver: Receiver, headers: Mapping[str, str]
) -> None:
    outcome = await deliver(receiver, body={}, headers=headers)
    assert isinstance(outcome, Failed)
    assert outcome.failure.message.startswith("payload.headers: ")
    assert not receiver.got


# --------------------------------------------------------------------------- registration


def test_every_kind_is_registered_with_a_summary() -> None:
    registry = load()
    names: Sequence[str] = registry.names()
    assert {"media:video", "media:thumbnail", "media:preview", "media:audio", "text"} <= set(names)
    for name in names:
        found = registry.get(name)
        assert found is not None
        assert found.summary
