"""Jobs as the platforms insert them, and what must be true of every one when all is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg

from tests.database.support import new_keys
from tests.process.fleet import WITHIN, Charge, Sandbox, until_sql

# Each with a project of its own, whose prompt carries the job's mark for the provider's bill.
# Customers 4 to 10 have a plan with room for files.
_PROJECTS = """
INSERT INTO public.video_projects (id, user_id, title_i18n, style, ai_prompt, generation_settings)
SELECT gen_random_uuid(),
       ('a0000000-0000-4000-8000-' || lpad((4 + n % 7)::text, 12, '0'))::uuid,
       jsonb_build_object('en', key), 'cinematic',
       'Waves on a pier at sunset [job:generation_jobs/' || key || '] ' || $2, $3::jsonb
  FROM unnest($1::uuid[]) WITH ORDINALITY k (key, n)
"""
_MEDIA = """
INSERT INTO public.generation_jobs
       (id, project_id, user_id, job_type, generation_service, priority, max_retries)
SELECT key, p.id, p.user_id, $2, 'replicate', $3, $4
  FROM unnest($1::uuid[]) key JOIN public.video_projects p ON p.title_i18n ->> 'en' = key::text
"""


async def add_media(
    connection: Any,
    count: int = 1,
    *,
    prompt: str = "",
    kind: str = "video",
    settings: str = '{"duration_seconds": 2}',
    priority: int = 5,
    max_retries: int = 3,
) -> list[str]:
    """PhotoMemory jobs; `prompt` may hold faults. A video of 2 s costs 6.5 cents."""
    keys = new_keys(count)
    async with connection.transaction():
        await connection.execute(_PROJECTS, keys, prompt, settings)
        await connection.execute(_MEDIA, keys, kind, priority, max_retries)
    return keys


_TEXTS = """
INSERT INTO ai_processing.ai_generations
       (id, user_id, project_id, model_id, prompt, system_prompt, max_tokens)
SELECT key, 'e0000000-0000-4000-8000-000000000003', 'e5000000-0000-4000-8000-000000000002',
       'e2000000-0000-4000-8000-000000000001',
       'Write about the smell of bread [job:ai_generations/' || key || '] ' || $2,
       'You are a patient editor.', 200
  FROM unnest($1::uuid[]) key
"""


async def add_texts(connection: Any, count: int = 1, *, prompt: str = "") -> list[str]:
    """AI Ebook texts, each far below a cent."""
    keys = new_keys(count)
    await connection.execute(_TEXTS, keys, prompt)
    return keys


_BACKGROUND = """
INSERT INTO system.background_jobs (id, job_type, payload, max_retries)
SELECT key, $2, $3::jsonb, $4 FROM unnest($1::uuid[]) key
"""


async def add_background(
    connection: Any, count: int = 1, *, kind: str, payload: str = "{}", max_retries: int = 3
) -> list[str]:
    keys = new_keys(count)
    await connection.execute(_BACKGROUND, keys, kind, payload, max_retries)
    return keys


# --------------------------------------------------------------------------- looking

TABLES = {
    "generation_jobs": "public.generation_jobs",
    "ai_generations": "ai_processing.ai_generations",
    "background_jobs": "system.background_jobs",
}


async def row(connection: Any, table: str, key: str) -> Any:
    return await connection.fetchrow(f"SELECT * FROM {TABLES[table]} WHERE id = $1", key)


async def queue_row(connection: Any, key: str) -> Any:
    return await connection.fetchrow("SELECT * FROM rowmill.queue WHERE row_key = $1", key)


async def submissions(connection: Any, key: str) -> list[Any]:
    return list(
        await connection.fetch(
            "SELECT * FROM rowmill.submissions WHERE row_key = $1 ORDER BY id", key
        )
    )


async def failures(connection: Any, key: str) -> list[Any]:
    return list(
        await connection.fetch("SELECT * FROM rowmill.failures WHERE row_key = $1 ORDER BY id", key)
    )


async def all_done(connection: Any, *, within: float = WITHIN) -> None:
    """Until nothing is left to do; what is held waits for a person."""
    await until_sql(
        connection,
        "SELECT NOT EXISTS (SELECT FROM rowmill.queue WHERE state <> 'held')",
        within=within,
    )


async def in_state(connection: Any, state: str, count: int = 1, *, within: float = WITHIN) -> None:
    """Until so many submissions are in that state."""
    await until_sql(
        connection,
        "SELECT count(*) >= $2 FROM rowmill.submissions"
        " WHERE state = $1::text::rowmill.submission_state",
        state,
        count,
        within=within,
    )


async def has_status(connection: Any, key: str, status: str, *, within: float = WITHIN) -> None:
    """Until a job, of whatever table, has that status."""
    await until_sql(
        connection,
        "SELECT EXISTS (SELECT FROM public.generation_jobs WHERE id = $1 AND status::text = $2)"
        " OR EXISTS (SELECT FROM ai_processing.ai_generations WHERE id = $1 AND status = $2)"
        " OR EXISTS (SELECT FROM system.background_jobs WHERE id = $1 AND status = $2)",
        key,
        status,
        within=within,
    )


@asynccontextmanager
async def project_locked(dsn: str, key: str) -> AsyncIterator[None]:
    """Nobody can settle this job meanwhile: its project is someone else's."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(
                "SELECT 1 FROM public.video_projects WHERE id ="
                " (SELECT project_id FROM public.generation_jobs WHERE id = $1) FOR UPDATE",
                key,
            )
            yield
    finally:
        connection.terminate()


async def nobody_waits(connection: Any) -> None:
    """Until no statement waits for a lock: those of a killed worker go on until they time out."""
    await until_sql(
        connection,
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock')",
    )


# --------------------------------------------------------------------------- judging

# Empty unless a job's effects are missing, doubled or contradict each other.
_ODD_MEDIA = """
SELECT j.id::text, j.status::text, j.progress_percentage, j.retry_count, u.records, s.delivered
  FROM public.generation_jobs j
  LEFT JOIN public.media_files f ON f.id = j.output_file_id
 CROSS JOIN LATERAL (SELECT count(*) AS records FROM public.usage_records u
                      WHERE u.generation_job_id = j.id) u
 CROSS JOIN LATERAL (SELECT count(*) AS delivered FROM rowmill.submissions s
                      WHERE s.source = 'generation_jobs' AND s.row_key = j.id::text
                        AND s.state = 'finished' AND s.delivered_at IS NOT NULL
                        AND s.step = 'main') s
 WHERE NOT CASE j.status
       WHEN 'completed' THEN f.id IS NOT NULL AND f.user_id = j.user_id AND j.error_message IS NULL
            AND j.completed_at >= j.started_at AND j.progress_percentage = 100
            AND u.records = 1 AND s.delivered = 1
       WHEN 'failed' THEN j.failed_at IS NOT NULL AND j.error_message <> '' AND u.records = 0
       ELSE j.output_file_id IS NULL AND u.records = 0 END
    OR j.retry_count > j.max_retries OR j.progress_percentage NOT BETWEEN 0 AND 100
"""
_ODD_TEXTS = """
SELECT g.id::text, g.status, u.records, s.delivered
  FROM ai_processing.ai_generations g
 CROSS JOIN LATERAL (SELECT count(*) AS records FROM billing.usage_records u
                      WHERE u.ai_generation_id = g.id) u
 CROSS JOIN LATERAL (SELECT count(*) AS delivered FROM rowmill.submissions s
                      WHERE s.source = 'ai_generations' AND s.row_key = g.id::text
                        AND s.state = 'finished' AND s.delivered_at IS NOT NULL) s
 WHERE NOT CASE g.status
       WHEN 'completed' THEN g.response <> '' AND g.tokens_used > 0 AND u.records = 1
            AND s.delivered = 1
       WHEN 'failed' THEN g.error_message <> '' AND u.records = 0
       ELSE g.response IS NULL AND u.records = 0 END
"""
# A file without a job would be an output that was delivered twice, or to nobody.
_STRAY_FILES = """
SELECT f.id::text, f.file_key FROM public.media_files f
 WHERE f.file_key LIKE 'generation_jobs/%'
   AND NOT EXISTS (SELECT FROM public.generation_jobs j WHERE j.output_file_id = f.id)
"""
# Nothing is paid and in nobody's care.
_UNSETTLED = """
SELECT s.row_key, s.state::text FROM rowmill.submissions s
 WHERE s.state IN ('intent', 'accepted', 'unknown')
   AND NOT EXISTS (SELECT FROM rowmill.queue q WHERE q.row_key = s.row_key)
"""


async def exactly_once(connection: Any) -> None:
    """Every job has all its effects, once."""
    for sql in (_ODD_MEDIA, _ODD_TEXTS, _STRAY_FILES, _UNSETTLED):
        assert [tuple(odd) for odd in await connection.fetch(sql)] == [], sql


_LEDGER = """
SELECT source || '/' || row_key AS marker, sum(cost_cents) AS cents
  FROM rowmill.submissions WHERE cost_cents > 0 GROUP BY 1
"""


async def ledger(connection: Any) -> dict[str, Decimal]:
    """What we think each job cost."""
    return {line["marker"]: line["cents"] for line in await connection.fetch(_LEDGER)}


def billed(charges: list[Charge]) -> dict[str, Decimal]:
    """What the provider says each job cost."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for charge in charges:
        if charge.net > 0:
            assert charge.marker is not None, charge
            sums[charge.marker] += charge.net
    return dict(sums)


async def ledger_equals_bill(connection: Any, sandbox: Sandbox) -> None:
    """To the cent and per job."""
    assert await ledger(connection) == billed(await sandbox.bill())
