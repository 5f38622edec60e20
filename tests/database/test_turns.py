"""Turns: at least a gap apart over the whole fleet, whoever asks, however late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from jobs.providers.journal import NotNow
from tests.conftest import NewDatabase
from worker.store import Store, turns
from worker.store.migrations import migrate
from worker.turns import WINDOW, Turns

GAP = 0.15


@pytest.fixture
async def dsn(new_database: NewDatabase) -> str:
    dsn = await new_database()
    await migrate(dsn)
    return dsn


async def of_many(dsn: str, count: int, work: Callable[[Store], Awaitable[Any]]) -> list[Any]:
    """`work` on stores of their own, as different workers have, all at once."""
    stores = [await Store.open(dsn, 1) for _ in range(count)]
    try:
        return await asyncio.gather(*(work(store) for store in stores))
    finally:
        for store in stores:
            await store.close()


async def test_turns_given_to_different_connections_are_a_gap_apart(dsn: str) -> None:
    async def take(store: Store) -> list[float]:
        begins = []
        for _ in range(5):
            turn = await turns.take(store, "shop.example", 1.0, 100.0)
            assert turn.taken
            begins.append(turn.wait)
        return begins

    given = await of_many(dsn, 4, take)
    # Each answer counts from its own moment; all of them were asked for within one gap's time.
    waits = sorted(wait for waits in given for wait in waits)
    assert waits[0] == 0
    assert len({round(wait) for wait in waits}) == 20
    assert 18 < waits[-1] <= 19


async def test_what_really_begins_is_a_gap_apart(dsn: str) -> None:
    began: list[float] = []

    async def work(store: Store) -> None:
        for _ in range(3):
            await Turns(store).take("shop.example", GAP)
            began.append(time.monotonic())

    await of_many(dsn, 3, work)
    assert len(began) == 9
    assert min(later - earlier for earlier, later in pairwise(sorted(began))) >= GAP


async def test_names_have_turns_of_their_own(dsn: str) -> None:
    async def work(store: Store) -> None:
        assert (await turns.take(store, "a", 5, 20)) == turns.Turn(taken=True, wait=0)
        assert (await turns.take(store, "b", 5, 20)) == turns.Turn(taken=True, wait=0)
        assert (await turns.take(store, "a", 5, 20)).wait > 4

    await of_many(dsn, 1, work)


async def test_a_turn_too_far_away_is_left_to_others(dsn: str) -> None:
    async def work(store: Store) -> list[turns.Turn]:
        return [await turns.take(store, "slow", 8, 20) for _ in range(6)]

    [given] = await of_many(dsn, 1, work)
    assert [turn.taken for turn in given] == [True, True, True, False, False, False]
    # Told to come back a gap apart, none before a turn may be free.
    assert [round(turn.wait / 8) for turn in given] == [0, 1, 2, 3, 4, 5]


async def test_nobody_is_sent_away_for_longer_than_five_minutes(dsn: str) -> None:
    async def work(store: Store) -> turns.Turn:
        for _ in range(4):
            last = await turns.take(store, "glacial", 3600, 20)
        return last

    [last] = await of_many(dsn, 1, work)
    assert not last.taken
    assert 299 < last.wait <= 300


async def test_a_job_that_would_wait_long_gives_its_slot_back(dsn: str) -> None:
    async def work(store: Store) -> None:
        await Turns(store).take("slow", 60)
        with pytest.raises(NotNow) as told:
            await Turns(store).take("slow", 60)
        assert 59 < told.value.after <= 60 + WINDOW

    await of_many(dsn, 1, work)


async def test_who_hears_too_late_takes_another_turn(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is held up for longer than the window: someone else's turn may have begun."""
    real, asked = turns.take, 0

    async def slow_once(store: Store, name: str, gap: float, patience: float) -> turns.Turn:
        nonlocal asked
        asked += 1
        turn = await real(store, name, gap, patience)
        if asked == 1:
            await asyncio.sleep(WINDOW * 1.5)
        return turn

    monkeypatch.setattr(turns, "take", slow_once)

    async def work(store: Store) -> None:
        await Turns(store).take("shop.example", GAP)

    await of_many(dsn, 1, work)
    assert asked == 2


async def test_a_clock_set_back_stops_nobody(dsn: str) -> None:
    async def work(store: Store) -> None:
        await turns.take(store, "shop.example", 1, 20)
        await store.value("UPDATE rowmill.turns SET latest = clock_timestamp() + interval '1 day'")
        assert await turns.take(store, "shop.example", 1, 20) == turns.Turn(taken=True, wait=1)

    await of_many(dsn, 1, work)


async def test_only_names_unused_for_a_day_are_forgotten(dsn: str) -> None:
    async def work(store: Store) -> None:
        await turns.take(store, "old", 1, 20)
        await store.value("UPDATE rowmill.turns SET latest = latest - interval '25 hours'")
        await turns.take(store, "new", 1, 20)
        await turns.forget(store)
        assert await store.value("SELECT array_agg(name) FROM rowmill.turns") == ["new"]

    await of_many(dsn, 1, work)


@pytest.mark.parametrize("gap", [-1, 3601, float("nan")])
async def test_gaps_that_make_no_sense_are_refused(dsn: str, gap: float) -> None:
    async def work(store: Store) -> None:
        with pytest.raises(ValueError, match="between 0 and 3600"):
            await Turns(store).take("shop.example", gap)

    await of_many(dsn, 1, work)
