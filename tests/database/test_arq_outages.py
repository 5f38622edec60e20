"""Redis absent, killed and flushed: rows go on, and messages are answered when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.database.arq_hosting import maintenance_of, send, serving, video
from tests.database.redis_servers import KINDS, WAIT, FakeRedis, RealRedis, real_redis
from tests.database.support import Connect, Hand, OpenStore, add_videos, new_keys, queued
from worker import arq_host
from worker.coordination import ConnectionPool
from worker.settings import Settings
from worker.store import Store


@pytest.fixture
async def store(both: str, open_store: OpenStore) -> Store:
    return await open_store(both)


@pytest.fixture
async def db(both: str, connect: Connect) -> Any:
    return await connect(both)


async def test_no_redis_nothing_to_serve(store: Store) -> None:
    settings = Settings(redis_url=None)
    chores = await maintenance_of(store)
    await asyncio.wait_for(arq_host.serve(settings, store, chores=chores), WAIT)


@asynccontextmanager
async def a_server(kind: str) -> AsyncIterator[FakeRedis | RealRedis]:
    if kind == "fake":
        yield FakeRedis()
    else:
        async with real_redis() as server:
            yield server


@pytest.mark.parametrize("kind", KINDS)
async def test_rows_go_on_without_redis_and_the_door_opens_again(
    store: Store, db: Any, kind: str
) -> None:
    async with a_server(kind) as server:
        await server.kill()
        pool = server.pool()
        sender = arq_host.producer(pool)
        async with serving(store, pool) as host:
            hand = await Hand.hire(store)
            for _ in range(2):
                (key,) = await add_videos(db)
                assert await hand.succeed(await hand.take()) == {key: "settled"}
                assert not host.done()
                await server.start()
                assert (await send(sender, "get", id=key))["status"] == "completed"
                await server.kill()
        assert await queued(db) == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_flush_loses_answers_and_no_job(store: Store, db: Any, kind: str) -> None:
    (key, other) = new_keys(2)
    async with a_server(kind) as server:
        pool = server.pool()
        sender = arq_host.producer(pool)
        async with serving(store, pool):
            await send(sender, "submit", source="generation_jobs", row=video(key))
            await sender.flushall()
            assert list(await queued(db)) == [key]
            submitted: dict[str, Any] = {"source": "generation_jobs", "row": video(other)}
            job = await sender.enqueue_job("submit", **submitted)
            assert job is not None
            await sender.flushall()
            assert (await send(sender, "submit", **submitted))["ok"], "its sender repeats it"
            assert set(await queued(db)) == {key, other}


@pytest.mark.redis
async def test_redis_killed_again_and_again_under_messages(store: Store, db: Any) -> None:
    """Senders repeat what had no answer; every job is there once, and the host never ends."""
    keys: list[str] = []
    async with real_redis() as server:
        pool = server.pool()
        async with serving(store, pool) as host:
            for _ in range(5):
                batch = new_keys(12)
                senders = [asyncio.create_task(insist(pool, key)) for key in batch]
                await asyncio.wait(senders, return_when=asyncio.FIRST_COMPLETED)
                await server.kill()
                await server.start()
                assert all(answer["ok"] for answer in await asyncio.gather(*senders))
                keys += batch
            assert not host.done()
    assert set(await queued(db)) == set(keys)
    assert await db.fetchval("SELECT count(*) FROM public.generation_jobs") == len(keys)


async def insist(pool: ConnectionPool, key: str) -> Any:
    """A sender as it should be: the same row id until there is an answer."""
    sender = arq_host.producer(pool)
    while True:
        try:
            job = await sender.enqueue_job("submit", source="generation_jobs", row=video(key))
            assert job is not None
            return await job.result(timeout=0.5, poll_delay=0.02)
        except AssertionError:
            raise
        except Exception:  # noqa: BLE001 - no answer is no answer
            await asyncio.sleep(0.01)
