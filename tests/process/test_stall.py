"""Workers that stand still: stopped past their lease, and handlers that never end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.process.fleet import Fleet, Sandbox, paid, paid_twice, until_sql
from tests.process.rows import (
    add_background,
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
)

pytestmark = pytest.mark.process

WITH_SOUND = '{"duration_seconds": 2, "soundtrack": true}'
_ID = "SELECT id FROM rowmill.workers WHERE name = $1 ORDER BY started_at LIMIT 1"


async def test_a_stale_worker_writes_nothing_and_pays_nothing(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """It is stopped before its jobs' second paid call, and wakes up when others have made it."""
    stale = await fleet.hire("stale")
    keys = await add_media(db, 6, settings=WITH_SOUND)
    await in_state(db, "accepted", len(keys))
    stale.stop()
    old = await db.fetchval(_ID, "stale")
    intents = await db.fetchval("SELECT count(*) FROM rowmill.submissions WHERE worker = $1", old)
    other = await fleet.hire("other")
    await all_done(db)
    before = await everything(db)
    stale.go_on()
    await stale.says("worker.registered_again")
    assert await other.drain() == 0
    (late,) = await add_media(db)
    await has_status(db, late, "completed")

    assert [line for line in await everything(db) if line["id"] != late] == before
    assert intents == await db.fetchval(
        "SELECT count(*) FROM rowmill.submissions WHERE worker = $1", old
    )
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    assert len(paid(await sandbox.bill())) == 2 * len(keys) + 1
    await ledger_equals_bill(db, sandbox)


async def everything(db: Any) -> list[dict[str, Any]]:
    """What a worker could have written over, row by row, but for the heartbeats."""
    jobs = await db.fetch("SELECT id::text, to_jsonb(j) AS row FROM public.generation_jobs j")
    paid_calls = await db.fetch(
        "SELECT row_key AS id, to_jsonb(s) AS row FROM rowmill.submissions s"
    )
    lines = [dict(line) for line in (*jobs, *paid_calls)]
    return sorted(lines, key=lambda line: (line["id"], line["row"]))


async def test_a_stopped_worker_that_wakes_within_its_lease_goes_on(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    worker = await fleet.hire("a", LEASE_SECONDS=30)
    (key,) = await add_media(db)
    await in_state(db, "accepted")
    worker.stop()
    claim = await queue_row(db, key)
    worker.go_on()
    await has_status(db, key, "completed")
    assert claim["state"] == "claimed"
    assert worker.events("worker.registered_again") == []
    assert len(await sandbox.bill()) == 1


# --------------------------------------------------------------------------- hung handlers

HANDLERS = """
import asyncio
from jobs.contract import Context, Job, Outcome, Succeeded
from jobs.registry import RetryPolicy, kind

@kind("background:hang", timeout=0.5, retry=RetryPolicy(base=0.05, jitter=0.0))
async def hang(job: Job, ctx: Context) -> Outcome:
    await asyncio.Event().wait()
    return Succeeded()

@kind("background:hang_long", timeout=600)
async def hang_long(job: Job, ctx: Context) -> Outcome:
    await asyncio.Event().wait()
    return Succeeded()
"""


@pytest.fixture
def own_handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of an adopter's, importable by the workers."""
    (tmp_path / "hanging_jobs.py").write_text(HANDLERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "hanging_jobs"


async def test_a_hung_handler_meets_its_deadline(db: Any, fleet: Fleet, own_handlers: str) -> None:
    (key,) = await add_background(db, kind="hang", max_retries=2)
    await fleet.hire("a", HANDLERS=own_handlers)
    await has_status(db, key, "failed")
    job = await row(db, "background_jobs", key)
    assert job["retry_count"] == job["max_retries"] == 2
    assert job["error_message"] == "not done within 0.5 s"
    tries = await failures(db, key)
    assert [(f["try"], f["code"], f["final"]) for f in tries] == [
        (1, "deadline", False),
        (2, "deadline", False),
        (3, "deadline", True),
    ]


async def test_a_hung_handler_holds_up_nothing_else(
    db: Any, fleet: Fleet, own_handlers: str, sandbox: Sandbox
) -> None:
    hung = await add_background(db, 3, kind="hang_long")
    await fleet.hire("a", slots=4, HANDLERS=own_handlers)
    await until_sql(db, "SELECT count(*) = 3 FROM rowmill.queue WHERE state = 'claimed'")
    texts = await add_texts(db, 10)
    for key in texts:
        await has_status(db, key, "completed")
    assert [(await row(db, "background_jobs", key))["status"] for key in hung] == ["processing"] * 3
    assert len(await sandbox.bill()) == len(texts)
