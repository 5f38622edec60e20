"""The journal of paid calls: one payment per step, and facts that only move forward."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest

from jobs.providers.journal import LostClaim, NotNow, State, Submission
from tests.database.journaling import at_work, intend, journal_of, ledger_rows
from tests.database.support import Connect, Hand, OpenStore, failure
from worker.ledger import ClaimJournal, Lease, Ledger
from worker.store.budgets import set_budget

MOVES = {
    State.INTENT: set(State) - {State.INTENT},
    State.ACCEPTED: {State.FINISHED, State.FAILED, State.CANCELLED},
    State.UNKNOWN: set(State) - {State.INTENT},
    State.FINISHED: set(),
    State.FAILED: set(),
    State.CANCELLED: set(),
    State.WRITTEN_OFF: set(),
}
OVER = (State.FAILED, State.CANCELLED, State.WRITTEN_OFF)


# --------------------------------------------------------------------------- intents


async def test_an_intent_is_committed_before_it_returns(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    submission = await intend(journal_of(store, work, hand))
    (row,) = await ledger_rows(connection)  # another connection
    assert (row["id"], row["state"], row["step"], row["attempt"]) == (
        submission.id,
        "intent",
        "main",
        1,
    )
    assert (row["source"], row["row_key"], row["run"]) == ("generation_jobs", work.key, 1)
    assert (row["lane"], row["worker"], row["provider"]) == ("replicate", hand.id, "replicate")
    assert (submission.fresh, submission.state) == (True, State.INTENT)
    assert submission.estimate_cents == Decimal("12.5") == row["estimate_cents"]


async def test_a_step_has_one_live_submission(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    journal = journal_of(store, work, hand)
    first = await intend(journal)
    again = await intend(journal, cents="99")
    other = await intend(journal, "second")
    assert (first.fresh, again.fresh, other.fresh) == (True, False, True)
    assert (again.id, again.estimate_cents) == (first.id, Decimal("12.5"))
    assert other.id != first.id


async def test_one_of_many_concurrent_intents_of_a_step_is_fresh(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """In one commit or in several, of one journal or of two processes' ledgers."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    journals = [journal_of(store, work, hand) for _ in range(3)]
    made = await asyncio.gather(*[intend(journal) for journal in journals * 20])
    assert [m.fresh for m in made].count(True) == 1
    assert len({m.id for m in made}) == 1
    assert len(await ledger_rows(connection)) == 1


async def test_an_intent_needs_the_live_token(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await at_work(connection, store, 4)
    rescued, reset, cancelled, settled = works
    await connection.execute(
        "UPDATE generation_jobs SET status = 'queued' WHERE id = $1", reset.key
    )
    await connection.execute(
        "UPDATE generation_jobs SET status = 'cancelled' WHERE id = $1", cancelled.key
    )
    await hand.succeed([settled])
    await store.retire(hand.id)
    other = await Hand.hire(store)
    taken = {w.key: w for w in await other.take(2)}
    assert set(taken) == {rescued.key, reset.key}
    for work in works:
        with pytest.raises(LostClaim):
            await intend(journal_of(store, work, hand))
    assert await ledger_rows(connection) == []
    assert (await intend(journal_of(store, taken[rescued.key], other))).fresh


async def test_an_intent_waits_for_a_producer_who_takes_the_row_away(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """While a cancel isn't committed the answer is `busy`, not `lost` and never `fresh`."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    holder = await connect(photomemory)
    hand, (work,) = await at_work(connection, store)
    asked = {"queue_id": work.queue_id, "token": work.token, "worker": hand.id, "step": "main"}
    asked |= {"provider": "p", "account": "a", "model": "m", "estimate_cents": 1}
    async with holder.transaction():
        await holder.execute("UPDATE generation_jobs SET status = 'cancelled'")
        (row,) = await store.intend([asked])
        assert row["verdict"] == "busy"
        waiting = asyncio.create_task(intend(journal_of(store, work, hand)))
    with pytest.raises(LostClaim):
        await waiting
    assert await ledger_rows(connection) == []


async def test_intents_of_many_jobs_at_once(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await at_work(connection, store, 30)
    await hand.cancel(works[:10])
    ledger = Ledger(store, Lease(30))
    made = await asyncio.gather(
        *[
            intend(ClaimJournal(ledger, queue_id=w.queue_id, token=w.token, worker=hand.id))
            for w in works
        ],
        return_exceptions=True,
    )
    assert [type(m) for m in made] == [LostClaim] * 10 + [Submission] * 20
    rows = {row["id"]: row["row_key"] for row in await ledger_rows(connection)}
    mine = [m for m in made if isinstance(m, Submission)]
    assert [rows[m.id] for m in mine] == [w.key for w in works[10:]]


@pytest.mark.parametrize("ended", OVER)
async def test_a_step_that_ended_badly_may_be_paid_for_again(
    ended: State, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    journal = journal_of(store, work, hand)
    first = await intend(journal)
    await store.journal([{"id": first.id, "state": ended}])
    second = await intend(journal)
    assert second.fresh
    rows = [(row["state"], row["attempt"]) for row in await ledger_rows(connection)]
    assert rows == [(ended, 1), ("intent", 2)]


# --------------------------------------------------------------------------- what became of it


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
async def test_the_journal_moves_only_forward(
    before: State, after: State, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (key,) = await connection.fetchrow(
        "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
        " account, model, state, estimate_cents)"
        " VALUES ('s', 'k', 1, 'main', 'l', 1, 'p', 'a', 'm', $1, 1) RETURNING id",
        before,
    )
    moves = after in MOVES[before] or (before, after) == (State.UNKNOWN, State.UNKNOWN)
    if (before, after) == (State.ACCEPTED, State.WRITTEN_OFF):
        assert not moves, "what a provider has accepted is never just written off"
    taken = await store.journal([{"id": key, "state": after, "error": "new"}])
    assert taken == ({key} if moves else set())
    row = await connection.fetchrow("SELECT state, error FROM rowmill.submissions")
    assert tuple(row) == ((after, "new") if moves else (before, None))


async def test_a_paid_call_from_intent_to_result(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    journal = journal_of(store, work, hand)
    submission = await intend(journal)
    assert journal.open == {submission.id: submission}
    await journal.unknown(submission.id, failure("timed out"))
    assert await journal.accepted(submission.id, ref={"url": "u"}, external_id="x1")
    assert journal.external_id == "x1"
    await journal.finished(
        submission.id, result={"text": "a\x00\ud800b", "n": [1]}, cost_cents=Decimal("0.1234567")
    )
    assert (journal.open, journal.spent) == ({}, Decimal("0.1234567"))
    done = await intend(journal)
    assert (done.fresh, done.state, done.ref) == (False, State.FINISHED, {"url": "u"})
    assert (done.result, done.cost_cents) == ({"text": "a\ufffdb", "n": [1]}, Decimal("0.1234567"))
    (row,) = await ledger_rows(connection)
    assert row["intended_at"] <= row["accepted_at"] <= row["ended_at"]
    assert (row["error"], row["external_id"]) == ("timed out", "x1")


async def test_facts_need_no_claim(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """What a provider did and charged is recorded, whoever has the job by now."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await at_work(connection, store, 3)
    journals = [journal_of(store, work, hand) for work in works]
    paid = [await intend(journal) for journal in journals]
    await hand.cancel(works)
    await journals[0].failed(paid[0].id, failure("no"), cost_cents=Decimal(2))
    await journals[1].cancelled(paid[1].id, cost_cents=Decimal(3))
    await journals[2].written_off(paid[2].id, "never sent", unpaid=True)
    rows = [(r["state"], r["cost_cents"], r["error"]) for r in await ledger_rows(connection)]
    assert rows == [
        ("failed", Decimal(2), "no"),
        ("cancelled", Decimal(3), None),
        ("written_off", Decimal(0), "never sent"),
    ]
    assert [j.spent for j in journals] == [Decimal(2), Decimal(3), Decimal(0)]


async def test_two_submissions_never_own_one_task(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await at_work(connection, store, 3)
    ledger = Ledger(store, Lease(30))
    journals = [
        ClaimJournal(ledger, queue_id=w.queue_id, token=w.token, worker=hand.id) for w in works
    ]
    made = [await intend(journal) for journal in journals]
    # In one group commit: the third's must not fail with the second's.
    taken = await asyncio.gather(
        journals[0].accepted(made[0].id, ref={}, external_id="same"),
        journals[1].accepted(made[1].id, ref={}, external_id="same"),
        journals[2].accepted(made[2].id, ref={}, external_id="own"),
    )
    assert sorted(taken[:2]) == [False, True]
    assert taken[2] is True
    assert await journals[0].known("replicate", "acct", ["same", "own", "none"]) == {"same", "own"}
    assert await journals[0].known("replicate", "other", ["same", "own"]) == set()
    states = [row["state"] for row in await ledger_rows(connection)]
    assert sorted(states) == ["accepted", "accepted", "intent"]


# --------------------------------------------------------------------------- runs


@pytest.mark.parametrize(
    ("states", "reset", "again"),
    [
        ([], 1, 1),
        (["intent"], 3, 3),
        (["accepted"], 3, 3),
        (["unknown"], 3, 3),
        (["failed", "accepted"], 3, 3),
        (["failed"], 4, 4),
        (["cancelled", "written_off"], 4, 4),
        (["finished"], 3, 4),
        (["finished", "failed"], 3, 4),
        (["finished", "intent"], 3, 3),
        (["delivered"], 4, 4),
    ],
)
async def test_run_of(
    states: Sequence[str], reset: int, again: int, photomemory: str, connect: Connect
) -> None:
    """An older run never matters; a call in flight always does; a result that waits, on a reset."""
    connection = await connect(photomemory)
    await connection.execute("INSERT INTO rowmill.submissions " + row_sql(2, "old", "accepted"))
    if states:
        for number, state in enumerate(states):
            await connection.execute(
                "INSERT INTO rowmill.submissions " + row_sql(3, f"s{number}", state)
            )
    else:
        await connection.execute("DELETE FROM rowmill.submissions")
    ask = "SELECT rowmill.run_of('s', 'k', $1)"
    assert await connection.fetchval(ask, False) == reset
    assert await connection.fetchval(ask, True) == again


def row_sql(run: int, step: str, state: str) -> str:
    word, delivered = ("finished", "now()") if state == "delivered" else (state, "NULL")
    return (
        "(source, row_key, run, step, lane, worker, provider, account, model, state,"
        f" estimate_cents, delivered_at) SELECT 's', 'k', {run}, '{step}', 'l', 1, 'p', 'a', 'm',"
        f" '{word}', 1, {delivered}"
    )


# --------------------------------------------------------------------------- files of an answer


async def test_files_are_parked_until_they_are_kept(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    journal = journal_of(store, work, hand)
    first, second = await intend(journal, "first"), await intend(journal, "second")
    for submission in (first, second):
        await journal.park(submission.id, [b"\x00one", b"two"])
        await journal.finished(submission.id, result={"kept": False}, cost_cents=Decimal(4))
    await journal.park(first.id, [b"\x00one", b"two"])  # the answer to the first was lost
    assert await journal.parked(first.id) == [b"\x00one", b"two"]
    await journal.kept(first.id, result={"kept": True, "text": "a\x00b"})
    assert (await journal.parked(first.id), len(await journal.parked(second.id))) == ([], 2)
    (row, _) = await ledger_rows(connection)
    assert (row["state"], row["cost_cents"]) == ("finished", Decimal(4))
    assert '"kept": true' in row["result"]


async def test_only_what_finished_is_kept(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    journal = journal_of(store, work, hand)
    submission = await intend(journal)
    await journal.park(submission.id, [b"one"])
    await journal.kept(submission.id, result={"kept": True})
    assert await journal.parked(submission.id) == [b"one"]
    (row,) = await ledger_rows(connection)
    assert (row["state"], row["result"]) == ("intent", None)


async def test_a_number_that_is_given_again_means_another_submission(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """After a failover that lost commits, a sequence starts again before them."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work, other) = await at_work(connection, store, 2)
    lost, journal = journal_of(store, work, hand), journal_of(store, other, hand)
    number = (await intend(lost)).id
    await connection.execute("DELETE FROM rowmill.submissions")
    await connection.execute(
        "SELECT setval(pg_get_serial_sequence('rowmill.submissions', 'id'), $1, false)", number
    )
    assert (await intend(journal)).id == number
    assert not await lost.accepted(number, ref={"id": "lost"}, external_id="lost")
    await lost.finished(number, result={"kept": True}, cost_cents=Decimal(4))
    await lost.park(number, [b"lost"])
    (row,) = await ledger_rows(connection)
    assert (row["row_key"], row["state"], row["ref"]) == (other.key, "intent", None)
    assert await journal.accepted(number, ref={"id": "own"}, external_id="own")
    await journal.finished(number, result={"kept": False}, cost_cents=Decimal(4))
    await lost.kept(number, result={"kept": True})
    (row,) = await ledger_rows(connection)
    assert (row["state"], '"kept": false' in row["result"]) == ("finished", True)
    assert await journal.parked(number) == []


async def test_two_calls_of_one_job_are_never_intended_in_one_commit(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """What a budget allows is decided for each of them."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    await set_budget(store, "replicate", "day", Decimal(20), "tests")
    journal = journal_of(store, work, hand)
    asked = await asyncio.gather(
        *(intend(journal, step) for step in ("one", "two", "three")), return_exceptions=True
    )
    assert [isinstance(answer, NotNow) for answer in asked] == [False, True, True]
    assert len(await ledger_rows(connection)) == 1


async def test_an_acceptance_whose_acknowledgement_was_lost_is_accepted_again(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    journal = journal_of(store, work, hand)
    number = (await intend(journal)).id
    for _ in range(2):
        assert await journal.accepted(number, ref={"id": "one"}, external_id="one")
    assert not await journal.accepted(number, ref={"id": "two"}, external_id="two")
    (row,) = await ledger_rows(connection)
    assert row["external_id"] == "one"


async def test_what_is_spoiled_costs_what_it_cost(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    await set_budget(store, "replicate", "day", Decimal(50), "tests")
    journal = journal_of(store, work, hand)
    number = (await intend(journal)).id
    await journal.park(number, [b"one"])
    await journal.finished(number, result={"kept": False}, cost_cents=Decimal(4))
    for _ in range(2):  # the answer to the first was lost
        await journal.spoiled(number, failure("no picture"), cost_cents=Decimal(4))
    (row,) = await ledger_rows(connection)
    assert (row["state"], row["cost_cents"], row["error"]) == ("failed", 4, "no picture")
    assert journal.spent == 4
    assert await journal.parked(number) == []
    assert await connection.fetchval("SELECT used_cents FROM rowmill.budgets") == 4
    assert (await intend(journal)).state is State.FAILED, "told again, not bought again"
    delivered = await intend(journal, "other")
    await journal.finished(delivered.id, result={"kept": True}, cost_cents=Decimal(1))
    await journal.spoiled(delivered.id, failure("late"), cost_cents=Decimal(1))
    assert [line["state"] for line in await ledger_rows(connection)] == ["failed", "finished"]
