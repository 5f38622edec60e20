"""PhotoMemory v1's schema: what its triggers count, what its views tell, what attach refuses."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from tests.database.platform_samples import (
    CloneDatabase,
    NewDatabase,
    run,
    sample_of,
    sql_file,
    v1_project,
    v1_user,
)
from tests.database.support import Hand, add, add_v1_videos
from worker.maps import MapError, load, relocated
from worker.store import Store
from worker.store.attaching import attach
from worker.store.migrations import migrate

PLATFORM = "photomemory_v1"

# --------------------------------------------------------------------------- storage


async def stored(connection: Any, number: int = 1) -> int:
    total: int = await connection.fetchval(
        "SELECT total_storage_bytes FROM users WHERE id = $1", v1_user(number)
    )
    return total


async def add_items(connection: Any, *sizes: int, of: int = 1) -> list[str]:
    about: dict[str, Any] = {
        "user_id": v1_user(of),
        "file_url": "u",
        "original_filename": "a.mp4",
        "file_type": "video",
        "mime_type": "video/mp4",
    }
    return [
        (await add(connection, "media_items", file_size_bytes=size, **about))[0] for size in sizes
    ]


async def test_the_samples_photos_count_for_their_owner(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        assert await stored(connection) == 3 * 241_000 + 6
        row = await connection.fetchrow(
            "SELECT photo_count FROM video_projects WHERE id = $1", v1_project(1)
        )
        assert row["photo_count"] == 3


async def test_photos_come_and_go(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        before = await stored(connection)
        photo: dict[str, Any] = {
            "project_id": v1_project(1),
            "file_url": "u",
            "mime_type": "image/png",
        }
        (key,) = await add(connection, "photos", file_size_bytes=700, **photo)
        assert await stored(connection) == before + 700
        await connection.execute("DELETE FROM photos WHERE id = $1", key)
        assert await stored(connection) == before


async def test_a_project_takes_its_photos_bytes_along(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        await add_items(connection, 100)
        await connection.execute("DELETE FROM video_projects WHERE id = $1", v1_project(1))
        assert await stored(connection) == 100
        assert await stored(connection, 2) > 0
        await connection.execute("DELETE FROM users WHERE id = $1", v1_user(2))
        assert await stored(connection, 2) is None


async def test_media_items_come_change_and_go(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        before = [await stored(connection, n) for n in (1, 2)]
        one, two = await add_items(connection, 100, 20)
        assert await stored(connection) == before[0] + 120
        await connection.execute("UPDATE media_items SET file_size_bytes = 5 WHERE id = $1", one)
        assert await stored(connection) == before[0] + 25
        move = "UPDATE media_items SET user_id = $2 WHERE id = $1"
        await connection.execute(move, two, v1_user(2))
        assert [await stored(connection, n) for n in (1, 2)] == [before[0] + 5, before[1] + 20]
        await connection.execute("DELETE FROM media_items")
        assert [await stored(connection, n) for n in (1, 2)] == before


async def test_updated_at_is_kept_on_every_table_that_has_it(
    clone_database: CloneDatabase,
) -> None:
    tables = (
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND column_name = 'updated_at'"
    )
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    async with sample_of(PLATFORM, clone_database) as connection:
        await add_v1_videos(connection)
        await add_items(connection, 100)
        names = [row[0] for row in await connection.fetch(tables)]
        assert len(names) == 6
        for name in names:
            await connection.execute(f"UPDATE {name} SET updated_at = $1", long_ago)
            oldest = await connection.fetchval(f"SELECT min(updated_at) FROM {name}")
            assert oldest > long_ago, name


# --------------------------------------------------------------------------- views


async def test_the_dashboard_counts_each_thing_once(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        done: dict[str, Any] = {
            "status": "completed",
            "file_url": "u",
            "completed_at": datetime.now(UTC),
        }
        await add_v1_videos(connection, 3, of=1, **done)
        await add_v1_videos(connection, of=1)
        await connection.execute(
            "UPDATE video_projects SET status = 'completed' WHERE id = $1", v1_project(1)
        )
        row = await connection.fetchrow(
            "SELECT * FROM user_dashboard_stats WHERE id = $1", v1_user(1)
        )
        assert (row["project_count"], row["completed_projects"], row["generated_videos"]) == (
            1,
            1,
            3,
        )
        assert row["photos_storage_bytes"] == await stored(connection)


async def test_daily_analytics_refresh_beside_their_readers_in_utc(
    clone_database: CloneDatabase,
) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        await connection.execute("SET timezone = 'Pacific/Kiritimati'")
        await connection.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY user_analytics_daily")
        rows = await connection.fetch("SELECT * FROM user_analytics_daily ORDER BY date")
        assert [tuple(row) for row in rows] == [
            (datetime(2026, 1, 10, tzinfo=UTC), 3, 0),
            (datetime(2026, 1, 11, tzinfo=UTC), 4, 4),
            (datetime(2026, 1, 12, tzinfo=UTC), 3, 3),
        ]


async def test_policies_of_users_and_service(clone_database: CloneDatabase) -> None:
    role = f"rowmill_test_{secrets.token_hex(4)}"
    act = "SELECT set_config('request.jwt.claims', $1, true)"
    async with sample_of(PLATFORM, clone_database) as connection:
        await add_v1_videos(connection, of=4)
        await add_v1_videos(connection, of=5)
        transaction = connection.transaction()
        await transaction.start()  # rolled back, and the role with it
        await connection.execute(
            f"CREATE ROLE {role}; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"
        )
        await connection.execute(f"SET LOCAL ROLE {role}")
        seen = "SELECT (SELECT count(*) FROM {0}), (SELECT count(*) FROM photos)"
        videos = seen.format("generated_videos")
        assert tuple(await connection.fetchrow(videos)) == (0, 0)
        await connection.execute(act, "")  # as after a transaction that had claims
        assert tuple(await connection.fetchrow(videos)) == (0, 0)
        await connection.execute(act, f'{{"sub": "{v1_user(4)}", "role": "authenticated"}}')
        assert tuple(await connection.fetchrow(videos)) == (1, 2)
        await connection.execute(act, '{"role": "service_role"}')
        assert tuple(await connection.fetchrow(videos)) == (2, 35)
        await transaction.rollback()


# --------------------------------------------------------------------------- attach

NARROW = """
BEGIN;
DROP VIEW public.monthly_usage_summary;
ALTER TABLE public.usage_records ALTER COLUMN amount TYPE {type};
CREATE VIEW public.monthly_usage_summary AS
SELECT user_id, sum(amount) AS all_of_it FROM public.usage_records GROUP BY user_id;
COMMIT;
"""


async def objections(connection: Any) -> list[tuple[str, str]]:
    async with connection.transaction(readonly=True):
        await connection.execute("SET LOCAL search_path = pg_catalog")
        query = sql_file(PLATFORM, "attach.sql").rstrip().removesuffix(";")
        return [tuple(row) for row in await connection.fetch(query)]


def mending(message: str) -> str:
    found = re.search(r"Mend it with: (.*?;)( \(|$)", message, re.DOTALL)
    assert found, message
    return found[1]


async def test_the_corrected_schema_is_fit_and_an_empty_database_says_nothing(
    clone_database: CloneDatabase, new_database: NewDatabase
) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        assert await objections(connection) == []
    empty = await asyncpg.connect(await new_database())
    assert await objections(empty) == []
    await empty.close()


async def test_an_amount_that_is_too_narrow_is_refused_with_what_mends_it(
    clone_database: CloneDatabase,
) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        await connection.execute(NARROW.format(type="numeric(10,2)"))
        ((severity, message),) = await objections(connection)
        assert severity == "refuse"
        assert "public.usage_records.amount is numeric(10,2)" in message
        await connection.execute(mending(message))
        assert await objections(connection) == []
        columns = await connection.fetch("SELECT * FROM monthly_usage_summary LIMIT 0")
        assert columns == []
        assert "all_of_it" in await connection.fetchval(
            "SELECT pg_get_viewdef('public.monthly_usage_summary')"
        )


@pytest.mark.parametrize("type_", ["numeric", "numeric(15,2)", "bigint"])
async def test_a_wide_amount_is_fit(clone_database: CloneDatabase, type_: str) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        await connection.execute(NARROW.format(type=type_))
        assert await objections(connection) == []


@pytest.mark.parametrize(
    ("index", "fit"),
    [
        (None, False),
        ("(generation_service)", False),
        ("(completed_at, generation_service)", False),
        ("(generation_service, completed_at) WHERE status = 'failed'", False),
        ("(generation_service, completed_at)", True),
        ("(generation_service, completed_at, id) WHERE status = 'completed'", True),
    ],
)
async def test_without_the_index_for_estimates_it_is_refused(
    clone_database: CloneDatabase, index: str | None, fit: bool
) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        await connection.execute("DROP INDEX idx_generated_videos_recent")
        if index:
            await connection.execute(f"CREATE INDEX ON generated_videos {index}")
        found = await objections(connection)
        assert [severity for severity, _ in found] == ([] if fit else ["refuse"])
        if found:
            await connection.execute(mending(found[0][1]))
            assert await objections(connection) == []


async def test_a_library_that_counts_nothing_is_warned_of(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        await connection.execute("DROP TRIGGER trigger_track_media_storage ON media_items")
        ((severity, message),) = await objections(connection)
        assert (severity, "total_storage_bytes" in message) == ("warn", True)


async def test_the_designs_own_table_would_hold_every_large_video(
    clone_database: CloneDatabase,
) -> None:
    """Why it is refused: the amount of a 100 MB file."""
    async with sample_of(PLATFORM, clone_database) as connection:
        await connection.execute(NARROW.format(type="numeric(10,2)"))
        record = (
            "INSERT INTO usage_records (user_id, resource_type, amount, unit, billing_month)"
            f" VALUES ('{v1_user(1)}', 'storage_bytes', 100000000, 'bytes', '2026-06-01')"
        )
        with pytest.raises(asyncpg.NumericValueOutOfRangeError):
            await connection.execute(record)


async def test_attach_refuses_and_changes_nothing(
    clone_database: CloneDatabase,
) -> None:
    async def build(dsn: str) -> None:
        await migrate(dsn)
        await run(dsn, sql_file(PLATFORM, "schema.sql"), NARROW.format(type="numeric(10,2)"))

    dsn = await clone_database(f"{PLATFORM}-as-designed", build)
    with pytest.raises(MapError, match=r"usage_records.amount is numeric\(10,2\)"):
        await attach(dsn, load(PLATFORM))
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT count(*) FROM rowmill.sources") == 0
    ((_, message),) = await objections(connection)
    await connection.execute(mending(message))
    await connection.execute("DROP TRIGGER trigger_track_media_storage ON media_items")
    said: list[str] = []
    await attach(dsn, load(PLATFORM), report=said.append)
    assert [line for line in said if line.startswith("warning: public.media_items has no trigger")]
    assert await connection.fetchval("SELECT count(*) FROM rowmill.sources") == 1
    await connection.close()


async def test_both_versions_of_the_platform_in_one_database(new_database: NewDatabase) -> None:
    """Each in a schema of its own, with one auth; nothing of either is left in public."""
    dsn = await new_database()
    await migrate(dsn)
    for platform in (PLATFORM, "photomemory"):
        scripts = (sql_file(platform, name) for name in ("schema.sql", "sample.sql"))
        await run(
            dsn, f"CREATE SCHEMA {platform}", *(relocated(script, platform) for script in scripts)
        )
        await attach(dsn, load(platform, schema=platform))
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT count(*) FROM auth.users") == 20
    in_public = (
        "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid)"
        " + (SELECT count(*) FROM pg_type WHERE typnamespace = n.oid)"
        " + (SELECT count(*) FROM pg_proc WHERE pronamespace = n.oid)"
        " FROM pg_namespace n WHERE nspname = 'public'"
    )
    assert await connection.fetchval(in_public) == 0
    await add(
        connection,
        f"{PLATFORM}.generated_videos",
        project_id=v1_project(4),
        ai_prompt="Waves",
        generation_service="replicate",
    )
    store = await Store.open(dsn)
    hand = await Hand.hire(store)
    works = await hand.take()
    assert set((await hand.succeed(works)).values()) == {"settled"}
    await store.close()
    assert await connection.fetchval(f"SELECT count(*) FROM {PLATFORM}.media_items") == 1
    await connection.execute(f"DROP INDEX {PLATFORM}.idx_generated_videos_recent")
    with pytest.raises(MapError) as refused:
        await attach(dsn, load(PLATFORM, schema=PLATFORM))
    await connection.execute(mending(str(refused.value)))
    await attach(dsn, load(PLATFORM, schema=PLATFORM))
    await connection.close()
