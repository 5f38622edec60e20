"""Everything through a transaction-mode pooler, whose few connections all clients share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.conftest import NewDatabase
from tests.database.platform_samples import run, sql_file
from tests.process.conftest import OpenFleet
from tests.process.fleet import Fleet, Sandbox, paid_twice
from tests.process.postgres import pooler
from tests.process.rows import (
    add_media,
    add_texts,
    all_done,
    exactly_once,
    ledger_equals_bill,
)

pytestmark = pytest.mark.process

PRODUCERS = 6
CHAPTERS = 30  # of each producer

# Chapter n has n words, so every result tells whether it is its own job's.
_CHAPTERS = """
WITH chapter AS (
    INSERT INTO content.chapters (project_id, title, position, content)
    SELECT 'e5000000-0000-4000-8000-000000000001', 'Words', $1::integer,
           repeat('word ', $1::integer - 1) || 'end.'
    RETURNING id)
INSERT INTO system.background_jobs (job_type, payload)
SELECT 'content_statistics', jsonb_build_object('content_type', 'chapter', 'content_id', id)
  FROM chapter RETURNING id
"""
WRONG_ANSWERS = """
SELECT c.position, s.word_count FROM content.chapters c
  LEFT JOIN content.content_statistics s ON s.content_id = c.id
 WHERE c.title = 'Words' AND s.word_count IS DISTINCT FROM c.position
"""
COUNTED = "SELECT count(*) FROM content.chapters WHERE title = 'Words'"


@pytest.fixture
def through(both: str) -> Iterator[str]:
    """The way to the database through a pooler with three connections."""
    with pooler(both, size=3) as dsn:
        yield dsn


@pytest.fixture
async def fleet(through: str, open_fleet: OpenFleet) -> Fleet:
    return await open_fleet(through)


@asynccontextmanager
async def client(dsn: str) -> AsyncIterator[Any]:
    """A producer that knows of the pooler."""
    connection = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


async def produce(dsn: str, first: int) -> None:
    """Insert chapters and jobs one by one, and ask in between what only we can answer."""
    async with client(dsn) as connection:
        for number in range(first, first + CHAPTERS):
            await connection.execute(_CHAPTERS, number)
            assert await connection.fetchval("SELECT $1::integer", number) == number
        await add_media(connection, 5)
        await add_texts(connection, 10)


async def test_hundreds_of_jobs_by_many_clients(
    db: Any, through: str, fleet: Fleet, sandbox: Sandbox
) -> None:
    workers = [await fleet.hire(name, slots=20) for name in ("a", "b", "c")]
    await asyncio.gather(*(produce(through, 100 * n) for n in range(1, PRODUCERS + 1)))
    await all_done(db, within=40)
    assert await db.fetchval(COUNTED) == PRODUCERS * CHAPTERS
    assert await db.fetch(WRONG_ANSWERS) == []
    assert await db.fetchval("SELECT count(*) FROM rowmill.failures") == 0
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    await ledger_equals_bill(db, sandbox)
    for worker in workers:
        assert (await worker.says("worker.started"))["pooler"] is True
        assert not worker.events("bell.lost"), "nobody listens through a pooler"
        assert await worker.drain() == 0


async def test_a_killed_worker_is_rescued_through_it(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    await add_media(db, 20)
    first = await fleet.hire("a", slots=10)
    await fleet.hire("b", slots=10)
    await first.kill()
    await all_done(db, within=30)
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())


# Some twice: the second meets what the first may have left on a shared connection.
COMMANDS = """
migrate
migrate
attach photomemory
attach photomemory
attach ebook
status
run --burst
run --burst
pause --all --reason test
resume --all
detach ebook
"""


async def test_every_command_works_through_it(
    new_database: NewDatabase, open_fleet: OpenFleet
) -> None:
    direct = await new_database()
    for platform in ("photomemory", "ebook"):
        await run(direct, sql_file(platform, "schema.sql"), sql_file(platform, "sample.sql"))
    with pooler(direct, size=2) as dsn:
        fleet = await open_fleet(dsn)
        for words in COMMANDS.strip().splitlines():
            code, said = await fleet.command(*words.split())
            assert code == 0, (words, said)
        code, said = await fleet.command("status", "--json")
    report = json.loads(said)
    assert report["database"]["pooler"] is True
    assert [source["source"] for source in report["sources"]] == ["generation_jobs"]
