"""The handlers that work on files: real ones in a real storage, computed in this process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
import pytest
from PIL import Image

import jobs.deliver
import jobs.media
from jobs.compute import ComputeFailed, ComputeInterrupted
from jobs.contract import (
    CallResult,
    Failed,
    Job,
    Outcome,
    Output,
    RetryLater,
    Succeeded,
    Task,
)
from jobs.network import HostPolicy
from jobs.outputs import OutputError, OutputStore, key_for
from jobs.probe import inspect
from jobs.registry import load
from jobs.storage import Storage, open_storage
from tests.unit.filming import film
from tests.unit.test_outputs import make_image, make_sound

T = TypeVar("T")


@dataclass
class Bench:
    """A context with a storage of its own."""

    storage: Storage
    outputs: OutputStore
    paid: CallResult | None = None
    trouble: Exception | None = None
    """Raised instead of computing."""
    slow: float = 0.0
    """How long a paid call takes."""
    percents: list[float] = field(default_factory=list)

    async def call(self, step: str, provider: str, task: Task) -> CallResult:
        assert self.paid is not None, (step, provider, task)
        await asyncio.sleep(self.slow)
        return self.paid

    def progress(self, percent: float) -> None:
        self.percents.append(percent)

    async def post(self, *_: Any) -> int:
        raise NotImplementedError

    async def offload(self, work: Callable[..., T], *args: Any) -> T:
        return work(*args)

    async def compute(
        self,
        work: Callable[..., T],
        *args: Any,
        timeout: float = 600,  # noqa: ARG002, ASYNC109
    ) -> T:
        if self.trouble is not None:
            raise self.trouble
        return work(*args)

    def file(self, reference: str) -> AbstractAsyncContextManager[Path]:
        return self.outputs.borrow(reference)

    def link(self, reference: str) -> str | None:
        return self.outputs.link(reference)

    async def keep(self, path: Path, name: str) -> Output:
        return await self.outputs.keep_file(path, key_for("media_files", "row", name))

    async def upload(self, content: bytes, key: str = "uploads/file") -> str:
        await self.storage.put(content, key, "application/octet-stream")
        return key

    async def stored(self, entry: Any) -> bytes:
        content = await self.storage.get(entry["key"])
        assert len(content) == entry["size"]
        return content

    async def run(self, kind: str, given: dict[str, Any]) -> Outcome:
        found = load().get(kind)
        assert found is not None
        job = Job("media_files", "row", kind, kind, 1, 0, 3, "user", given)
        return await found.handler(job, cast("Any", self))

    async def process(self, key: str, **row: Any) -> Outcome:
        return await self.run("background:process_media", {"file": {"file_path": key, **row}})


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with httpx.AsyncClient(trust_env=False) as client:
        storage = open_storage(f"file://{tmp_path}/out", "https://cdn.example.com")
        yield Bench(storage, OutputStore(storage, client, HostPolicy()))


def data_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Succeeded), outcome
    return outcome.data


def failure_of(outcome: Outcome) -> tuple[str, str]:
    assert isinstance(outcome, Failed), outcome
    return outcome.failure.code, outcome.failure.message


# --------------------------------------------------------------------------- uploads


async def test_a_picture_is_measured_and_made_in_every_size(bench: Bench, tmp_path: Path) -> None:
    content = make_image("PNG", (800, 400))
    outcome = await bench.process(await bench.upload(content), file_size=len(content))
    data = data_of(outcome)
    assert (data["mime_type"], data["width"], data["height"]) == ("image/png", 800, 400)
    assert (data["duration"], data["file_hash"]) == (None, hashlib.sha256(content).hexdigest())
    listed = data["public_variants"]["image"]
    assert [(v["format"], v["width"]) for v in listed] == [
        (extension, width) for width in (320, 640, 800) for extension in ("webp", "jpg")
    ]
    for entry in listed:
        (tmp_path / "seen").write_bytes(await bench.stored(entry))
        with Image.open(tmp_path / "seen") as picture:
            assert picture.size == (entry["width"], entry["height"])
        assert entry["url"] == f"https://cdn.example.com/{entry['key']}"
    assert data["cdn_url"] == "https://cdn.example.com/media_files/row/800.webp"
    assert bench.percents == sorted(bench.percents)
    assert bench.percents[-1] == 100


async def test_only_public_files_have_public_urls(bench: Bench) -> None:
    data = data_of(await bench.process(await bench.upload(make_image("PNG", (300, 100)))))
    plain, public = data["variants"]["image"], data["public_variants"]["image"]
    assert [{**entry, "url": None} for entry in public] == plain
    assert all(entry["url"] for entry in public)


async def test_a_repeat_writes_the_same_files(bench: Bench, tmp_path: Path) -> None:
    key = await bench.upload(make_image("PNG", (400, 200)))
    first = data_of(await bench.process(key))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert data_of(await bench.process(key)) == first
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert before == after


async def test_a_video_has_renditions_thumbnail_and_poster(bench: Bench, tmp_path: Path) -> None:
    source = film(tmp_path / "a.webm", (1280, 720), codec="libvpx", sound="libopus")
    data = data_of(await bench.process(await bench.upload(source.read_bytes())))
    assert (data["mime_type"], data["width"], data["height"]) == ("video/webm", 1280, 720)
    assert data["duration"] == pytest.approx(1, abs=0.1)
    found = data["public_variants"]
    assert [(v["format"], v["width"], v["height"]) for v in found["video"]] == [
        ("mp4", 640, 360),
        ("mp4", 1280, 720),
    ]
    assert found["thumbnail"]["width"] == 640
    assert found["poster"]["width"] == 1280
    assert data["cdn_url"] == found["video"][-1]["url"]
    (tmp_path / "seen").write_bytes(await bench.stored(found["video"][0]))
    assert inspect(tmp_path / "seen", tmp_path / "t.jpg").mime_type == "video/mp4"


@pytest.mark.parametrize(
    ("content", "mime_type", "found"),
    [
        (make_sound(), "audio/x-wav", "audio/wav"),
        (b"%PDF-1.4\n%%EOF", "application/pdf", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", None),
    ],
)
async def test_sound_and_documents_are_only_measured(
    bench: Bench, content: bytes, mime_type: str, found: str | None
) -> None:
    data = data_of(await bench.process(await bench.upload(content), mime_type=mime_type))
    assert (data["mime_type"], data["variants"]) == (found, {})
    assert data["file_hash"] == hashlib.sha256(content).hexdigest()
    assert data["cdn_url"] == "https://cdn.example.com/uploads/file"
    assert (data["duration"] is not None) == (found is not None)


async def test_what_cannot_be_read_fails_with_the_reason(bench: Bench) -> None:
    key = await bench.upload(b"no picture at all")
    code, message = failure_of(await bench.process(key, mime_type="image/png"))
    assert (code, "not a readable image" in message) == ("unreadable", True)


async def test_an_upload_that_is_not_done_is_waited_for(bench: Bench) -> None:
    outcome = await bench.process(await bench.upload(b"abc"), file_size=1000)
    assert isinstance(outcome, RetryLater)
    assert "3 bytes, its row says 1,000" in outcome.failure.message
    with pytest.raises(OutputError, match="there is no 'uploads/none'"):
        await bench.process("uploads/none")


# --------------------------------------------------------------------------- thumbnails


@pytest.mark.parametrize(
    "given",
    [
        {"video_url": "{}"},
        {"payload": {"VideoUrl": "{}"}},
        {"payload": None, "video": {"video_url": "{}"}},
    ],
)
async def test_a_thumbnail_of_a_video(bench: Bench, tmp_path: Path, given: Any) -> None:
    source = film(tmp_path / "a.mp4", (640, 360))
    url = bench.link(await bench.upload(source.read_bytes(), "videos/a.mp4"))

    def put(value: Any) -> Any:
        return {k: put(v) for k, v in value.items()} if isinstance(value, dict) else value and url

    outcome = await bench.run("background:generate_thumbnail", put(given))
    assert isinstance(outcome, Succeeded)
    (kept,) = outcome.outputs
    assert (kept.role, kept.mime_type, kept.width, kept.height) == ("main", "image/jpeg", 640, 360)
    assert kept.url == "https://cdn.example.com/media_files/row/thumbnail.jpg"


async def test_a_thumbnail_of_nothing_fails(bench: Bench) -> None:
    kind = "background:generate_thumbnail"
    code, message = failure_of(await bench.run(kind, {"payload": {}}))
    assert (code, message.startswith("video_url")) == ("input", True)
    key = await bench.upload(b"no video")
    assert failure_of(await bench.run(kind, {"video_url": key}))[0] == "unreadable"


# --------------------------------------------------------------------------- paid videos


async def paid_video(bench: Bench, path: Path) -> CallResult:
    outputs = await bench.outputs.keep(path.read_bytes(), key_prefix="replicate/17")
    result = CallResult("replicate", "m", "p-1", Decimal(25), outputs=outputs)
    bench.paid = result
    return result


async def deliver(bench: Bench, *formats: str) -> Succeeded:
    given = {"prompt": "A sunset", "formats": list(formats)}
    outcome = await bench.run("media:video", given)
    assert isinstance(outcome, Succeeded), outcome
    return outcome


async def test_a_video_in_another_format_is_converted(bench: Bench, tmp_path: Path) -> None:
    paid = await paid_video(bench, film(tmp_path / "a.webm", codec="libvpx"))
    done = await deliver(bench, "avi", "MOV", "mp4")  # AVI isn't written, so the next one is
    main, thumbnail = done.outputs
    assert (main.role, main.mime_type, thumbnail) == ("main", "video/quicktime", paid.outputs[1])
    assert main.key.endswith(".mov")
    assert main.filename.endswith(".mov")
    assert done.metadata["format"] == "mov"
    assert done.metadata["original"]["key"] == paid.outputs[0].key
    assert done.cost_cents == 25
    assert (await deliver(bench, "mov")).outputs == done.outputs


@pytest.mark.parametrize("formats", [(), ("mp4",), ("mov", "MP4"), ("avi", "flv")])
async def test_a_supported_video_stays_as_it_is(
    bench: Bench, tmp_path: Path, formats: tuple[str, ...]
) -> None:
    paid = await paid_video(bench, film(tmp_path / "a.mp4"))
    done = await deliver(bench, *formats)
    assert done.outputs == paid.outputs
    assert "not_converted" not in done.metadata


@pytest.mark.parametrize(
    "trouble", [ComputeFailed("signal 11", "crashed"), ValueError("odd"), OSError("disk full")]
)
async def test_what_was_paid_is_delivered_whatever_happens(
    bench: Bench, tmp_path: Path, trouble: Exception
) -> None:
    paid = await paid_video(bench, film(tmp_path / "a.webm", codec="libvpx"))
    bench.trouble = trouble
    done = await deliver(bench, "mp4")
    assert done.outputs == paid.outputs
    assert done.metadata["not_converted"] == str(trouble)
    assert done.metadata["format"] == "webm"


async def test_a_slow_provider_leaves_time_for_the_conversion(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadline in the middle of it would end the job's last try, and lose what was paid."""
    kind = load().get("media:video")
    assert kind is not None
    assert kind.timeout >= jobs.media.CALLS_SECONDS + jobs.deliver.SECONDS + 1000
    await paid_video(bench, film(tmp_path / "a.webm", codec="libvpx"))
    monkeypatch.setattr("jobs.media.CALLS_SECONDS", 0.2)
    bench.slow = 5.0
    with pytest.raises(TimeoutError, match=r"not made within 0\.2 s"):
        await deliver(bench, "mp4")


async def test_a_worker_that_leaves_converts_nothing_and_loses_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    await paid_video(bench, film(tmp_path / "a.webm", codec="libvpx"))
    bench.trouble = ComputeInterrupted("terminated")
    with pytest.raises(ComputeInterrupted):
        await deliver(bench, "mp4")


async def test_a_video_that_is_gone_from_the_storage_is_delivered_as_it_was(
    bench: Bench, tmp_path: Path
) -> None:
    paid = await paid_video(bench, film(tmp_path / "a.webm", codec="libvpx"))
    moved = replace(paid.outputs[0], key="elsewhere/0.webm")
    bench.paid = replace(paid, outputs=(moved,))
    done = await deliver(bench, "mp4")
    assert done.outputs == (moved,)
    assert "there is no" in done.metadata["not_converted"]
