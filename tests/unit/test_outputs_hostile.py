"""Files and servers made to hurt whoever opens them: what they claim is refused before it costs."""

from __future__ import annotations

import gzip
import io
import struct
import wave
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
import httpx
import pytest
from aiohttp import web
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from PIL import Image

from jobs.contract import FailureKind
from jobs.outputs import OutputStore, RemoteFile
from jobs.probe import Unreadable, inspect
from jobs.providers.transport import AiohttpTransport
from jobs.storage import open_storage
from tests.unit.test_outputs import (
    POLICY,
    Files,
    client,  # noqa: F401 - a fixture
    files,  # noqa: F401
    make_image,
    make_video,
    refused,
    store,  # noqa: F401
)

Edit = Callable[[bytearray], None]
MIB = 1024**2
CLEAR_PEAK = Path("/proc/self/clear_refs")


def look(content: bytes, folder: Path) -> object:
    file = folder / "file"
    file.write_bytes(content)
    return inspect(file, folder / "thumbnail.jpg")


# --------------------------------------------------------------------------- memory


def peak_since(work_began: bool) -> int:
    """Forget the highest use of memory so far, or tell it in bytes."""
    if work_began:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    CLEAR_PEAK.write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


measured = pytest.mark.skipif(not CLEAR_PEAK.exists(), reason="memory is measured by Linux's /proc")


@measured
async def test_a_large_file_is_never_held_in_memory(files: Files, tmp_path: Path) -> None:  # noqa: F811
    """200 MB of silence: downloaded, hashed, looked at and stored."""
    size = 200 * MIB
    head = io.BytesIO()
    with wave.open(head, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(b"")
    header = bytearray(head.getvalue())
    header[4:8] = struct.pack("<I", size + 36)
    header[40:44] = struct.pack("<I", size)

    async def long(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(bytes(header))
        for _ in range(200):
            await response.write(bytes(MIB))
        return response

    files.routes["/long.wav"] = long
    async with httpx.AsyncClient(transport=AiohttpTransport(limit=5)) as ours:
        store = OutputStore(open_storage(f"file://{tmp_path}/out"), ours, POLICY)
        before = peak_since(False)
        (kept,) = await store.keep(RemoteFile(files.url("/long.wav")), key_prefix="job/1")
        grown = peak_since(True) - before
    assert kept.size == size + len(header)
    assert grown < 60 * MIB


# --------------------------------------------------------------------------- packed downloads


async def test_a_packed_bomb_is_stopped_at_the_cap(
    files: Files,  # noqa: F811
    store: OutputStore,  # noqa: F811
    tmp_path: Path,
) -> None:
    """It came to 1 MB and would be 1 GB; httpx would have unpacked it in one piece."""
    packer, bomb = zlib.compressobj(9, wbits=31), bytearray()
    for _ in range(1000):
        bomb += packer.compress(bytes(MIB))
    bomb += packer.flush()
    packed(files, "/bomb.mp4", bytes(bomb), "gzip")
    if CLEAR_PEAK.exists():
        before = peak_since(False)
    error = await refused(store, RemoteFile(files.url("/bomb.mp4")))
    assert error.failure.code == "too_large"
    if CLEAR_PEAK.exists():
        assert peak_since(True) - before < 60 * MIB
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
async def test_what_a_server_packs_unasked_is_unpacked(
    files: Files,  # noqa: F811
    store: OutputStore,  # noqa: F811
    encoding: str,
) -> None:
    content = make_image()
    ways = {
        "gzip": gzip.compress(content),
        "deflate": zlib.compress(content),
        "identity": content,
    }
    packed(files, "/a.png", ways[encoding], encoding)
    main, _ = await store.keep(RemoteFile(files.url("/a.png")), key_prefix="job/1")
    assert main.size == len(content)
    assert files.seen[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (gzip.compress(make_image())[:-20], "gzip"),
        (b"this is not packed", "gzip"),
        (make_image(), "br"),
    ],
)
async def test_what_cannot_be_unpacked_may_come_better(
    files: Files,  # noqa: F811
    store: OutputStore,  # noqa: F811
    content: bytes,
    encoding: str,
) -> None:
    packed(files, "/a.png", content, encoding)
    error = await refused(store, RemoteFile(files.url("/a.png")))
    assert (error.failure.kind, error.failure.code) == (FailureKind.TRANSIENT, "encoding")


def packed(files: Files, path: str, content: bytes, encoding: str) -> None:  # noqa: F811
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, headers={"Content-Encoding": encoding})

    files.routes[path] = answer


async def test_what_comes_inside_an_answer_obeys_the_cap_as_well(store: OutputStore) -> None:  # noqa: F811
    error = await refused(store, bytes(1_000_001))
    assert (error.failure.kind, error.failure.code) == (FailureKind.INVALID, "too_large")


# --------------------------------------------------------------------------- absurd claims


def edited(video: bytes, **edits: Edit) -> bytes:
    """An MP4 with the bodies of some of its boxes changed in place."""
    made = bytearray(video)
    for name, edit in edits.items():
        at = made.index(name.encode(), made.rindex(b"moov")) + 4
        end = at - 8 + int.from_bytes(made[at - 8 : at - 4], "big")
        body = made[at:end]
        edit(body)
        assert len(body) == end - at
        made[at:end] = body
    return bytes(made)


def put(at: int, *numbers: int) -> Edit:
    def edit(body: bytearray) -> None:
        body[at : at + 4 * len(numbers)] = struct.pack(f">{len(numbers)}I", *numbers)

    return edit


@pytest.mark.parametrize("frames", [5_000_001, 2**32 - 1])
def test_frames_that_only_the_header_has(tmp_path: Path, frames: int) -> None:
    """FFmpeg alone would make an entry for each: 50 million take 3.5 GB and 15 s."""
    video = edited(
        make_video(1), stsz=put(4, 1, frames), stsc=put(4, 1, 1, frames, 1), stts=put(4, 1, frames)
    )
    with pytest.raises(Unreadable, match="more than 5,000,000 frames"):
        look(video, tmp_path)


def test_frames_that_only_a_fragment_has(tmp_path: Path) -> None:
    trun = struct.pack(">I4sII", 16, b"trun", 0, 100_000_000)
    fragment = struct.pack(">I4sI4s", 8 + 8 + 16, b"moof", 8 + 16, b"traf") + trun
    with pytest.raises(Unreadable, match="more than 5,000,000 frames"):
        look(make_video(1) + fragment, tmp_path)


def test_a_header_that_is_compressed_itself(tmp_path: Path) -> None:
    hidden = struct.pack(">I4sI4s", 16, b"moov", 8, b"cmov")
    with pytest.raises(Unreadable, match="compressed"):
        look(make_video(1) + hidden, tmp_path)


@pytest.mark.parametrize("container", ["mov", "mp4"])
def test_plain_sound_has_many_samples_and_passes(tmp_path: Path, container: str) -> None:
    """Two minutes: 5.8 million samples, but an entry for each chunk alone."""
    codec = {"mov": "pcm_s16le", "mp4": "aac"}[container]
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=48_000, layout="mono")
        assert isinstance(stream, AudioStream)
        for second in range(121):
            frame = av.AudioFrame(format="s16", layout="mono", samples=48_000)
            frame.planes[0].update(bytes(96_000))
            frame.sample_rate, frame.pts = 48_000, second * 48_000
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    found = look(out.getvalue(), tmp_path)
    assert getattr(found, "duration_seconds", None) == pytest.approx(121, abs=0.2)


def test_a_video_that_claims_to_last_for_ages(tmp_path: Path) -> None:
    video = bytearray(make_video(1, container="matroska"))
    at = video.index(b"\x44\x89\x88") + 3  # the length in milliseconds
    video[at : at + 8] = struct.pack(">d", 1e15)
    with pytest.raises(Unreadable, match="claims to last"):
        look(bytes(video), tmp_path)


def jpegs() -> bytes:
    """A video whose every picture tells its own size."""
    out = io.BytesIO()
    with av.open(out, "w", format="avi") as file:
        stream = file.add_stream("mjpeg", rate=10)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuvj420p"
        for _ in range(5):
            picture = Image.new("RGB", (320, 180), "navy")
            frame = av.VideoFrame.from_image(picture)  # type: ignore[no-untyped-call]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return out.getvalue()


def test_a_video_of_absurd_size(tmp_path: Path) -> None:
    size = struct.pack(">HH", 180, 320)
    video = jpegs().replace(size, struct.pack(">HH", 12_000, 12_000))
    video = video.replace(struct.pack("<II", 320, 180), struct.pack("<II", 12_000, 12_000))
    with pytest.raises(Unreadable, match="picture too large: 12000×12000"):
        look(video, tmp_path)


@measured
def test_a_video_that_grows_to_an_absurd_size(tmp_path: Path) -> None:
    """One small picture, and then one that takes 150 MB once unpacked."""
    out = io.BytesIO()
    with av.open(out, "w", format="avi") as file:
        stream = file.add_stream("mjpeg", rate=10)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuvj420p"
        for number, size in enumerate([(320, 180), (12_500, 12_500)]):
            black = io.BytesIO()
            Image.new("L", size).save(black, "JPEG")
            packet = av.Packet(black.getvalue())
            packet.stream, packet.pts, packet.dts = stream, number, number
            file.mux(packet)
    before = peak_since(False)
    with suppress(Unreadable):
        look(out.getvalue(), tmp_path)
    assert peak_since(True) - before < 100 * MIB


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
@measured
def test_of_many_pictures_in_one_file_only_the_first_is_opened(tmp_path: Path, kind: str) -> None:
    """Dozens of pictures, 4 MB each once unpacked."""
    frames = [Image.new("P", (2000, 2000), number % 250) for number in range(60)]
    out = io.BytesIO()
    small = frames if kind == "GIF" else [frame.convert("RGB") for frame in frames[:20]]
    small[0].save(out, kind, save_all=True, append_images=small[1:], duration=10)
    del frames, small
    before = peak_since(False)
    found = look(out.getvalue(), tmp_path)
    assert (getattr(found, "width", 0), getattr(found, "height", 0)) == (2000, 2000)
    assert peak_since(True) - before < 120 * MIB


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0), id="GIF"),
        pytest.param(
            b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0"
            + (20_000).to_bytes(3, "little") * 2,
            id="WEBP",
        ),
        pytest.param(
            b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0),
            id="BMP",
        ),
    ],
)  # fmt: skip
def test_pictures_of_absurd_size(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Unreadable):
        look(content, tmp_path)
