"""Three workers and one limit: what the provider gets, by its own clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from tests.database.redis_servers import real_redis
from tests.process.fleet import Charge, Fleet, Sandbox, Worker, paid_twice, until_sql
from tests.process.rows import add_texts, all_done, exactly_once, has_status, ledger_equals_bill

pytestmark = [pytest.mark.process, pytest.mark.redis]

A_MINUTE, WINDOW, ROOM = 180, 10, 30
"""So many a minute are 30 in ten seconds."""
JOBS = 75
ON_THE_WAY = 2
"""Seconds a call may take from the door to the provider: its intent is committed in between."""
DONE = "SELECT count(*) >= $1 FROM ai_processing.ai_generations WHERE status = 'completed'"


def most_at_once(charges: list[Charge]) -> int:
    """How many came within a window, less what may have passed on the way, at the worst time."""

    def counts() -> Iterator[int]:
        times = sorted(charge.at for charge in charges)
        width = timedelta(seconds=WINDOW - ON_THE_WAY)
        for number, begin in enumerate(times):
            yield sum(1 for at in times[number:] if at - begin < width)

    return max(counts())


async def hire_three(fleet: Fleet, **settings: Any) -> list[Worker]:
    return [await fleet.hire(name, slots=50, **settings) for name in ("a", "b", "c")]


async def limited(fleet: Fleet, db: Any) -> None:
    await add_texts(db, JOBS)
    said = await fleet.command("limit", "openai", "--requests-per-minute", str(A_MINUTE))
    assert said == (0, f"lane openai: {A_MINUTE} requests a minute\n")


async def nobody_lost_anything(db: Any, sandbox: Sandbox) -> list[Charge]:
    await all_done(db, within=60)
    await exactly_once(db)
    charges = await sandbox.bill()
    assert len(charges) == JOBS
    assert not paid_twice(charges)
    await ledger_equals_bill(db, sandbox)
    assert await db.fetchval("SELECT count(*) FROM rowmill.failures") == 0
    assert await db.fetchval("SELECT count(*) FROM rowmill.submissions") == JOBS
    return charges


@pytest.mark.parametrize("redis", [True, False], ids=["redis", "shares"])
async def test_no_window_sees_more_than_the_limit(
    db: Any, fleet: Fleet, sandbox: Sandbox, redis: bool
) -> None:
    async with AsyncExitStack() as stack:
        settings = {}
        if redis:
            settings["REDIS_URL"] = (await stack.enter_async_context(real_redis())).url
        await limited(fleet, db)
        await hire_three(fleet, **settings)
        await until_sql(
            db, "SELECT slow_until IS NOT NULL FROM rowmill.lanes WHERE lane = 'openai'"
        )
        assert await db.fetchval("SELECT max(yields) FROM rowmill.queue") == 0
        charges = await nobody_lost_anything(db, sandbox)
        assert most_at_once(charges) <= ROOM
        started = await db.fetchval("SELECT sum(started) FROM rowmill.pulses")
        assert started < 3 * JOBS, "most wait unclaimed"


async def test_redis_killed_and_back_midway(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    """For one window each, some are let through that Redis had counted, and no more."""
    async with real_redis() as redis:
        await limited(fleet, db)
        await hire_three(fleet, REDIS_URL=redis.url)
        await until_sql(db, DONE, 20)
        await redis.kill()
        await until_sql(db, DONE, 45)
        await redis.start()
        charges = await nobody_lost_anything(db, sandbox)
        assert most_at_once(charges) <= 2 * ROOM


async def test_a_redis_that_hangs_stops_nobody(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    async with real_redis() as redis:
        await limited(fleet, db)
        await hire_three(fleet, REDIS_URL=redis.url)
        await until_sql(db, DONE, 20)
        redis.stop()
        charges = await nobody_lost_anything(db, sandbox)
        assert most_at_once(charges) <= 2 * ROOM


async def test_a_429_closes_the_lane_and_waits_cost_no_yield(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """The first one to hear it tells all: whoever isn't claimed isn't refused."""
    await sandbox.fault("429=3", times=1)
    (key,) = await add_texts(db)
    await fleet.hire("a", slots=1)
    await until_sql(db, "SELECT slow_until IS NOT NULL FROM rowmill.lanes WHERE lane = 'openai'")
    more = await add_texts(db, 20)
    await fleet.hire("b", slots=20)
    for text in (key, *more):
        await has_status(db, text, "completed")
    refused = await db.fetchval("SELECT count(*) FROM rowmill.submissions WHERE state = 'failed'")
    assert refused == 0, "repeated in place"
    await ledger_equals_bill(db, sandbox)


async def test_a_provider_that_never_has_room_is_held_in_the_end(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """Its own 429s cost a job no try, but it doesn't come back for ever."""
    await sandbox.fault("429=0.1")
    (key,) = await add_texts(db)
    await fleet.hire("a", MAX_YIELDS=3)
    await until_sql(db, "SELECT state = 'held' FROM rowmill.queue WHERE row_key = $1", key)
    note = await db.fetchval("SELECT note FROM rowmill.queue WHERE row_key = $1", key)
    assert "came back 3 times without spending a try" in note
    assert await db.fetchval("SELECT tries FROM rowmill.queue WHERE row_key = $1", key) == 0
    assert await sandbox.bill() == []
