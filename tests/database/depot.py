"""A platform with things to do now and then, and workers that do them."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any

from tests.database.platform_samples import run
from tests.database.support import Producer
from worker import maps
from worker.maps import Platform
from worker.scheduled import Scheduled
from worker.store import Store
from worker.store.attaching import attach
from worker.store.migrations import migrate

FOLDER = Path(__file__).parent / "data" / "depot"
DEPOT = str(FOLDER / "map.toml")

_WORKER = """
import asyncio, sys
from tests.database.depot import worker_of
from worker.store import Store

async def main():
    await getattr(worker_of(await Store.open(sys.argv[1])), sys.argv[2])()

asyncio.run(main())
"""


async def built(dsn: str) -> None:
    await migrate(dsn)
    await run(dsn, (FOLDER / "schema.sql").read_text(encoding="utf-8"))
    await attach(dsn, maps.load(DEPOT))


def worker_of(store: Store, platform: Platform | None = None) -> Scheduled:
    return Scheduled(store, lambda: [platform or maps.load(DEPOT)])


def as_role(dsn: str, role: Producer) -> str:
    scheme, rest = dsn.split("://")
    return f"{scheme}://{role.name}:{role.password}@{rest.rpartition('@')[2]}"


async def process_of(dsn: str, chore: str) -> Process:
    """Another worker, in a process of its own, that does one chore."""
    return await asyncio.create_subprocess_exec(sys.executable, "-c", _WORKER, dsn, chore)


async def schedule(connection: Any, chore: str, subject: str) -> Any:
    return await connection.fetchrow(
        "SELECT *, not_before > clock_timestamp() AS taken FROM rowmill.schedules"
        " WHERE platform = 'depot' AND chore = $1 AND subject = $2",
        chore,
        subject,
    )


async def time_goes_by(connection: Any, interval: str) -> None:
    """All that was done or taken was so that much earlier."""
    await connection.execute(
        "UPDATE rowmill.schedules SET done_at = done_at - $1::text::interval,"
        " taken_at = taken_at - $1::text::interval, not_before = not_before - $1::text::interval",
        interval,
    )
