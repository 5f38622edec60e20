"""Outputs: real files over real loopback HTTP, and servers that lie, stall or send us elsewhere."""

from __future__ import annotations

import hashlib
import io
import socket
import struct
import wave
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import av
import httpx
import pytest
from aiohttp import web
from av.video.stream import VideoStream
from PIL import Image, ImageStat

from jobs.contract import FailureKind, Output
from jobs.network import MAX_REDIRECTS, HostPolicy, HostRefused, fetch, post
from jobs.outputs import OutputError, OutputStore, RemoteFile
from jobs.probe import inspect
from jobs.storage import open_storage

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


# --------------------------------------------------------------------------- real files


def make_video(
    seconds: int = 2, *, black_frames: int = 0, container: str = "mp4", codec: str = "libx264"
) -> bytes:
    """A bright square crossing a dark blue picture, after some frames of black."""
    rate, out = 10, io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for number in range(seconds * rate):
            picture = Image.new("RGB", (320, 180), "black")
            if number >= black_frames:
                picture.paste("navy", (0, 0, 320, 180))
                picture.paste("yellow", (number * 4, 40, number * 4 + 90, 130))
            frame = av.VideoFrame.from_image(picture)  # type: ignore[no-untyped-call]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return out.getvalue()


def make_image(kind: str = "PNG", size: tuple[int, int] = (800, 400), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(out, kind)
    return out.getvalue()


def make_sound(seconds: int = 3) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        tone = (b"\x00\x10" * 10 + b"\x00\xf0" * 10) * 400
        file.writeframes(tone * seconds)
    return out.getvalue()


def make_bomb() -> bytes:
    """A valid PNG of 200 bytes that says it is 60,000 pixels wide and high."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


# --------------------------------------------------------------------------- a real server


class Files:
    """Serves what a test puts into it, on a loopback address, and remembers who asked."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.routes: dict[str, Handler] = {}
        self.seen: list[web.Request] = []
        self.port = 0

    def url(self, path: str, host: str | None = None) -> str:
        return f"http://{host or self.host}:{self.port}{path}"

    def serve(
        self, path: str, content: bytes, content_type: str = "application/octet-stream"
    ) -> str:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(body=content, content_type=content_type)

        self.routes[path] = answer
        return self.url(path)

    def redirect(self, path: str, target: str) -> str:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": target})

        self.routes[path] = answer
        return self.url(path)

    def status(self, path: str, status: int) -> str:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=status)

        self.routes[path] = answer
        return self.url(path)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        return await self.routes[request.path](request)


async def start(files: Files) -> web.AppRunner:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", files.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, files.host, 0)
    await site.start()
    files.port = runner.addresses[0][1]
    return runner


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    server = Files("127.0.0.1")
    runner = await start(server)
    yield server
    await runner.cleanup()


@pytest.fixture
async def inside() -> AsyncIterator[Files]:
    """A machine of our own network that no provider may send us to."""
    server = Files("127.0.0.2")
    runner = await start(server)
    yield server
    await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as opened:
        yield opened


POLICY = HostPolicy(["127.0.0.1"])


@pytest.fixture
def store(client: httpx.AsyncClient, tmp_path: Path) -> OutputStore:
    return OutputStore(open_storage(f"file://{tmp_path}/out"), client, POLICY, max_bytes=1_000_000)


def stored(output: Output) -> bytes:
    return Path(unquote(urlsplit(output.url).path)).read_bytes()


async def refused(store: OutputStore, item: RemoteFile | bytes, **options: str) -> OutputError:
    with pytest.raises(OutputError) as caught:
        await store.keep(item, key_prefix="job/1", **options)  # type: ignore[arg-type]
    return caught.value


# --------------------------------------------------------------------------- what is kept


async def test_a_video_is_stored_with_its_true_facts_and_a_thumbnail(
    files: Files, store: OutputStore
) -> None:
    content = make_video(seconds=2)
    files.serve("/made/Summer trip.bin", content, "text/plain")
    item = RemoteFile(files.url("/made/Summer%20trip.bin?signature=secret"))
    main, thumbnail = await store.keep(item, key_prefix="generation_jobs/a b/1/main")

    assert (main.role, main.file_type, main.mime_type) == ("main", "video", "video/mp4")
    assert main.key == "generation_jobs/a b/1/main/0.mp4"
    assert (main.width, main.height) == (320, 180)
    assert main.duration_seconds == pytest.approx(2.0, abs=0.11)
    assert (main.codec, main.frame_rate) == ("h264", 10.0)
    assert main.bit_rate == pytest.approx(len(content) * 8 / 2, rel=0.3)
    assert (main.size, main.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert stored(main) == content
    assert main.filename == "Summer-trip.mp4"

    assert (thumbnail.role, thumbnail.mime_type) == ("thumbnail", "image/jpeg")
    assert thumbnail.key == "generation_jobs/a b/1/main/0-thumbnail.jpg"
    picture = Image.open(io.BytesIO(stored(thumbnail)))
    assert picture.format == "JPEG"
    assert picture.size == (thumbnail.width, thumbnail.height) == (320, 180)
    assert thumbnail.size == len(stored(thumbnail))
    assert thumbnail.sha256 == hashlib.sha256(stored(thumbnail)).hexdigest()


async def test_the_thumbnail_skips_the_black_frames_a_video_fades_in_from(
    store: OutputStore,
) -> None:
    _, thumbnail = await store.keep(make_video(3, black_frames=15), key_prefix="job/1")
    assert max(ImageStat.Stat(Image.open(io.BytesIO(stored(thumbnail)))).mean) > 20


async def test_a_wholly_black_video_still_gets_a_thumbnail(store: OutputStore) -> None:
    _, thumbnail = await store.keep(make_video(1, black_frames=10), key_prefix="job/1")
    assert Image.open(io.BytesIO(stored(thumbnail))).size == (320, 180)


@pytest.mark.parametrize(
    ("container", "codec", "mime_type", "extension"),
    [
        ("mov", "libx264", "video/quicktime", "mov"),
        ("webm", "libvpx-vp9", "video/webm", "webm"),
        ("matroska", "libx264", "video/x-matroska", "mkv"),
        ("mpegts", "libx264", "video/mp2t", "ts"),
    ],
)
async def test_containers_are_told_apart(
    store: OutputStore, container: str, codec: str, mime_type: str, extension: str
) -> None:
    content = make_video(1, container=container, codec=codec)
    main, _ = await store.keep(content, key_prefix="job/1", expected="video")
    assert (main.mime_type, main.key) == (mime_type, f"job/1/0.{extension}")
    assert main.duration_seconds == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    ("kind", "mime_type", "extension"),
    [
        ("PNG", "image/png", "png"),
        ("JPEG", "image/jpeg", "jpg"),
        ("WEBP", "image/webp", "webp"),
        ("GIF", "image/gif", "gif"),
    ],
)
async def test_images_get_a_thumbnail_of_at_most_640_pixels(
    store: OutputStore, kind: str, mime_type: str, extension: str
) -> None:
    main, thumbnail = await store.keep(make_image(kind), key_prefix="job/1", index=3)
    assert (main.file_type, main.mime_type) == ("image", mime_type)
    assert main.key == f"job/1/3.{extension}"
    assert (main.width, main.height, main.duration_seconds) == (800, 400, None)
    assert (thumbnail.width, thumbnail.height) == (640, 320)
    assert Image.open(io.BytesIO(stored(thumbnail))).size == (640, 320)


async def test_a_transparent_picture_is_shown_on_white(store: OutputStore) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(out, "PNG")
    _, thumbnail = await store.keep(out.getvalue(), key_prefix="job/1")
    assert ImageStat.Stat(Image.open(io.BytesIO(stored(thumbnail)))).mean == [255, 255, 255]


async def test_sound_is_stored_alone(store: OutputStore) -> None:
    (main,) = await store.keep(make_sound(3), key_prefix="job/1", expected="audio")
    assert (main.file_type, main.mime_type, main.key) == ("audio", "audio/wav", "job/1/0.wav")
    assert (main.width, main.height, main.duration_seconds) == (None, None, 3.0)
    assert (main.codec, main.frame_rate) == ("pcm_s16le", None)
    assert main.bit_rate == pytest.approx(128_000, rel=0.01)


async def test_the_same_work_done_twice_overwrites_itself(
    store: OutputStore, tmp_path: Path
) -> None:
    first = await store.keep(make_image(), key_prefix="job/1")
    again = await store.keep(make_image(), key_prefix="job/1")
    assert first == again
    kept = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert kept == ["0-thumbnail.jpg", "0.png"]


async def test_the_file_name_comes_from_the_hint_with_the_true_extension(
    files: Files, store: OutputStore
) -> None:
    hinted, small = await store.keep(make_image(), key_prefix="a", filename_hint="../Été 2026.mp4")
    assert (hinted.filename, small.filename) == ("Été-2026.png", "Été-2026-thumbnail.jpg")
    named, _ = await store.keep(
        RemoteFile(files.serve("/x/cat.jpeg", make_image())), key_prefix="b"
    )
    assert named.filename == "cat.png"
    plain, _ = await store.keep(make_image(), key_prefix="c", index=2)
    assert plain.filename == "output-2.png"


async def test_memory_storage_and_public_urls(client: httpx.AsyncClient) -> None:
    storage = open_storage("memory:///", "https://cdn.example.com/media/")
    outputs = await OutputStore(storage, client, POLICY).keep(make_image(), key_prefix="a b/1")
    assert outputs[0].url == "https://cdn.example.com/media/a%20b/1/0.png"
    held = await storage.store.get_async("a b/1/0.png")
    assert bytes(await held.bytes_async()) == make_image()
    assert held.attributes["Content-Type"] == "image/png"


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("status", [404, 410])
async def test_a_file_that_is_gone(files: Files, store: OutputStore, status: int) -> None:
    error = await refused(store, RemoteFile(files.status("/gone.mp4", status)))
    assert error.failure.kind is FailureKind.GONE
    assert error.failure.code == f"http_{status}"


@pytest.mark.parametrize("status", [403, 429, 500, 503, 204])
async def test_other_answers_may_pass(files: Files, store: OutputStore, status: int) -> None:
    error = await refused(store, RemoteFile(files.status("/file.mp4", status)))
    assert error.failure.kind is FailureKind.TRANSIENT


async def test_a_body_cut_short_is_transient(files: Files, store: OutputStore) -> None:
    content = make_image()

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    files.routes["/cut.png"] = cut
    error = await refused(store, RemoteFile(files.url("/cut.png")))
    assert error.failure.kind is FailureKind.TRANSIENT


async def test_nobody_listening_is_transient(store: OutputStore) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        error = await refused(store, RemoteFile(url))
    assert error.failure.kind is FailureKind.TRANSIENT


@pytest.mark.parametrize("announced", [True, False])
async def test_too_large_is_refused_whether_announced_or_not(
    files: Files, store: OutputStore, tmp_path: Path, announced: bool
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Length": "5000000"} if announced else {}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for _ in range(500):
            await response.write(b"\0" * 10_000)
        return response

    files.routes["/big.mp4"] = endless
    error = await refused(store, RemoteFile(files.url("/big.mp4")))
    assert (error.failure.kind, error.failure.code) == (FailureKind.INVALID, "too_large")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


async def test_a_page_that_calls_itself_a_video_is_refused(
    files: Files, store: OutputStore
) -> None:
    url = files.serve("/video.mp4", b"<html>Sign in</html>" * 50, "video/mp4")
    error = await refused(store, RemoteFile(url))
    assert (error.failure.kind, error.failure.code) == (FailureKind.INVALID, "unreadable")
    assert "rowmill-" not in error.failure.message


async def test_a_picture_that_calls_itself_a_video_is_the_wrong_type(
    files: Files, store: OutputStore
) -> None:
    url = files.serve("/video.mp4", make_image(), "video/mp4")
    error = await refused(store, RemoteFile(url), expected="video")
    assert (error.failure.kind, error.failure.code) == (FailureKind.INVALID, "wrong_type")
    assert "image/png" in error.failure.message


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(make_image()[:-200], id="truncated picture"),
        pytest.param(make_video()[:3000], id="truncated video"),
        pytest.param(make_bomb(), id="decompression bomb"),
    ],
)
async def test_broken_and_hostile_files_are_refused(store: OutputStore, content: bytes) -> None:
    assert (await refused(store, content)).failure.kind is FailureKind.INVALID


async def test_a_disk_that_cannot_be_written_is_not_the_files_fault(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (make_image(), make_video()):
        file.write_bytes(content)
        with pytest.raises(FileNotFoundError):
            inspect(file, tmp_path / "missing" / "thumbnail.jpg")


async def test_a_playlist_cannot_make_us_open_other_files(
    files: Files, store: OutputStore, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(make_video())
    bait = files.serve("/bait.ts", make_video(container="mpegts"))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{bait}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile {secret}\n"
    for content in (playlist, concat):
        error = await refused(store, content.encode())
        assert error.failure.code == "unreadable"
    assert not files.seen


async def test_storage_trouble_is_transient(client: httpx.AsyncClient, tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}/out")
    (tmp_path / "out" / "job").write_text("a file where a folder must be")
    error = await refused(OutputStore(storage, client, POLICY), make_image())
    assert (error.failure.kind, error.failure.code) == (FailureKind.TRANSIENT, "storage")
    assert "\n" not in error.failure.message


# --------------------------------------------------------------------------- hosts


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2/x",
        "http://localhost.localdomain@10.0.0.1/x",
        "http://[::1]/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://[64:ff9b::a00:1]/x",
        "http://[fe80::1]/x",
        "http://[fd00::1]/x",
        "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0/x",
        "http://100.64.0.1/x",
        "http://224.0.0.1/x",
        "http://2130706434/x",  # 127.0.0.2 as one number
        "http://0x7f.0.0.2/x",
        "http://0177.0.0.2/x",
        "http://127.2/x",
        "http://[::]/x",
        "http://[::ffff:169.254.169.254]/x",
        "http://[::7f00:2]/x",
        "http://[2002:7f00:2::1]/x",  # 6to4 of 127.0.0.2
        "http://[64:ff9b:1::7f00:2]/x",
        "http://8.8.8.8@127.0.0.2/x",
        "https://127.0.0.2/x",
        "ftp://8.8.8.8/x",
        "file:///etc/passwd",
        "http:///x",
        f"http://{'a' * 64}.example/x",  # no name may have such a part
        "not a url",
    ],
)
async def test_urls_that_are_never_fetched(store: OutputStore, url: str) -> None:
    error = await refused(store, RemoteFile(url))
    assert (error.failure.kind, error.failure.code) == (FailureKind.INVALID, "host_refused")


async def test_public_addresses_pass() -> None:
    for url in ("http://8.8.8.8/x", "https://[2606:4700::1111]/x"):
        (target,) = await HostPolicy().targets(url)
        assert target.url == httpx.URL(url)


async def test_private_hosts_are_allowed_by_name_address_or_network(inside: Files) -> None:
    for entry in ("127.0.0.2", "127.0.0.0/24"):
        assert await HostPolicy([entry]).targets(inside.url("/x"))
    assert await HostPolicy(["LOCALHOST"]).targets("http://localhost:1/x")
    with pytest.raises(HostRefused):
        await HostPolicy(["10.0.0.0/8", "other.internal"]).targets(inside.url("/x"))


async def test_a_redirect_into_our_network_is_refused_before_it_is_asked(
    files: Files, inside: Files, store: OutputStore
) -> None:
    target = inside.serve("/secret.png", make_image())
    error = await refused(store, RemoteFile(files.redirect("/out.png", target)))
    assert error.failure.code == "host_refused"
    assert not inside.seen


async def test_a_redirect_elsewhere_is_followed_without_the_providers_key(
    files: Files, inside: Files, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    inside.serve("/real.png", make_image())
    files.redirect("/start.png", "/next.png")
    files.redirect("/next.png", inside.url("/real.png"))
    policy = HostPolicy(["127.0.0.0/8"])
    store = OutputStore(open_storage(f"file://{tmp_path}"), client, policy)
    item = RemoteFile(files.url("/start.png"), {"x-api-key": "secret"})
    assert len(await store.keep(item, key_prefix="job/1")) == 2
    assert [request.headers.get("x-api-key") for request in files.seen] == ["secret", "secret"]
    assert [request.headers.get("x-api-key") for request in inside.seen] == [None]


async def test_redirects_end(files: Files, store: OutputStore) -> None:
    url = files.redirect("/round", "/round")
    error = await refused(store, RemoteFile(url))
    assert error.failure.kind is FailureKind.TRANSIENT
    assert len(files.seen) == MAX_REDIRECTS + 1


async def test_a_name_is_resolved_once_and_the_checked_address_is_used(
    files: Files, inside: Files, client: httpx.AsyncClient
) -> None:
    """The rebinding attack: a second answer would name a machine of our network."""
    answers = ["127.0.0.1", inside.host]

    async def changing(_host: str, _port: int) -> Sequence[str]:
        return [answers.pop(0)]

    policy = HostPolicy(["127.0.0.1"], resolve=changing)
    files.serve("/x", b"hello")
    async with fetch(client, policy, files.url("/x", "files.example"), {}) as response:
        assert await response.aread() == b"hello"
    assert answers == [inside.host]
    assert files.seen[0].headers["Host"] == f"files.example:{files.port}"


async def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    async def mixed(_host: str, _port: int) -> Sequence[str]:
        return ["8.8.8.8", "10.0.0.1"]

    with pytest.raises(HostRefused, match=r"10\.0\.0\.1"):
        await HostPolicy(resolve=mixed).targets("https://files.example/x")


async def test_the_next_address_is_tried_when_one_refuses_the_connection(
    files: Files, client: httpx.AsyncClient
) -> None:
    async def two(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.3", "127.0.0.1"]

    files.serve("/x", b"hello")
    policy = HostPolicy(["127.0.0.0/8"], resolve=two)
    async with fetch(client, policy, files.url("/x", "files.example"), {}) as response:
        assert response.status_code == 200


async def test_tls_keeps_the_name() -> None:
    async def one(_host: str, _port: int) -> Sequence[str]:
        return ["8.8.8.8"]

    (target,) = await HostPolicy(resolve=one).targets("https://files.example/x?y=1")
    assert str(target.url) == "https://8.8.8.8/x?y=1"
    assert target.headers == {"Host": "files.example"}
    assert target.extensions == {"sni_hostname": "files.example"}


async def test_behind_a_proxy_the_name_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.internal:3128")

    async def nothing(_host: str, _port: int) -> Sequence[str]:
        raise OSError("no such name here")

    (target,) = await HostPolicy(resolve=nothing).targets("https://files.example/x")
    assert target.url.host == "files.example"
    with pytest.raises(HostRefused):
        await HostPolicy().targets("https://10.0.0.1/x")


async def test_post_returns_the_status_and_follows_nothing(
    files: Files, client: httpx.AsyncClient
) -> None:
    bodies: list[bytes] = []

    async def moved(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.read())
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    files.routes["/hook"] = moved
    assert await post(client, POLICY, files.url("/hook"), b"{}", {"x-a": "b"}) == 307
    assert bodies == [b"{}"]
    assert [request.path for request in files.seen] == ["/hook"]
    with pytest.raises(HostRefused):
        await post(client, POLICY, "http://127.0.0.2/hook", b"{}", {})
