"""Budgets: reserved with the intent, settled at the end, for any number of workers."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import Failure, FailureKind, Yield
from jobs.providers.journal import NotNow, Submission
from tests.database.journaling import at_work, intend, journal_of, ledger_rows
from tests.database.support import Connect, OpenStore
from worker.ledger import ClaimJournal, Lease, Ledger
from worker.store import gates
from worker.store.budgets import OVER_BUDGET, budgets, set_budget, unset_budget

DAY = 24 * 3600


async def budget(connection: Any, cents: str, *, lane: str = "*", period: str = "day") -> None:
    await connection.execute(
        "INSERT INTO rowmill.budgets (lane, period, limit_cents) VALUES ($1, $2, $3)",
        lane,
        period,
        Decimal(cents),
    )


async def used(connection: Any, lane: str = "*") -> Decimal:
    value: Decimal = await connection.fetchval(
        "SELECT used_cents FROM rowmill.budgets WHERE lane = $1", lane
    )
    return value


async def test_an_intent_reserves_and_an_end_settles(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await budget(connection, "30")
    await budget(connection, "1000", lane="replicate", period="month")
    hand, works = await at_work(connection, store, 4)
    journals = [journal_of(store, work, hand) for work in works]
    first, second = [await intend(journal) for journal in journals[:2]]
    assert await used(connection) == await used(connection, "replicate") == 25
    with pytest.raises(NotNow, match=OVER_BUDGET) as caught:
        await intend(journals[2])
    assert 0 < caught.value.after <= DAY
    await journals[0].finished(first.id, result={}, cost_cents=Decimal("3.25"))
    failure = Failure(FailureKind.INVALID, "refused")
    await journals[1].failed(second.id, failure, cost_cents=Decimal(0))
    assert await used(connection) == Decimal("3.25")
    third = await intend(journals[2])
    await journals[2].written_off(third.id, "never sent", unpaid=True)
    assert await used(connection) == Decimal("3.25")
    fourth = await intend(journals[3])
    await journals[3].written_off(fourth.id, "nobody knows", unpaid=False)
    assert await used(connection) == await used(connection, "replicate") == Decimal("15.75")


async def test_a_step_that_is_there_already_needs_no_budget(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, (work,) = await at_work(connection, store)
    first = await intend(journal_of(store, work, hand))
    await budget(connection, "0")
    again = await intend(journal_of(store, work, hand))
    assert (again.id, again.fresh) == (first.id, False)
    assert await used(connection) == Decimal("12.5")  # open calls of the window count


async def test_a_budget_is_never_exceeded_by_many_at_once(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    await budget(connection, "100")
    stores = [await open_store(photomemory) for _ in range(4)]
    hand, works = await at_work(connection, stores[0], 40)
    ledgers = [Ledger(store, Lease(30)) for store in stores]
    made = await asyncio.gather(
        *[
            intend(
                ClaimJournal(
                    ledgers[n % 4], queue_id=work.queue_id, token=work.token, worker=hand.id
                )
            )
            for n, work in enumerate(works)
        ],
        return_exceptions=True,
    )
    assert sorted(type(m).__name__ for m in made) == ["NotNow"] * 32 + ["Submission"] * 8
    assert await used(connection) == 100
    assert len(await ledger_rows(connection)) == 8


async def test_a_new_window_begins_with_what_was_spent_in_it(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await budget(connection, "20")
    hand, works = await at_work(connection, store, 2)
    assert (await intend(journal_of(store, works[0], hand))).fresh
    with pytest.raises(NotNow):
        await intend(journal_of(store, works[1], hand))
    await connection.execute(
        "UPDATE rowmill.budgets SET window_start = window_start - interval '1 day';"
        "UPDATE rowmill.submissions SET intended_at = intended_at - interval '1 day'"
    )
    assert (await intend(journal_of(store, works[1], hand))).fresh
    assert await used(connection) == Decimal("12.5")


async def test_what_ends_in_a_later_window_leaves_it_alone(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await budget(connection, "20")
    hand, (work,) = await at_work(connection, store)
    journal = journal_of(store, work, hand)
    paid = await intend(journal)
    await connection.execute(
        "UPDATE rowmill.budgets SET window_start = window_start - interval '1 day';"
        "UPDATE rowmill.submissions SET intended_at = intended_at - interval '1 day'"
    )
    await journal.finished(paid.id, result={}, cost_cents=Decimal(13))
    assert await used(connection) == 0


async def test_pausing_everything_stops_new_calls_and_no_others(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await at_work(connection, store, 2)
    paid, unpaid = (journal_of(store, work, hand) for work in works)
    first: Submission = await intend(paid)
    await gates.pause(store, who="tests")
    assert (await intend(paid)).id == first.id
    with pytest.raises(NotNow, match="paused"):
        await intend(unpaid)
    await gates.resume(store, who="tests")
    assert (await intend(unpaid)).fresh


async def test_waiting_for_a_budget_spends_neither_tries_nor_yields(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await at_work(connection, store)
    for _ in range(60):  # more than the hand's max_yields
        assert set(
            (await hand.settle(works, lambda _: Yield(OVER_BUDGET, 0.001, counts=False))).values()
        ) == {"settled"}
        await connection.execute("UPDATE rowmill.queue SET state = 'ready'")
        works = await hand.take()
    (row,) = await connection.fetch("SELECT tries, yields, state::text FROM rowmill.queue")
    assert tuple(row) == (0, 0, "claimed")
    status = "SELECT status::text, retry_count FROM generation_jobs"
    assert tuple(await connection.fetchrow(status)) == ("processing", 0)


async def test_a_raised_budget_wakes_who_waits_for_it(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await at_work(connection, store, 2)
    await set_budget(store, "replicate", "day", Decimal(5), "tests")
    await hand.settle(works[:1], lambda _: Yield(OVER_BUDGET, DAY, counts=False))
    await hand.yield_(works[1:], after=DAY)
    (told,) = await budgets(store)
    assert (told["limit_cents"], told["used_cents"], told["waiting"]) == ("5", "0", 1)
    await set_budget(store, "replicate", "day", Decimal(50), "tests")
    states = "SELECT array_agg(state::text ORDER BY note) FROM rowmill.queue"
    assert await connection.fetchval(states) == ["scheduled", "ready"]
    assert await unset_budget(store, "replicate", "day", "tests")
    assert not await unset_budget(store, "replicate", "day", "tests")
    acts = "SELECT array_agg(detail ->> 'limit_cents' ORDER BY id) FROM rowmill.actions"
    assert await connection.fetchval(acts) == ["5", "50", None]
