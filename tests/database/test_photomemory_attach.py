"""What `attach` sees in a live PhotoMemory database; months made beside its producers."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.database.platform_samples import (
    CloneDatabase,
    NewDatabase,
    sample_of,
    user,
)
from tests.database.support import (
    Connect,
)
from worker import maps
from worker.maps import Platform


def photomemory_map() -> Platform:
    return maps.load("photomemory")


# --------------------------------------------------------------------------- attach.sql


async def said(connection: Any) -> list[tuple[str, str]]:
    await connection.execute("SET search_path = pg_catalog")
    rows = await connection.fetch(photomemory_map().rules["attach"].strip().rstrip(";"))
    await connection.execute("RESET search_path")
    return [(row["severity"], row["message"]) for row in rows]


AS_DESIGNED = """
DROP FUNCTION public.check_user_limit(uuid, varchar, numeric) CASCADE;
CREATE FUNCTION public.check_user_limit(
  p_user_id uuid, p_limit_type varchar, p_requested_amount integer DEFAULT 1
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
  current_usage integer;
  user_limit integer;
  subscription_active boolean;
BEGIN
  SELECT max_projects, max_videos_per_month, max_storage_gb, is_active
  INTO user_limit, subscription_active
  FROM public.get_user_subscription_features(p_user_id);
  IF NOT subscription_active THEN
    RETURN FALSE;
  END IF;
  SELECT COUNT(*) INTO current_usage FROM public.video_projects WHERE user_id = p_user_id;
  RETURN user_limit = -1 OR current_usage + p_requested_amount <= user_limit;
END $$;
"""
MONTHLY = """
CREATE OR REPLACE FUNCTION public.create_monthly_partition(table_name text, partition_date date)
RETURNS void LANGUAGE plpgsql {how} AS $$
DECLARE
  named text := table_name || to_char(partition_date, '_YYYY_MM');
BEGIN
  {body}
END $$;
"""
PARTITION_OF = """EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L)
    TO (%L)', named, table_name, partition_date, partition_date + interval '1 month');"""
PINNED = "SECURITY DEFINER SET search_path = pg_catalog"


def monthly(how: str, body: str) -> str:
    return MONTHLY.format(how=how, body=body)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("SELECT 1", []),
        (AS_DESIGNED, [("refuse", "check_user_limit")]),
        (
            "DROP FUNCTION public.create_monthly_partition(text, date)",
            [("refuse", "there is no function")],
        ),
        (monthly("", PARTITION_OF), [("refuse", "for a month that is there")]),
        (monthly("", PARTITION_OF), [("warn", "exclusive lock")]),
        (monthly("", PARTITION_OF), [("warn", "its caller's rights")]),
        (
            monthly(PINNED, f"IF to_regclass(named) IS NULL THEN {PARTITION_OF} END IF;"),
            [("warn", "exclusive lock")],
        ),
        (monthly("SECURITY DEFINER", "NULL;"), [("warn", "without SET search_path")]),
        (
            "DROP INDEX public.idx_user_analytics_summary_user",
            [("warn", "CREATE UNIQUE INDEX ON public.user_analytics_summary (user_id)")],
        ),
        (
            "DROP TABLE public.audit_logs; CREATE TABLE public.audit_logs (id uuid)",
            [("refuse", "public.audit_logs is not partitioned")],
        ),
        (
            "ALTER TYPE public.project_status RENAME VALUE 'deleted' TO 'gone'",
            [("refuse", "lacks 'deleted'")],
        ),
        (
            "ALTER TABLE public.generation_jobs DROP COLUMN created_at CASCADE",
            [("refuse", "no column created_at")],
        ),
    ],
)
async def test_attach_knows_what_it_can_not_work_with(
    change: str, expected: list[tuple[str, str]], clone_database: CloneDatabase
) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        await connection.execute(change)
        found = await said(connection)
        for severity, words in expected:
            assert [s for s, message in found if words in message] == [severity], found
        if not expected:
            assert found == []


async def test_an_empty_database_is_no_error(new_database: NewDatabase) -> None:
    connection = await asyncpg.connect(await new_database())
    assert [severity for severity, _ in await said(connection)] == ["refuse"]
    await connection.close()


async def test_the_limit_as_designed_fails_and_corrected_it_does_not(
    clone_database: CloneDatabase,
) -> None:
    """With five videos a month in place of a boolean; and NULL where there is no subscription."""
    check = "SELECT public.check_user_limit($1, 'projects', 1)"
    async with sample_of("photomemory", clone_database) as connection:
        assert await connection.fetchval(check, user(4)) is True
        assert await connection.fetchval(check, user(1)) is True
        await connection.execute(AS_DESIGNED)
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await connection.fetchval(check, user(4))
        assert await connection.fetchval(check, user(1)) is None


# --------------------------------------------------------------------------- partitions


@pytest.mark.parametrize("table", ["usage_records", "audit_logs"])
async def test_a_month_is_attached_beside_a_producers_long_transaction(
    table: str, photomemory: str, connect: Connect
) -> None:
    """Who has inserted into the table isn't waited for, and who inserts doesn't wait for us."""
    insert = {
        "usage_records": f"""
            INSERT INTO public.usage_records
              (user_id, resource_type, quantity, unit, billing_period)
            VALUES ('{user(1)}', 'video_generation', 1, 'count', date_trunc('month', now()))""",
        "audit_logs": "INSERT INTO public.audit_logs (action, resource_type) VALUES ('x', 'y')",
    }[table]
    make = f"SELECT public.create_monthly_partition('{table}', '2033-05-01')"
    long, maker, other = [await connect(photomemory) for _ in range(3)]
    await other.execute("SET lock_timeout = '200ms'")
    async with long.transaction():
        await long.execute(insert)
        async with maker.transaction():
            await asyncio.wait_for(maker.execute(make), 5)
            locks = await maker.fetch(
                "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid()"
                " AND relation = $1::text::regclass",
                f"public.{table}",
            )
            modes = {row["mode"] for row in locks}
            assert "ShareUpdateExclusiveLock" in modes
            assert not modes & {"AccessExclusiveLock", "ExclusiveLock", "ShareRowExclusiveLock"}
            await other.execute(insert)
    assert await other.fetchval(f"SELECT to_regclass('public.{table}_2033_05') IS NOT NULL")
