"""What the queue's tests are written with: producers that INSERT, hands that work, and time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.database.hand import LANES, LEASE, Hand, Work, failure, result_of, video_file
from tests.database.platform_samples import project, user, v1_project
from worker.store import Store

__all__ = [
    "LANES",
    "LEASE",
    "Connect",
    "Hand",
    "OpenStore",
    "Producer",
    "Work",
    "add",
    "add_background",
    "add_texts",
    "add_v1_videos",
    "add_videos",
    "connection_to",
    "failure",
    "fell_silent",
    "has_lived",
    "heard_so_far",
    "listening",
    "new_keys",
    "queued",
    "result_of",
    "set_status",
    "time_passes",
    "video_file",
]

OpenStore = Callable[..., Awaitable[Store]]
"""(dsn, size=4) → a store."""
Connect = Callable[..., Awaitable[Any]]
"""(dsn, producer=None) → a connection, of the superuser without a producer."""

# --------------------------------------------------------------------------- producers


@dataclass(frozen=True, slots=True)
class Producer:
    """A role that may write the platforms' tables and has no right on rowmill at all."""

    name: str
    password: str


_GRANTS = """
SELECT format('GRANT USAGE ON SCHEMA %1$I TO {role};'
              'GRANT ALL ON ALL TABLES IN SCHEMA %1$I TO {role}', nspname)
  FROM pg_namespace
 WHERE nspname NOT IN ('rowmill', 'information_schema') AND nspname NOT LIKE 'pg\\_%'
"""


@asynccontextmanager
async def connection_to(dsn: str, producer: Producer | None = None) -> AsyncIterator[Any]:
    as_whom: dict[str, str] = {}
    if producer is not None:
        await _grant(dsn, producer)
        as_whom = {"user": producer.name, "password": producer.password}
    connection = await asyncpg.connect(dsn, **as_whom)
    try:
        yield connection
    finally:
        # Not close(): a test may leave a statement waiting for a lock.
        connection.terminate()


async def _grant(dsn: str, producer: Producer) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for row in await connection.fetch(_GRANTS.format(role=producer.name)):
            await connection.execute(row[0])
    finally:
        await connection.close()


def new_keys(count: int) -> list[str]:
    """Ids of rows to be inserted."""
    hexes = (secrets.token_hex(16) for _ in range(count))
    return [f"{h[:8]}-{h[8:12]}-4{h[13:16]}-8{h[17:20]}-{h[20:]}" for h in hexes]


async def add(connection: Any, table: str, count: int = 1, **columns: Any) -> list[str]:
    """INSERT `count` equal rows in one statement; returns their keys in order."""
    keys = new_keys(count)
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", ${number}" for number in range(2, len(columns) + 2))
    await connection.execute(
        f"INSERT INTO {table} (id{names}) SELECT k{values} FROM unnest($1::uuid[]) k",
        keys,
        *columns.values(),
    )
    return keys


SUPPORTED = 1
"""What the plan of customer 4, whose jobs these are, adds to a rank (priority_support)."""


async def add_videos(
    connection: Any, count: int = 1, *, of: int = 4, service: str = "replicate", **columns: Any
) -> list[str]:
    """Jobs of the sample's project number `of` in PhotoMemory's generation_jobs."""
    given = {"project_id": project(of), "user_id": user(of), "generation_service": service}
    return await add(connection, "public.generation_jobs", count, **given, **columns)


async def add_v1_videos(
    connection: Any, count: int = 1, *, of: int = 4, service: str = "replicate", **columns: Any
) -> list[str]:
    """Jobs of the sample's project number `of` in PhotoMemory v1's generated_videos."""
    given = {"project_id": v1_project(of), "ai_prompt": "Waves", "generation_service": service}
    return await add(connection, "public.generated_videos", count, **(given | columns))


async def add_texts(connection: Any, count: int = 1, *, of: int = 2, **columns: Any) -> list[str]:
    """Jobs of AI Ebook's ai_generations; user 1 is free, 2 basic, 3 premium, 4 enterprise."""
    given = {
        "user_id": f"e0000000-0000-4000-8000-{of:012}",
        "model_id": "e2000000-0000-4000-8000-000000000001",
        "prompt": "Write a haiku about rows.",
    }
    return await add(connection, "ai_processing.ai_generations", count, **(given | columns))


async def add_background(
    connection: Any, count: int = 1, *, kind: str = "webhook_delivery", **columns: Any
) -> list[str]:
    given = {"job_type": kind, "payload": "{}"}
    return await add(connection, "system.background_jobs", count, **(given | columns))


async def set_status(connection: Any, key: str, status: str) -> None:
    """Of a video."""
    await connection.execute(
        "UPDATE public.generation_jobs SET status = $2 WHERE id = $1", key, status
    )


# --------------------------------------------------------------------------- looking


async def queued(connection: Any, *keys: str) -> dict[str, Any]:
    """Queue rows by row key; all of them without keys. Needs a superuser's connection."""
    rows = await connection.fetch(
        "SELECT q.*, s.name AS source_name FROM rowmill.queue q JOIN rowmill.sources s"
        " ON s.id = q.source WHERE $1::text[] = '{}' OR q.row_key = ANY ($1) ORDER BY q.id",
        list(keys),
    )
    return {row["row_key"]: row for row in rows}


@asynccontextmanager
async def listening(connection: Any, channel: str) -> AsyncIterator[asyncio.Queue[str]]:
    """What is notified on a channel, in the order of the commits."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    def hear(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
        heard.put_nowait(payload)

    await connection.add_listener(channel, hear)
    try:
        yield heard
    finally:
        await connection.remove_listener(channel, hear)


async def heard_so_far(heard: asyncio.Queue[str], channel: str, other: Any) -> list[str]:
    """Everything committed before now: notifications keep their order, so a mark ends them."""
    mark = secrets.token_hex(8)
    await other.execute("SELECT pg_notify($1, $2)", channel, mark)
    said = []
    while (word := await heard.get()) != mark:
        said.append(word)
    return said


# --------------------------------------------------------------------------- the passing of time


async def fell_silent(connection: Any, hand: Hand, seconds: float = 2 * LEASE) -> None:
    """Its last heartbeat was that long ago."""
    await connection.execute(
        "UPDATE rowmill.workers SET heartbeat_at = clock_timestamp() - make_interval(secs => $2),"
        " alive_since = least(alive_since, clock_timestamp() - make_interval(secs => $2))"
        " WHERE id = $1",
        hand.id,
        seconds,
    )


async def has_lived(connection: Any, hand: Hand, seconds: float = 2 * LEASE) -> None:
    """Its heartbeats have been gapless for that long."""
    await connection.execute(
        "UPDATE rowmill.workers SET alive_since = clock_timestamp() - make_interval(secs => $2)"
        " WHERE id = $1",
        hand.id,
        seconds,
    )


async def time_passes(connection: Any, seconds: float, *keys: str) -> None:
    """These waiting rows (all without keys) are due that much sooner."""
    await connection.execute(
        "UPDATE rowmill.queue SET ready_at = ready_at - make_interval(secs => $1)"
        " WHERE state IN ('ready', 'scheduled') AND ($2::text[] = '{}' OR row_key = ANY ($2))",
        seconds,
        list(keys),
    )
