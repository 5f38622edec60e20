"""PhotoMemory v1's rule files, each on the platform's own schema and sample rows."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.database.platform_rules import Rule, output, result, thumbnail
from tests.database.platform_samples import CloneDatabase, sample_of, v1_project, v1_user
from tests.database.support import add_v1_videos

PLATFORM = "photomemory_v1"
MADE = datetime(2026, 6, 1, tzinfo=UTC)
DONE: dict[str, Any] = {
    "status": "completed",
    "file_url": "https://files.example.com/a.mp4",
    "completed_at": MADE,
}


def rule(connection: Any, name: str) -> Rule:
    return Rule(connection, f"{PLATFORM}/generated_videos.{name}")


async def job(connection: Any, number: int = 1, **columns: Any) -> str:
    (key,) = await add_v1_videos(connection, of=number, **{"created_at": MADE, **columns})
    return key


# --------------------------------------------------------------------------- input


async def test_input_is_the_videos_prompt_and_the_projects_work(
    clone_database: CloneDatabase,
) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        key = await job(connection, 6, ai_prompt="A walk")
        assert (await rule(connection, "input").inputs([key]))[key] == {
            "service": "replicate",
            "user_id": v1_user(6),
            "project_id": v1_project(6),
            "title": "Memory 06",
            "prompt": "A walk",
            "style": "cinematic",
            "duration_minutes": 1,
            "metadata": {"duration_seconds": 2, "aspect_ratio": "16:9"},
            "generation_settings": {},
            "duration_seconds": 2,
            "aspect_ratio": "16:9",
            "resolution": None,
            "photos": [f"https://photos.example.com/v1/06/photo-{n}.jpg" for n in (1, 2, 3, 4)],
        }


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (None, ({}, None, None, None)),
        ("[]", ({}, None, None, None)),
        (
            '{"generation_settings": "x", "duration_seconds": "2", "aspect_ratio": 1}',
            ({}, None, None, None),
        ),
        (
            '{"generation_settings": {"model": "m"}, "resolution": "720p", "model": "a camera"}',
            ({"model": "m"}, None, None, "720p"),
        ),
    ],
)
async def test_input_of_odd_metadata(
    clone_database: CloneDatabase, metadata: str | None, expected: tuple[Any, ...]
) -> None:
    names = ("generation_settings", "duration_seconds", "aspect_ratio", "resolution")
    async with sample_of(PLATFORM, clone_database) as connection:
        await connection.execute(
            "UPDATE public.video_projects SET metadata = $1, title_i18n = '{}'", metadata
        )
        await connection.execute("DELETE FROM public.photos")
        key = await job(connection)
        found = (await rule(connection, "input").inputs([key]))[key]
        assert tuple(found[name] for name in names) == expected
        assert (found["title"], found["photos"]) == (None, [])


# --------------------------------------------------------------------------- output

STORED = "SELECT total_storage_bytes FROM public.users WHERE id = $1"


async def test_output_is_in_the_library_and_in_the_row(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        key, media_id = await job(connection), str(uuid.uuid4())
        before = await connection.fetchval(STORED, v1_user(1))
        outputs = [output("a/0.mp4", media_id), thumbnail("a/0.jpg")]
        done = result(key, media_id, outputs=outputs, provider="replicate", model="m")
        await rule(connection, "output").apply([key], [done])

        row = await connection.fetchrow("SELECT * FROM public.media_items")
        assert (str(row["id"]), str(row["user_id"])) == (media_id, v1_user(1))
        assert row["file_url"] == "https://media.example.com/a/0.mp4"
        assert row["thumbnail_url"] == "https://media.example.com/a/0.jpg"
        assert (row["original_filename"], row["file_type"]) == ("clip.mp4", "video")
        assert (row["mime_type"], row["width"], row["height"]) == ("video/mp4", 1280, 720)
        assert json.loads(row["metadata"]) == {
            "generated_video_id": key,
            "file_key": "a/0.mp4",
            "sha256": "ab" * 32,
            "duration_seconds": 2.04,
            "provider": "replicate",
            "model": "m",
        }
        assert row["file_size_bytes"] == 54321
        assert await connection.fetchval(STORED, v1_user(1)) == before + 54321
        video = await connection.fetchrow("SELECT * FROM generated_videos WHERE id = $1", key)
        assert (video["duration_seconds"], video["file_size_bytes"]) == (2, 54321)


async def test_a_repeat_is_the_same_file_and_counts_once(clone_database: CloneDatabase) -> None:
    """Also where the file came out larger the second time."""
    async with sample_of(PLATFORM, clone_database) as connection:
        key, media_id = await job(connection), str(uuid.uuid4())
        before = await connection.fetchval(STORED, v1_user(1))
        for size in (100, 100, 250):
            file = output("a/0.mp4", media_id, size=size)
            await rule(connection, "output").apply([key], [result(key, media_id, outputs=[file])])
            assert await connection.fetchval(STORED, v1_user(1)) == before + size
        assert await connection.fetchval("SELECT count(*) FROM media_items") == 1
        await connection.execute("DELETE FROM media_items")
        assert await connection.fetchval(STORED, v1_user(1)) == before


async def test_nobody_elses_item_is_touched(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        mine, other = await job(connection, 1), await job(connection, 2)
        media_id = str(uuid.uuid4())
        for key, size in ((mine, 100), (other, 300)):
            file = output("a/0.mp4", media_id, size=size)
            await rule(connection, "output").apply([key], [result(key, media_id, outputs=[file])])
        row = await connection.fetchrow("SELECT user_id, file_size_bytes FROM media_items")
        assert (str(row["user_id"]), row["file_size_bytes"]) == (v1_user(1), 100)


@pytest.mark.parametrize(
    ("seconds", "whole"), [(2.04, 2), (2.6, 3), (0.2, 1), (0, None), (None, None)]
)
async def test_a_length_is_a_second_or_more_or_unknown(
    clone_database: CloneDatabase, seconds: float | None, whole: int | None
) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        key, media_id = await job(connection), str(uuid.uuid4())
        file = output("a/0.mp4", media_id, duration_seconds=seconds, filename="n" * 300)
        await rule(connection, "output").apply([key], [result(key, media_id, outputs=[file])])
        assert whole == await connection.fetchval("SELECT duration_seconds FROM generated_videos")


# --------------------------------------------------------------------------- usage


async def test_usage_is_a_video_and_its_bytes(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        key = await job(connection, 4)
        large = output("a/0.mp4", str(uuid.uuid4()), size=5 * 1024**4)
        done = result(key, outputs=[large], provider="replicate", model="m", run=2)
        await rule(connection, "usage").apply([key], [done])
        rows = await connection.fetch("SELECT * FROM usage_records ORDER BY unit DESC")
        month = await connection.fetchval(
            "SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date"
        )
        assert {str(row["user_id"]) for row in rows} == {v1_user(4)}
        assert {row["billing_month"] for row in rows} == {month}
        assert [(row["resource_type"], row["amount"], row["unit"]) for row in rows] == [
            ("video_generation", 1, "count"),
            ("storage_bytes", 5 * 1024**4, "bytes"),
        ]
        about = {"generated_video_id": key, "provider": "replicate", "model": "m", "run": 2}
        assert [json.loads(row["metadata"]) for row in rows] == [about, about]
        summary = await connection.fetchrow("SELECT * FROM monthly_usage_summary")
        assert (summary["videos_generated"], summary["storage_used_bytes"]) == (1, 5 * 1024**4)


# --------------------------------------------------------------------------- estimates


async def made(connection: Any, *minutes: float, service: str = "replicate", ago: int = 0) -> None:
    """Videos of project 2 that took so long, the last one first; `ago` days earlier."""
    for number, took in enumerate(minutes):
        done = MADE - timedelta(days=ago, hours=number)
        await job(
            connection,
            2,
            service=service,
            status="completed",
            file_url="https://files.example.com/a.mp4",
            started_at=done - timedelta(minutes=took),
            completed_at=done,
        )


async def estimated(connection: Any, key: str) -> float | None:
    """Minutes from now, as the rule sees it at this moment."""
    async with connection.transaction():
        await rule(connection, "follow").apply([key])
        left = await connection.fetchval(
            "SELECT estimated_completion_at - now() FROM generated_videos WHERE id = $1", key
        )
    return None if left is None else round(left.total_seconds() / 60, 3)


async def test_the_estimate_is_the_median_of_what_the_service_lately_took(
    clone_database: CloneDatabase,
) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        key = await job(connection, status="processing")
        assert await estimated(connection, key) is None
        await made(connection, 90, service="runway")
        assert await estimated(connection, key) is None
        await made(connection, 3, 4, 50)
        assert await estimated(connection, key) == 4


async def test_only_the_last_twenty_count(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        await made(connection, *[8] * 20)
        await made(connection, *[1] * 30, ago=9)
        assert await estimated(connection, await job(connection, status="processing")) == 8


async def test_many_that_do_not_tell_when_they_began_are_not_all_read(
    clone_database: CloneDatabase,
) -> None:
    """Imported ones: every start would go through them all to find twenty that do."""
    async with sample_of(PLATFORM, clone_database) as connection:
        await made(connection, 8, ago=9)
        await made(connection, *[1] * 99)
        await connection.execute(
            "UPDATE generated_videos SET started_at = NULL WHERE completed_at > $1",
            MADE - timedelta(days=8),
        )
        assert await estimated(connection, await job(connection, status="processing")) == 8
        await made(connection, 1)
        await connection.execute(
            "UPDATE generated_videos SET started_at = NULL WHERE completed_at = $1", MADE
        )
        key = await job(connection, status="processing")
        assert await estimated(connection, key) is None


async def test_the_estimate_moves_with_progress_and_is_never_past(
    clone_database: CloneDatabase,
) -> None:
    change = "UPDATE generated_videos SET progress_percentage = $2 WHERE id = $1"
    pass_by = (
        "UPDATE generated_videos"
        " SET estimated_completion_at = estimated_completion_at - $2::interval WHERE id = $1"
    )
    async with sample_of(PLATFORM, clone_database) as connection:
        await made(connection, 10)
        key = await job(connection, status="processing")
        assert await estimated(connection, key) == 10
        await connection.execute(pass_by, key, timedelta(minutes=4))
        assert 5.9 < (await estimated(connection, key) or 0) <= 6, "nobody said how far it is"
        await connection.execute(pass_by, key, timedelta(minutes=9))
        assert await estimated(connection, key) == 0
        await connection.execute(change, key, 75)
        assert await estimated(connection, key) == 2.5
        await connection.execute(change, key, None)
        assert await estimated(connection, key) is not None


async def test_what_waits_again_has_no_estimate(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        await made(connection, 10)
        key = await job(connection, status="processing", progress_percentage=60)
        assert await estimated(connection, key) == 10
        await connection.execute("UPDATE generated_videos SET status = 'queued' WHERE id = $1", key)
        assert await estimated(connection, key) is None


async def test_times_that_can_not_be_are_not_reckoned_with(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        await made(connection, -5, 0, 7)
        await job(connection, 2, **DONE, started_at=None)
        assert await estimated(connection, await job(connection, status="processing")) == 7


# --------------------------------------------------------------------------- the project


async def followed(connection: Any, *keys: str) -> str:
    await rule(connection, "follow").apply(keys)
    status = await connection.fetchval(
        "SELECT status FROM video_projects WHERE id = $1", v1_project(1)
    )
    return str(status)


@pytest.mark.parametrize(
    ("status", "followed_by"),
    [
        ("queued", "processing"),
        ("processing", "processing"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
    ],
)
async def test_a_project_follows_its_video(
    clone_database: CloneDatabase, status: str, followed_by: str
) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        assert await followed(connection, await job(connection, status=status)) == followed_by


async def test_a_project_is_as_its_latest_video(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        first = await job(connection, **DONE)
        assert await followed(connection, first) == "completed"
        later = MADE + timedelta(seconds=1)
        second = await job(connection, created_at=later, status="processing")
        assert await followed(connection, first, second) == "processing"
        assert await followed(connection, first) == "processing"
        older = await job(connection, created_at=MADE - timedelta(seconds=1), status="failed")
        assert await followed(connection, older) == "processing"
        await connection.execute("DELETE FROM generated_videos WHERE id = $1", second)
        assert await followed(connection, older, first) == "completed"


async def test_of_two_made_at_once_the_higher_id_is_later(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        low, high = sorted([await job(connection), await job(connection)])
        await connection.execute(
            "UPDATE generated_videos SET status = 'failed' WHERE id = $1", high
        )
        assert await followed(connection, low, high) == "failed"


async def test_only_what_differs_is_written(clone_database: CloneDatabase) -> None:
    async with sample_of(PLATFORM, clone_database) as connection:
        await made(connection, 10)
        key = await job(connection, status="processing")
        await followed(connection, key)
        rows = (
            "SELECT p.ctid, v.ctid FROM video_projects p JOIN generated_videos v"
            " ON v.project_id = p.id WHERE v.id = $1"
        )
        before = await connection.fetchrow(rows, key)
        await followed(connection, key)
        assert await connection.fetchrow(rows, key) == before


# --------------------------------------------------------------------------- plans

LOAD = """
SET session_replication_role = replica;
INSERT INTO public.users (id, email, display_name)
SELECT md5('u' || n)::uuid, n || '@example.com', 'u' FROM generate_series(1, 5000) n;
INSERT INTO public.video_projects (id, user_id)
SELECT md5('p' || n)::uuid, md5('u' || n)::uuid FROM generate_series(1, 5000) n;
INSERT INTO public.photos (project_id, file_url, file_size_bytes, mime_type)
SELECT md5('p' || n)::uuid, 'p', 1, 'image/jpeg' FROM generate_series(1, 5000) n;
INSERT INTO public.media_items
  (id, user_id, file_url, original_filename, file_type, file_size_bytes, mime_type)
SELECT md5('m' || n)::uuid, md5('u' || n)::uuid, 'm', 'm', 'video', 1, 'm'
FROM generate_series(1, 5000) n;
INSERT INTO public.generated_videos (id, project_id, ai_prompt, generation_service, status,
  file_url, started_at, completed_at, created_at)
SELECT md5('j' || n)::uuid, md5('p' || n % 5000)::uuid, 'a', 'replicate',
  CASE WHEN n <= 200 THEN 'processing' ELSE 'completed' END::public.generation_status,
  'f', now() - interval '1 hour' + n * interval '1 ms', now() + n * interval '2 ms', now()
FROM generate_series(1, 20000) n;
SET session_replication_role = origin;
"""
RULES = ["input", "output", "usage", "follow"]


@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "fresh"])
@pytest.mark.parametrize("name", RULES)
async def test_no_rule_reads_a_whole_table(
    clone_database: CloneDatabase, name: str, analyzed: bool
) -> None:
    """By index alone, and little: planned as the worker's functions are."""
    async with sample_of(PLATFORM, clone_database) as connection:
        await connection.execute(
            "ALTER TABLE generated_videos SET (autovacuum_enabled = off);" + LOAD
        )
        if analyzed:
            await connection.execute("ANALYZE")
        await connection.execute(
            "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;"
            "SET enable_mergejoin = off; SET jit = off"
        )
        keys = [str(row[0]) for row in await connection.fetch("SELECT md5('j' || n)::uuid"
                " FROM generate_series(1, 50) n")]  # fmt: skip
        file = output("k", str(uuid.uuid4()))
        results = [result(k, str(uuid.uuid4()), outputs=[{**file, "media_id": str(uuid.uuid4())}])
                   for k in keys]  # fmt: skip
        async with connection.transaction():
            if name == "input":
                await rule(connection, name).inputs(keys)
            else:
                await rule(connection, name).apply(keys, results)
            read = await connection.fetch(
                "SELECT relname, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables"
                " WHERE schemaname = 'public'"
            )
        assert {r["relname"]: r["seq_tup_read"] for r in read if r["seq_tup_read"]} == {}
        fetched = {r["relname"]: r["idx_tup_fetch"] or 0 for r in read}
        assert fetched["generated_videos"] > 0
        assert {t: n for t, n in fetched.items() if n > 20 * len(keys)} == {}
