"""What `watch` is told of running jobs, of all platforms at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_background,
    add_texts,
    add_videos,
)
from worker.store import Store
from worker.store.errors import Unavailable
from worker.store.running import MOST, RunningJobs, next_jobs


async def test_running_jobs_of_every_table_with_progress_where_a_map_has_it(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    hand = await Hand.hire(store)
    (video,) = await add_videos(connection, retry_count=1)
    (text,) = await add_texts(connection)
    (hook,) = await add_background(connection)
    claims = await hand.claim(3)
    await hand.start(claims)
    await connection.execute(
        "UPDATE public.generation_jobs SET progress_percentage = 40 WHERE id = $1", video
    )

    jobs = await RunningJobs.of(store)
    rows = {row["key"]: row for row in await jobs.read(store)}
    assert rows.keys() == {video, text, hook}
    assert (rows[video]["source"], rows[video]["kind"]) == ("generation_jobs", "media:video")
    assert (rows[video]["percent"], rows[video]["try"], rows[video]["worker"]) == (40, 2, "hand")
    assert rows[text]["percent"] is None
    assert rows[hook]["lane"] == "background:webhook_delivery"
    assert all(row["running_s"] >= 0 and row["total"] == 3 for row in rows.values())

    assert [r["key"] for r in await jobs.read(store, "REPLIC")] == [video]
    assert [r["key"] for r in await jobs.read(store, text[:13])] == [text]
    assert await jobs.read(store, "%") == []


async def test_only_so_many_and_the_longest_running_first(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    hand = await Hand.hire(store)
    await add_background(connection, MOST + 5)
    await hand.claim(MOST + 5)
    rows = await (await RunningJobs.of(store)).read(store)
    assert (len(rows), rows[0]["total"]) == (MOST, MOST + 5)
    assert [r["since"] for r in rows] == sorted(r["since"] for r in rows)


async def test_every_builtin_platform_is_read(
    photomemory_v1: str, ecomvideo: str, education: str, open_store: OpenStore
) -> None:
    for dsn in (photomemory_v1, ecomvideo, education):
        store = await open_store(dsn)
        assert await (await RunningJobs.of(store)).read(store) == []


async def test_a_table_that_is_gone_leaves_the_others(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    hand = await Hand.hire(store)
    (text,) = await add_texts(connection)
    (hook,) = await add_background(connection)
    await hand.claim(2)
    jobs = await RunningJobs.of(store)
    await connection.execute("DROP TABLE public.generation_jobs CASCADE")
    with pytest.raises(Unavailable, match="generation_jobs"):
        await jobs.read(store)
    assert await keys(store) == {text, hook}


async def keys(store: Store) -> set[Any]:
    return {row["key"] for row in await (await RunningJobs.of(store)).read(store)}


async def test_what_a_lane_does_next(both: str, connect: Connect, open_store: OpenStore) -> None:
    connection, store = await connect(both), await open_store(both)
    (low,) = await add_videos(connection, priority=1)
    (high,) = await add_videos(connection, priority=9)
    (held,) = await add_videos(connection, priority=5)
    await connection.execute(
        "UPDATE rowmill.queue SET state = 'held', note = 'look' WHERE row_key = $1", held
    )
    rows = await next_jobs(store, "replicate", "generation_jobs")
    assert [(r["key"], r["state"], r["note"]) for r in rows] == [
        (high, "ready", None),
        (low, "ready", None),
        (held, "held", "look"),
    ]
    assert await next_jobs(store, "replicate", "ai_generations") == []
