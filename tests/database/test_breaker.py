"""Breakers: a provider that fails is left alone by the whole fleet, and tried again one by one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobs.contract import Failure, FailureKind
from tests.database.support import Connect, Hand, OpenStore, add_videos
from worker.breaker import PATIENCE, UNSETTLED, Breaker
from worker.store import Store, gates, reports

LANE = "replicate"


def fails(kind: FailureKind = FailureKind.TRANSIENT, code: str = "http_503") -> Failure:
    return Failure(kind, "their machines are down", code, LANE)


async def told(breaker: Breaker) -> None:
    """What it says to the database, it says in tasks of its own."""
    while breaker._telling:
        await asyncio.gather(*breaker._telling)


async def trip(breaker: Breaker, kind: FailureKind = FailureKind.TRANSIENT) -> None:
    for _ in range(PATIENCE[kind][0]):
        breaker.failed(LANE, fails(kind))
    await told(breaker)


async def time_is_up(connection: Any) -> None:
    await connection.execute("UPDATE rowmill.lanes SET broken_until = clock_timestamp()")


async def left_alone_for(connection: Any) -> float | None:
    seconds: float | None = await connection.fetchval(
        "SELECT extract(epoch FROM broken_for)::double precision FROM rowmill.lanes"
        " WHERE lane = $1",
        LANE,
    )
    return seconds


@pytest.mark.parametrize("kind", PATIENCE)
async def test_failures_in_a_row_close_a_lane(
    both: str, connect: Connect, open_store: OpenStore, kind: FailureKind
) -> None:
    connection, store = await connect(both), await open_store(both)
    await add_videos(connection, 3)
    hand, breaker = await Hand.hire(store), Breaker(store)
    most, seconds = PATIENCE[kind]
    for _ in range(most - 1):
        breaker.failed(LANE, fails(kind))
    breaker.succeeded(LANE)
    for _ in range(most - 1):
        breaker.failed(LANE, fails(kind))
    await told(breaker)
    (one,) = await hand.claim(1)
    assert one.lane == LANE
    breaker.failed(LANE, fails(kind))
    await told(breaker)
    assert await hand.claim(5) == []
    assert await left_alone_for(connection) == seconds
    (act,) = await connection.fetch("SELECT who, action, subject FROM rowmill.actions")
    assert tuple(act) == ("rowmill", "breaker", "lane replicate")


async def test_other_failures_say_nothing_about_the_provider(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    breaker = Breaker(await open_store(photomemory))
    for kind in set(FailureKind) - set(PATIENCE):
        for _ in range(50):
            breaker.failed(LANE, fails(kind))
            breaker.failed(LANE, fails(code=UNSETTLED))
    await told(breaker)
    assert await left_alone_for(await connect(photomemory)) is None


async def test_one_job_tries_it_and_the_others_follow(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Another worker's breaker knows of it, too, and heals what it didn't trip."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection, 4)
    hand, first, second = await Hand.hire(store), Breaker(store), Breaker(store)
    await trip(first)
    await time_is_up(connection)
    probe = await hand.take(4)
    assert len(probe) == 1
    assert await (await Hand.hire(store)).claim(4) == []
    first.failed(LANE, fails())  # one failure is enough now
    await told(first)
    assert await left_alone_for(connection) == 10
    await hand.yield_(probe)
    assert await hand.claim(4) == []

    await time_is_up(connection)
    await connection.execute("UPDATE rowmill.queue SET state = 'ready', ready_at = enqueued_at")
    assert len(await hand.take(4)) == 1
    await second.refresh()
    second.succeeded(LANE)
    await told(second)
    assert await left_alone_for(connection) is None
    assert len(await hand.take(4)) == 3


async def test_failures_of_calls_that_were_under_way_add_nothing(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    breaker = Breaker(store)
    await trip(breaker)
    for _ in range(20):
        await trip(breaker)
    assert await left_alone_for(connection) == 5
    assert await connection.fetchval("SELECT count(*) FROM rowmill.actions") == 1
    for seconds in (10, 20, 40, 80, 160, 320, 600, 600):
        await time_is_up(connection)
        await trip(breaker)
        assert await left_alone_for(connection) == seconds


async def test_a_refused_key_needs_a_person(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection)
    await Hand.hire(store)
    breaker = Breaker(store)
    for kind, needs in ((FailureKind.TRANSIENT, []), (FailureKind.AUTH, ["provider"])):
        for _ in range(PATIENCE[kind][0]):
            breaker.failed(LANE, fails(kind))
        await told(breaker)
        report = await reports.status(store)
        assert [item["kind"] for item in report["needs_person"]] == needs
        await time_is_up(connection)


async def test_status_tells_and_resume_tries_at_once(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection, 2)
    hand = await Hand.hire(store)
    await trip(Breaker(store))
    report = await reports.status(store)
    (lane,) = [row for row in report["lanes"] if row["lane"] == LANE]
    assert lane["broken_until"]
    assert lane["broken_why"] == "transient: their machines are down"
    (notice,) = report["notices"]
    assert (notice["kind"], notice["commands"]) == ("breaker", ["rowmill resume replicate"])
    whys = await connection.fetch("SELECT DISTINCT why FROM rowmill.waiting")
    assert [row["why"].partition(" until ")[0] for row in whys] == ["lane replicate is left alone"]
    assert await gates.resume(store, lane=LANE, who="tests")
    assert len(await hand.claim(2)) == 2
    assert await connection.fetchval("SELECT names FROM rowmill.gates()") is None


async def test_a_database_that_is_away_stops_nobody(photomemory: str) -> None:
    store = await Store.open(photomemory)
    await store.close()
    breaker = Breaker(store)
    await trip(breaker)
    breaker.succeeded(LANE)
    await told(breaker)
