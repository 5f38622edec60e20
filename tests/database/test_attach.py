"""Attaching and detaching: all or nothing, twice as good as once, and no trace afterwards."""

from __future__ import annotations

import asyncio
import re
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.database.platform_samples import CloneDatabase, NewDatabase, run, sql_file
from tests.database.settling import half_effects, until
from tests.database.support import Connect, Hand, OpenStore, add_videos, queued
from worker import maps
from worker.maps import MapError, Platform
from worker.store.attaching import attach, detach
from worker.store.migrations import migrate

CATALOG = """
SELECT 'class ' || c.oid::regclass || ' ' || c.relkind::text || ' ' || coalesce((
           SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', '
                             ORDER BY a.attnum)
             FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), '') AS line
  FROM pg_class c WHERE c.relnamespace NOT IN (SELECT oid FROM pg_namespace
                                              WHERE nspname ~ '^pg_|^information_schema$')
UNION ALL
SELECT 'function ' || p.oid::regprocedure || ' ' || md5(pg_get_functiondef(p.oid)) FROM pg_proc p
 WHERE p.prokind = 'f' AND p.pronamespace IN ('rowmill'::regnamespace, 'public'::regnamespace)
UNION ALL
SELECT 'trigger ' || pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE NOT t.tgisinternal
ORDER BY 1
"""


async def catalog(connection: Any) -> list[str]:
    return [row["line"] for row in await connection.fetch(CATALOG)]


async def loaded(dsn: str) -> None:
    """PhotoMemory's tables and the rowmill schema, not attached."""
    await migrate(dsn)
    await run(dsn, sql_file("photomemory", "schema.sql"), sql_file("photomemory", "sample.sql"))


@pytest.fixture
async def bare(clone_database: CloneDatabase) -> str:
    return await clone_database("photomemory-loaded", loaded)


def edited(folder: Path, *changes: tuple[str, str]) -> Platform:
    """PhotoMemory's map with a few words changed."""
    home = files("sql") / "platforms" / "photomemory"
    shutil.copytree(str(home), folder, dirs_exist_ok=True)
    path = folder / "map.toml"
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")
    return maps.load(str(path))


# --------------------------------------------------------------------------- attach


async def test_attaching_twice_is_as_good_as_once(bare: str, connect: Connect) -> None:
    connection = await connect(bare)
    await attach(bare, maps.load("photomemory"))
    (key,) = await add_videos(connection)
    before = await catalog(connection), await queued(connection)
    await attach(bare, maps.load("photomemory"))
    assert (await catalog(connection), await queued(connection)) == before
    assert list(await queued(connection)) == [key]
    assert await connection.fetchval("SELECT count(*) FROM rowmill.sources") == 1


async def test_two_attaches_at_once(bare: str, connect: Connect) -> None:
    connection = await connect(bare)
    keys = await add_videos(connection, 50)
    await asyncio.gather(*[attach(bare, maps.load("photomemory")) for _ in range(3)])
    assert set(await queued(connection)) == set(keys)
    assert await connection.fetchval("SELECT count(*) FROM rowmill.sources") == 1


def without_numbers(statement: str) -> str:
    """A dry run takes a source's id as well, so the next one has another."""
    return re.sub(r"\d+", "N", statement)


async def test_a_dry_run_prints_and_changes_nothing(bare: str, connect: Connect) -> None:
    connection = await connect(bare)
    await add_videos(connection)
    before = await catalog(connection)
    printed = await attach(bare, maps.load("photomemory"), dry_run=True)
    assert await catalog(connection) == before
    assert await queued(connection) == {}
    assert await connection.fetchval("SELECT count(*) FROM rowmill.sources") == 0
    assert any("CREATE TRIGGER rowmill_enqueue" in statement for statement in printed)
    done = await attach(bare, maps.load("photomemory"))
    assert [without_numbers(s) for s in done] == [without_numbers(s) for s in printed]


async def test_what_is_unfinished_is_queued(bare: str, connect: Connect) -> None:
    """Ready rows wait; of running ones nobody knows by whom, so a person decides."""
    connection = await connect(bare)
    statuses = ("queued", "processing", "failed", "cancelled")
    keys = {status: (await add_videos(connection, status=status))[0] for status in statuses}
    said: list[str] = []
    await attach(bare, maps.load("photomemory"), report=said.append)
    rows = await queued(connection)
    assert set(rows) == {keys["queued"], keys["processing"]}
    assert (rows[keys["queued"]]["state"], rows[keys["queued"]]["note"]) == ("ready", None)
    held = rows[keys["processing"]]
    assert held["state"] == "held"
    assert "already running when its table was attached" in held["note"]
    assert said[-1] == "public.generation_jobs: 2 unfinished rows queued"


async def test_rows_that_come_while_attaching_are_not_missed(
    bare: str, connect: Connect, open_store: OpenStore
) -> None:
    """Attaching waits for open transactions, and what they bring is backfilled."""
    connection, producer = await connect(bare), await connect(bare)
    async with producer.transaction():
        early = await add_videos(producer, 3)
        attaching = asyncio.create_task(attach(bare, maps.load("photomemory")))
        await until(
            connection,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted"
            " AND relation = 'generation_jobs'::regclass)",
        )
    await attaching
    late = await add_videos(connection, 2)
    assert set(await queued(connection)) == {*early, *late}
    hand = await Hand.hire(await open_store(bare))
    assert set((await hand.succeed(await hand.take(5))).values()) == {"settled"}
    assert await half_effects(connection) == []


# --------------------------------------------------------------------------- maps that can't work

WRONG: dict[str, tuple[tuple[str, str], str]] = {
    "table": (
        ('"public.generation_jobs"', '"public.jobs"'),
        r"sources\[0\] \(generation_jobs\)\.table: there is no table public\.jobs in this database",
    ),
    "key": (
        ('key = "id"', 'key = "uid"'),
        r"\.key: table public\.generation_jobs has no col.*'uid'",
    ),
    "key without index": (('key = "id"', 'key = "user_id"'), r"\.key: .* has no unique index"),
    "status": (('column = "status"', 'column = "stat"'), r"\.status\.column: table .* 'stat'"),
    "kind": (('"job_type", prefix', '"kind", prefix'), r"\.kind\.column: table .* 'kind'"),
    "lane": (('"generation_service"', '"service"'), r"\.lane\.column: table .* 'service'"),
    "tenant": (('{ column = "user_id" }', '{ column = "who" }'), r"\.tenant\.column: .* 'who'"),
    "tries": (('column = "retry_count"', 'column = "tries"'), r"\.tries\.column: .* 'tries'"),
    "most": (('max = "max_retries"', 'max = "most"'), r"\.tries\.max: table .* 'most'"),
    "priority": (('column = "priority"', 'column = "prio"'), r"\.priority\.column: .* 'prio'"),
    "lock": (
        ('"public.video_projects"', '"public.plans"'),
        r"\.locks\[0\]: .* no table public\.pl",
    ),
    "lock key": (
        ('video_projects"\n  key = "id"', 'video_projects"\n  key = "k"'),
        r"\.locks\[0\]: table public\.video_projects has no column 'k'",
    ),
    "lock column": (('column = "project_id"', 'column = "pid"'), r"\.locks\[0\]\.column: .* 'pid'"),
    "set": (('output_file_id = "media_id"', 'file = "media_id"'), r"\.set\.success: .* 'file'"),
    "a late field": (
        ('progress_percentage = "progress"', 'progress_percentage = "tokens"'),
        r"\.set\.progress\.progress_percentage: 'tokens' is not known while a job runs",
    ),
    "a path": (
        ('tenant = { column = "user_id" }', 'tenant = { path = "user_id > public.us(id).name" }'),
        r"\.tenant\.path: there is no table public\.us in",
    ),
    "a path's column": (
        ('tenant = { column = "user_id" }', 'tenant = { path = "user_id > public.users(id).nam" }'),
        r"\.tenant\.path: table public\.users has no column 'nam'",
    ),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_map_that_can_not_work_changes_nothing(
    what: str, bare: str, connect: Connect, tmp_path: Path
) -> None:
    change, message = WRONG[what]
    connection = await connect(bare)
    await add_videos(connection)
    before = await catalog(connection)
    with pytest.raises(MapError, match=r"^map\.toml: sources\[0\] \(generation_jobs\)") as caught:
        await attach(bare, edited(tmp_path, change))
    assert caught.match(message)
    assert await catalog(connection) == before
    assert await queued(connection) == {}
    assert await connection.fetchval("SELECT count(*) FROM rowmill.sources") == 0


async def test_a_bad_map_leaves_what_was_attached(
    photomemory: str, connect: Connect, tmp_path: Path
) -> None:
    connection = await connect(photomemory)
    before = await catalog(connection), await connection.fetch("SELECT * FROM rowmill.sources")
    with pytest.raises(MapError):
        await attach(photomemory, edited(tmp_path, ('"generation_service"', '"service"')))
    after = await catalog(connection), await connection.fetch("SELECT * FROM rowmill.sources")
    assert after == before


async def test_two_platforms_with_one_source_name(
    photomemory: str, connect: Connect, tmp_path: Path
) -> None:
    connection = await connect(photomemory)
    before = await catalog(connection)
    other = edited(tmp_path, ('platform = "photomemory"', 'platform = "other"'))
    with pytest.raises(MapError, match="platform photomemory already has a source of this name"):
        await attach(photomemory, other)
    assert await catalog(connection) == before


async def test_a_database_that_was_not_migrated(new_database: NewDatabase) -> None:
    with pytest.raises(MapError, match="run `rowmill migrate` first"):
        await attach(await new_database(), maps.load("photomemory"))


# --------------------------------------------------------------------------- detach


async def test_detach_leaves_no_trace(bare: str, connect: Connect) -> None:
    connection = await connect(bare)
    keys = await add_videos(connection, 3)
    before = await catalog(connection)
    await attach(bare, maps.load("photomemory"))
    assert await catalog(connection) != before
    assert await detach(bare, "photomemory") == ["public.generation_jobs"]
    assert await catalog(connection) == before
    assert await queued(connection) == {}
    assert await connection.fetchval("SELECT count(*) FROM rowmill.sources") == 0
    await add_videos(connection)  # the platform works on without us
    assert await connection.fetchval("SELECT count(*) FROM generation_jobs") == len(keys) + 1
    assert await detach(bare, "photomemory") == []


async def test_detach_keeps_the_ledger_and_the_other_platform(both: str, connect: Connect) -> None:
    connection = await connect(both)
    await connection.execute(
        "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
        " account, model, estimate_cents) VALUES ('generation_jobs', 'k', 1, 's', 'l', 1, 'p',"
        " 'a', 'm', 1)"
    )
    await add_videos(connection)
    await detach(both, "photomemory")
    assert await connection.fetchval("SELECT count(*) FROM rowmill.submissions") == 1
    names = await connection.fetch("SELECT name FROM rowmill.sources ORDER BY name")
    assert [row["name"] for row in names] == ["ai_generations", "background_jobs"]
    triggers = await connection.fetch(
        "SELECT DISTINCT tgrelid::regclass::text AS at FROM pg_trigger WHERE tgname LIKE 'rowmill%'"
    )
    assert {row["at"] for row in triggers} == {
        "ai_processing.ai_generations",
        "system.background_jobs",
    }


async def test_a_table_that_is_gone_can_be_detached(photomemory: str, connect: Connect) -> None:
    connection = await connect(photomemory)
    await connection.execute("DROP TABLE public.generation_jobs CASCADE")
    assert await detach(photomemory, "photomemory") == ["public.generation_jobs"]
    left = await connection.fetchval(
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'rowmill'::regnamespace"
        " AND proname LIKE '%\\_generation\\_jobs'"
    )
    assert left == 0
