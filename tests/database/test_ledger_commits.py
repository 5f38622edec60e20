"""Group commits: many entries in few, each caller with its own fate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from jobs.providers.journal import LostClaim
from tests.database.journaling import at_work, intend, journal_of, ledger_rows
from tests.database.settling import WAITS_FOR_A_LOCK, until
from tests.database.support import Connect, OpenStore
from worker.ledger import GroupCommit, Lease, Ledger
from worker.store import Refused, Store, Unavailable

# --------------------------------------------------------------------------- group commits


class Commits:
    """Counts what a real journal commits, and can hold a commit up at a gate."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.batches: list[list[int]] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def write(self, entries: list[dict[str, Any]]) -> list[bool]:
        self.batches.append([entry["id"] for entry in entries])
        self.begun.set()
        await self.gate.wait()
        taken = await self.store.journal(entries)
        return [entry["id"] in taken for entry in entries]


async def some_intents(connection: Any, count: int) -> list[int]:
    rows = await connection.fetch(
        "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
        " account, model, estimate_cents) SELECT 's', n::text, 1, 'main', 'l', 1, 'p', 'a', 'm', 1"
        " FROM generate_series(1, $1::integer) n RETURNING id",
        count,
    )
    return [row["id"] for row in rows]


async def test_concurrent_entries_go_in_few_commits(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    commits = Commits(await open_store(photomemory))
    ids = await some_intents(connection, 301)
    group: GroupCommit[dict[str, Any], bool] = GroupCommit(commits.write)
    first = asyncio.create_task(group.ask({"id": ids[0], "state": "unknown"}))
    await commits.begun.wait()
    others = [asyncio.create_task(group.ask({"id": i, "state": "unknown"})) for i in ids[1:]]
    await asyncio.sleep(0)  # each has asked
    commits.gate.set()
    assert await asyncio.gather(first, *others) == [True] * 301
    assert [len(batch) for batch in commits.batches] == [1, 200, 100]
    states = {row["state"] for row in await ledger_rows(connection)}
    assert states == {"unknown"}


async def test_a_cancelled_caller_tears_nobodys_commit(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    commits = Commits(await open_store(photomemory))
    ids = await some_intents(connection, 4)
    group: GroupCommit[dict[str, Any], bool] = GroupCommit(commits.write)
    tasks = [asyncio.create_task(group.ask({"id": i, "state": "unknown"})) for i in ids[:3]]
    await commits.begun.wait()
    late = asyncio.create_task(group.ask({"id": ids[3], "state": "unknown"}))
    await asyncio.sleep(0)
    tasks[0].cancel()
    late.cancel()
    commits.gate.set()
    results = await asyncio.gather(*tasks, late, return_exceptions=True)
    assert [type(r) for r in results] == [
        asyncio.CancelledError,
        bool,
        bool,
        asyncio.CancelledError,
    ]
    # The cancelled ones' entries are facts too.
    assert await group.ask({"id": ids[0], "state": "finished"}) is True
    states = [row["state"] for row in await ledger_rows(connection)]
    assert states == ["finished", "unknown", "unknown", "unknown"]


async def test_a_refused_entry_fails_alone(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    commits = Commits(await open_store(photomemory))
    commits.gate.set()
    ids = await some_intents(connection, 8)
    group: GroupCommit[dict[str, Any], bool] = GroupCommit(commits.write)
    costs = [-1 if n == 5 else 1 for n in range(8)]
    results = await asyncio.gather(
        *[
            group.ask({"id": i, "state": "finished", "cost_cents": cost})
            for i, cost in zip(ids, costs, strict=True)
        ],
        return_exceptions=True,
    )
    assert [type(r) for r in results] == [bool] * 5 + [Refused] + [bool] * 2
    states = [row["state"] for row in await ledger_rows(connection)]
    assert states == ["finished"] * 5 + ["intent"] + ["finished"] * 2


async def test_two_facts_of_one_submission_keep_their_order(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """A cancelled job's last entry can still wait when the next one is asked for."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    ids = await some_intents(connection, 2)
    ledger = Ledger(store, Lease(30))
    taken = await asyncio.gather(
        ledger.write(id=ids[0], state="unknown"),
        ledger.write(id=ids[1], state="accepted", ref={"r": 1}, external_id="x"),
        ledger.write(id=ids[1], state="finished", result={"v": 2}, cost_cents=Decimal(4)),
        ledger.write(id=ids[1], state="failed", error="too late"),
    )
    assert list(taken) == [True, True, True, False]
    row = (await ledger_rows(connection))[1]
    assert (row["state"], row["external_id"], row["ref"]) == ("finished", "x", '{"r": 1}')
    assert (row["result"], row["error"]) == ('{"v": 2}', None)


async def test_a_cut_connection_is_made_good(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """The write is repeated until it is committed, and is there once."""
    connection, store = await connect(photomemory), await open_store(photomemory, 1)
    (one,) = await some_intents(connection, 1)
    ledger = Ledger(store, Lease(30))
    pid = await store.value("SELECT pg_backend_pid()")
    holder = await connect(photomemory)
    async with holder.transaction():
        await holder.execute("SELECT FROM rowmill.submissions WHERE id = $1 FOR UPDATE", one)
        write = asyncio.create_task(
            ledger.write(id=one, state="finished", result={}, cost_cents=Decimal(1))
        )
        await until(connection, WAITS_FOR_A_LOCK, pid)
        await connection.execute("SELECT pg_terminate_backend($1)", pid)
    assert await write is True
    (row,) = await ledger_rows(connection)
    assert (row["state"], row["cost_cents"]) == ("finished", Decimal(1))


async def test_an_intent_through_a_cut_connection_is_not_taken_for_granted(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory, 1)
    hand, (work,) = await at_work(connection, store)
    pid = await store.value("SELECT pg_backend_pid()")
    journal = journal_of(store, work, hand)
    holder = await connect(photomemory)
    async with holder.transaction():
        await holder.execute("LOCK TABLE rowmill.submissions IN EXCLUSIVE MODE")
        asked = asyncio.create_task(intend(journal))
        await until(connection, WAITS_FOR_A_LOCK, pid)
        await connection.execute("SELECT pg_terminate_backend($1)", pid)
        await until(
            connection, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid <> $1)", pid
        )
        assert not asked.done()
    assert (await asked).fresh
    assert len(await ledger_rows(connection)) == 1


class DeafStore(Store):
    """Commits the first intent, and loses the answer."""

    lost = 0
    meanwhile: Awaitable[Any] | None = None

    async def intend(self, intents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        rows = await super().intend(intents)
        if self.lost == 0:
            self.lost += 1
            if self.meanwhile is not None:
                await self.meanwhile
            raise Unavailable("the connection was cut")
        return rows


async def test_an_intent_whose_answer_was_lost_is_still_ours_to_send(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Committed, but the connection died before we heard. Nobody else may send it, we may."""
    connection, store = await connect(photomemory), await DeafStore.open(photomemory)
    hand, (work,) = await at_work(connection, await open_store(photomemory))
    assert (await intend(journal_of(store, work, hand))).fresh
    assert store.lost == 1
    (row,) = await ledger_rows(connection)
    again = await intend(journal_of(hand.store, work, hand))
    assert (again.id, again.fresh, again.fingerprint) == (row["id"], False, "f")
    await store.close()


async def test_an_intent_whose_answer_was_lost_ends_with_the_claim(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await DeafStore.open(photomemory)
    hand, (work,) = await at_work(connection, await open_store(photomemory))
    store.meanwhile = hand.cancel([work])
    with pytest.raises(LostClaim):
        await intend(journal_of(store, work, hand))
    assert [row["state"] for row in await ledger_rows(connection)] == ["intent"]
    await store.close()


async def test_intents_are_not_asked_for_beyond_half_a_lease(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await DeafStore.open(photomemory)
    hand, (work,) = await at_work(connection, await open_store(photomemory))
    with pytest.raises(Unavailable):
        await intend(journal_of(store, work, hand, lease=0))
    await store.close()


def test_money_is_sent_only_within_half_a_lease() -> None:
    lease = Lease(30.0)
    assert lease.young()
    lease.acknowledged -= 14.9
    assert lease.young()
    lease.acknowledged -= 0.2
    assert not lease.young()
