"""What processes tell each other through Redis, and how they do without it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, WatchError

from tests.database.redis_servers import KINDS, FakeRedis, real_redis, shared_redis
from worker.coordination import (
    FINE_LIFE,
    Cancellable,
    ConnectionPool,
    Coordination,
    LenientRedis,
    ProgressLoop,
    connections,
)

NOBODY_THERE = "unix:///nonexistent/redis.sock"


@pytest.fixture(params=KINDS)
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[ConnectionPool]:
    async with shared_redis(request.param) as pool:
        yield pool


async def test_fine_progress_is_told_and_forgotten(pool: ConnectionPool) -> None:
    coordination, key = Coordination(pool), secrets.token_hex(8)
    assert await coordination.alive() is True
    assert await coordination.progress("generation_jobs", key) is None
    assert await coordination.publish([("generation_jobs", key, 41.5)])
    assert await coordination.progress("generation_jobs", key) == 41.5
    life = await Redis(connection_pool=pool).ttl(f"rowmill:progress:generation_jobs/{key}")
    assert 0 < life <= FINE_LIFE


async def test_only_what_changed_is_published(pool: ConnectionPool) -> None:
    coordination = Coordination(pool)
    one, two = secrets.token_hex(8), secrets.token_hex(8)
    percents = {one: 10.0, two: 0.0}
    loop = ProgressLoop(
        coordination, lambda: [("background_jobs", key, p) for key, p in percents.items()]
    )
    assert await loop.run_once() == 1, "a job that has no progress yet has none to tell"
    assert await loop.run_once() == 0
    percents.update({one: 20.0, two: 5.0})
    assert await loop.run_once() == 2
    assert await coordination.progress("background_jobs", one) == 20.0
    assert await coordination.progress("background_jobs", two) == 5.0
    del percents[one]
    assert await loop.run_once() == 0


async def test_progress_is_published_again_after_an_outage() -> None:
    server = FakeRedis()
    coordination = Coordination(server.pool())
    loop = ProgressLoop(coordination, lambda: [("ai_generations", "1", 30.0)])
    await server.kill()
    assert await loop.run_once() == 0
    assert await coordination.alive() is False
    assert await coordination.progress("ai_generations", "1") is None
    await server.start()
    assert await loop.run_once() == 1
    assert await coordination.progress("ai_generations", "1") == 30.0


async def test_without_redis_nothing_is_known_and_nothing_fails() -> None:
    coordination = Coordination.of(None)
    assert await coordination.alive() is None
    assert await coordination.publish([("generation_jobs", "1", 10.0)]) is False
    assert await coordination.progress("generation_jobs", "1") is None
    await coordination.close()


async def test_a_redis_that_is_not_there() -> None:
    coordination = Coordination.of(NOBODY_THERE)
    assert await coordination.alive() is False
    assert await coordination.publish([("generation_jobs", "1", 10.0)]) is False
    assert await coordination.progress("generation_jobs", "1") is None
    await coordination.close()


# --------------------------------------------------------------------------- a lenient client


async def test_a_lenient_client_is_a_client(pool: ConnectionPool) -> None:
    redis, key = LenientRedis(connection_pool=pool), secrets.token_hex(8)
    await redis.set(key, "1", ex=60)
    async with redis.pipeline(transaction=True) as pipe:
        await pipe.watch(key)
        assert await pipe.exists(key) == 1
        pipe.multi()  # type: ignore[no-untyped-call]
        pipe.set(key, "2", ex=60)
        assert await pipe.execute() == [True]
    assert await redis.get(key) == b"2"


async def test_a_lost_race_is_still_a_lost_race(pool: ConnectionPool) -> None:
    redis, key = LenientRedis(connection_pool=pool), secrets.token_hex(8)
    async with redis.pipeline(transaction=True) as pipe:
        await pipe.watch(key)
        await redis.set(key, "theirs", ex=60)
        pipe.multi()  # type: ignore[no-untyped-call]
        pipe.set(key, "ours", ex=60)
        with pytest.raises(WatchError):
            await pipe.execute()
    assert await redis.get(key) == b"theirs"


async def test_a_redis_that_is_away_looks_empty() -> None:
    redis = LenientRedis(connection_pool=connections(NOBODY_THERE))
    assert list(await redis.zrangebyscore("queue", "-inf", 1)) == []
    assert await redis.zcard("queue") == 0
    assert await redis.get("key") is None
    async with redis.pipeline(transaction=True) as pipe:
        await pipe.watch("key")
        assert await pipe.exists("key"), "whatever it is, it isn't ours to take"
        assert await pipe.zscore("queue", "key") is None
    async with redis.pipeline(transaction=True) as pipe:
        pipe.set("key", "1")
        pipe.zcard("queue")
        assert await pipe.execute() == [None, 0]


@pytest.mark.redis
async def test_a_redis_that_dies_under_a_watch() -> None:
    async with real_redis() as server:
        redis = LenientRedis(connection_pool=server.pool())
        async with redis.pipeline(transaction=True) as pipe:
            await pipe.watch("key")
            await server.kill()
            assert await pipe.exists("key")
        await server.start()
        async with redis.pipeline(transaction=True) as pipe:
            await pipe.watch("key")
            pipe.multi()  # type: ignore[no-untyped-call]
            pipe.set("key", "1")
            await server.kill()
            with pytest.raises(WatchError):
                await pipe.execute()


@pytest.mark.redis
async def test_a_write_survives_a_restart() -> None:
    async with real_redis() as server:
        redis = LenientRedis(connection_pool=server.pool())
        await redis.set("key", "1")
        await server.kill()
        await server.start()
        async with redis.pipeline(transaction=True) as pipe:
            pipe.set("key", "2")
            assert await pipe.execute() == [True]
        strict = Redis(connection_pool=server.pool())
        assert await strict.get("key") == b"2"
        await server.kill()
        with pytest.raises(RedisError):
            await strict.get("key")


class Swallowing:
    """Sends as redis's connections do; both come in the same moment."""

    def __init__(self) -> None:
        self.sent = asyncio.get_running_loop().create_future()
        self.connected = True

    async def send_packed_command(self) -> None:
        await asyncio.wait_for(self.sent, 10)

    async def disconnect(self, nowait: bool) -> None:
        assert nowait
        self.connected = False


class OurConnection(Cancellable, Swallowing):
    pass


async def test_a_cancellation_is_not_swallowed_by_a_command() -> None:
    connection = OurConnection()
    task = asyncio.create_task(connection.send_packed_command())
    await asyncio.sleep(0)
    connection.sent.set_result(None)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_every_connection_of_ours_can_be_cancelled() -> None:
    for url in ("redis://localhost:1", "rediss://localhost:1", "unix:///nowhere.sock"):
        assert issubclass(connections(url).connection_class, Cancellable)
