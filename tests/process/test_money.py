"""Our ledger agrees with the provider's bill, and what was paid is delivered or kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from tests.database.support import time_passes
from tests.process.fleet import Fleet, Sandbox, paid_twice, until, until_sql
from tests.process.rows import (
    add_media,
    add_texts,
    billed,
    exactly_once,
    has_status,
    in_state,
    ledger,
    ledger_equals_bill,
    nobody_waits,
    project_locked,
    queue_row,
    row,
    submissions,
)

pytestmark = pytest.mark.process

FAULTS = (
    *("", "fail*1", "fail*9", "policy", "invalid", "429=0.1*2", "503=0.1*1", "slow=1*1"),
    *("disconnect-after*1", "disconnect*1", "garbled*1", "cut*1"),
    *("poll-500*2", "poll-429=0.1*1", "poll-disconnect*1", "poll-garbled*1", "download-500*1"),
)
TEXT_FAULTS = ("", "429=0.1*2", "invalid", "slow=1*1")
BILLED = ("policy", "refusal")
"""Texts that are refused in an answer which is paid for."""
KINDS = ("video", "thumbnail", "preview", "audio")
WITH_SOUND = '{"duration_seconds": 2, "soundtrack": true}'
PRICE = Decimal("6.5")


async def test_the_ledger_equals_the_bill(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    """To the cent and for every job, over all that can go wrong at a provider, and a crash."""
    for number, fault in enumerate(FAULTS):
        kind, prompt = KINDS[number % len(KINDS)], f"[fault:{fault}]" if fault else ""
        await add_media(db, prompt=prompt, kind=kind, max_retries=1)
        await add_media(db, prompt=prompt, settings=WITH_SOUND, max_retries=1)
    for fault in TEXT_FAULTS:
        await add_texts(db, prompt=f"[fault:{fault}]" if fault else "")
    refused = [key for fault in BILLED for key in await add_texts(db, prompt=f"[fault:{fault}]")]
    worker = await fleet.hire("a", slots=50, RESUBMIT_UP_TO_CENTS=0)
    await in_state(db, "accepted", 5)
    for key in refused:  # not between their bill and their end: the last test is about that
        await has_status(db, key, "failed")
    await worker.kill()
    await fleet.hire("b", slots=50, RESUBMIT_UP_TO_CENTS=0)
    await done_without_back_off(db)
    await exactly_once(db)
    charges = await sandbox.bill()
    assert not paid_twice(charges)
    # A text whose answer met nobody waits for a person, who looks at the provider's bill.
    held = await db.fetch("SELECT row_key FROM rowmill.queue")
    in_doubt = {f"ai_generations/{line['row_key']}" for line in held}
    assert await ledger(db) == {m: c for m, c in billed(charges).items() if m not in in_doubt}


async def done_without_back_off(db: Any) -> None:
    async def look() -> bool:
        retried = await db.fetch(
            "SELECT row_key FROM rowmill.queue WHERE state = 'scheduled' AND tries > 0"
        )
        if retried:
            await time_passes(db, 60, *(line["row_key"] for line in retried))
        return bool(
            await db.fetchval("SELECT NOT EXISTS (SELECT FROM rowmill.queue WHERE state <> 'held')")
        )

    await until(look, within=40, what="the queue")


# --------------------------------------------------------------------------- refused results


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something on the platform's side that refuses every new file, and how it is taken away."""

    refuse: str
    accept: str
    words: str


REFUSALS = {
    "trigger": Refusal(
        """
        CREATE FUNCTION public.full_up() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''the archive is closed on Sundays''; END';
        CREATE TRIGGER full_up BEFORE INSERT ON public.media_files
            FOR EACH ROW EXECUTE FUNCTION public.full_up()
        """,
        "DROP TRIGGER full_up ON public.media_files",
        "the archive is closed on Sundays",
    ),
    "length": Refusal(
        "ALTER TABLE public.media_files ALTER COLUMN content_hash TYPE varchar(10)",
        "ALTER TABLE public.media_files ALTER COLUMN content_hash TYPE varchar(64)",
        "value too long for type character varying(10)",
    ),
    "overflow": Refusal(
        "ALTER TABLE public.media_files ALTER COLUMN duration_seconds TYPE numeric(2,2)",
        "ALTER TABLE public.media_files ALTER COLUMN duration_seconds TYPE numeric(10,3)",
        "numeric field overflow",
    ),
    "foreign key": Refusal(
        """
        CREATE TABLE public.archive (key text PRIMARY KEY);
        ALTER TABLE public.media_files ADD CONSTRAINT archived
            FOREIGN KEY (file_key) REFERENCES public.archive NOT VALID
        """,
        "ALTER TABLE public.media_files DROP CONSTRAINT archived",
        "archived",
    ),
    "check": Refusal(
        "ALTER TABLE public.usage_records ADD CONSTRAINT cheap CHECK (cost_cents < 2) NOT VALID",
        "ALTER TABLE public.usage_records DROP CONSTRAINT cheap",
        "cheap",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_paid_success_the_database_refuses_is_held(
    db: Any, fleet: Fleet, sandbox: Sandbox, refusal: Refusal
) -> None:
    await db.execute(refusal.refuse)
    (key,) = await add_media(db)
    texts = await add_texts(db, 3)
    await fleet.hire("a")
    await until_sql(db, "SELECT state = 'held' FROM rowmill.queue WHERE row_key = $1", key)
    await paid_and_kept(db, key, refusal)
    for text in texts:  # alone: the others are none the worse for it
        await has_status(db, text, "completed")

    await db.execute(refusal.accept)
    assert await fleet.command("retry", key) == (
        0,
        f"generation_jobs/{key} goes on: it is ready again\n",
    )
    await has_status(db, key, "completed")
    await exactly_once(db)
    assert len(await sandbox.bill()) == 1 + len(texts)
    await ledger_equals_bill(db, sandbox)


async def paid_and_kept(db: Any, key: str, refusal: Refusal) -> None:
    (submission,) = await submissions(db, key)
    assert submission["state"] == "finished"
    assert (submission["cost_cents"], submission["delivered_at"]) == (PRICE, None)
    assert refusal.words in (await queue_row(db, key))["note"]
    job = await row(db, "generation_jobs", key)
    assert (job["output_file_id"], job["retry_count"]) == (None, 0)


# --------------------------------------------------------------------------- crashes


async def test_killed_between_success_and_settling(
    both: str, db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """The result is in the ledger only: whoever comes next delivers it, and asks nobody."""
    (key,) = await add_media(db)
    worker = await fleet.hire("a")
    await in_state(db, "accepted")
    async with project_locked(both, key):
        await in_state(db, "finished")
        await worker.kill()
        await nobody_waits(db)
    before = await submissions(db, key)
    assert (await row(db, "generation_jobs", key))["status"] == "processing"
    await sandbox.outage(on=True)  # nothing more is needed of the provider
    await fleet.hire("b")
    await has_status(db, key, "completed")
    (after,) = await submissions(db, key)
    assert dict(after) == dict(before[0]) | {"delivered_at": after["delivered_at"]}
    assert before[0]["delivered_at"] is None
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)


async def test_a_second_paid_call_doesnt_repeat_the_first(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """Killed while the soundtrack is made: the video is neither paid nor fetched again."""
    (key,) = await add_media(db, settings=WITH_SOUND)
    worker = await fleet.hire("a")
    await until_sql(
        db,
        "SELECT count(*) = 1 FROM rowmill.submissions WHERE step = 'soundtrack'"
        " AND state = 'accepted'",
    )
    await worker.kill()
    first, _ = await submissions(db, key)
    await fleet.hire("b")
    await has_status(db, key, "completed")
    again, sound = await submissions(db, key)
    assert dict(again) == dict(first) | {"delivered_at": again["delivered_at"]}
    operations = sorted(charge.operation for charge in await sandbox.bill())
    assert operations == ["predictions.audio", "predictions.video"]
    assert (await row(db, "generation_jobs", key))["compute_cost_cents"] == round(
        again["cost_cents"] + sound["cost_cents"]
    )
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)


@pytest.mark.parametrize("fault", ["policy", "refusal"])
async def test_killed_between_a_billed_failure_and_settling(
    both: str, db: Any, fleet: Fleet, sandbox: Sandbox, fault: str
) -> None:
    """A refusal in words is billed: what the ledger knows of it is enough to fail the job."""
    (key,) = await add_texts(db, prompt=f"[fault:{fault}]")
    async with nothing_fails(both):
        worker = await fleet.hire("a")
        await in_state(db, "failed")
        await worker.kill()
        await nobody_waits(db)
    assert (await row(db, "ai_generations", key))["status"] == "processing"
    await fleet.hire("b")
    await has_status(db, key, "failed")
    assert len(await sandbox.bill()) == 1
    await ledger_equals_bill(db, sandbox)


@asynccontextmanager
async def nothing_fails(dsn: str) -> AsyncIterator[None]:
    """Failures can't be settled meanwhile: someone reads their table, and lets nobody write it."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE rowmill.failures IN SHARE MODE")
            yield
    finally:
        connection.terminate()


async def test_a_paid_answer_outlives_an_outage_of_the_storage_and_a_crash(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """A picture that came inside the answer can't be asked for again."""
    obstacle = fleet.directory / "outputs" / "generation_jobs"
    obstacle.parent.mkdir()
    obstacle.write_text("no folder can be made here")
    (key,) = await add_media(db, kind="thumbnail", settings="{}")
    await db.execute("UPDATE generation_jobs SET generation_service = 'openai' WHERE id = $1", key)
    worker = await fleet.hire("a")
    await until_sql(
        db,
        "SELECT count(*) = 1 FROM rowmill.submissions s JOIN rowmill.parked ON submission = s.id"
        " WHERE s.row_key = $1 AND s.state = 'finished' AND s.cost_cents > 0",
        key,
    )
    await worker.kill()
    obstacle.unlink()
    await fleet.hire("b")
    await has_status(db, key, "completed")
    assert await db.fetchval("SELECT count(*) FROM rowmill.parked") == 0
    await exactly_once(db)
    assert len(await sandbox.bill()) == 1
    await ledger_equals_bill(db, sandbox)
