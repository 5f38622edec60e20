"""A fresh PhotoMemory database on a real server, with users, projects and queued jobs."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path

import asyncpg

from worker.maps import load
from worker.store.attaching import attach
from worker.store.migrations import migrate

USERS = 1000


@contextmanager
def server() -> Iterator[str]:
    """ROWMILL_DATABASE_URL's server, or an embedded one with default durability."""
    given = os.environ.get("ROWMILL_DATABASE_URL")
    if given:
        yield given
        return
    from worker.embedded import embedded_postgres  # noqa: PLC0415 - only where it is used

    with tempfile.TemporaryDirectory(prefix="rowmill-bench-") as directory:
        Path(directory).chmod(0o711)
        with embedded_postgres(Path(directory) / "pg") as embedded:
            yield embedded.dsn()


@asynccontextmanager
async def fresh(admin: str) -> AsyncIterator[str]:
    """A database with nothing in it; dropped afterwards."""
    name = f"rowmill_bench_{secrets.token_hex(4)}"
    await _run(admin, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    try:
        yield re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{name}", admin)
    finally:
        await _run(admin, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def database(admin: str) -> AsyncIterator[str]:
    """An empty PhotoMemory, attached."""
    async with fresh(admin) as dsn:
        await _run(dsn, (files("sql") / "platforms" / "photomemory" / "schema.sql").read_text())
        await migrate(dsn)
        await attach(dsn, load("photomemory"))
        await _run(dsn, _people())
        yield dsn


def _people() -> str:
    """Users of two plans whose limits are counted, but far; each with photos and a project."""
    return f"""
    INSERT INTO auth.users (id, email)
    SELECT md5('user' || n)::uuid, 'user' || n || '@example.com' FROM generate_series(1, {USERS}) n;
    INSERT INTO public.users (id, email, display_name)
    SELECT md5('user' || n)::uuid, 'user' || n || '@example.com', 'User ' || n
      FROM generate_series(1, {USERS}) n;
    INSERT INTO public.user_subscriptions
           (user_id, plan_id, current_period_start, current_period_end, stripe_subscription_id)
    SELECT md5('user' || n)::uuid, 'pro', now() - interval '1 day', now() + interval '29 days', 'sub_' || n
      FROM generate_series(1, {USERS}) n WHERE n % 2 = 0;
    INSERT INTO public.video_projects (id, user_id, title_i18n, ai_prompt)
    SELECT md5('project' || n)::uuid, md5('user' || n)::uuid, '{{"en": "Holiday"}}', 'a day by the sea'
      FROM generate_series(1, {USERS}) n;
    INSERT INTO public.media_files
           (id, user_id, original_filename, file_key, file_url, file_type, mime_type, file_size_bytes, width, height)
    SELECT md5('photo' || n || '/' || p)::uuid, md5('user' || n)::uuid, 'photo.jpg', 'photos/' || n || '/' || p,
           'https://cdn.example.com/photos/' || n || '/' || p, 'image', 'image/jpeg', 2000000, 4000, 3000
      FROM generate_series(1, {USERS}) n, generate_series(1, 5) p;
    INSERT INTO public.project_media (project_id, media_file_id, display_order)
    SELECT md5('project' || n)::uuid, md5('photo' || n || '/' || p)::uuid, p
      FROM generate_series(1, {USERS}) n, generate_series(1, 5) p;
    UPDATE public.subscription_plans SET max_videos_per_month = 1000000;
    UPDATE public.system_settings SET value = '10000' WHERE key = 'generation_queue_max_concurrent';
    ANALYZE;
    """


async def enqueue(dsn: str, jobs: int) -> None:
    await _run(
        dsn,
        f"""
        INSERT INTO public.generation_jobs (project_id, user_id, generation_service, priority)
        SELECT md5('project' || p)::uuid, md5('user' || p)::uuid, 'replicate', 1 + g % 10
          FROM (SELECT g, 1 + g % {USERS} AS p FROM generate_series(1, {jobs}) g) jobs
        """,
    )
    await _run(dsn, "VACUUM ANALYZE")


async def _run(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
