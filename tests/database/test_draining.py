"""Who an operator means by a name, what a worker hears, and what is recorded."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

import pytest

from tests.database.support import LANES, Connect, Hand, OpenStore, fell_silent
from tests.process.fleet import until_sql
from worker.store import Store
from worker.store.draining import drain, drain_all
from worker.store.finding import UnknownName
from worker.store.fleet import workers

THREE_WAIT = """
SELECT count(*) = 3 FROM pg_stat_activity
 WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


async def hired(store: Store, name: str, host: str = "here") -> int:
    worker = secrets.randbits(63)
    await store.register(worker, name=name, version="1", lanes=LANES, slots=4, lease=30, host=host)
    return worker


async def hears(store: Store, worker: int, *, draining: bool = False) -> bool:
    return (await store.heartbeat(worker, running=2, draining=draining)).drain


async def actions(connection: Any) -> list[Any]:
    return list(await connection.fetch("SELECT * FROM rowmill.actions ORDER BY id"))


async def test_it_hears_with_its_next_heartbeat(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    store, connection = await open_store(photomemory), await connect(photomemory)
    worker, other = await hired(store, "a"), await hired(store, "b")
    assert not await hears(store, worker)
    asked = await drain(store, "a", "ada@desk", reason="new kernel")
    assert (asked.verdict, asked.leaves, asked.worker["state"]) == ("asked", True, "asked")
    assert await hears(store, worker)
    assert not await hears(store, other)
    (line,) = await actions(connection)
    detail = json.loads(line["detail"])
    assert (line["who"], line["action"], line["subject"]) == ("ada@desk", "drain", "worker a")
    assert (detail["worker"], detail["reason"]) == (str(worker), "new kernel")
    assert detail["before"] == {"host": "here", "running": 2, "lanes": list(LANES)}

    assert (await drain(store, "a", "bob@desk")).verdict == "asked before"
    await hears(store, worker, draining=True)
    again = await drain(store, "a", "bob@desk")
    assert (again.verdict, again.worker["drain_asked_by"]) == ("draining", "ada@desk")
    await store.retire(worker)
    assert (await drain(store, "a", "bob@desk")).verdict == "stopped"
    assert len(await actions(connection)) == 1


async def test_two_operators_at_once_are_one_act(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    store, connection = await open_store(photomemory), await connect(photomemory)
    ids = [await hired(store, name) for name in "abcdefgh"]
    async with connection.transaction():  # both wait for the same row, and then go on at once
        await connection.execute("SELECT FROM rowmill.workers WHERE id = $1 FOR UPDATE", ids[3])
        asking = [asyncio.create_task(drain_all(store, who)) for who in ("ada", "bob", "eve")]
        watcher = await connect(photomemory)
        await until_sql(watcher, THREE_WAIT)
    verdicts = [one.verdict for answer in await asyncio.gather(*asking) for one in answer]
    assert sorted(verdicts) == ["asked"] * 8 + ["asked before"] * 16
    assert sorted(line["subject"] for line in await actions(connection)) == [
        f"worker {name}" for name in "abcdefgh"
    ]


async def test_a_silent_worker_cant_be_asked(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    store, connection = await open_store(photomemory), await connect(photomemory)
    hand = await Hand.hire(store)
    await fell_silent(connection, hand)
    (row,) = await workers(store)
    asked = await drain(store, row["name"], "ada")
    assert (asked.verdict, asked.leaves) == ("silent", False)
    assert not await hears(store, hand.id)
    assert await actions(connection) == []


async def test_one_that_was_given_up_before_it_heard_hears_all_the_same(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Its next incarnation is another row, which nobody asked."""
    store, connection = await open_store(photomemory), await connect(photomemory)
    worker = await hired(store, "a")
    await drain(store, "a", "ada")
    await connection.execute("UPDATE rowmill.workers SET stopped_at = clock_timestamp()")
    pulse = await store.heartbeat(worker, running=0, draining=False)
    assert (pulse.alive, pulse.drain) == (False, True)


async def test_names(photomemory: str, connect: Connect, open_store: OpenStore) -> None:
    store, connection = await open_store(photomemory), await connect(photomemory)
    with pytest.raises(UnknownName, match="no worker 'a'; alive: none yet"):
        await drain(store, "a", "ada")
    here, there = await hired(store, "a", "here"), await hired(store, "a", "there")
    with pytest.raises(UnknownName, match=rf"2 workers.*(?=.*{here})(?=.*{there})"):
        await drain(store, "a", "ada")
    with pytest.raises(UnknownName, match="no worker 'a' on host 'nowhere'"):
        await drain(store, "a", "ada", host="nowhere")
    assert (await drain(store, "a", "ada", host="there")).worker["id"] == str(there)
    assert (await drain(store, str(here)[:12], "ada")).worker["id"] == str(here)
    with pytest.raises(UnknownName):
        await drain(store, str(here)[:3], "ada")

    # Once one of them is gone, the name is the other's.
    await connection.execute("UPDATE rowmill.workers SET drain_asked_at = NULL")
    await store.retire(here)
    asked = await drain(store, "a", "ada")
    assert (asked.worker["id"], asked.verdict) == (str(there), "asked")


async def test_all_of_a_host(photomemory: str, open_store: OpenStore) -> None:
    store = await open_store(photomemory)
    assert await drain_all(store, "ada") == []
    near = [await hired(store, name, "near") for name in "ab"]
    far = await hired(store, "c", "far")
    with pytest.raises(UnknownName, match="hosts: far, near"):
        await drain_all(store, "ada", host="nowhere")
    asked = await drain_all(store, "ada", host="near")
    assert {int(one.worker["id"]) for one in asked} == set(near)
    assert [await hears(store, one) for one in (*near, far)] == [True, True, False]


async def test_a_worker_of_the_version_before(photomemory: str, open_store: OpenStore) -> None:
    """It calls the functions as it knows them, and lives on; asked, it goes on as it did."""
    store = await open_store(photomemory)
    await store.value("SELECT rowmill.register(7, 'old', '0', '{replicate}', 4, 30)")
    (row,) = await workers(store)
    assert (row["name"], row["host"], row["state"]) == ("old", None, "working")
    await drain(store, "old", "ada")
    before = "SELECT alive FROM rowmill.heartbeat(7, 1, false)"
    assert await store.value(before)
    assert [row["state"] for row in await workers(store)] == ["asked"]


async def test_who_stopped_is_listed_when_asked_for(
    photomemory: str, open_store: OpenStore
) -> None:
    store = await open_store(photomemory)
    gone, here = await hired(store, "gone"), await hired(store, "here")
    await store.retire(gone)
    assert [row["id"] for row in await workers(store)] == [str(here)]
    both = await workers(store, stopped=True)
    assert [(row["id"], row["state"]) for row in both] == [
        (str(here), "working"),
        (str(gone), "stopped"),
    ]
