"""The story of `rowmill demo`: enqueue, run, kill a worker, wait, compare with the bill."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

from worker import logs
from worker.demo import order
from worker.demo.messages import SOURCE, submit_by_message
from worker.demo.platform import Shown, choose, produce
from worker.demo.progress import counts
from worker.demo.screen import Screen
from worker.demo.server import demo_database
from worker.demo.stage import Stage, set_up
from worker.demo.verdict import judge
from worker.maps import PUBLIC

PATIENCE = 120
"""Seconds without a job that ends."""
LOOK = 0.2
BY_MESSAGE = 3

# Per live worker: jobs in hand, those of them in flight at a provider, and calls whose answer it
# still waits for. Where no provider takes its time, work in hand is all there is to lose.
_IN_HAND = """
SELECT w.name, count(*) AS claims, sum(u.accepted) AS accepted, sum(u.intents) AS intents
  FROM rowmill.queue q
  JOIN rowmill.workers w ON w.id = q.worker AND w.stopped_at IS NULL
  JOIN rowmill.sources s ON s.id = q.source
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE u.state = 'accepted') AS accepted,
              count(*) FILTER (WHERE u.state = 'intent') AS intents
         FROM rowmill.submissions u
        WHERE u.source = s.name AND u.row_key = q.row_key AND u.worker = w.id) u
 GROUP BY w.name
HAVING sum(u.accepted) > 0
    OR NOT EXISTS (SELECT FROM rowmill.queue WHERE lane IN ('replicate', 'runway', 'freepik'))
 ORDER BY 3 DESC, 2 DESC
"""
_SOME_DONE = """
SELECT CASE WHEN EXISTS (SELECT FROM rowmill.submissions)
                 OR EXISTS (SELECT FROM rowmill.queue WHERE lane NOT LIKE 'background:%')
            THEN (SELECT count(*) >= 5 FROM rowmill.submissions WHERE delivered_at IS NOT NULL)
            ELSE (SELECT count(*) >= 5 FROM rowmill_demo.moves WHERE state = 'gone') END
"""
_ONE = "SELECT row_key FROM rowmill.submissions ORDER BY lane <> 'replicate', id LIMIT 1"
_UNFINISHED = "SELECT count(*) FROM rowmill.queue WHERE state <> 'held'"


async def demo(
    *, jobs: int, as_json: bool, directory: Path | None, platforms: Sequence[str] = ()
) -> int:
    shown = choose(platforms)
    home = (directory or Path(".rowmill") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    home.mkdir(parents=True, exist_ok=True)
    logs.configure("error")  # the workers' own lines are in their log files
    began = time.monotonic()
    with Screen(silent=as_json) as screen:
        async with demo_database(home) as dsn, set_up(screen, dsn, home, shown) as stage:
            screen.say(f"{_listed(shown)}: tables attached; workers starting")
            kills, opened = await _play(stage, jobs)
            bill = await stage.sandbox.bill()
            verdict = await judge(
                stage.store,
                shown,
                bill,
                order.order(await order.seen(stage.store, opened)),
                kills=kills,
                seconds=time.monotonic() - began,
            )
            one = await stage.store.value(_ONE)
    if as_json:
        print(json.dumps(verdict.row()))  # noqa: T201 - the command's result
    else:
        screen.result(verdict, bill, str(home / "outputs"))
        screen.commands(_go_on(home, dsn, one))
    return 0 if verdict.sound else 1


def _listed(shown: Sequence[Shown]) -> str:
    return ", ".join(
        one.name if one.schema == PUBLIC else f"{one.name} (schema {one.schema})" for one in shown
    )


async def _play(stage: Stage, jobs: int) -> tuple[int, int]:
    """Returns how many workers were killed, and the last move before the first one came."""
    takes_messages = SOURCE in [s.name for one in stage.shown for s in one.platform.map.sources]
    by_message = min(BY_MESSAGE, max(0, jobs - BY_MESSAGE)) if takes_messages else 0
    await produce(stage.store, stage.shown, jobs - by_message, stage.sandbox.url)
    await submit_by_message(stage.store.dsn, by_message)
    total = sum(total for total, _, _ in (await counts(stage.store, stage.shown)).values())
    stage.screen.say(
        f"{total} rows inserted by a role without rights on rowmill, {by_message} of them by arq"
    )
    opened = await order.latest(stage.store)
    await stage.fleet.hire("worker-a")
    await stage.fleet.hire("worker-b")
    kills = int(await _kill_midway(stage))
    await _wait(stage)
    await stage.show()
    return kills, opened


async def _wait(stage: Stage) -> None:
    """Until all is done, or nothing moves any more; the verdict will tell which."""
    left, changed = -1, time.monotonic()
    while now := await stage.store.value(_UNFINISHED):
        if now != left:
            left, changed = now, time.monotonic()
        elif time.monotonic() > changed + PATIENCE:
            return
        await stage.show()
        await asyncio.sleep(LOOK)


async def _kill_midway(stage: Stage) -> bool:
    """SIGKILL for the worker with the most jobs at a provider, once some jobs are done."""
    deadline = time.monotonic() + PATIENCE
    while await stage.store.value(_UNFINISHED) and time.monotonic() < deadline:
        await stage.show()
        some_done = await stage.store.value(_SOME_DONE)
        for worker in await stage.store.fetch(_IN_HAND) if some_done else ():
            if await _kill(stage, worker["name"]):
                await stage.fleet.hire("worker-c")
                return True
        await asyncio.sleep(LOOK)
    return False


async def _kill(stage: Stage, name: str) -> bool:
    """Stop it first, and let it go on if one of its calls is between journal and answer.

    A call of a cent or less would rightly be sent again, and the point here is the bill.
    """
    stage.fleet.stop(name)
    hands = await stage.store.fetch(_IN_HAND)
    hand = next((hand for hand in hands if hand["name"] == name), None)
    if hand is None or hand["intents"]:
        stage.fleet.go_on(name)
        return False
    before = await stage.sandbox.bill()
    await stage.fleet.kill(name)
    stage.screen.say(
        f"{name} killed (SIGKILL) with {hand['claims']} jobs, {hand['accepted']} of them at a "
        f"provider; billed so far: {len(before['charges'])} charges, {before['total_cents']} cents. "
        "Another takes over when its lease is up, and pays for none of them again"
    )
    return True


def _go_on(home: Path, dsn: str, key: str | None) -> list[str]:
    """The embedded server ends with the demo; `embedded:` starts it again for each command."""
    url = f"embedded:{home / 'postgres'}" if (home / "postgres").exists() else dsn
    return [
        f"export ROWMILL_DATABASE_URL={url}",
        "rowmill status",
        *([f"rowmill job show {key}"] if key else []),
    ]
