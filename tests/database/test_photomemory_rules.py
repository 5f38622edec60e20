"""PhotoMemory's rule files, each on the platform's own schema and sample rows."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.database.platform_rules import Rule, output, result, thumbnail
from tests.database.platform_samples import CloneDatabase, project, sample_of, subscribe, user

QUEUED = datetime(2026, 6, 1, tzinfo=UTC)


async def job(connection: Any, number: int = 1, *, later: int = 0, **columns: Any) -> str:
    """A generation of project `number`; `later` seconds queued after the others."""
    values = {
        "project_id": project(number),
        "user_id": user(number),
        "generation_service": "replicate",
        "queued_at": QUEUED + timedelta(seconds=later),
        **columns,
    }
    names, marks = ", ".join(values), ", ".join(f"${n}" for n in range(1, len(values) + 1))
    key = await connection.fetchval(
        f"INSERT INTO public.generation_jobs ({names}) VALUES ({marks}) RETURNING id",
        *values.values(),
    )
    return str(key)


# --------------------------------------------------------------------------- input


async def test_input_is_the_projects_work(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        key = await job(connection, 6, job_type="preview")
        found = await Rule(connection, "photomemory/generation_jobs.input").inputs([key])
        assert found[key] == {
            "job_type": "preview",
            "service": "replicate",
            "user_id": user(6),
            "project_id": project(6),
            "title": "A walk in the snow",
            "prompt": "Two hikers cross a snowy ridge, breath in the cold air, "
            "the camera rises above the valley",
            "style": "modern",
            "generation_settings": {"duration_seconds": 2},
            "duration_minutes": 1,
            "duration_seconds": 2,
            "aspect_ratio": "16:9",
            "resolution": "1080p",
            "photos": [f"https://photos.example.com/06/photo-{n}.jpg" for n in (1, 2, 3, 4)],
            "formats": ["mp4", "mov", "avi"],
        }


async def test_input_of_a_bare_project(clone_database: CloneDatabase) -> None:
    """NULL is the column's default, and odd settings are nobody's failure here."""
    async with sample_of("photomemory", clone_database) as connection:
        await connection.execute(
            """
            UPDATE public.video_projects SET title_i18n = '{"ko": "제목", "en": "", "x": null}',
              aspect_ratio = NULL, resolution = NULL, ai_prompt = NULL,
              generation_settings = '{"duration_seconds": "two"}';
            UPDATE public.system_settings SET value = '"mp4"' WHERE key = 'supported_video_formats';
            UPDATE public.media_files SET file_type = 'audio' WHERE user_id = $$USER$$;
            """.replace("USER", user(1))
        )
        keys = [await job(connection, number) for number in (1, 2)]
        found = await Rule(connection, "photomemory/generation_jobs.input").inputs(keys)
        bare = found[keys[0]]
        assert (bare["title"], bare["prompt"], bare["duration_seconds"]) == ("제목", None, None)
        assert (bare["aspect_ratio"], bare["resolution"]) == ("16:9", "1080p")
        assert (bare["photos"], bare["formats"]) == ([], [])
        assert len(found[keys[1]]["photos"]) == 4
        await connection.execute("UPDATE public.video_projects SET generation_settings = NULL")
        found = await Rule(connection, "photomemory/generation_jobs.input").inputs(keys)
        assert found[keys[0]]["generation_settings"] == {}


# --------------------------------------------------------------------------- output


async def test_output_becomes_a_media_file(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        key, media_id = await job(connection), str(uuid.uuid4())
        outputs = [output("a/0.mp4", media_id), thumbnail("a/0.jpg")]
        done = result(key, media_id, outputs=outputs, provider="replicate", model="m")
        rule = Rule(connection, "photomemory/generation_jobs.output")
        await rule.apply([key], [done])

        row = await connection.fetchrow("SELECT * FROM media_files WHERE id = $1", media_id)
        assert (str(row["user_id"]), row["folder_path"]) == (user(1), "/generated")
        assert (row["original_filename"], row["file_key"]) == ("clip.mp4", "a/0.mp4")
        assert row["file_url"] == "https://media.example.com/a/0.mp4"
        assert row["thumbnail_url"] == "https://media.example.com/a/0.jpg"
        assert (row["file_type"], row["mime_type"]) == ("video", "video/mp4")
        assert (row["file_size_bytes"], row["content_hash"]) == (54321, "ab" * 32)
        assert (row["width"], row["height"], row["duration_seconds"]) == (1280, 720, 2)
        assert json.loads(row["metadata"]) == {
            "generation_job_id": key,
            "provider": "replicate",
            "model": "m",
        }


async def test_a_repeat_refreshes_its_own_row_and_nobody_elses(
    clone_database: CloneDatabase,
) -> None:
    stored = "SELECT user_id, file_size_bytes, width FROM media_files WHERE id = $1"
    async with sample_of("photomemory", clone_database) as connection:
        mine, other = await job(connection, 1), await job(connection, 2)
        media_id = str(uuid.uuid4())
        rule = Rule(connection, "photomemory/generation_jobs.output")
        for key, size in ((mine, 100), (mine, 200), (other, 300)):
            file = output("a/0.mp4", media_id, size=size, width=size)
            await rule.apply([key], [result(key, media_id, outputs=[file])])
        row = await connection.fetchrow(stored, media_id)
        assert (str(row["user_id"]), row["file_size_bytes"], row["width"]) == (user(1), 200, 200)


async def test_outputs_of_all_kinds_in_one_batch(clone_database: CloneDatabase) -> None:
    shape = {"width": None, "height": None, "filename": "n" * 300}
    async with sample_of("photomemory", clone_database) as connection:
        audio, two, none = [await job(connection, n) for n in (1, 2, 3)]
        ids = [str(uuid.uuid4()) for _ in range(3)]
        song = output("s", ids[0], file_type="audio", mime_type="audio/wav", **shape)
        await Rule(connection, "photomemory/generation_jobs.output").apply(
            [audio, two, none],
            [
                result(audio, ids[0], outputs=[song]),
                result(
                    two, ids[1], outputs=[output("x", ids[1]), output("y", ids[2]), thumbnail("t")]
                ),
                result(none, outputs=None),
            ],
        )
        rows = await connection.fetch(
            "SELECT id::text, thumbnail_url, length(original_filename) FROM media_files "
            "WHERE folder_path = '/generated' ORDER BY file_key"
        )
        assert [tuple(row) for row in rows] == [
            (ids[0], None, 255),
            (ids[1], None, 8),
            (ids[2], "https://media.example.com/t", 8),
        ]


async def test_a_file_beyond_the_plan_is_refused(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        key, media_id = await job(connection), str(uuid.uuid4())
        huge = output("h", media_id, size=1024**3)
        with pytest.raises(asyncpg.RaiseError, match="Storage limit exceeded"):
            await Rule(connection, "photomemory/generation_jobs.output").apply(
                [key], [result(key, media_id, outputs=[huge])]
            )


# --------------------------------------------------------------------------- usage


async def test_usage_of_each_job(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        await subscribe(connection, user(5), "pro", until=datetime(2021, 1, 1, tzinfo=UTC))
        keys = [await job(connection, n, job_type="audio") for n in (1, 4, 5, 6)]
        cents = ["2.5", "3.5", None, "3.4999"]
        results = [
            result(key, cost_cents=cost, provider="replicate", model="m", run=2)
            for key, cost in zip(keys, cents, strict=True)
        ]
        await Rule(connection, "photomemory/generation_jobs.usage").apply(keys, results)
        rows = {
            str(row["generation_job_id"]): row
            for row in await connection.fetch("SELECT * FROM usage_records")
        }
        subscriptions = [str(rows[key]["subscription_id"])[-2:] for key in keys]
        assert subscriptions == ["ne", "04", "ne", "06"]  # none, theirs, ran out, theirs
        assert [rows[key]["cost_cents"] for key in keys] == [2, 4, 0, 3]
        row = rows[keys[1]]
        assert (str(row["user_id"]), str(row["project_id"])) == (user(4), project(4))
        assert row["resource_type"] == "video_generation"
        assert row["resource_subtype"] == "video_generation.audio"
        assert (row["quantity"], row["unit"]) == (1, "count")
        month = await connection.fetchval(
            "SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date"
        )
        assert row["billing_period"] == month
        assert json.loads(row["metadata"]) == {"provider": "replicate", "model": "m", "run": 2}


# --------------------------------------------------------------------------- follow


async def followed(connection: Any, *keys: str, number: int = 1) -> tuple[Any, ...]:
    await Rule(connection, "photomemory/generation_jobs.follow").apply(keys)
    row = await connection.fetchrow(
        "SELECT status, progress_percentage, started_at, completed_at FROM video_projects "
        "WHERE id = $1",
        project(number),
    )
    return tuple(row)


async def finished(connection: Any, **columns: Any) -> str:
    media = await connection.fetchval("SELECT id FROM media_files LIMIT 1")
    state: dict[str, Any] = {
        "status": "completed",
        "progress_percentage": 97,
        "output_file_id": media,
        "started_at": QUEUED,
        "completed_at": QUEUED + timedelta(minutes=1),
    }
    return await job(connection, **state, **columns)


@pytest.mark.parametrize(
    ("status", "followed_by"),
    [
        ("queued", "processing"),
        ("processing", "processing"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
    ],
)
async def test_a_project_follows_its_job(
    clone_database: CloneDatabase, status: str, followed_by: str
) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        key = await job(connection, status=status, progress_percentage=40, started_at=QUEUED)
        assert await followed(connection, key) == (followed_by, 40, QUEUED, None)


async def test_a_project_is_as_its_latest_video(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        first = await finished(connection)
        done = ("completed", 100, QUEUED, QUEUED + timedelta(minutes=1))
        assert await followed(connection, first) == done

        for job_type in ("thumbnail", "preview", "audio"):
            other = await job(connection, job_type=job_type, later=50, status="failed")
            assert await followed(connection, first, other) == done

        second = await job(connection, later=10, status="processing", progress_percentage=None)
        again = ("processing", 0, QUEUED, None)  # the start it had, until the new one is known
        assert await followed(connection, first, second) == again
        assert await followed(connection, first) == again

        older = await job(connection, later=-10, status="failed")
        assert await followed(connection, older) == again
        await connection.execute("DELETE FROM generation_jobs WHERE id = $1", second)
        assert await followed(connection, older, first) == done


async def test_of_two_queued_at_once_the_higher_id_is_later(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        low, high = sorted(str(uuid.uuid4()) for _ in range(2))
        await job(connection, id=high, status="failed")
        await job(connection, id=low, status="processing")
        assert (await followed(connection, low, high))[0] == "failed"


async def test_only_projects_that_differ_are_written(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        keys = [await job(connection, n, status="processing") for n in (1, 2)]
        await followed(connection, keys[0])
        row = "SELECT ctid, updated_at FROM video_projects WHERE id = $1"
        before = [await connection.fetchrow(row, project(n)) for n in (1, 2)]
        await followed(connection, *keys)
        after = [await connection.fetchrow(row, project(n)) for n in (1, 2)]
        assert before[0] == after[0]
        assert before[1] != after[1]


async def test_a_deleted_project_stays_deleted(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        await connection.execute("UPDATE video_projects SET status = 'deleted'")
        assert (await followed(connection, await finished(connection)))[0] == "deleted"


# --------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        ("5", 5),
        ('"12"', 12),
        ('" 7 "', 7),
        ("0", None),
        ("-3", None),
        ("2.5", None),
        ('"many"', None),
        ("99999999999", None),
        ("true", None),
        ("[5]", None),
        ('{"max": 5}', None),
        (None, None),
    ],
)
async def test_limits(clone_database: CloneDatabase, value: str | None, limit: int | None) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        where = "WHERE key = 'generation_queue_max_concurrent'"
        if value is None:
            await connection.execute(f"DELETE FROM system_settings {where}")
        else:
            await connection.execute(f"UPDATE system_settings SET value = $1 {where}", value)
        await connection.execute("SET search_path = pg_catalog")
        (query,) = Rule(connection, "photomemory/limits").parts()
        rows = [tuple(row) for row in await connection.fetch(query)]
        assert rows == ([] if limit is None else [("*", "generation_jobs", limit)])


# --------------------------------------------------------------------------- plans


@pytest.mark.parametrize("rule", ["input", "output", "usage", "follow"])
async def test_no_rule_reads_a_whole_table(clone_database: CloneDatabase, rule: str) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        await connection.execute(
            f"""
            SET session_replication_role = replica;  -- projects by the thousand, past all limits
            INSERT INTO public.users (id, email, display_name)
            SELECT md5('u' || n)::uuid, n || '@example.com', 'u' FROM generate_series(1, 5000) n;
            INSERT INTO public.user_subscriptions
              (user_id, plan_id, current_period_start, current_period_end)
            SELECT md5('u' || n)::uuid, 'free', '2020-01-01', '2099-01-01'
            FROM generate_series(1, 5000) n;
            INSERT INTO public.video_projects (id, user_id)
            SELECT md5('p' || n)::uuid, md5('u' || n)::uuid FROM generate_series(1, 5000) n;
            INSERT INTO public.media_files (id, user_id, original_filename, file_key, file_url,
              file_type, mime_type, file_size_bytes)
            SELECT md5('m' || n)::uuid, md5('u' || n)::uuid, 'm', 'm' || n, 'm', 'image', 'm', 1
            FROM generate_series(1, 5000) n;
            INSERT INTO public.project_media (project_id, media_file_id)
            SELECT md5('p' || n)::uuid, md5('m' || n)::uuid FROM generate_series(1, 5000) n;
            INSERT INTO public.generation_jobs (id, project_id, user_id, generation_service)
            SELECT md5('j' || n)::uuid, md5('p' || n % 5000)::uuid, '{user(1)}', 'replicate'
            FROM generate_series(1, 20000) n;
            ANALYZE;
            """
        )
        ids = await connection.fetch("SELECT id::text FROM generation_jobs LIMIT 200")
        keys = [row["id"] for row in ids]
        file = f"photomemory/generation_jobs.{rule}"
        plan = await Rule(connection, file).plans(keys, [result(key) for key in keys])
        scanned = [line.strip() for line in plan.splitlines() if "Seq Scan" in line]
        assert [line for line in scanned if "system_settings" not in line] == []
        assert "generation_jobs_pkey" in plan
