"""Months are made ahead of time, once, and without holding up the tables' users."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

import asyncpg
import pytest

from tests.database.platform_samples import (
    CloneDatabase,
    NewDatabase,
    run,
    sample_of,
    sql_file,
    user,
)

MAKE = {
    "public.usage_records": "SELECT public.create_monthly_partition('usage_records', $1)",
    "public.audit_logs": "SELECT public.create_monthly_partition('audit_logs', $1)",
    "billing.usage_records": "SELECT system.create_monthly_partition('billing.usage_records', $1)",
    "analytics.user_events": "SELECT system.create_monthly_partition('analytics.user_events', $1)",
    "public.lesson_progress": "SELECT public.create_monthly_partition('lesson_progress', $1)",
}
BOUNDS = """
SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass($1) ORDER BY 1
"""
MAY = datetime(2033, 5, 31, tzinfo=UTC).date()


def platform_of(table: str) -> str:
    if table == "public.lesson_progress":
        return "education"
    return "photomemory" if table.startswith("public.") else "ebook"


@pytest.mark.parametrize("table", MAKE)
async def test_a_month_is_made_once_and_in_utc(table: str, clone_database: CloneDatabase) -> None:
    async with sample_of(platform_of(table), clone_database) as connection:
        assert len(await connection.fetch(BOUNDS, table)) == 3
        await connection.execute("SET timezone = 'Pacific/Kiritimati'")
        await connection.execute(MAKE[table], MAY)
        await connection.execute(MAKE[table], MAY.replace(day=1))
        await connection.execute("SET timezone = 'UTC'")
        bounds = [row[0] for row in await connection.fetch(BOUNDS, table)]
        assert len(bounds) == 4
        assert re.findall(r"\d{4}-\d\d-\d\d", bounds[-1]) == ["2033-05-01", "2033-06-01"]
        assert re.findall(r"\d\d:\d\d:\d\d", bounds[-1]) in ([], ["00:00:00"] * 2)


@pytest.mark.parametrize("table", MAKE)
async def test_two_callers_make_one_partition(table: str, new_database: NewDatabase) -> None:
    dsn = await new_database()
    await run(dsn, sql_file(platform_of(table), "schema.sql"))
    connections = [await asyncpg.connect(dsn) for _ in range(4)]
    await asyncio.gather(*(connection.execute(MAKE[table], MAY) for connection in connections))
    assert len(await connections[0].fetch(BOUNDS, table)) == 4
    for connection in connections:
        await connection.close()


@pytest.mark.parametrize("table", MAKE)
async def test_partitions_carry_keys_indexes_and_policies(
    table: str, clone_database: CloneDatabase
) -> None:
    shape = """
        SELECT c.relrowsecurity,
               (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) AS indexes,
               (SELECT count(*) FROM pg_constraint
                WHERE conrelid = c.oid AND contype IN ('c', 'p', 'f')) AS constraints
        FROM pg_class c WHERE c.oid = to_regclass($1) OR c.oid IN
             (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1))
    """
    async with sample_of(platform_of(table), clone_database) as connection:
        shapes = await connection.fetch(shape, table)
        assert len(shapes) == 4
        assert len(set(map(tuple, shapes))) == 1


@pytest.mark.parametrize("table", ["public.usage_records", "billing.usage_records"])
async def test_a_missing_month_is_told_apart(table: str, clone_database: CloneDatabase) -> None:
    """No constraint has a name here: that is how a missing partition is recognised."""
    insert = {
        "public.usage_records": f"""
            INSERT INTO public.usage_records
              (user_id, resource_type, quantity, unit, billing_period)
            VALUES ('{user(1)}', 'video_generation', 1, 'count', '2033-05-01')""",
        "billing.usage_records": """
            INSERT INTO billing.usage_records (user_id, resource_type, quantity, usage_date)
            SELECT id, 'ai_tokens', 1, '2033-05-01' FROM users.users LIMIT 1""",
    }[table]
    async with sample_of(platform_of(table), clone_database) as connection:
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await connection.execute(insert)
        assert caught.value.constraint_name is None
        await connection.execute(MAKE[table], MAY)
        await connection.execute(insert)


async def test_readers_do_not_hold_up_a_partition_and_writers_are_not_queued(
    new_database: NewDatabase,
) -> None:
    """Attaching waits for a writer of a referenced table, but gives up before others queue long."""
    dsn = await new_database()
    await run(dsn, sql_file("photomemory", "schema.sql"), sql_file("photomemory", "sample.sql"))
    idle, maker = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    make = MAKE["public.usage_records"]
    async with idle.transaction():
        await idle.fetch("SELECT FROM public.usage_records, public.generation_jobs")
        await maker.execute(make, MAY)
        await idle.execute("UPDATE public.video_projects SET metadata = '{}'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await maker.execute(make, MAY.replace(month=7))
    await maker.execute(make, MAY.replace(month=7))
    await idle.close()
    await maker.close()


@pytest.mark.parametrize(
    ("platform", "call"),
    [
        ("photomemory", "public.create_monthly_partition('users', '2033-05-01')"),
        ("photomemory", "public.create_monthly_partition('no such', '2033-05-01')"),
        ("ebook", "system.create_monthly_partition('users.users', '2033-05-01')"),
        ("education", "public.create_monthly_partition('media_files', '2033-05-01')"),
    ],
)
async def test_only_partitioned_tables(
    platform: str, call: str, clone_database: CloneDatabase
) -> None:
    async with sample_of(platform, clone_database) as connection:
        with pytest.raises(asyncpg.WrongObjectTypeError):
            await connection.execute(f"SELECT {call}")
        public = "SELECT has_function_privilege('pg_monitor', $1, 'EXECUTE')"
        signature = "regclass" if platform == "ebook" else "text"
        name = re.sub(r"\(.*", f"({signature}, date)", call)
        assert await connection.fetchval(public, name) is False
