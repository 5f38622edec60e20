"""Redis servers for tests: one in this process, and real ones to kill."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from fakeredis import aioredis

from worker.coordination import ConnectionPool, connections

WAIT = 20.0
"""Longer than any answer takes; nothing waits this long unless it is broken."""


async def until(true: Callable[[], Awaitable[Any]]) -> None:
    """For what can only be looked at: rows of another process, keys of Redis."""
    async with asyncio.timeout(WAIT):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class FakeRedis:
    """A Redis inside this process, which can be "away"."""

    def __init__(self) -> None:
        self._server = fakeredis.FakeServer()

    def pool(self) -> ConnectionPool:
        pool: ConnectionPool = aioredis.FakeRedis(server=self._server).connection_pool
        return pool

    async def kill(self) -> None:
        self._server.connected = False

    async def start(self) -> None:
        self._server.connected = True


class RealRedis:
    """A redis-server of our own, on a socket in a directory of its own. Keeps nothing on disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._pools: list[ConnectionPool] = []
        self.url = f"unix://{directory}/redis.sock"

    def pool(self) -> ConnectionPool:
        self._pools.append(connections(self.url))
        return self._pools[-1]

    async def disconnect(self) -> None:
        for pool in self._pools:
            await pool.disconnect()

    async def start(self) -> None:
        options = {"port": "0", "save": "", "appendonly": "no", "dir": str(self._directory)}
        options["unixsocket"] = f"{self._directory}/redis.sock"
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        process = await asyncio.create_subprocess_exec(
            "redis-server", *words, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if b"ready to accept connections" in line.lower():
                self._process = process
                return
        raise RuntimeError("redis-server didn't start")

    def stop(self) -> None:
        """It hangs: connections are taken, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()
            self._process = None


@asynccontextmanager
async def real_redis(*, started: bool = True) -> AsyncIterator[RealRedis]:
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server here")
    with tempfile.TemporaryDirectory(prefix="rowmill-redis-") as directory:
        server = RealRedis(Path(directory))
        if started:
            await server.start()
        try:
            yield server
        finally:
            await server.disconnect()
            await server.kill()


@asynccontextmanager
async def some_redis(kind: str) -> AsyncIterator[ConnectionPool]:
    """Connections to a Redis: `fake`, or `real` (a private one if it can be, it is empty then)."""
    given = os.environ.get("ROWMILL_REDIS_URL")
    if kind == "fake":
        yield FakeRedis().pool()
    elif given and shutil.which("redis-server") is None:
        async with given_redis(given) as pool:
            yield pool
    else:
        async with real_redis() as server:
            yield server.pool()


@asynccontextmanager
async def shared_redis(kind: str) -> AsyncIterator[ConnectionPool]:
    """The same the other way round: a given server is preferred. Others may use it, too."""
    given = os.environ.get("ROWMILL_REDIS_URL")
    if kind == "real" and given:
        async with given_redis(given) as pool:
            yield pool
    else:
        async with some_redis(kind) as pool:
            yield pool


@asynccontextmanager
async def given_redis(url: str) -> AsyncIterator[ConnectionPool]:
    pool = connections(url)
    yield pool
    await pool.disconnect()


KINDS = ("fake", pytest.param("real", marks=pytest.mark.redis))
