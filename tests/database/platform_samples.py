"""Databases with a platform's schema and sample rows."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.resources import files
from typing import Any

import asyncpg

NewDatabase = Callable[[], Awaitable[str]]
CloneDatabase = Callable[[str, Callable[[str], Awaitable[None]]], Awaitable[str]]

PLATFORMS = ("photomemory", "photomemory_v1", "ecomvideo", "education", "ebook")
GIGABYTE = 1024**3


def sql_file(platform: str, name: str) -> str:
    return (files("sql") / "platforms" / platform / name).read_text(encoding="utf-8")


async def run(dsn: str, *scripts: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for script in scripts:
            await connection.execute(script)
    finally:
        await connection.close()


@asynccontextmanager
async def sample_of(platform: str, clone_database: CloneDatabase) -> AsyncIterator[Any]:
    async def build(dsn: str) -> None:
        await run(dsn, sql_file(platform, "schema.sql"), sql_file(platform, "sample.sql"))

    connection = await asyncpg.connect(await clone_database(f"{platform}-sample", build))
    try:
        yield connection
    finally:
        await connection.close()


def user(number: int) -> str:
    return f"a0000000-0000-4000-8000-{number:012}"


def project(number: int) -> str:
    return f"b0000000-0000-4000-8000-{number:012}"


def v1_user(number: int) -> str:
    return f"a1000000-0000-4000-8000-{number:012}"


def v1_project(number: int) -> str:
    return f"b1000000-0000-4000-8000-{number:012}"


async def upload(connection: Any, owner: str, *sizes: int) -> None:
    """One INSERT for all files, as a bulk upload makes it."""
    await connection.execute(
        """
        INSERT INTO public.media_files
          (user_id, original_filename, file_key, file_url, file_type, mime_type, file_size_bytes)
        SELECT $1, 'a.wav', gen_random_uuid()::text, 'https://files.example.com/a.wav', 'audio',
               'audio/wav', size
        FROM unnest($2::bigint[]) AS size
        """,
        owner,
        list(sizes),
    )


async def subscribe(connection: Any, owner: str, plan: str, *, until: datetime) -> None:
    await connection.execute("DELETE FROM public.user_subscriptions WHERE user_id = $1", owner)
    await connection.execute(
        """
        INSERT INTO public.user_subscriptions
          (user_id, plan_id, current_period_start, current_period_end, stripe_subscription_id)
        VALUES ($1, $2, '2020-01-01', $3, $4)
        """,
        owner,
        plan,
        until,
        secrets.token_hex(4),
    )
