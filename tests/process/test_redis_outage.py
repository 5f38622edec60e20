"""Redis absent, killed and flushed under load: rows don't notice, messages wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis

from tests.database.arq_hosting import send
from tests.database.redis_servers import RealRedis, real_redis
from tests.database.support import new_keys
from tests.process.fleet import Fleet, Sandbox, Worker, paid_twice, until_sql
from tests.process.rows import (
    add_media,
    add_texts,
    all_done,
    exactly_once,
    has_status,
    ledger_equals_bill,
)
from worker import arq_host

pytestmark = [pytest.mark.process, pytest.mark.redis]

DONE = "SELECT count(*) >= $1 FROM public.generation_jobs WHERE status = 'completed'"
MODEL = "e2000000-0000-4000-8000-000000000001"
USER = "e0000000-0000-4000-8000-000000000003"


@pytest.fixture
async def redis() -> AsyncIterator[RealRedis]:
    """A Redis of the test's own, not started yet."""
    async with real_redis(started=False) as server:
        yield server


def text(key: str) -> dict[str, Any]:
    prompt = f"A limerick about queues [job:ai_generations/{key}]"
    return {"id": key, "user_id": USER, "model_id": MODEL, "prompt": prompt, "max_tokens": 100}


async def submit(sender: ArqRedis, key: str) -> dict[str, Any]:
    answer: dict[str, Any] = await send(sender, "submit", source="ai_generations", row=text(key))
    return answer


async def insist(redis: RealRedis, key: str) -> None:
    """A sender as it should be: it repeats the same row id until it has an answer."""
    sender = arq_host.producer(redis.pool())
    while True:
        try:
            job = await sender.enqueue_job("submit", source="ai_generations", row=text(key))
            assert job is not None
            answer = await job.result(timeout=2, poll_delay=0.05)
        except Exception:  # noqa: BLE001 - no answer is no answer
            await asyncio.sleep(0.05)
        else:
            assert answer["ok"], answer
            return


async def hire_two(fleet: Fleet, redis: RealRedis) -> list[Worker]:
    return [await fleet.hire(name, slots=10, REDIS_URL=redis.url) for name in ("a", "b")]


async def all_went_well(db: Any, sandbox: Sandbox, workers: list[Worker]) -> None:
    await all_done(db)
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    await ledger_equals_bill(db, sandbox)
    assert await db.fetchval("SELECT count(*) FROM rowmill.failures") == 0
    assert [await worker.drain() for worker in workers] == [0, 0]


async def test_absent_at_first(db: Any, fleet: Fleet, sandbox: Sandbox, redis: RealRedis) -> None:
    keys = await add_media(db, 20)
    await add_texts(db, 10)
    workers = await hire_two(fleet, redis)
    await all_done(db)
    await redis.start()
    sender = arq_host.producer(redis.pool())
    assert (await send(sender, "get", id=keys[0]))["status"] == "completed"
    (key,) = new_keys(1)
    assert (await submit(sender, key))["created"]
    await has_status(db, key, "completed")
    await all_went_well(db, sandbox, workers)


async def test_killed_under_load(db: Any, fleet: Fleet, sandbox: Sandbox, redis: RealRedis) -> None:
    await redis.start()
    workers = await hire_two(fleet, redis)
    await add_media(db, 60)
    messages = new_keys(10)
    senders = asyncio.gather(*(insist(redis, key) for key in messages))
    for number in (5, 15, 25):
        await until_sql(db, DONE, number)
        await redis.kill()
        await until_sql(db, DONE, number + 5)
        await redis.start()
    await asyncio.wait_for(senders, 90)
    for key in messages:
        await has_status(db, key, "completed")
    await all_went_well(db, sandbox, workers)


async def test_flushed_under_load(
    db: Any, fleet: Fleet, sandbox: Sandbox, redis: RealRedis
) -> None:
    await redis.start()
    workers = await hire_two(fleet, redis)
    await add_media(db, 60)
    messages = new_keys(10)
    senders = asyncio.gather(*(insist(redis, key) for key in messages))
    flusher = arq_host.producer(redis.pool())
    for number in range(5, 50, 5):
        await until_sql(db, DONE, number)
        await flusher.flushall()
    await asyncio.wait_for(senders, 90)
    for key in messages:
        await has_status(db, key, "completed")
    await all_went_well(db, sandbox, workers)


async def test_gone_for_good(db: Any, fleet: Fleet, sandbox: Sandbox, redis: RealRedis) -> None:
    """It never comes back, also not for the good-bye."""
    await redis.start()
    workers = await hire_two(fleet, redis)
    await add_media(db, 30)
    await until_sql(db, DONE, 5)
    await redis.kill()
    await all_went_well(db, sandbox, workers)


async def test_never_there(db: Any, fleet: Fleet, sandbox: Sandbox, tmp_path: Path) -> None:
    await add_media(db, 10)
    await add_texts(db, 5)
    workers = await hire_two(fleet, RealRedis(tmp_path))
    await all_went_well(db, sandbox, workers)
