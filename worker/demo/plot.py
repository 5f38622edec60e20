"""The story of `rowmill demo`: enqueue, run, kill a worker, wait, compare with the bill."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from worker import logs
from worker.demo import platform
from worker.demo.fleet import Fleet, Sandbox
from worker.demo.messages import submit_by_message
from worker.demo.screen import Screen
from worker.demo.server import demo_database
from worker.demo.verdict import judge
from worker.store import Store

PATIENCE = 120
LOOK = 0.2

_TABLES = """
SELECT 'generation_jobs' AS name, count(*) AS total,
       count(*) FILTER (WHERE status IN ('completed', 'failed', 'cancelled')) AS done,
       count(*) FILTER (WHERE status = 'processing') AS running FROM public.generation_jobs
UNION ALL
SELECT 'ai_generations', count(*), count(*) FILTER (WHERE status IN ('completed', 'failed', 'cancelled')),
       count(*) FILTER (WHERE status = 'processing') FROM ai_processing.ai_generations
UNION ALL
SELECT 'background_jobs', count(*), count(*) FILTER (WHERE status IN ('completed', 'failed', 'cancelled')),
       count(*) FILTER (WHERE status = 'processing') FROM system.background_jobs
"""

# Per live worker: jobs in flight at a provider, and calls whose answer it still waits for.
_IN_HAND = """
SELECT w.name, count(*) FILTER (WHERE u.state = 'accepted') AS accepted,
       count(*) FILTER (WHERE u.state = 'intent') AS intents
  FROM rowmill.submissions u JOIN rowmill.workers w ON w.id = u.worker
 WHERE w.stopped_at IS NULL GROUP BY w.name
HAVING count(*) FILTER (WHERE u.state = 'accepted') > 0 ORDER BY 2 DESC
"""

_SOME_DONE = "SELECT count(*) >= 5 FROM rowmill.submissions WHERE delivered_at IS NOT NULL"

_ONE = "SELECT row_key FROM rowmill.submissions WHERE lane = 'replicate' ORDER BY id LIMIT 1"

_UNFINISHED = "SELECT count(*) FROM rowmill.queue WHERE state <> 'held'"


async def demo(*, jobs: int, as_json: bool, directory: Path | None) -> int:
    home = (directory or Path(".rowmill") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    home.mkdir(parents=True, exist_ok=True)
    logs.configure("error")  # the workers' own lines are in their log files
    began = time.monotonic()
    with Screen(silent=as_json) as screen:
        async with demo_database(home) as dsn, _fleet(dsn, home) as (fleet, sandbox):
            screen.say("Two platforms, their tables attached; workers starting")
            store = await Store.open(dsn)
            try:
                kills = await _play(screen, store, fleet, sandbox, jobs)
                bill = await sandbox.bill()
                seconds = time.monotonic() - began
                verdict = await judge(store, bill, kills=kills, seconds=seconds)
                shown = await store.value(_ONE)
            finally:
                await store.close()
    if as_json:
        print(json.dumps(verdict.row()))  # noqa: T201 - the command's result
    else:
        screen.result(verdict, bill, str(home / "outputs"))
        screen.commands(_go_on(home, dsn, shown))
    return 0 if verdict.sound else 1


@asynccontextmanager
async def _fleet(dsn: str, home: Path) -> AsyncIterator[tuple[Fleet, Sandbox]]:
    await platform.prepare(dsn)
    sandbox = await Sandbox.start(home)
    fleet = Fleet(dsn, sandbox.url, home)
    try:
        yield fleet, sandbox
    finally:
        await fleet.dismiss()
        await sandbox.stop()


async def _play(screen: Screen, store: Store, fleet: Fleet, sandbox: Sandbox, jobs: int) -> int:
    by_message = min(3, max(0, jobs - 3))
    await platform.produce(store, jobs - by_message)
    await submit_by_message(store.dsn, by_message)
    screen.say(
        f"{jobs} rows inserted by a role without rights on rowmill, {by_message} of them by arq"
    )
    await fleet.hire("worker-a")
    await fleet.hire("worker-b")
    kills = int(await _kill_midway(screen, store, fleet, sandbox))
    deadline = time.monotonic() + PATIENCE
    while await store.value(_UNFINISHED) and time.monotonic() < deadline:
        await _show(screen, store)
        await asyncio.sleep(LOOK)
    await _show(screen, store)
    return kills


async def _kill_midway(screen: Screen, store: Store, fleet: Fleet, sandbox: Sandbox) -> bool:
    """SIGKILL for the worker with the most jobs at a provider, once some jobs are done."""
    while await store.value(_UNFINISHED):
        await _show(screen, store)
        for worker in await store.fetch(_IN_HAND) if await store.value(_SOME_DONE) else ():
            if await _kill(screen, store, fleet, sandbox, worker["name"]):
                await fleet.hire("worker-c")
                return True
        await asyncio.sleep(LOOK)
    return False


async def _kill(screen: Screen, store: Store, fleet: Fleet, sandbox: Sandbox, name: str) -> bool:
    """Stop it first, and let it go on if one of its calls is between journal and answer.

    A call of a cent or less would rightly be sent again, and the point here is the bill.
    """
    fleet.stop(name)
    hand = next((w for w in await store.fetch(_IN_HAND) if w["name"] == name), None)
    if hand is None or hand["intents"]:
        fleet.go_on(name)
        return False
    before = await sandbox.bill()
    await fleet.kill(name)
    screen.say(
        f"{name} killed (SIGKILL) with {hand['accepted']} jobs at the provider; "
        f"billed so far: {len(before['charges'])} charges, {before['total_cents']} cents. "
        "Another takes over when its lease is up, and pays for none of them again"
    )
    return True


async def _show(screen: Screen, store: Store) -> None:
    rows = await store.fetch(_TABLES)
    screen.show({row["name"]: (row["total"], row["done"], row["running"]) for row in rows})


def _go_on(home: Path, dsn: str, key: str) -> list[str]:
    """The embedded server ends with the demo; `embedded:` starts it again for each command."""
    url = f"embedded:{home / 'postgres'}" if (home / "postgres").exists() else dsn
    return [
        f"export ROWMILL_DATABASE_URL={url}",
        "rowmill status",
        f"rowmill job show {key}",
    ]
