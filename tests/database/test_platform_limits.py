"""What a customer's plan allows: check_user_limit and the triggers that ask it."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import pytest

from tests.database.platform_samples import (
    GIGABYTE,
    CloneDatabase,
    project,
    sample_of,
    subscribe,
    upload,
    user,
)


@pytest.mark.parametrize(
    ("owner", "limit", "amount", "allowed"),
    [
        (1, "projects", 2, True),  # no subscription: free, one of three used
        (1, "projects", 3, False),
        (3, "projects", 3, False),  # a free subscription
        (4, "projects", 49, True),  # pro
        (4, "projects", 50, False),
        (8, "projects", 10**6, True),  # enterprise: -1
        (1, "videos_per_month", 5, True),
        (1, "videos_per_month", 6, False),
        (8, "videos_per_month", 10**6, True),
        (1, "storage_gb", 1, False),  # the sample's photos are there
        (4, "storage_gb", 49, True),
        (4, "storage_gb", 50, False),
        (8, "storage_gb", 499, True),
        (8, "storage_gb", 500, False),
        (8, "wishes", 0, False),
    ],
)
async def test_limits_by_plan(
    clone_database: CloneDatabase, owner: int, limit: str, amount: int, *, allowed: bool
) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        check = "SELECT public.check_user_limit($1, $2, $3)"
        assert await connection.fetchval(check, user(owner), limit, amount) is allowed


async def test_an_expired_subscription_is_the_free_plan(clone_database: CloneDatabase) -> None:
    check = "SELECT public.check_user_limit($1, 'storage_gb', 2)"
    async with sample_of("photomemory", clone_database) as connection:
        assert await connection.fetchval(check, user(4))
        await subscribe(connection, user(4), "pro", until=datetime(2021, 1, 1, tzinfo=UTC))
        assert not await connection.fetchval(check, user(4))


async def test_null_is_unlimited_and_a_missing_plan_is_nothing(
    clone_database: CloneDatabase,
) -> None:
    check = "SELECT public.check_user_limit($1, 'projects', 1000)"
    async with sample_of("photomemory", clone_database) as connection:
        await connection.execute("UPDATE subscription_plans SET max_projects = NULL")
        assert await connection.fetchval(check, user(4))
        await connection.execute("DELETE FROM user_subscriptions WHERE plan_id = 'free'")
        await connection.execute("DELETE FROM subscription_plans WHERE id = 'free'")
        assert not await connection.fetchval(check, user(1))


async def test_only_this_months_completed_videos_count(clone_database: CloneDatabase) -> None:
    check = "SELECT public.check_user_limit($1, 'videos_per_month', 4)"
    insert = """
        INSERT INTO generation_jobs
          (project_id, user_id, generation_service, job_type, status, output_file_id, completed_at)
        SELECT $1, $2, 'replicate', $3, 'completed', id, now() - $4 * interval '32 days'
        FROM media_files LIMIT 1
    """
    async with sample_of("photomemory", clone_database) as connection:
        for job_type, months_ago in (("video", 0), ("video", 1), ("audio", 0)):
            await connection.execute(insert, project(1), user(1), job_type, months_ago)
        assert await connection.fetchval(check, user(1))
        await connection.execute(insert, project(1), user(1), "video", 0)
        assert not await connection.fetchval(check, user(1))


async def test_storage_counts_every_byte(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        await connection.execute("TRUNCATE project_media; DELETE FROM media_files")
        await upload(connection, user(1), 600_000_000)  # was a whole gigabyte, rounded
        await upload(connection, user(1), GIGABYTE - 600_000_000 - 1, 1)
        with pytest.raises(asyncpg.RaiseError, match="Storage limit exceeded"):
            await upload(connection, user(1), 1)
        await upload(connection, user(2), 1)


async def test_one_statement_cannot_exceed_the_limit(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        with pytest.raises(asyncpg.RaiseError, match="Storage limit exceeded"):
            await upload(connection, user(1), *[GIGABYTE * 2 // 5] * 3)  # each alone fits


async def test_projects_are_limited_and_deleted_ones_do_not_count(
    clone_database: CloneDatabase,
) -> None:
    insert = "INSERT INTO public.video_projects (user_id) VALUES ($1)"
    async with sample_of("photomemory", clone_database) as connection:
        await connection.execute(insert, user(1))
        await connection.execute(insert, user(1))
        with pytest.raises(asyncpg.RaiseError, match="Project limit exceeded"):
            await connection.execute(insert, user(1))
        await connection.execute(
            "UPDATE video_projects SET status = 'deleted' WHERE id = $1", project(1)
        )
        await connection.execute(insert, user(1))


async def test_the_storage_sum_uses_an_index(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        await connection.execute(
            """
            SET session_replication_role = replica;  -- 500 customers need no users rows
            INSERT INTO media_files
              (user_id, original_filename, file_key, file_url, file_type, mime_type,
               file_size_bytes)
            SELECT md5((n % 500)::text)::uuid, 'a', 'key' || n, 'url', 'audio', 'audio/wav', 1
            FROM generate_series(1, 10000) AS n;
            ANALYZE media_files;
            SET plan_cache_mode = force_generic_plan;
            PREPARE stored(uuid) AS SELECT SUM(file_size_bytes) FROM media_files WHERE user_id = $1;
            """
        )
        plan = await connection.fetch(f"EXPLAIN EXECUTE stored('{user(1)}')")
        assert "idx_media_files_" in str(plan)
        assert "Seq Scan" not in str(plan)
