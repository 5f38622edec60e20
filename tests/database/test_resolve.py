"""A person says what became of a paid call that no program could find out about."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import pytest

from jobs.providers.journal import Journal, State, Submission
from jobs.providers.runner import Runner
from tests.database.arq_hosting import maintenance_of
from tests.database.journaling import at_work, intend, journal_of, ledger_rows
from tests.database.support import LANES, Connect, Hand, OpenStore, Work, failure
from tests.process.fleet import until_sql
from worker.ledger import ClaimJournal
from worker.store import Store, acts, upkeep
from worker.store.acts import Seen
from worker.store.attaching import detach
from worker.store.finding import Found
from worker.store.upkeep import Late


@dataclass
class Doubt:
    """A job that is held because of one call."""

    connection: Any
    store: Store
    hand: Hand
    work: Work
    journal: ClaimJournal
    submission: Submission

    async def resolve(self, how: str, **given: Any) -> str:
        job = Found("generation_jobs", self.work.key)
        return await acts.resolve(self.store, job, how=how, who="tests", **given)

    async def row(self) -> tuple[Any, ...]:
        columns = "SELECT status::text, error_message, failed_at IS NOT NULL FROM generation_jobs"
        return tuple(await self.connection.fetchrow(columns))


@pytest.fixture
async def doubt(photomemory: str, connect: Connect, open_store: OpenStore) -> Doubt:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    journal = journal_of(store, work, hand)
    submission = await intend(journal)
    await journal.unknown(submission.id, failure("cut off"))
    await hand.hold([work])
    return Doubt(connection, store, hand, work, journal, submission)


async def test_the_provider_has_it(doubt: Doubt) -> None:
    assert await doubt.resolve("accepted", external_id="task-7") == "released"
    (work,) = await doubt.hand.take()
    again = await intend(journal_of(doubt.store, work, doubt.hand))
    assert (again.id, again.fresh, again.state) == (doubt.submission.id, False, State.ACCEPTED)
    assert (again.external_id, again.ref) == ("task-7", None)
    act = await doubt.connection.fetchrow("SELECT who, action, subject FROM rowmill.actions")
    assert tuple(act) == ("tests", "resolve", f"generation_jobs/{work.key}")


async def test_it_is_sent_again(doubt: Doubt) -> None:
    assert await doubt.resolve("resubmit") == "released"
    (work,) = await doubt.hand.take()
    assert (await intend(journal_of(doubt.store, work, doubt.hand))).fresh
    first, second = await ledger_rows(doubt.connection)
    assert (first["state"], second["state"]) == ("written_off", "intent")
    assert first["error"] == "resubmit, said tests"


async def test_the_job_is_given_up(doubt: Doubt) -> None:
    assert await doubt.resolve("fail") == "failed"
    status, message, failed = await doubt.row()
    assert (status, failed) == ("failed", True)
    assert "given up by tests" in message
    assert await doubt.connection.fetchval("SELECT count(*) FROM rowmill.queue") == 0
    assert [row["state"] for row in await ledger_rows(doubt.connection)] == ["written_off"]


async def test_what_cannot_be_resolved(doubt: Doubt) -> None:
    assert await doubt.resolve("resubmit", step="other") == "none"
    await doubt.connection.execute(
        "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
        " account, model, state, external_id, estimate_cents) SELECT source, 'x', 1, step, lane,"
        " worker, provider, account, model, 'accepted', 'task-7', 1 FROM rowmill.submissions"
    )
    assert await doubt.resolve("accepted", external_id="task-7") == "taken"
    await acts.retry(doubt.store, "generation_jobs", doubt.work.key, "tests")
    (work,) = await doubt.hand.take()
    assert await doubt.resolve("resubmit") == "running"
    second = await intend(journal_of(doubt.store, work, doubt.hand), "second")
    await doubt.journal.unknown(second.id, failure("cut off"))
    await doubt.hand.hold([work])
    assert await doubt.resolve("resubmit") == "several"
    assert await doubt.resolve("resubmit", step="second") == "released"


async def test_an_id_nobody_can_ask_for_may_be_corrected(doubt: Doubt) -> None:
    assert await doubt.resolve("accepted", external_id="misspelt") == "released"
    assert await doubt.resolve("accepted", external_id="task-7") == "hastened"
    assert [row["external_id"] for row in await ledger_rows(doubt.connection)] == ["task-7"]


async def test_of_a_job_that_is_over_only_the_ledger_changes(doubt: Doubt) -> None:
    await doubt.connection.execute("UPDATE generation_jobs SET status = 'cancelled'")
    assert await doubt.resolve("fail") == "recorded"
    assert (await doubt.row())[0] == "cancelled"
    assert [row["state"] for row in await ledger_rows(doubt.connection)] == ["written_off"]


async def test_another_call_than_the_one_that_was_shown(doubt: Doubt) -> None:
    """Whoever said yes has looked at the provider for that one."""
    shown = Seen(("held",), doubts=(str(doubt.submission.id),))
    await doubt.connection.execute("UPDATE rowmill.submissions SET state = 'failed'")
    await acts.retry(doubt.store, "generation_jobs", doubt.work.key, "tests")
    (work,) = await doubt.hand.take()
    journal = journal_of(doubt.store, work, doubt.hand)
    second = await intend(journal)
    await journal.unknown(second.id, failure("cut off"))
    await doubt.hand.hold([work])
    assert await doubt.resolve("resubmit", seen=shown) == "changed"
    assert [row["state"] for row in await ledger_rows(doubt.connection)] == ["failed", "unknown"]
    now = Seen(("held",), doubts=(str(second.id),))
    assert await doubt.resolve("fail", seen=now) == "failed"
    assert [
        row["action"]
        for row in await doubt.connection.fetch("SELECT action FROM rowmill.actions ORDER BY id")
    ] == ["retry", "resolve"]


# --------------------------------------------------------------------------- late successes


class Ended:
    """A runner to whom every provider says: it succeeded, for 3 cents; of deleted jobs, nothing."""

    async def abandon(self, *_: object) -> bool:
        return False

    async def settle_orphan(self, journal: Journal, submission: Submission) -> bool:
        await journal.finished(submission.id, result={}, cost_cents=Decimal(3))
        return True


@dataclass
class CancelledMeanwhile(Ended):
    doubt: Doubt

    async def settle_orphan(self, journal: Journal, submission: Submission) -> bool:
        await self.doubt.connection.execute("UPDATE generation_jobs SET status = 'cancelled'")
        return await super().settle_orphan(journal, submission)


DYING = """
CREATE FUNCTION dying() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(600); RETURN new; END';
CREATE TRIGGER dying BEFORE UPDATE ON generation_jobs EXECUTE FUNCTION dying();
"""
SLEEPING = """
FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'
"""


async def test_a_late_success_survives_whoever_finds_it(doubt: Doubt) -> None:
    """What is recorded and not delivered is never looked at again, so both are one commit."""
    await failed_meanwhile(doubt)
    chores = await maintenance_of(doubt.store, cast("Runner", Ended()))
    await doubt.connection.execute(DYING)
    finding = asyncio.create_task(chores.orphans())
    await until_sql(doubt.connection, f"SELECT bool_and(pg_terminate_backend(pid)) {SLEEPING}")
    await finding  # its connection is gone, as if it had died itself
    await doubt.connection.execute("DROP TRIGGER dying ON generation_jobs")
    assert (await doubt.row())[0] == "failed"
    await chores.orphans()
    assert (await doubt.row())[0] == "queued"
    (call,) = await ledger_rows(doubt.connection)
    assert (call["state"], call["cost_cents"]) == ("finished", Decimal(3))


async def test_a_late_success_holds_up_nobody(
    photomemory: str, connect: Connect, doubt: Doubt
) -> None:
    """Whoever has its row locked may have it for long, and every payment needs the budgets."""
    await failed_meanwhile(doubt)
    await doubt.connection.execute("INSERT INTO rowmill.budgets VALUES ('*', 'day', 100)")
    chores = await maintenance_of(doubt.store, cast("Runner", Ended()))
    other = await connect(photomemory)
    async with other.transaction():
        await other.execute("SELECT FROM generation_jobs FOR UPDATE")
        finding = asyncio.create_task(chores.orphans())
        while not finding.done():
            await doubt.connection.execute("SELECT FROM rowmill.budgets FOR UPDATE NOWAIT")
        assert [row["state"] for row in await ledger_rows(doubt.connection)] == ["accepted"]
    await chores.orphans()
    assert (await doubt.row())[0] == "queued"


async def test_a_late_success_of_a_cancelled_job_is_only_recorded(doubt: Doubt) -> None:
    """Someone cancelled it while the provider was asked."""
    await failed_meanwhile(doubt)
    chores = await maintenance_of(doubt.store, cast("Runner", CancelledMeanwhile(doubt)))
    await chores.orphans()
    assert (await doubt.row())[0] == "cancelled"
    (call,) = await ledger_rows(doubt.connection)
    assert (call["state"], call["cost_cents"]) == ("finished", Decimal(3))


async def test_a_late_success_of_a_detached_table_is_recorded(doubt: Doubt) -> None:
    """What it cost is known; once the table is attached again, `rowmill retry` delivers it."""
    await failed_meanwhile(doubt)
    await detach(doubt.store.dsn, "photomemory")
    chores = await maintenance_of(doubt.store, cast("Runner", Ended()))
    await chores.orphans()
    (call,) = await ledger_rows(doubt.connection)
    assert (call["state"], call["cost_cents"]) == ("finished", Decimal(3))


@pytest.mark.parametrize("account", ["gone", "acct"])
async def test_those_that_tell_nothing_leave_the_others_their_turn(
    doubt: Doubt, account: str
) -> None:
    """Older ones of an account that isn't configured any more, or that never answers."""
    await failed_meanwhile(doubt)
    await doubt.connection.execute(
        "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
        " account, model, state, external_id, accepted_at, estimate_cents) SELECT source,"
        " gen_random_uuid(), 1, step, lane, worker, provider, $1, model, 'accepted', n,"
        " now() - interval '2 hours', 1 FROM rowmill.submissions, generate_series(1, 60) n",
        account,
    )
    chores = await maintenance_of(doubt.store, cast("Runner", Ended()))
    for _ in range(1 if account == "gone" else 30):
        await chores.orphans()
    assert (await doubt.row())[0] == "queued"


async def failed_meanwhile(doubt: Doubt) -> None:
    """The job has failed, and the provider still works on its task."""
    await doubt.connection.execute(
        "UPDATE rowmill.submissions SET state = 'accepted', accepted_at = now() - interval '1 hour'"
    )
    await acts.retry(doubt.store, "generation_jobs", doubt.work.key, "tests")
    await doubt.hand.fail(await doubt.hand.take())


async def test_a_late_success_is_delivered(doubt: Doubt) -> None:
    await failed_meanwhile(doubt)
    assert await deliver(doubt) == Late(recorded=True, delivered=True)
    assert await deliver(doubt) == Late(recorded=False, delivered=False), "by another worker, too"
    assert (await doubt.row())[:2] == ("queued", None)
    (work,) = await doubt.hand.take()
    again = await intend(journal_of(doubt.store, work, doubt.hand))
    assert (again.id, again.state) == (doubt.submission.id, State.FINISHED)


@pytest.mark.parametrize(
    "newer",
    [
        "UPDATE generation_jobs SET status = 'queued'",
        "DELETE FROM generation_jobs",
        "UPDATE generation_jobs SET status = 'queued'; UPDATE rowmill.queue SET state = 'held'",
    ],
)
async def test_a_late_success_gives_way_to_something_newer(doubt: Doubt, newer: str) -> None:
    await failed_meanwhile(doubt)
    await doubt.connection.execute(newer)
    queued = await doubt.connection.fetch("SELECT * FROM rowmill.queue")
    assert await deliver(doubt) == Late(recorded=True, delivered=False)
    assert await doubt.connection.fetch("SELECT * FROM rowmill.queue") == queued
    assert [row["state"] for row in await ledger_rows(doubt.connection)] == ["finished"]


async def deliver(doubt: Doubt) -> Late:
    return await upkeep.deliver_late(
        doubt.store,
        Found("generation_jobs", doubt.work.key),
        {"id": doubt.submission.id, "state": "finished", "result": {}, "cost_cents": Decimal(3)},
    )


# --------------------------------------------------------------------------- against a claim

WAITS = """
SELECT EXISTS (SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock')
"""


@pytest.mark.parametrize("how", ["accepted", "resubmit", "fail"])
async def test_a_claim_at_that_moment_leaves_the_ledger_as_it_was(
    doubt: Doubt, photomemory: str, connect: Connect, how: str
) -> None:
    """The job runs from then on, and whoever runs it asks the provider."""
    await acts.retry(doubt.store, "generation_jobs", doubt.work.key, "tests")
    claimer = await connect(photomemory)
    claim = claimer.transaction()
    await claim.start()
    claimed = "SELECT count(*) FROM rowmill.claim($1, 7, $2, 1, NULL, NULL, NULL, NULL)"
    assert await claimer.fetchval(claimed, doubt.hand.id, list(LANES)) == 1
    given = {"external_id": "task-7"} if how == "accepted" else {}
    resolving = asyncio.create_task(doubt.resolve(how, **given))
    while not await doubt.connection.fetchval(WAITS):
        assert not resolving.done(), "it has to wait for the claim"
    await claim.commit()
    assert await resolving == "running"
    (line,) = await ledger_rows(doubt.connection)
    assert (line["state"], line["external_id"], line["ended_at"]) == ("unknown", None, None)
    assert not await doubt.connection.fetchval(
        "SELECT count(*) FROM rowmill.actions WHERE action = 'resolve'"
    )


async def test_a_producer_who_holds_the_row_is_waited_for(
    doubt: Doubt, photomemory: str, connect: Connect
) -> None:
    """The row before its queue row, as everyone takes them: nobody can wait in a circle."""
    producer = await connect(photomemory)
    change = producer.transaction()
    await change.start()
    await producer.execute("SELECT FROM generation_jobs FOR UPDATE")
    resolving = asyncio.create_task(doubt.resolve("resubmit"))
    while not await doubt.connection.fetchval(WAITS):
        assert not resolving.done(), "it has to wait for the row"
    await producer.execute("UPDATE generation_jobs SET status = 'cancelled'")
    await change.commit()
    assert await resolving == "recorded"
