"""`rowmill drain`: a worker that leaves because an operator said so, in the database alone."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import pytest

from tests.database.redis_servers import real_redis
from tests.process.fleet import Fleet, Sandbox, paid_twice, until_sql
from tests.process.rows import (
    add_texts,
    all_done,
    exactly_once,
    has_status,
    in_state,
    ledger_equals_bill,
    queue_row,
    row,
    submissions,
)
from tests.process.test_drain import handed_back_untouched, short_and_long

pytestmark = pytest.mark.process

DRAINING = "SELECT bool_and(draining) FROM rowmill.workers WHERE name = $1 AND stopped_at IS NULL"


async def test_it_finishes_what_it_can_and_hands_back_the_rest(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    worker = await fleet.hire("a", GRACE_SECONDS=4)
    short, long = await short_and_long(db, sandbox)
    await in_state(db, "accepted", len(short + long))
    waits = asyncio.create_task(fleet.command("drain", "a", "--wait", "--reason", "new kernel"))
    await worker.says("worker.draining")
    (late,) = await add_texts(db)
    code, said = await waits
    assert code == 0
    assert "worker a is asked to leave; " in said
    assert "1 left: a: 3 running" in said
    assert said.endswith("1 of 1 gone\n")
    assert await worker.ended() == 0

    for key in short:
        assert (await row(db, "generation_jobs", key))["status"] == "completed"
    for key in long:
        await handed_back_untouched(db, key)
    assert (await queue_row(db, late))["state"] == "ready"
    assert await submissions(db, late) == []
    code, said = await fleet.command("drain", "a")
    assert (code, said) == (1, "worker a has stopped already\n")

    await sandbox.clear_faults()
    await fleet.hire("b")
    await all_done(db)
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    await ledger_equals_bill(db, sandbox)


async def test_all_at_once_by_two_operators_beside_sigterm(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """One worker is told by a signal, too: the first one changes nothing."""
    one = await fleet.hire("a", GRACE_SECONDS=60)
    _, long = await short_and_long(db, sandbox)
    await in_state(db, "accepted", len(long))
    two = await fleet.hire("b")
    both = await asyncio.gather(*(fleet.command("drain", "--all", "--json") for _ in range(2)))
    assert [code for code, _ in both] == [0, 0]
    assert await db.fetchval("SELECT count(*) FROM rowmill.actions WHERE action = 'drain'") == 2
    await one.says("worker.draining")
    one.terminate()
    await one.says("signal")
    assert one.alive
    await sandbox.clear_faults()
    assert [await one.ended(), await two.ended()] == [0, 0]
    for key in long:
        await has_status(db, key, "completed", within=0)
    await exactly_once(db)


async def test_killed_while_it_drains(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    worker = await fleet.hire("a", GRACE_SECONDS=60)
    _, long = await short_and_long(db, sandbox)
    await in_state(db, "accepted", len(long))
    assert (await fleet.command("drain", "a"))[0] == 0
    await until_sql(db, DRAINING, "a")
    # Two signals are what they always were.
    worker.terminate()
    await worker.says("signal")
    worker.terminate()
    assert await worker.ended() == 128 + signal.SIGTERM
    await sandbox.clear_faults()
    other = await fleet.hire("b")
    await all_done(db)
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    assert other.alive


async def test_asked_while_it_is_frozen(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    """Given up before it hears: what it had is another's, and awake it leaves at once."""
    worker = await fleet.hire("a", GRACE_SECONDS=60)
    _, long = await short_and_long(db, sandbox)
    await in_state(db, "accepted", len(long))
    worker.stop()
    # However long the command takes to start, it comes before the others give the worker up.
    await db.execute("UPDATE rowmill.workers SET lease = '1 hour'")
    assert (await fleet.command("drain", "a"))[0] == 0
    await db.execute("UPDATE rowmill.workers SET lease = make_interval(secs => $1)", fleet.lease)
    other = await fleet.hire("b")
    await until_sql(db, "SELECT stopped_at IS NOT NULL FROM rowmill.workers WHERE name = 'a'")
    await sandbox.clear_faults()
    worker.go_on()
    assert await worker.ended() == 0
    assert worker.events("worker.asked_to_leave")
    await all_done(db)
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    assert other.alive


async def test_a_full_worker_of_arq(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    async with real_redis() as redis:
        words = (sys.executable, "-m", "arq", "worker.arq_host.WorkerSettings")
        settings = {"REDIS_URL": redis.url, "GRACE_SECONDS": 4, "WORKER_NAME": "arq"}
        worker = await fleet.start("arq", *words, **settings)
        await worker.says("worker.started")
        short, long = await short_and_long(db, sandbox)
        await in_state(db, "accepted", len(short + long))
        assert (await fleet.command("drain", "arq"))[0] == 0
        await until_sql(db, DRAINING, "arq")
        worker.terminate()  # the first signal to a worker that leaves already
        assert await worker.ended() == 0
    for key in short:
        await has_status(db, key, "completed", within=0)
    for key in long:
        await handed_back_untouched(db, key)
