"""Someone holds on to rows: a client that stopped, a producer that thinks. The fleet goes on.

Waiting for a lock is an error here after 100 ms, so that a test that would wait fails instead.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.database.platform_samples import project, run
from tests.database.support import (
    LANES,
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_background,
    add_videos,
    has_lived,
    queued,
    time_passes,
)


async def impatient(dsn: str) -> str:
    """The database, with an error for whoever waits for a lock."""
    found = re.search(r"/(rowmill_test_\w+)", dsn)
    assert found
    await run(dsn, f"ALTER DATABASE {found[1]} SET lock_timeout = '100ms'")
    return dsn


@asynccontextmanager
async def held_back(connection: Any, statement: str, *args: Any) -> AsyncIterator[None]:
    """A producer that ran this, and thinks long before it commits."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(statement, *args)
    try:
        yield
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("locked", [1, 500])
async def test_a_claim_passes_over_rows_a_producer_holds(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer, locked: int
) -> None:
    dsn = await impatient(ebook)
    connection = await connect(dsn, producer)
    first = await add_background(connection, locked, priority=9)
    rest = await add_background(connection, 3, priority=1)
    hand = await Hand.hire(await open_store(dsn))
    raise_them = "UPDATE system.background_jobs SET priority = 10 WHERE id = ANY ($1)"
    async with held_back(connection, raise_them, first):
        assert [c.key for c in await hand.claim(2)] == rest[:2]
        assert [c.key for c in await hand.claim(2)] == rest[2:]
    assert [c.key for c in await hand.claim(1000)] == first


HOLDS = {
    "reads it": "SELECT FROM public.generation_jobs WHERE id = $1 FOR UPDATE",
    "moves it": "UPDATE public.generation_jobs SET priority = 9 WHERE id = $1",
    "moves it away": "UPDATE public.generation_jobs SET generation_service = 'x' WHERE id = $1",
    "cancels it": "UPDATE public.generation_jobs SET status = 'cancelled' WHERE id = $1",
    "makes it ready": "UPDATE public.generation_jobs SET status = 'queued' WHERE id = $1",
    "deletes it": "DELETE FROM public.generation_jobs WHERE id = $1",
}


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS.keys())
async def test_a_start_passes_over_a_row_a_producer_holds(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, hold: str
) -> None:
    """It is claimed already. The others start; it comes back once it is free, if it still wants."""
    dsn = await impatient(photomemory)
    connection, admin = await connect(dsn, producer), await connect(dsn)
    hand = await Hand.hire(await open_store(dsn))
    keys = [(await add_videos(connection, of=number))[0] for number in (4, 5, 6)]
    claims = await hand.claim(3)
    async with held_back(connection, hold, keys[1]):
        verdicts = {key: s.verdict for key, s in (await hand.verdicts(claims)).items()}
        assert verdicts == {keys[0]: "run", keys[1]: "busy", keys[2]: "run"}
        assert await hand.claim() == []
    await comes_back(admin, hand, keys[1])


async def comes_back(admin: Any, hand: Hand, key: str) -> None:
    """After its half second, or with the next heartbeats where even its queue row was locked."""
    row = (await queued(admin))[key]
    if row["state"] == "claimed":
        await hand.store.hand_back([row["id"]], [row["token"]])
    else:
        assert row["note"] == "its row was locked"
    await time_passes(admin, 1, key)
    assert [w.key for w in await hand.take()] == [key]


async def test_a_start_passes_over_rows_of_a_parent_a_producer_holds(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    dsn = await impatient(photomemory)
    connection = await connect(dsn, producer)
    hand = await Hand.hire(await open_store(dsn))
    (held,) = await add_videos(connection, of=4)
    (free,) = await add_videos(connection, of=5)
    claims = await hand.claim(2)
    hold = "SELECT FROM public.video_projects WHERE id = $1 FOR UPDATE"
    async with held_back(connection, hold, project(4)):
        verdicts = await hand.verdicts(claims, wait=False)
    assert {key: s.verdict for key, s in verdicts.items()} == {held: "busy", free: "run"}


async def test_a_client_that_stops_reading_holds_up_nobody(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    """Its claim is one statement whose answer fits the socket, so it commits without a reader."""
    await add_background(await connect(ebook, producer), 700)
    hand, stopped = (
        await Hand.hire(await open_store(ebook)),
        await Hand.hire(await open_store(ebook)),
    )
    connection, admin = await connect(ebook), await connect(ebook)
    claim = await connection.prepare("SELECT * FROM rowmill.claim($1, 1, $2, 500)")
    connection._transport.pause_reading()
    unread = asyncio.create_task(claim.fetch(stopped.id, list(LANES)))
    while len(await claims_of(admin, stopped)) < 500:
        assert not unread.done()
    assert len(await hand.claim(500)) == 200
    # Its rows come back when its heartbeats stop, as a killed worker's do.
    await has_lived(admin, hand)
    await admin.execute(
        "UPDATE rowmill.workers SET heartbeat_at = heartbeat_at - 2 * lease WHERE id = $1",
        stopped.id,
    )
    assert await hand.store.rescue(hand.id) == 500
    assert not unread.done()
    connection.terminate()
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await unread


async def claims_of(connection: Any, hand: Hand) -> list[int]:
    rows = await connection.fetch("SELECT id FROM rowmill.queue WHERE worker = $1", hand.id)
    return [row["id"] for row in rows]


async def test_a_sweep_and_a_heartbeat_wait_for_no_producer(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    dsn = await impatient(photomemory)
    connection = await connect(dsn, producer)
    store = await open_store(dsn)
    hand, other = await Hand.hire(store), await Hand.hire(store)
    (key,) = await add_videos(connection)
    (work,) = await hand.take()
    async with held_back(connection, HOLDS["moves it"], key):
        pulse = await store.heartbeat(hand.id, running=1, draining=False)
        assert pulse.claims == {work.queue_id: work.token}
        await store.hand_back([work.queue_id], [work.token])
        entry = {"queue_id": work.queue_id, "token": work.token, "key": key, "progress": 40}
        await store.progress("generation_jobs", [entry])
        await store.sweep("generation_jobs")
        await has_lived(await connect(dsn), other)
        assert await store.rescue(other.id) == 0
    pulse = await store.heartbeat(hand.id, running=1, draining=False)
    assert pulse.claims == {work.queue_id: work.token}
