"""kill -9 in mid-flight: every job ends exactly once, and is paid for once."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.process.fleet import Fleet, Sandbox, paid, paid_twice, until, until_sql
from tests.process.rows import (
    add_media,
    add_texts,
    all_done,
    billed,
    exactly_once,
    has_status,
    in_state,
    ledger,
    ledger_equals_bill,
    queue_row,
    row,
    submissions,
)

pytestmark = pytest.mark.process

CENT = 1


async def killed_before_the_answer(fleet: Fleet, sandbox: Sandbox) -> None:
    """Kill a worker that has sent a request, which was accepted and billed."""
    worker = await fleet.hire("a")
    await until(sandbox.bill)
    await worker.kill()


async def test_what_a_provider_accepted_is_resumed(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    keys = await add_media(db, 8)
    first = await fleet.hire("a")
    await in_state(db, "accepted", 5)
    await first.kill()
    await fleet.hire("b")
    await all_done(db)
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    assert len(paid(await sandbox.bill())) == len(keys)
    await ledger_equals_bill(db, sandbox)


async def test_an_answer_that_met_nobody_is_found_at_the_provider(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    (key,) = await add_media(db, prompt="[fault:slow=10*1]")  # accepted, billed; answered late
    await killed_before_the_answer(fleet, sandbox)
    await fleet.hire("b")
    await has_status(db, key, "completed")
    await exactly_once(db)
    (charge,) = await sandbox.bill()
    (submission,) = await submissions(db, key)
    assert submission["external_id"] == charge.external_id
    await ledger_equals_bill(db, sandbox)


async def test_a_request_that_never_arrived_is_sent_again(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    (key,) = await add_media(db, prompt="[fault:hang*1]")  # nobody accepts this one
    worker = await fleet.hire("a")
    await until(sandbox.hanging)
    await worker.kill()
    await fleet.hire("b")
    await has_status(db, key, "completed", within=30)
    await exactly_once(db)
    assert [s["state"] for s in await submissions(db, key)] == ["written_off", "finished"]
    await ledger_equals_bill(db, sandbox)


async def test_a_text_of_unknown_fate_is_held_where_nothing_may_be_paid_twice(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    (key,) = await add_texts(db, prompt="[fault:slow=4*1]")
    await killed_before_the_answer(fleet, sandbox)
    await fleet.hire("b", RESUBMIT_UP_TO_CENTS=0)
    await until_sql(db, "SELECT state = 'held' FROM rowmill.queue WHERE row_key = $1", key)
    assert len(await sandbox.bill()) == 1
    assert "rowmill resolve" in (await queue_row(db, key))["note"]
    assert (await row(db, "ai_generations", key))["status"] == "processing"


async def test_a_text_below_a_cent_is_sent_again_by_default(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    (key,) = await add_texts(db, prompt="[fault:slow=4*1]")
    await killed_before_the_answer(fleet, sandbox)
    await fleet.hire("b")
    await has_status(db, key, "completed")
    await exactly_once(db)
    assert [s["state"] for s in await submissions(db, key)] == ["written_off", "finished"]
    charges = await sandbox.bill()
    assert len(charges) == 2
    assert sum(charge.cents for charge in charges) < CENT


# --------------------------------------------------------------------------- again and again

# Goes up with everything that happens to a paid call, so a kill at a random number is one at a
# random moment that doesn't depend on how fast this machine is.
_STEPS = """
SELECT count(*) + count(accepted_at) + count(ended_at) + count(delivered_at) >= $1
  FROM rowmill.submissions
"""
MEDIA, TEXTS, KILLS, STEPS_OF_A_JOB = 40, 20, 5, 3


@pytest.mark.parametrize(("seed", "resubmit"), [(1, 0), (2, 1)])
async def test_many_kills(
    db: Any, fleet: Fleet, sandbox: Sandbox, seed: int, resubmit: int
) -> None:
    chance = random.Random(seed)
    await add_media(db, MEDIA)
    await add_texts(db, TEXTS)
    for name in "ab":
        await fleet.hire(name, slots=12, RESUBMIT_UP_TO_CENTS=resubmit)
    last = (MEDIA + TEXTS) * STEPS_OF_A_JOB
    for steps in sorted(chance.sample(range(10, last), KILLS)):
        await until_sql(db, _STEPS, steps)
        await chance.choice([worker for worker in fleet.workers if worker.alive]).kill()
        await fleet.hire("c", slots=12, RESUBMIT_UP_TO_CENTS=resubmit)
    await all_done(db, within=40)
    await exactly_once(db)
    await nothing_but_cents_at_risk(db, sandbox, resubmit)


async def nothing_but_cents_at_risk(db: Any, sandbox: Sandbox, resubmit: int) -> None:
    charges = await sandbox.bill()
    twice = paid_twice(charges)
    assert all(operation == "chat.completions" for _, operation in twice)
    assert all(charge.cents < CENT for lines in twice.values() for charge in lines)
    assert resubmit or not twice
    held = {f"ai_generations/{key}" for key in await held_keys(db)}
    ours, theirs = await ledger(db), billed(charges)
    clear = theirs.keys() - held - {marker for marker, _ in twice}
    assert {marker: theirs[marker] for marker in clear} == {
        marker: cents for marker, cents in ours.items() if marker in clear
    }
    done = await db.fetchval(
        "SELECT (SELECT count(*) FROM public.generation_jobs WHERE status = 'completed')"
        " + (SELECT count(*) FROM ai_processing.ai_generations WHERE status = 'completed')"
    )
    assert done == MEDIA + TEXTS - len(held)
    assert not (resubmit and held)


async def held_keys(db: Any) -> list[str]:
    held = await db.fetch("SELECT row_key FROM rowmill.queue WHERE state = 'held'")
    return [line["row_key"] for line in held]
