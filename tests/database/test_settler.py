"""The settler on a real database: what a held lock or a cut connection costs others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.database.platform_samples import project
from tests.database.settling import (
    WAITS_FOR_A_LOCK,
    Desk,
    half_effects,
    settlement,
    until,
)
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_texts,
    add_videos,
    queued,
)
from worker.maps import load
from worker.settler import Settled
from worker.store import Store, Unavailable
from worker.store.attaching import detach
from worker.store.upkeep import make_partitions

# --------------------------------------------------------------------------- two results of one row


def noted(said: dict[int, list[str]]) -> Settled:
    return lambda settlement, verdict: said[settlement.token].append(verdict)


async def test_a_stale_result_does_not_take_the_new_ones_verdict(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Old and new claim of one row, both results in this worker's hands, in either order."""
    connection, holder = await connect(photomemory), await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    for newest_first in (True, False):
        (key,) = await add_videos(connection)
        (old,) = await hand.take()
        await connection.execute("UPDATE generation_jobs SET status = 'queued' WHERE id = $1", key)
        (new,) = await hand.take()
        said: dict[int, list[str]] = {old.token: [], new.token: []}
        desk = Desk(store)
        desk.settler._settled = noted(said)
        pair = (
            [settlement(new), settlement(old)] if newest_first else [*map(settlement, (old, new))]
        )
        async with holder.transaction():
            await holder.execute("SELECT FROM generation_jobs WHERE id = $1 FOR UPDATE", key)
            await desk.step(*pair)
            await desk.settler.run_once()
            assert said[new.token] == [], "it is only busy"
        await desk.until_empty()
        assert said == {old.token: ["lost"], new.token: ["settled"]}
    assert await half_effects(connection) == []


# --------------------------------------------------------------------------- locks and outages


async def test_a_busy_row_comes_back_by_itself(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, holder = await connect(photomemory), await connect(photomemory)
    store = await open_store(photomemory)
    hand, desk = await Hand.hire(store), Desk(store)
    busy, free = await add_videos(connection, 2)
    works = await hand.take(2)
    async with holder.transaction():
        await holder.execute("SELECT FROM generation_jobs WHERE id = $1 FOR UPDATE", busy)
        assert await desk.step(*map(settlement, works)) == 1
        assert desk.said == {free: "settled"}
        assert desk.settler.pending == 1
    await desk.until_empty()
    assert desk.said == {free: "settled", busy: "settled"}
    assert await half_effects(connection) == []


LOCKS = {
    "a project": ("video_projects", project(4)),
    "a customer": ("users", "a0000000-0000-4000-8000-000000000004"),
}


@pytest.mark.parametrize("name", LOCKS)
async def test_a_producer_who_sits_on_a_parent_stops_only_its_jobs(
    name: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Of a customer we take a lock only by foreign key: no SKIP LOCKED there, but a time-out."""
    table, key = LOCKS[name]
    connection, holder = await connect(photomemory), await connect(photomemory)
    store = await open_store(photomemory)
    hand, desk = await Hand.hire(store), Desk(store)
    stuck = await add_videos(connection, 2, of=4)
    free = await add_videos(connection, 6, of=5)
    works = await hand.take(8)
    async with holder.transaction():
        await holder.execute(f"SELECT FROM public.{table} WHERE id = $1 FOR UPDATE", key)
        desk.put(*map(settlement, works))
        while len(desk.said) < len(free):
            await desk.settler.run_once()
        assert desk.said == dict.fromkeys(free, "settled")
    await desk.until_empty()
    assert desk.said == dict.fromkeys([*free, *stuck], "settled")
    assert await half_effects(connection) == []


async def test_a_batch_is_kept_through_an_outage(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory, 1)
    hand, desk = await Hand.hire(store), Desk(store)
    keys = await add_videos(connection, 5)
    works = await hand.take(5)
    pid = await store.value("SELECT pg_backend_pid()")
    locked = await connect(photomemory)
    async with locked.transaction():
        await locked.execute("LOCK TABLE generation_jobs IN ACCESS EXCLUSIVE MODE")
        step = asyncio.create_task(desk.step(*map(settlement, works)))
        await until(connection, WAITS_FOR_A_LOCK, pid)
        assert await connection.fetchval("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(Unavailable):
            await step
    assert desk.said == {}
    assert desk.settler.pending == 5
    assert await desk.settler.run_once() == 5
    assert desk.said == dict.fromkeys(keys, "settled")
    assert await half_effects(connection) == []


def partitions_of(store: Store, platform: str) -> Callable[[], Any]:
    return lambda: make_partitions(store, load(platform))


async def test_a_missing_month_is_made_on_the_spot_beside_open_readers(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, reader = await connect(photomemory), await connect(photomemory)
    month = await connection.fetchval(
        "SELECT 'usage_records_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')"
    )
    await connection.execute(f"DROP TABLE public.{month}")
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    desk = Desk(store, make_partitions=partitions_of(store, "photomemory"))
    keys = await add_videos(connection, 20)
    works = await hand.take(20)
    async with reader.transaction():
        await reader.execute("SET LOCAL statement_timeout = '10s'")
        assert await reader.fetchval("SELECT count(*) FROM public.usage_records") == 0
        async with asyncio.timeout(10):
            assert await desk.step(*map(settlement, works)) == 20
    assert desk.said == dict.fromkeys(keys, "settled")
    assert await connection.fetchval(f"SELECT count(*) FROM public.{month}") == 20
    assert await half_effects(connection) == []


async def test_a_month_that_can_not_be_made_holds_the_job(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    month = await connection.fetchval(
        "SELECT 'usage_records_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')"
    )
    await connection.execute(f"DROP TABLE public.{month}")
    store = await open_store(photomemory)

    async def nothing() -> None:
        pass

    hand, desk = await Hand.hire(store), Desk(store, make_partitions=nothing)
    keys = await add_videos(connection, 3)
    await desk.step(*map(settlement, await hand.take(3)))
    rows = await queued(connection)
    assert set(rows) == set(keys)
    assert all("no partition" in row["note"] for row in rows.values())


async def test_batches_are_as_large_as_asked(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand, desk = await Hand.hire(store), Desk(store, batch=4)
    await add_videos(connection, 10)
    desk.put(*map(settlement, await hand.take(10)))
    assert [await desk.settler.run_once() for _ in range(4)] == [4, 4, 2, 0]


async def test_a_table_that_was_detached_holds_up_nobody(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    """Its claims are gone, and so is whoever would write its results; the others' are paid for."""
    connection, store = await connect(both), await open_store(both)
    hand, desk = await Hand.hire(store), Desk(store)
    await add_videos(connection, 2)
    await add_texts(connection)
    works = sorted(await hand.take(3), key=lambda work: work.source)
    *texts, first, second = works
    assert [work.source for work in texts] == ["ai_generations"]
    await detach(both, "photomemory")
    await desk.step(*map(settlement, (first, second, *texts)))
    assert desk.said == {first.key: "lost", second.key: "lost", texts[0].key: "settled"}


async def test_a_table_that_is_missing_holds_up_its_own_results_alone(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    hand, desk = await Hand.hire(store), Desk(store)
    await add_videos(connection)
    await add_texts(connection)
    text, video = sorted(await hand.take(2), key=lambda work: work.source)
    await connection.execute("ALTER TABLE public.generation_jobs RENAME TO elsewhere")
    with pytest.raises(Unavailable, match="generation_jobs"):
        await desk.step(settlement(video), settlement(text))
    assert desk.said == {text.key: "settled"}
    await connection.execute("ALTER TABLE public.elsewhere RENAME TO generation_jobs")
    await desk.until_empty()
    assert desk.said == {text.key: "settled", video.key: "settled"}
