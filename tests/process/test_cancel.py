"""Cancelling a row at every stage of its life, and deleting it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.database.support import set_status
from tests.process.fleet import Fleet, Sandbox, until, until_sql
from tests.process.rows import (
    add_media,
    add_texts,
    all_done,
    exactly_once,
    has_status,
    in_state,
    ledger_equals_bill,
    project_locked,
    queue_row,
    row,
    submissions,
)

pytestmark = pytest.mark.process

ENDLESS = "[fault:stall]"
"""In a prompt: the provider works on it for ever, unless it is cancelled there."""

_ENDED = """
SELECT state::text FROM rowmill.submissions
 WHERE row_key = $1 AND state NOT IN ('intent', 'accepted', 'unknown')
"""


async def test_while_ready(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    (key,) = await add_media(db)
    await set_status(db, key, "cancelled")
    (other,) = await add_media(db)
    await fleet.hire("a")
    await has_status(db, other, "completed")
    assert (await row(db, "generation_jobs", key))["status"] == "cancelled"
    assert await submissions(db, key) == []
    assert len(await sandbox.bill()) == 1


async def test_while_it_waits_for_its_next_try(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    (key,) = await add_media(db, prompt="[fault:fail*1]")
    await fleet.hire("a")
    await until_sql(db, "SELECT state = 'scheduled' FROM rowmill.queue WHERE row_key = $1", key)
    await set_status(db, key, "cancelled")
    await all_done(db)
    assert (await row(db, "generation_jobs", key))["status"] == "cancelled"
    assert len(await sandbox.bill()) == 1


async def test_while_running(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    """The provider's task is cancelled, and what it had cost by then is in our ledger."""
    (key,) = await add_media(db, prompt=ENDLESS)
    worker = await fleet.hire("a", slots=1)
    await until_sql(
        db, "SELECT progress_percentage > 0 FROM public.generation_jobs WHERE id = $1", key
    )
    await set_status(db, key, "cancelled")
    assert await until_sql(db, _ENDED, key) == "cancelled"
    await cancelled_and_billed_for_a_part(db, sandbox, key)

    (other,) = await add_media(db)  # the one slot is free again
    await has_status(db, other, "completed")
    assert worker.alive
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)


async def cancelled_and_billed_for_a_part(db: Any, sandbox: Sandbox, key: str) -> None:
    (charge,) = await sandbox.bill()
    (submission,) = await submissions(db, key)
    assert 0 < submission["cost_cents"] == charge.net < charge.cents
    job = await row(db, "generation_jobs", key)
    assert (job["status"], job["output_file_id"]) == ("cancelled", None)
    assert await queue_row(db, key) is None


async def test_while_its_worker_is_dead(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    """Nobody runs it any more: maintenance ends the task at the provider."""
    (key,) = await add_media(db, prompt=ENDLESS)
    worker = await fleet.hire("a")
    await until_sql(
        db, "SELECT progress_percentage > 0 FROM public.generation_jobs WHERE id = $1", key
    )
    await worker.kill()
    await set_status(db, key, "cancelled")
    await fleet.hire("b")
    assert await until_sql(db, _ENDED, key) == "cancelled"
    await cancelled_and_billed_for_a_part(db, sandbox, key)
    await ledger_equals_bill(db, sandbox)


async def test_a_text_while_its_answer_is_on_the_way(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """It can't be cancelled at the provider, so it is paid; the ledger says so."""
    (key,) = await add_texts(db, prompt="[fault:slow=1.5*1]")
    await fleet.hire("a")
    await until(sandbox.bill)
    await db.execute(
        "UPDATE ai_processing.ai_generations SET status = 'cancelled' WHERE id = $1", key
    )
    assert await until_sql(db, _ENDED, key) == "finished"
    job = await row(db, "ai_generations", key)
    assert (job["status"], job["response"]) == ("cancelled", None)
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)


async def test_deleted_while_running(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    (key,) = await add_media(db, prompt=ENDLESS)
    await fleet.hire("a", slots=1)
    await in_state(db, "accepted")
    await db.execute("DELETE FROM public.generation_jobs WHERE id = $1", key)
    assert await until_sql(db, _ENDED, key) == "cancelled"
    assert await queue_row(db, key) is None
    (other,) = await add_media(db)
    await has_status(db, other, "completed")
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)


# --------------------------------------------------------------------------- settling


async def test_while_settling(both: str, db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    """It has all been paid and waits to be written: the cancel wins, the spend is kept."""
    (key,) = await add_media(db)
    await fleet.hire("a")
    await in_state(db, "accepted")
    async with project_locked(both, key):
        await in_state(db, "finished")
        await set_status(db, key, "cancelled")
    (other,) = await add_media(db)
    await has_status(db, other, "completed")
    job = await row(db, "generation_jobs", key)
    assert (job["status"], job["output_file_id"]) == ("cancelled", None)
    (submission,) = await submissions(db, key)
    assert (submission["state"], submission["delivered_at"]) == ("finished", None)
    assert submission["cost_cents"] == Decimal("6.5")
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)


async def test_cancelled_and_wanted_after_all(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    """A row set to ready again is new work."""
    (key,) = await add_media(db, prompt="[fault:stall*1]")
    await fleet.hire("a")
    await in_state(db, "accepted")
    await set_status(db, key, "cancelled")
    assert await until_sql(db, _ENDED, key) == "cancelled"
    await set_status(db, key, "queued")
    await has_status(db, key, "completed")
    assert [s["run"] for s in await submissions(db, key)] == [1, 2]
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)
