"""What must stay true through everything at once."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.process.fleet import Fleet, Sandbox, Worker, until, until_sql
from tests.process.postgres import cut_connections
from tests.process.promises import broken, watch
from tests.process.rows import TABLES, add_media, add_texts, all_done, in_state, row

pytestmark = pytest.mark.process

# --------------------------------------------------------------------------- one runner too many

IN_HANDS = """
SELECT EXISTS (SELECT FROM rowmill.queue q JOIN rowmill.workers w ON w.id = q.worker
                WHERE q.row_key = $1 AND w.name = $2)
"""
OLD_ENOUGH = """
SELECT bool_and(alive_since < clock_timestamp() - lease) FROM rowmill.workers
 WHERE stopped_at IS NULL AND name = $1
"""


async def test_a_stale_runner_leaves_its_successors_task_alone(db: Any, fleet: Fleet) -> None:
    """A task that was resumed twice: the one in between wakes up, and must not cancel it."""
    (key,) = await add_media(db, prompt="[fault:stall]")
    first = await fleet.hire("first")
    await in_state(db, "accepted")
    second = await fleet.hire("second")
    await first.kill()
    await until_sql(db, IN_HANDS, key, "second")
    third = await fleet.hire("third")
    await until_sql(db, OLD_ENOUGH, "third")
    second.stop()
    await until_sql(db, IN_HANDS, key, "third")
    second.go_on()
    await second.says("worker.registered_again")
    await second.says("job.lost")
    await second.drain()
    assert not (await row(db, "generation_jobs", key))["error_message"]
    (submission,) = await db.fetch("SELECT state::text FROM rowmill.submissions")
    assert submission["state"] == "accepted"
    assert third.alive


# --------------------------------------------------------------------------- everything at once

# kind, how many, what goes wrong with them
MEDIA = (
    ("video", 20, ""),
    ("thumbnail", 8, ""),
    ("audio", 6, ""),
    ("video", 6, "[fault:fail*1]"),
    ("preview", 5, "[fault:429=1*1]"),
    ("video", 6, "[fault:disconnect-after*1]"),
    ("thumbnail", 5, "[fault:poll-503*2]"),
    ("audio", 4, "[fault:download-500*1]"),
    ("video", 3, "[fault:policy]"),
    ("thumbnail", 4, "[fault:garbled*1]"),
    ("video", 4, "[fault:disconnect*1]"),
    ("audio", 3, "[fault:503*1]"),
)
TEXTS = (
    (20, ""),
    (6, "[fault:429=1*1]"),
    (5, "[fault:500*1]"),
    (5, "[fault:disconnect-after*1]"),
    (4, "[fault:policy]"),
    (4, "[fault:garbled*1]"),
    (4, "[fault:cut*1]"),
)
_CHAPTERS = """
WITH planned AS (
    SELECT n, gen_random_uuid() AS job, gen_random_uuid() AS chapter FROM generate_series(1, $1) n
), chapters AS (
    INSERT INTO content.chapters (id, project_id, title, position, content)
    SELECT chapter, 'e5000000-0000-4000-8000-000000000001', 'Soak ' || n, 1000 + n,
           'Patience is the first ingredient. [job:background_jobs/' || job || ']'
      FROM planned RETURNING id)
INSERT INTO system.background_jobs (id, job_type, payload)
SELECT p.job, (ARRAY['embed_content', 'content_statistics'])[1 + p.n % 2],
       jsonb_build_object('content_type', 'chapter', 'content_id', p.chapter)
  FROM planned p JOIN chapters c ON c.id = p.chapter
"""
READY = {"generation_jobs": "queued", "ai_generations": "pending", "background_jobs": "pending"}
ENDED = """
SELECT (SELECT count(*) FROM public.seen WHERE after IN ('completed', 'failed', 'cancelled')) >= $1
"""
GIVEN_UP = """
SELECT EXISTS (SELECT FROM rowmill.workers WHERE name = $1 AND stopped_at IS NOT NULL)
"""
NO_ORPHANS = "SELECT NOT EXISTS (SELECT FROM rowmill.submissions WHERE state = 'accepted')"


async def enqueue(db: Any) -> None:
    for kind, count, fault in MEDIA:
        await add_media(db, count, kind=kind, prompt=fault, priority=1 + count % 10)
    await add_media(db, 2, prompt="[fault:fail]", max_retries=1)
    for count, fault in TEXTS:
        await add_texts(db, count, prompt=fault)
    await db.execute(_CHAPTERS, 26)


@dataclass(slots=True)
class Chaos:
    """What may happen to a fleet and its jobs; a seed decides to whom."""

    db: Any
    fleet: Fleet
    dice: random.Random
    hired: int = 0

    async def hire(self) -> None:
        self.hired += 1
        await self.fleet.hire(f"worker-{self.hired}", slots=12, GRACE_SECONDS=1)

    def someone(self) -> Worker:
        return self.dice.choice([worker for worker in self.fleet.workers if worker.alive])

    async def kill(self) -> None:
        await self.someone().kill()
        await self.hire()

    async def freeze(self) -> None:
        worker = self.someone()
        worker.stop()
        await until_sql(self.db, GIVEN_UP, worker.name, within=30)
        worker.go_on()

    async def drain(self) -> None:
        assert await self.someone().drain() == 0
        await self.hire()

    async def cut(self) -> None:
        await until(lambda: cut_connections(self.fleet.dsn, self.db))

    async def cancel(self) -> None:
        await self._set("cancelled", "'processing', '{ready}'", 3)

    async def again(self) -> None:
        await self._set("{ready}", "'completed', 'failed', 'cancelled'", 3)

    async def _set(self, status: str, among: str, count: int) -> None:
        """What some user does to some rows of each table."""
        for source, table in TABLES.items():
            to, of = (words.format(ready=READY[source]) for words in (status, among))
            rows = await self.db.fetch(f"SELECT id FROM {table} WHERE status IN ({of}) ORDER BY id")
            chosen = self.dice.sample([row["id"] for row in rows], min(count, len(rows)))
            await self.db.execute(
                f"UPDATE {table} SET status = '{to}' WHERE id = ANY ($1) AND status IN ({of})",
                chosen,
            )


@pytest.mark.parametrize("seed", [1, 2])
async def test_everything_at_once(db: Any, fleet: Fleet, sandbox: Sandbox, seed: int) -> None:
    await watch(db)
    await enqueue(db)
    chaos = Chaos(db, fleet, random.Random(seed))
    for _ in range(3):
        await chaos.hire()
    happenings: list[Callable[[], Awaitable[None]]] = [
        *(chaos.kill, chaos.freeze, chaos.drain),
        *(chaos.cut, chaos.cut, chaos.cut),
        *(chaos.cancel, chaos.cancel, chaos.cancel, chaos.again, chaos.again, chaos.again),
    ]
    chaos.dice.shuffle(happenings)
    for number, happening in enumerate(happenings, start=1):
        await until_sql(db, ENDED, 10 * number, within=30)
        await happening()
    await all_done(db, within=60)
    await until_sql(db, NO_ORPHANS)
    assert await broken(db, await sandbox.bill()) == {}
