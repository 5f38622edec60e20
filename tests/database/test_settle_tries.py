"""Tries and attempts: never more than their maximum, however a try ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.contract import RetryLater
from tests.database.platform_samples import NewDatabase, run
from tests.database.settling import video
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_texts,
    add_videos,
    failure,
)
from worker import maps
from worker.store.attaching import attach
from worker.store.migrations import migrate

# --------------------------------------------------------------------------- tries


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_retry_count_never_exceeds_max_retries(
    most: int, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection, max_retries=most)
    counts = []
    while works := await hand.take():
        counts.append(works[0].started.tries)
        await hand.settle(works, lambda _: RetryLater(failure()))
    job = await video(connection, key)
    assert counts == list(range(most + 1))
    assert (job["status"], job["retry_count"]) == ("failed", most)
    tries = await connection.fetch("SELECT try, final FROM rowmill.failures ORDER BY id")
    assert [tuple(t) for t in tries] == [(n + 1, n == most) for n in range(most + 1)]


async def test_a_table_without_tries_counts_in_the_queue(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    hand = await Hand.hire(await open_store(ebook))
    await add_texts(connection)
    rounds = 0
    while works := await hand.take():
        assert (works[0].started.tries, works[0].started.max_retries) == (rounds, 3)
        await hand.settle(works, lambda _: RetryLater(failure()))
        rounds += 1
    assert rounds == 4
    status = await connection.fetchval("SELECT status FROM ai_processing.ai_generations")
    assert status == "failed"


LONG = "é" * 500
TASKS = """
CREATE TABLE public.tasks (
    id       bigint PRIMARY KEY,
    state    varchar(10),
    attempts integer,
    most     integer,
    error    varchar(40),
    done     timestamp,
    CHECK (attempts >= 0 AND attempts <= most)
);
CREATE SEQUENCE public.task_ids;
"""
TASK_MAP = """
platform = "attempts"
timezone = "Asia/Tokyo"
[[sources]]
name = "tasks"
table = "public.tasks"
kind = { constant = "text" }
lane = { constant = "openai" }
[sources.status]
column = "state"
ready = ["new", "again"]
running = "busy"
succeeded = "done"
failed = "broken"
default = "new"
[sources.tries]
column = "attempts"
counts = "attempts"
max = "most"
[sources.set.retry]
error = "error"
[sources.set.success]
done = "now"
[sources.set.failure]
error = "error"
done = "now"
"""


@pytest.fixture
async def tasks(new_database: NewDatabase, tmp_path: Path) -> str:
    """A table of someone's own: integer keys, attempts, no time zone, a narrow error column."""
    dsn = await new_database()
    (tmp_path / "map.toml").write_text(TASK_MAP, encoding="utf-8")
    await migrate(dsn)
    await run(dsn, TASKS)
    await attach(dsn, maps.load(str(tmp_path / "map.toml")))
    return dsn


async def task(connection: Any, most: int | None) -> None:
    await connection.execute("INSERT INTO tasks VALUES (1, NULL, NULL, $1)", most)


@pytest.mark.parametrize("most", [1, 2, 4])
async def test_attempts_never_exceed_their_maximum(
    most: int, tasks: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(tasks)
    hand = await Hand.hire(await open_store(tasks))
    await task(connection, most)
    attempts = []
    while works := await hand.take():
        attempts.append(await connection.fetchval("SELECT attempts FROM tasks"))
        assert works[0].started.max_retries == most - 1
        await hand.settle(works, lambda _: RetryLater(failure(LONG)))
    assert attempts == list(range(1, most + 1))
    row = await connection.fetchrow("SELECT * FROM tasks")
    assert (row["state"], row["attempts"], row["error"]) == ("broken", most, LONG[:40])


@pytest.mark.parametrize("verb", ["yield_", "release"])
async def test_an_attempt_that_costs_no_try_is_given_back(
    verb: str, tasks: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(tasks)
    hand = await Hand.hire(await open_store(tasks))
    await task(connection, 2)
    for _ in range(5):
        await getattr(hand, verb)(await hand.take())
        row = await connection.fetchrow("SELECT * FROM tasks")
        assert (row["state"], row["attempts"]) == ("new", 0)
    assert await hand.succeed(await hand.take()) == {"1": "settled"}
    row = await connection.fetchrow(
        "SELECT *, now() AT TIME ZONE 'Asia/Tokyo' - done < interval '1 min' AS zone FROM tasks"
    )
    assert (row["state"], row["attempts"], row["zone"]) == ("done", 1, True)


async def test_an_attempt_lost_in_a_crash_stays_within_the_maximum(
    tasks: str, connect: Connect, open_store: OpenStore
) -> None:
    """Rescue touches the queue alone, so the next start finds the attempt already counted."""
    connection = await connect(tasks)
    store = await open_store(tasks)
    await task(connection, 2)
    for _ in range(4):
        hand = await Hand.hire(store)
        assert len(await hand.take()) == 1
        await store.retire(hand.id)
    assert await connection.fetchval("SELECT attempts FROM tasks") == 2
