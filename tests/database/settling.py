"""What the tests of settling look at: a job's row, its effects, and whether they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jobs.contract import Succeeded
from jobs.registry import RetryPolicy
from tests.database.support import Work, result_of
from worker.settler import Settler
from worker.store import Store
from worker.transitions import Settlement, settle

POLICY = RetryPolicy(base=0.0, factor=1.0, cap=0.0, jitter=0.0)


def settlement(work: Work, outcome: Succeeded | None = None) -> Settlement:
    return settle(
        outcome or result_of(work),
        work.as_try(),
        policy=POLICY,
        max_yields=50,
        chance=0.0,
        duration_ms=1500,
    )


def like(work: Work, **changes: Any) -> Settlement:
    """A success that differs from a good one in these fields."""
    return replace(settlement(work), **changes)


async def video(connection: Any, key: str) -> Any:
    return await connection.fetchrow(
        "SELECT *, status::text AS status FROM public.generation_jobs WHERE id = $1", key
    )


async def media_of(connection: Any, key: str) -> list[Any]:
    return list(
        await connection.fetch(
            "SELECT * FROM public.media_files WHERE metadata ->> 'generation_job_id' = $1", key
        )
    )


async def usage_of(connection: Any, key: str) -> list[Any]:
    return list(
        await connection.fetch(
            "SELECT * FROM public.usage_records WHERE generation_job_id = $1", key
        )
    )


HALF_EFFECTS = """
SELECT j.id, j.status, m.files, u.charges
  FROM public.generation_jobs j
 CROSS JOIN LATERAL (SELECT count(*) AS files FROM public.media_files f
                      WHERE f.metadata ->> 'generation_job_id' = j.id::text) m
 CROSS JOIN LATERAL (SELECT count(*) AS charges FROM public.usage_records r
                      WHERE r.generation_job_id = j.id) u
 WHERE m.files <> (j.status = 'completed')::integer
    OR u.charges <> (j.status = 'completed')::integer
    OR (j.status = 'completed') <> (j.output_file_id IS NOT NULL)
    OR (j.status IN ('completed', 'failed', 'cancelled') AND EXISTS (
        SELECT FROM rowmill.queue q WHERE q.row_key = j.id::text))
"""


async def half_effects(connection: Any) -> list[tuple[Any, ...]]:
    """Jobs of PhotoMemory for which this doesn't hold: completed ⇔ one file ⇔ one charge."""
    return [tuple(row) for row in await connection.fetch(HALF_EFFECTS)]


async def until(connection: Any, question: str, *args: Any) -> None:
    """Ask the database until it says yes."""
    while not await connection.fetchval(question, *args):
        pass


WAITS_FOR_A_LOCK = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"


class Desk:
    """A real settler, stepped by the test, and what it acknowledged by row key."""

    def __init__(
        self,
        store: Store,
        *,
        batch: int = 500,
        make_partitions: Callable[[], Any] | None = None,
    ) -> None:
        self.said: dict[str, str] = {}
        self.written: dict[str, Settlement] = {}
        self.settler = Settler(
            store,
            batch=batch,
            settled=self._settled,
            make_partitions=make_partitions or self._no_partitions,
        )

    def put(self, *settlements: Settlement) -> None:
        for one in settlements:
            self.settler.put(one)

    async def step(self, *settlements: Settlement) -> int:
        self.put(*settlements)
        return await self.settler.run_once()

    async def until_empty(self) -> None:
        """Its own loop, until nothing is left: rows that were busy come back to it by timer."""
        while self.settler.pending:
            await self.settler._bell.wait()
            await self.settler.run_once()

    def _settled(self, one: Settlement, verdict: str) -> None:
        assert one.key not in self.said, "acknowledged twice"
        self.said[one.key] = verdict
        self.written[one.key] = one

    async def _no_partitions(self) -> None:
        raise AssertionError("no partition should be missing in this test")
