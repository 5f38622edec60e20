"""Starting what was claimed: marked running once, busy rows go back, what is gone leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.database.platform_samples import project
from tests.database.settling import video
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_background,
    add_texts,
    add_videos,
    queued,
)
from worker.store import LockTimeout


async def test_a_started_row_is_running_and_brings_its_input(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection, of=4, job_type="preview", retry_count=1, max_retries=2)
    (work,) = await hand.take()
    job = await video(connection, key)
    assert job["status"] == "processing"
    assert job["started_at"] is not None
    started = work.started
    assert (started.kind, started.tries, started.max_retries) == ("media:preview", 1, 2)
    assert started.input["project_id"] == project(4)
    assert len(started.input["photos"]) == 2


async def test_null_means_the_default(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    await add_videos(connection, retry_count=None, max_retries=None)
    (work,) = await hand.take()
    assert (work.started.tries, work.started.max_retries) == (0, 3)


async def test_the_kinds_of_both_platforms(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(both)
    hand = await Hand.hire(await open_store(both))
    await add_videos(connection)
    await add_texts(connection)
    await add_background(connection, kind="content_statistics")
    works = await hand.take(3)
    assert {w.source: w.started.kind for w in works} == {
        "generation_jobs": "media:video",
        "ai_generations": "text",
        "background_jobs": "background:content_statistics",
    }


async def test_starting_twice_is_harmless(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """The answer of the first start may have been lost on its way."""
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    claims = await hand.claim()
    first = await hand.verdicts(claims)
    before = await video(connection, key)
    assert await hand.verdicts(claims) == first
    assert await video(connection, key) == before


async def test_a_locked_row_goes_back_and_the_rest_run(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, holder = await connect(photomemory), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    held, free = await add_videos(connection, 2)
    claims = await hand.claim(2)
    async with holder.transaction():
        await holder.execute("SELECT FROM generation_jobs WHERE id = $1 FOR UPDATE", held)
        said = await hand.verdicts(claims)
    assert {key: s.verdict for key, s in said.items()} == {held: "busy", free: "run"}
    row = (await queued(connection))[held]
    assert (row["state"], row["token"], row["note"]) == ("scheduled", None, "its row was locked")
    assert (row["tries"], row["yields"]) == (0, 0)
    assert (await video(connection, held))["status"] == "queued"


async def test_a_cancel_in_an_idle_transaction_holds_up_nobody(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Its trigger has the queue row locked too; start must not wait for it."""
    connection, holder = await connect(photomemory), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    held, free = await add_videos(connection, 2)
    claims = await hand.claim(2)
    async with holder.transaction():
        await holder.execute("UPDATE generation_jobs SET status = 'cancelled' WHERE id = $1", held)
        said = await hand.verdicts(claims)
        assert {key: s.verdict for key, s in said.items()} == {held: "busy", free: "run"}
    assert set(await queued(connection)) == {free}
    assert (await video(connection, held))["status"] == "cancelled"


async def test_a_held_parent_sends_only_its_jobs_back(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, holder = await connect(photomemory), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (held,) = await add_videos(connection, of=4)
    (free,) = await add_videos(connection, of=5)
    claims = await hand.claim(2)
    async with holder.transaction():
        await holder.execute("SELECT FROM video_projects WHERE id = $1 FOR UPDATE", project(4))
        with pytest.raises(LockTimeout):
            await hand.verdicts(claims)
        said = await hand.verdicts(claims, wait=False)
    assert {key: s.verdict for key, s in said.items()} == {held: "busy", free: "run"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE generation_jobs SET status = 'cancelled'",
        "UPDATE generation_jobs SET status = 'failed'",
        "DELETE FROM generation_jobs",
    ],
)
async def test_what_is_gone_leaves_the_queue(
    statement: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Unseen by the triggers, as in a restore."""
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    claims = await hand.claim()
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(statement)
    assert (await hand.verdicts(claims))[key].verdict == "gone"
    assert await queued(connection) == {}


async def test_a_lost_claim_starts_nothing(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    claims = await hand.claim()
    await store.retire(hand.id)
    assert await hand.verdicts(claims) == {}
    assert (await video(connection, key))["status"] == "queued"
    assert (await queued(connection))[key]["state"] == "ready"


async def test_a_start_and_a_cancel_at_the_same_moment(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Whoever comes first: a cancelled row never runs on, and has no queue row."""
    connection, canceller = await connect(photomemory), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    keys = await add_videos(connection, 60)
    claims = await hand.claim(60)

    async def cancel() -> None:
        for key in keys[::3]:
            await canceller.execute(
                "UPDATE generation_jobs SET status = 'cancelled' WHERE id = $1", key
            )

    async def start() -> list[Any]:
        verdicts = []
        for claim in claims:
            while True:
                try:
                    verdicts.append(await hand.verdicts([claim]))
                    break
                except LockTimeout:
                    continue
        return verdicts

    await asyncio.gather(cancel(), start())
    cancelled = {key for key in keys if (await video(connection, key))["status"] == "cancelled"}
    assert cancelled == set(keys[::3])
    assert not cancelled & set(await queued(connection))
