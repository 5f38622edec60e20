"""Education's rules through the whole engine, and what its own triggers promise about progress."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from jobs.contract import Failed, Succeeded
from tests.database.platform_rules import Rule
from tests.database.platform_samples import (
    CloneDatabase,
    NewDatabase,
    run,
    sample_of,
    sql_file,
)
from tests.database.settling import settlement
from tests.database.support import Connect, Hand, OpenStore, add, failure, queued

LANE = "background:process_media"
TEACHER = "f0000000-0000-4000-8000-000000000001"
HASH = "a" * 64


def entry(url: str | None) -> dict[str, Any]:
    return {"format": "webp", "width": 320, "height": 180, "url": url, "key": "k", "size": 9}


DONE = Succeeded(
    data={
        "mime_type": "image/png",
        "width": 640,
        "height": 360,
        "duration": None,
        "file_hash": HASH,
        "variants": {"image": [entry(None)]},
        "public_variants": {"image": [entry("https://cdn/320.webp")]},
        "cdn_url": "https://cdn/640.webp",
        "cache_days": 30,
    }
)


async def add_file(connection: Any, count: int = 1, **columns: Any) -> list[str]:
    given = {
        "user_id": TEACHER,
        "filename": "a.jpg",
        "original_filename": "A.jpg",
        "file_path": "uploads/a.jpg",
        "file_size": 12,
        "mime_type": "image/jpeg",
    }
    return await add(connection, "public.media_files", count, **(given | columns))


async def file_of(connection: Any, key: str) -> Any:
    return await connection.fetchrow("SELECT * FROM public.media_files WHERE id = $1", key)


async def verdict_of(connection: Any, key: str) -> Any:
    rows = await connection.fetch(sql_file("education", "verdict.sql").rstrip().rstrip(";"))
    return next(row for row in rows if row["key"] == key)


Finish = Callable[..., Awaitable[Any]]


@pytest.fixture
async def finish(education: str, connect: Connect, open_store: OpenStore) -> Finish:
    """Insert a file, process it with this outcome, and look at its row."""
    connection = await connect(education)
    hand = await Hand.hire(await open_store(education), (LANE,))

    async def done(outcome: Succeeded = DONE, *, meanwhile: str = "", **columns: Any) -> Any:
        (key,) = await add_file(connection, **columns)
        works = await hand.take()
        if meanwhile:
            await connection.execute(f"UPDATE public.media_files SET {meanwhile}")
        assert await hand.write([settlement(work, outcome) for work in works]) == {key: "settled"}
        assert (await verdict_of(connection, key))["consistent"]
        return await file_of(connection, key)

    return done


async def test_the_handler_gets_the_row(
    education: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(education)
    hand = await Hand.hire(await open_store(education), (LANE,))
    (key,) = await add_file(connection, visibility="public")
    (work,) = await hand.take()
    assert (work.key, work.started.kind, work.claimed.tenant) == (key, LANE, TEACHER)
    given = work.started.input["file"]
    assert (given["file_path"], given["file_size"]) == ("uploads/a.jpg", 12)
    assert (given["mime_type"], given["visibility"]) == ("image/jpeg", "public")
    assert (await file_of(connection, key))["processing_status"] == "processing"


async def test_a_public_file_gets_its_urls(finish: Finish) -> None:
    file = await finish(visibility="public")
    assert file["processing_status"] == "completed"
    assert (file["mime_type"], file["width"], file["height"]) == ("image/png", 640, 360)
    assert (file["duration"], file["file_hash"]) == (None, HASH)
    assert json.loads(file["processed_variants"]) == DONE.data["public_variants"]
    assert file["cdn_url"] == "https://cdn/640.webp"
    until = file["cache_expires_at"] - datetime.now(UTC)
    assert timedelta(days=29) < until <= timedelta(days=30)


@pytest.mark.parametrize("visibility", ["private", "course_only", None])
async def test_a_file_that_is_not_public_gets_none(finish: Finish, visibility: str | None) -> None:
    file = await finish(visibility=visibility)
    assert (file["visibility"], file["cdn_url"], file["cache_expires_at"]) == (
        visibility,
        None,
        None,
    )
    assert json.loads(file["processed_variants"]) == DONE.data["variants"]


async def test_what_the_platform_set_itself_stays(finish: Finish) -> None:
    file = await finish(visibility="private", cdn_url="https://signed/1")
    assert (file["cdn_url"], file["cache_expires_at"]) == ("https://signed/1", None)


@pytest.mark.parametrize("visibility", ["private", "course_only", None])
async def test_what_was_public_once_loses_our_url(finish: Finish, visibility: str | None) -> None:
    """It was finished, hidden by its platform, and is processed again."""
    ours = {"cdn_url": DONE.data["cdn_url"], "cache_expires_at": datetime.now(UTC)}
    file = await finish(
        visibility=visibility, processed_variants=json.dumps(DONE.data["public_variants"]), **ours
    )
    assert (file["cdn_url"], file["cache_expires_at"]) == (None, None)
    assert "https://" not in file["processed_variants"]


@pytest.mark.parametrize(
    ("before", "after"), [("public", "private"), ("private", "public"), ("public", "course_only")]
)
async def test_the_visibility_of_the_last_moment_counts(
    finish: Finish, before: str, after: str
) -> None:
    file = await finish(visibility=before, meanwhile=f"visibility = '{after}'")
    assert file["visibility"] == after
    assert (file["cdn_url"] is not None) == (after == "public")
    assert ("https://" in file["processed_variants"]) == (after == "public")


async def test_a_document_keeps_what_its_row_said(finish: Finish) -> None:
    data = {
        **DONE.data,
        **dict.fromkeys(("mime_type", "width", "height", "cdn_url")),
        "variants": {},
        "public_variants": {},
    }
    file = await finish(Succeeded(data=data), mime_type="application/pdf", visibility="private")
    assert (file["mime_type"], file["file_hash"]) == ("application/pdf", HASH)
    assert (file["processed_variants"], file["cdn_url"]) == ("{}", None)


async def test_a_failure_is_told_where_there_is_a_place_for_it(
    education: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(education)
    hand = await Hand.hire(await open_store(education), (LANE,))
    (key,) = await add_file(connection)
    await hand.settle(await hand.take(), lambda _: Failed(failure("not a readable picture")))
    file = await file_of(connection, key)
    assert (file["processing_status"], file["processed_variants"]) == ("failed", "{}")
    told = await connection.fetchval("SELECT message FROM rowmill.failures WHERE row_key = $1", key)
    assert told == "not a readable picture"
    assert (await verdict_of(connection, key))["finished"] == "failed"


async def test_what_somebody_else_finished_is_not_touched(
    education: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(education)
    hand = await Hand.hire(await open_store(education), (LANE,))
    keys = [
        (await add_file(connection, processing_status=status))[0]
        for status in ("completed", "failed", "processing")
    ]
    assert await hand.take(3) == []
    assert not set(keys) & set(await queued(connection))
    (again,) = await add_file(connection, processing_status=None)  # what NULL means: pending
    assert [work.key for work in await hand.take(3)] == [again]


async def test_a_row_set_to_failed_is_given_up(
    education: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(education)
    hand = await Hand.hire(await open_store(education), (LANE,))
    (key,) = await add_file(connection)
    works = await hand.take()
    await connection.execute("UPDATE public.media_files SET processing_status = 'failed'")
    assert await hand.write([settlement(work, DONE) for work in works]) != {key: "settled"}
    file = await file_of(connection, key)
    assert (file["processing_status"], file["file_hash"]) == ("failed", None)


async def test_rules_read_by_index(education: str, connect: Connect) -> None:
    connection = await connect(education)
    keys = await add_file(connection, 2)
    await connection.execute("SET enable_seqscan = off")
    rule = Rule(connection, "education/media_files.finish")
    results = [{"key": key, "data": DONE.data} for key in keys]
    assert "media_files_pkey" in await rule.plans(keys, results)


async def test_attach_tells_what_is_missing(clone_database: CloneDatabase) -> None:
    ask = sql_file("education", "attach.sql").rstrip().rstrip(";")
    async with sample_of("education", clone_database) as connection:
        assert await connection.fetch(ask) == []
        await connection.execute(
            """
            DROP INDEX public.idx_course_statistics_id;
            DROP FUNCTION public.create_monthly_partition(TEXT, DATE);
            ALTER TABLE public.media_files DROP COLUMN cdn_url;
            """
        )
        said = {(row["severity"], row["message"].split()[0]) for row in await connection.fetch(ask)}
        assert said == {
            ("warn", "public.course_statistics"),
            ("warn", "public.create_monthly_partition(text,"),
            ("refuse", "public.media_files"),
        }
        await connection.execute("DROP TABLE public.media_files, public.lesson_progress CASCADE")
        await connection.fetch(ask)


# --------------------------------------------------------------------------- progress


def student(number: int) -> str:
    return f"f1000000-0000-4000-8000-{number:012}"


def lesson(number: int) -> str:
    return f"f4000000-0000-4000-8000-{10 + number:012}"


COURSE = "f2000000-0000-4000-8000-000000000001"
PROGRESS = """
SELECT progress::integer, completed_at IS NOT NULL, last_accessed_at IS NOT NULL,
       (SELECT count(*) FROM public.course_completions c
         WHERE c.user_id = e.user_id AND c.course_id = e.course_id)
  FROM public.enrollments e WHERE user_id = $1 AND course_id = $2
"""


async def study(connection: Any, who: int, what: int, status: str = "completed") -> None:
    await connection.execute(
        "INSERT INTO public.lesson_progress (user_id, lesson_id, status) VALUES ($1, $2, $3)",
        student(who),
        lesson(what),
        status,
    )


async def progress(connection: Any, who: int) -> tuple[Any, ...]:
    return tuple(await connection.fetchrow(PROGRESS, student(who), COURSE))


async def test_progress_counts_whatever_completes_a_lesson(clone_database: CloneDatabase) -> None:
    async with sample_of("education", clone_database) as connection:
        await study(connection, 1, 1, "in_progress")
        assert await progress(connection, 1) == (0, False, True, 0)
        await connection.execute("UPDATE public.lesson_progress SET status = 'completed'")
        assert await progress(connection, 1) == (25, False, True, 0)
        for number in (2, 3, 4):
            await study(connection, 1, number)
        assert await progress(connection, 1) == (100, True, True, 1)
        await connection.execute(
            "UPDATE public.lesson_progress SET status = 'in_progress' WHERE lesson_id = $1",
            lesson(1),
        )
        assert await progress(connection, 1) == (75, False, True, 1)
        await connection.execute(
            "DELETE FROM public.lesson_progress WHERE lesson_id = $1", lesson(2)
        )
        assert await progress(connection, 1) == (50, False, True, 1)
        assert await progress(connection, 2) == (0, False, False, 0)


async def test_lessons_completed_at_once_are_all_counted(new_database: NewDatabase) -> None:
    dsn = await new_database()
    await run(dsn, sql_file("education", "schema.sql"), sql_file("education", "sample.sql"))
    writers = [await asyncpg.connect(dsn) for _ in range(4)]
    for _ in range(5):
        await asyncio.gather(*(study(writer, 2, n) for n, writer in enumerate(writers, start=1)))
        assert await progress(writers[0], 2) == (100, True, True, 1)
        await writers[0].execute("DELETE FROM public.lesson_progress")
        assert (await progress(writers[0], 2))[0] == 0
    for writer in writers:
        await writer.close()


async def test_one_row_per_student_and_lesson_over_all_months(
    clone_database: CloneDatabase,
) -> None:
    async with sample_of("education", clone_database) as connection:
        await study(connection, 3, 1)
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(
                """
                INSERT INTO public.lesson_progress (user_id, lesson_id, created_at)
                VALUES ($1, $2, now() + interval '1 month')
                """,
                student(3),
                lesson(1),
            )
        await study(connection, 3, 2)
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(
                "UPDATE public.lesson_progress SET lesson_id = $1 WHERE lesson_id = $2",
                lesson(1),
                lesson(2),
            )


async def test_statistics_count_each_thing_once(clone_database: CloneDatabase) -> None:
    async with sample_of("education", clone_database) as connection:
        for who in (1, 2, 3):
            for what in (1, 2, 3, 4):
                await study(connection, who, what)
        await connection.execute("UPDATE public.lesson_progress SET progress_percentage = 80")
        await connection.execute("UPDATE public.course_completions SET rating = 4")
        await connection.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY public.course_statistics")
        first, second = (
            dict(row)
            for row in await connection.fetch("SELECT * FROM public.course_statistics ORDER BY id")
        )
        assert (first["enrollment_count"], first["review_count"], first["average_rating"]) == (
            3,
            3,
            4,
        )
        assert (first["avg_completion_rate"], first["total_revenue"]) == (80, None)
        assert (second["total_revenue"], second["purchase_count"]) == (49, 1)
        assert second["enrollment_count"] == 1


async def test_courses_count_their_enrollments(clone_database: CloneDatabase) -> None:
    counts = "SELECT array_agg(enrollment_count ORDER BY id) FROM public.courses"
    async with sample_of("education", clone_database) as connection:
        assert await connection.fetchval(counts) == [3, 1]
        await connection.execute(
            "UPDATE public.enrollments SET course_id = $1 WHERE user_id = $2",
            "f2000000-0000-4000-8000-000000000002",
            student(2),
        )
        assert await connection.fetchval(counts) == [2, 2]
        await connection.execute("DELETE FROM public.enrollments WHERE user_id = $1", student(2))
        assert await connection.fetchval(counts) == [2, 1]
