"""Strict order over all sources: rank, then ready time, then id; whoever claims, however many."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from tests.database.support import (
    LANES,
    SUPPORTED,
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_background,
    add_texts,
    add_videos,
    queued,
    time_passes,
)

ORDER = "SELECT id FROM rowmill.queue WHERE state = 'ready' ORDER BY rank DESC, ready_at, id"


async def fill(connection: Any, rows: int, seed: int = 1) -> None:
    """Rows of all three tables, of many ranks, mixed; several of the same moment."""
    mixed = random.Random(seed)
    while rows > 0:
        count = mixed.randint(1, 4)
        priority = mixed.randint(1, 10)
        match mixed.randrange(3):
            case 0:
                service = mixed.choice(["replicate", "runway"])
                await add_videos(connection, count, priority=priority, service=service)
            case 1:
                await add_texts(connection, count, of=mixed.randint(1, 4))
            case _:
                kind = mixed.choice(["webhook_delivery", "content_statistics"])
                await add_background(connection, count, priority=priority - 5, kind=kind)
        rows -= count


async def ids(connection: Any) -> list[int]:
    return [row["id"] for row in await connection.fetch(ORDER)]


async def test_four_claimers_at_once_take_three_tables_in_exact_order(
    both: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    """A claim holds its lock until it commits, so numbers drawn before that give its true place."""
    admin = await connect(both)
    await fill(await connect(both, producer), 400)
    await admin.execute("CREATE TABLE taken (n bigserial, worker bigint, queue_id bigint)")
    wanted, all_here = await ids(admin), asyncio.Barrier(4)

    async def claimer(seed: int) -> None:
        mixed, connection = random.Random(seed), await connect(both)
        hand = await Hand.hire(await open_store(both, 1))
        await all_here.wait()
        status = "INSERT 0 1"
        while status != "INSERT 0 0":
            status = await connection.execute(
                "INSERT INTO taken (worker, queue_id) SELECT $1, c.queue_id"
                " FROM rowmill.claim($1, $2, $3, $4) c",
                hand.id,
                mixed.getrandbits(62),
                list(LANES),
                mixed.randint(1, 7),
            )

    await asyncio.gather(*(claimer(seed) for seed in range(4)))
    taken = await admin.fetch("SELECT worker, queue_id FROM taken ORDER BY n")
    assert [row["queue_id"] for row in taken] == wanted
    assert len({row["worker"] for row in taken}) == 4
    # Not one after the other, but in turns.
    assert sum(a["worker"] != b["worker"] for a, b in pairwise(taken)) > 10


async def test_a_claim_returns_its_rows_in_order(
    both: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    admin = await connect(both)
    await fill(await connect(both, producer), 60, seed=2)
    hand = await Hand.hire(await open_store(both))
    wanted = await ids(admin)
    assert [c.queue_id for c in await hand.claim(25)] == wanted[:25]
    assert [c.queue_id for c in await hand.claim(100)] == wanted[25:]


async def test_each_table_has_its_place_on_one_scale(
    both: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection = await connect(both, producer)
    rows = {
        (await add_texts(connection, of=1))[0]: 8,
        (await add_texts(connection, of=2))[0]: 10,
        (await add_texts(connection, of=3))[0]: 12,
        (await add_texts(connection, of=4))[0]: 14,
        (await add_videos(connection, priority=1))[0]: 2 + SUPPORTED,
        (await add_videos(connection, priority=10))[0]: 20,
        (await add_background(connection, priority=-3))[0]: 7,
        (await add_background(connection, priority=3))[0]: 13,
    }
    claims = await (await Hand.hire(await open_store(both))).claim(100)
    assert {c.key: c.rank for c in claims} == rows
    assert [c.rank for c in claims] == [20, 14, 13, 12, 10, 8, 7, 2 + SUPPORTED]


async def test_of_equal_rank_the_earlier_ready_time_then_the_lower_id(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(ebook, producer), await connect(ebook)
    early = datetime.now(UTC) - timedelta(hours=1)
    first = await add_background(connection, 3)
    second = await add_background(connection, 1, scheduled_at=early)
    rows = await queued(admin)
    assert len({rows[key]["ready_at"] for key in first}) == 1
    claims = await (await Hand.hire(await open_store(ebook))).claim(10)
    assert [c.key for c in claims] == [*second, *first]


async def test_remembered_heads_give_every_row_once(
    both: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    """Two workers with marks of their own, each advanced as a consumer does it."""
    admin = await connect(both)
    await fill(await connect(both, producer), 200, seed=3)
    store, wanted = await open_store(both), await ids(admin)
    hands = [await Hand.hire(store) for _ in range(2)]
    marks = [{(h.lane, h.source, h.rank): h for h in await store.scan(LANES)} for _ in hands]
    taken: list[int] = []
    for turn in range(1000):
        hand, known = hands[turn % 2], marks[turn % 2]
        claims = await hand.claim(3, list(known.values()))
        for c in claims:
            place = (c.lane, c.source, c.rank)
            known[place] = type(known[place])(*place, c.ready_at)
        taken += [c.queue_id for c in claims]
        if not claims:
            break
    assert taken == wanted


async def test_a_full_scan_finds_what_lies_below_the_marks(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    """A row that comes back with an older ready time, and one of a head nobody remembers."""
    connection = await connect(ebook, producer)
    store = await open_store(ebook)
    hand = await Hand.hire(store)
    await add_background(connection, 5)
    heads = await store.scan(LANES)
    (old,) = await add_background(connection, scheduled_at=datetime.now(UTC) - timedelta(days=1))
    (new,) = await add_background(connection, kind="content_statistics")
    seen = [c.key for c in await hand.claim(10, heads)]
    assert len(seen) == 5
    assert old not in seen
    assert new not in seen
    assert [c.key for c in await hand.claim(10)] == [old, new]


async def test_a_schedule_and_a_back_off_become_ready_when_they_are_due(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(ebook, producer), await connect(ebook)
    hand = await Hand.hire(await open_store(ebook))
    (retried,) = await add_background(connection)
    await hand.retry(await hand.take(), after=60)
    soon = datetime.now(UTC) + timedelta(seconds=90)
    (scheduled,) = await add_background(connection, scheduled_at=soon)
    assert await hand.claim(10) == []
    await time_passes(admin, 75)
    assert [c.key for c in await hand.claim(10)] == [retried]
    await time_passes(admin, 75)
    assert [c.key for c in await hand.claim(10)] == [scheduled]


async def test_only_a_full_claim_looks_at_the_schedule(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    """It costs a busy worker nothing; whoever rests has looked before."""
    connection, admin = await connect(ebook, producer), await connect(ebook)
    store = await open_store(ebook)
    hand = await Hand.hire(store)
    ready = await add_background(connection, 2)
    (later,) = await add_background(
        connection, scheduled_at=datetime.now(UTC) + timedelta(seconds=60)
    )
    await time_passes(admin, 120, later)
    heads = await store.scan(LANES)
    assert [c.key for c in await hand.claim(10, heads)] == ready
    assert [c.key for c in await hand.claim(10)] == [later]
