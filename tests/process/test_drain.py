"""Workers that leave: SIGTERM drains, a second one ends at once, --burst ends when all is done."""

from __future__ import annotations

import signal
import sys
from typing import Any

import pytest

from tests.database.redis_servers import real_redis
from tests.process.fleet import Fleet, Sandbox, paid_twice
from tests.process.rows import (
    add_media,
    add_texts,
    all_done,
    exactly_once,
    failures,
    has_status,
    in_state,
    ledger_equals_bill,
    queue_row,
    row,
    submissions,
)

pytestmark = pytest.mark.process

LONG = "this one takes its time"
"""In a prompt: polls of such a job hang until the test lets them go on."""


async def short_and_long(db: Any, sandbox: Sandbox) -> tuple[list[str], list[str]]:
    """Jobs that end by themselves, and jobs that go on until `sandbox.clear_faults()`."""
    await sandbox.fault("poll-hang", match=LONG)
    return await add_media(db, 4), await add_media(db, 3, prompt=LONG)


async def test_sigterm_drains(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    worker = await fleet.hire("a", GRACE_SECONDS=4)
    short, long = await short_and_long(db, sandbox)
    await in_state(db, "accepted", len(short + long))
    worker.terminate()
    await worker.says("worker.draining")
    (late,) = await add_texts(db)
    assert await worker.ended() == 0

    for key in short:
        assert (await row(db, "generation_jobs", key))["status"] == "completed"
    for key in long:
        await handed_back_untouched(db, key)
    assert (await queue_row(db, late))["state"] == "ready"
    assert await submissions(db, late) == []

    accepted = [(await submissions(db, key))[0]["external_id"] for key in long]
    await sandbox.clear_faults()
    await fleet.hire("b")
    await all_done(db)
    await exactly_once(db)
    resumed = [s["external_id"] for key in long for s in await submissions(db, key)]
    assert resumed == accepted
    assert not paid_twice(await sandbox.bill())
    await ledger_equals_bill(db, sandbox)


async def handed_back_untouched(db: Any, key: str) -> None:
    """Ready again, no try spent; what the provider accepted is kept for whoever comes next."""
    job, queued = await row(db, "generation_jobs", key), await queue_row(db, key)
    assert (job["status"], job["retry_count"], job["error_message"]) == ("queued", 0, None)
    assert (queued["state"], queued["tries"], queued["token"]) == ("ready", 0, None)
    assert [s["state"] for s in await submissions(db, key)] == ["accepted"]
    assert await failures(db, key) == []


async def test_the_second_sigterm_ends_at_once(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    worker = await fleet.hire("a", GRACE_SECONDS=600)
    _, long = await short_and_long(db, sandbox)
    await in_state(db, "accepted", len(long))
    worker.terminate()
    await worker.says("worker.draining")
    worker.terminate()
    assert await worker.ended() == 128 + signal.SIGTERM
    assert (await queue_row(db, long[0]))["state"] == "claimed"  # as after kill -9

    await sandbox.clear_faults()
    await fleet.hire("b")
    await all_done(db)
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())


async def test_a_full_worker_of_arq_drains_as_well(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    async with real_redis() as redis:
        words = (sys.executable, "-m", "arq", "worker.arq_host.WorkerSettings")
        worker = await fleet.start("arq", *words, REDIS_URL=redis.url, GRACE_SECONDS=4)
        await worker.says("worker.started")
        short, long = await short_and_long(db, sandbox)
        await in_state(db, "accepted", len(short + long))
        worker.terminate()
        assert await worker.ended() == 0
    for key in short:
        await has_status(db, key, "completed", within=0)
    for key in long:
        await handed_back_untouched(db, key)


async def test_burst_ends_when_all_is_done(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    media = await add_media(db, 6)
    (retried,) = await add_media(db, prompt="[fault:fail*1]")
    texts = await add_texts(db, 6)
    worker = await fleet.hire("a", options=("--burst",))
    assert await worker.ended() == 0
    for key in (*media, *texts, retried):
        await has_status(db, key, "completed", within=0)
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)


async def test_two_bursts_share_the_work(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    texts = await add_texts(db, 30)
    words = (sys.executable, "-m", "worker.cli", "run", "--burst")
    workers = [await fleet.start(name, *words, SLOTS=4) for name in "ab"]
    assert [await worker.ended() for worker in workers] == [0, 0]
    await exactly_once(db)
    assert len(await sandbox.bill()) == len(texts)
