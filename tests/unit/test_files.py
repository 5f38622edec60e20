"""Files a handler borrows and keeps: whose they may be, how large, and where they go."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from aiohttp import web

from jobs.contract import Failed, FailureKind, RetryLater, Yield
from jobs.network import HostPolicy
from jobs.outputs import OutputError, OutputStore, key_for
from jobs.storage import Storage, open_storage
from tests.unit.test_outputs import make_image
from worker.executor import JobContext, Running, Services, _raised

LIMIT = 1_000_000


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"file://{tmp_path}/out")


@pytest.fixture
async def store(storage: Storage) -> AsyncIterator[OutputStore]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield OutputStore(storage, client, HostPolicy(["127.0.0.1"]), max_bytes=LIMIT)


async def refused(store: OutputStore, reference: str) -> OutputError:
    with pytest.raises(OutputError) as caught:
        async with store.borrow(reference):
            pass
    return caught.value


async def test_a_key_is_copied_and_the_copy_is_gone_afterwards(
    store: OutputStore, storage: Storage
) -> None:
    content = b"x" * (LIMIT - 1)
    await storage.put(content, "uploads/a b.bin", "application/octet-stream")
    async with store.borrow("uploads/a b.bin") as path:
        assert path.read_bytes() == content
    assert not path.exists()


async def test_our_own_url_names_its_key(store: OutputStore, storage: Storage) -> None:
    url = await storage.put(b"mine", "uploads/ä b.bin", "application/octet-stream")
    assert url.startswith("file://")
    async with store.borrow(url) as path:
        assert path.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "reference",
    [
        "../secret",
        "a/../../secret",
        "a/./b",
        "/etc/passwd",
        "a//b",
        "a\\..\\b",
        "file:///etc/passwd",
        "{own}/../secret",
        "{own}/%2e%2e/secret",
        "{own}/a%2f..%2f..%2fsecret",
        "ftp://127.0.0.1/a",
        "s3://bucket/key",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "",
    ],
)
async def test_what_leads_out_of_the_storage_is_refused(
    store: OutputStore, storage: Storage, tmp_path: Path, reference: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    error = await refused(store, reference.format(own=storage.base_url))
    assert (error.failure.kind, error.failure.code) == (FailureKind.INVALID, "reference")
    assert isinstance(_raised(error), Failed)


async def test_a_missing_key_may_come_yet(store: OutputStore) -> None:
    error = await refused(store, "uploads/none.png")
    assert (error.failure.kind, error.failure.code) == (FailureKind.GONE, "no_file")
    assert isinstance(_raised(error), RetryLater)


async def test_a_storage_that_is_down_is_not_the_jobs_failure(
    store: OutputStore, storage: Storage, tmp_path: Path
) -> None:
    (tmp_path / "out" / "uploads").mkdir(parents=True)
    error = await refused(store, "uploads")  # a folder where a file should be
    assert error.failure.code in {"storage", "no_file"}
    await storage.put(b"x", "uploads/x", "text/plain")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").write_text("no folder any more")
    error = await refused(store, "uploads/x")
    assert error.failure.code == "storage"
    assert isinstance(_raised(error), Yield)


async def test_a_file_larger_than_the_limit_is_refused(
    store: OutputStore, storage: Storage
) -> None:
    await storage.put(b"x" * (LIMIT + 1), "big", "application/octet-stream")
    assert (await refused(store, "big")).failure.code == "too_large"


async def test_a_url_is_fetched_under_the_host_policy(store: OutputStore) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/inside":
            raise web.HTTPFound("http://127.0.0.2:1/secret")
        return web.Response(body=b"theirs")

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        async with store.borrow(f"http://127.0.0.1:{port}/file") as path:
            assert path.read_bytes() == b"theirs"
        error = await refused(store, f"http://127.0.0.1:{port}/inside")
        assert error.failure.code == "host_refused"
        assert isinstance(_raised(error), Failed)
    finally:
        await runner.cleanup()


async def test_what_is_kept_is_probed_hashed_and_overwrites_itself(
    store: OutputStore, storage: Storage, tmp_path: Path
) -> None:
    file = tmp_path / "made"
    for width in (40, 60):
        content = make_image("PNG", (width, 20))
        file.write_bytes(content)
        kept = await store.keep_file(file, key_for("media_files", "42", "small.png"))
        assert (kept.key, kept.mime_type) == ("media_files/42/small.png", "image/png")
        assert (kept.width, kept.height, kept.size) == (width, 20, len(content))
        assert kept.sha256 == hashlib.sha256(content).hexdigest()
    found = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [path.name for path in found] == ["small.png"]
    assert await storage.get(kept.key) == content


async def test_what_is_no_media_file_is_not_kept(store: OutputStore, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("no picture")
    with pytest.raises(OutputError, match="not a readable"):
        await store.keep_file(file, "jobs/1/a.png")


@pytest.mark.parametrize("row_key", ["a/b", "../x", "..", ".", "ü", "a b", "x" * 300, ""])
def test_any_row_key_makes_a_plain_path(row_key: str) -> None:
    source, folder, name = key_for("jobs", row_key, "a.png").split("/")
    assert (source, name) == ("jobs", "a.png")
    assert folder == hashlib.sha256(row_key.encode()).hexdigest()


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".hidden", "a b"])
def test_a_name_must_be_plain(name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        key_for("jobs", "1", name)


async def test_not_all_jobs_hold_their_files_at_once(store: OutputStore, storage: Storage) -> None:
    """Two may, each as many as it likes; the third goes on when one of them has ended."""
    await storage.put(b"x", "uploads/x", "text/plain")
    services = cast(Services, SimpleNamespace(outputs=store, room=asyncio.Semaphore(2)))
    running, never = cast(Running, SimpleNamespace()), asyncio.timeout(None)
    first, second, third = (JobContext(running, services, never) for _ in range(3))
    async with first.file("uploads/x"), first.file("uploads/x"), second.file("uploads/x"):
        waiting = asyncio.create_task(third.file("uploads/x").__aenter__())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        first.close()
        first.close()
        assert (await waiting).read_bytes() == b"x"
    assert services.room.locked()
