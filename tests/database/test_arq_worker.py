"""`arq worker.arq_host.WorkerSettings` is a full worker, with and without its Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.database.arq_hosting import send
from tests.database.redis_servers import WAIT, RealRedis, real_redis, until
from tests.database.support import Connect, add_background, new_keys
from worker import arq_host

pytestmark = [pytest.mark.process, pytest.mark.redis]

COMMAND = (sys.executable, "-m", "arq", "worker.arq_host.WorkerSettings")
ROOT = Path(__file__).parents[2]
Deliver = Callable[[], Awaitable[str]]


class Receiver:
    """A customer's endpoint: it says what came, and answers when the test lets it."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[str] = asyncio.Queue()
        self.answers = asyncio.Event()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.put_nowait(await request.text())
        await self.answers.wait()
        return web.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = site.name + "/"
    yield receiver
    await runner.cleanup()


def environment(dsn: str, redis: RealRedis, directory: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ROWMILL_")}
    return {
        **ours,
        "PYTHONPATH": str(ROOT),
        "ROWMILL_DATABASE_URL": dsn,
        "ROWMILL_REDIS_URL": redis.url,
        "ROWMILL_STORAGE_URL": directory.as_uri(),
        "ROWMILL_ALLOW_PRIVATE_HOSTS": "127.0.0.1",
    }


@asynccontextmanager
async def arq_worker(
    dsn: str, redis: RealRedis, directory: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, cwd=directory, env=environment(dsn, redis, directory), stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        sys.stdout.write((directory / "log").read_text())  # shown when the test fails


async def check(dsn: str, redis: RealRedis, directory: Path) -> int:
    """What `arq --check` says of the worker on this machine."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--check",
        cwd=directory,
        env=environment(dsn, redis, directory),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


async def completed(db: Any, key: str) -> bool:
    status = await db.fetchval("SELECT status FROM system.background_jobs WHERE id = $1", key)
    return bool(status == "completed")


async def webhook(db: Any, receiver: Receiver) -> str:
    payload = f'{{"url": "{receiver.url}", "body": {{}}}}'
    (key,) = await add_background(db, kind="deliver_webhook", payload=payload)
    return key


async def test_a_full_worker_whatever_becomes_of_redis(
    ebook: str, connect: Connect, receiver: Receiver, tmp_path: Path
) -> None:
    db = await connect(ebook)
    async with real_redis(started=False) as redis, arq_worker(ebook, redis, tmp_path) as process:
        # Redis isn't there yet: rows are run all the same.
        key = await webhook(db, receiver)
        await asyncio.wait_for(receiver.got.get(), WAIT)
        await redis.start()
        sender = arq_host.producer(redis.pool())
        assert (await send(sender, "get", id=key))["status"] == "processing"
        await until(lambda: healthy(ebook, redis, tmp_path))

        # It dies while a job runs.
        await redis.kill()
        receiver.answers.set()
        await until(lambda: completed(db, key))
        (other,) = new_keys(1)
        row = {"id": other, "job_type": "deliver_webhook"}
        row["payload"] = {"url": receiver.url, "body": {"n": 2}}  # type: ignore[assignment]

        # It comes back, with nothing in it.
        await redis.start()
        sender = arq_host.producer(redis.pool())
        assert (await send(sender, "submit", source="background_jobs", row=row))["created"]
        await until(lambda: completed(db, other))

        # Asked to leave without a Redis to say good-bye to: it finishes what it has.
        await redis.kill()
        receiver.answers.clear()
        while not receiver.got.empty():
            receiver.got.get_nowait()
        last = await webhook(db, receiver)
        await asyncio.wait_for(receiver.got.get(), WAIT)
        process.send_signal(signal.SIGTERM)
        await until(lambda: draining(db))
        receiver.answers.set()
        assert await asyncio.wait_for(process.wait(), WAIT) == 0
        assert await completed(db, last)
        assert await db.fetchval("SELECT count(*) FROM rowmill.queue") == 0
        assert await db.fetchval("SELECT bool_and(stopped_at IS NOT NULL) FROM rowmill.workers")


async def test_a_second_signal_means_now(
    ebook: str, connect: Connect, receiver: Receiver, tmp_path: Path
) -> None:
    db = await connect(ebook)
    async with real_redis() as redis, arq_worker(ebook, redis, tmp_path) as process:
        await webhook(db, receiver)
        await asyncio.wait_for(receiver.got.get(), WAIT)
        process.send_signal(signal.SIGTERM)
        await until(lambda: draining(db))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), WAIT) == 128 + signal.SIGTERM
        assert await db.fetchval("SELECT count(*) FROM rowmill.queue WHERE state = 'claimed'") == 1
        receiver.answers.set()


async def draining(db: Any) -> bool:
    return bool(await db.fetchval("SELECT bool_or(draining) FROM rowmill.workers"))


async def healthy(dsn: str, redis: RealRedis, directory: Path) -> bool:
    return await check(dsn, redis, directory) == 0
