"""From INSERT to the handler's start on an idle fleet, beside a bare LISTEN/NOTIFY round trip.

Ours: a client inserts a row and commits; the clock runs from the moment the commit is acknowledged to
the moment the handler runs in a worker process that was idle. The yardstick: a client sends NOTIFY,
another process's listener answers with NOTIFY, the client hears it; no table is touched. Samples
take turns, so both see the same machine.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import Any

import asyncpg

from bench.database import USERS, database, server
from bench.instant import InstantRunner, registry

_INSERT = """
INSERT INTO public.generation_jobs (project_id, user_id, generation_service)
VALUES (md5('project' || $1)::uuid, md5('user' || $1)::uuid, 'replicate') RETURNING id::text
"""


async def run(samples: int) -> dict[str, Any]:
    with server() as admin:
        async with database(admin) as dsn:
            return await _run(dsn, samples)


async def _run(dsn: str, samples: int) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.pickup", dsn, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()  # ready
    client = await asyncpg.connect(dsn)
    heard = asyncio.Event()
    await client.add_listener("bench_pong", lambda *_: heard.set())
    pickups, notifies = [], []
    try:
        for number in range(samples + 10):
            pickup = await _pickup(client, process.stdout, number)
            notify = await _round_trip(client, heard)
            if number >= 10:  # the first ones warm caches and plans
                pickups.append(pickup)
                notifies.append(notify)
    finally:
        process.terminate()
        await process.wait()
        await client.close()
    return {
        "name": "pickup",
        "p50_ms": round(statistics.median(pickups), 3),
        "p99_ms": round(statistics.quantiles(pickups, n=100)[98], 3),
        "notify_p50_ms": round(statistics.median(notifies), 3),
        "ratio": round(statistics.median(pickups) / statistics.median(notifies), 2),
        "samples": samples,
    }


async def _pickup(client: Any, lines: asyncio.StreamReader, number: int) -> float:
    """The worker prints each start with its time; CLOCK_MONOTONIC is the same in all processes."""
    transaction = client.transaction()
    await transaction.start()
    key = await client.fetchval(_INSERT, str(1 + number % USERS))
    await transaction.commit()
    began = time.monotonic()
    started, at = (await lines.readline()).decode().split()
    if started != key:
        raise RuntimeError(f"{started} started instead of {key}")
    await _settled(client, key)
    return (float(at) - began) * 1000


async def _settled(client: Any, key: str) -> None:
    """The next sample begins when this job is over and the worker has gone idle again."""
    while await client.fetchval(
        "SELECT EXISTS (SELECT FROM rowmill.queue WHERE row_key = $1)", key
    ):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)


async def _round_trip(client: Any, heard: asyncio.Event) -> float:
    heard.clear()
    began = time.monotonic()
    await client.execute("NOTIFY bench_ping")
    await heard.wait()
    return (time.monotonic() - began) * 1000


# ------------------------------------------------------------------------------ the other process


async def _serve(dsn: str) -> None:
    from pydantic import SecretStr  # noqa: PLC0415 - the measuring side needs none of it

    from jobs.providers.registry import ProviderSettings  # noqa: PLC0415
    from worker.app import Worker  # noqa: PLC0415
    from worker.logs import configure  # noqa: PLC0415
    from worker.settings import Settings  # noqa: PLC0415

    def started(key: str) -> None:
        print(key, time.monotonic(), flush=True)

    settings = Settings(
        database_url=dsn,
        storage_url="memory:///",
        log_level="error",
        providers={"replicate": ProviderSettings(api_key=SecretStr("none"))},
    )
    configure("error")
    worker = await Worker.open(
        settings, registry=registry(started), runner=InstantRunner(paid=False)
    )
    await worker.start()
    await _echo(dsn)
    print("ready", flush=True)
    await asyncio.Event().wait()


async def _echo(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    answers: set[asyncio.Task[Any]] = set()

    def answer(*_: object) -> None:
        task = asyncio.ensure_future(connection.execute("NOTIFY bench_pong"))
        answers.add(task)
        task.add_done_callback(answers.discard)

    await connection.add_listener("bench_ping", answer)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(sys.argv[1]))
