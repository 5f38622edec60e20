"""Every two seconds, one worker's sign of life: heartbeat, progress of all its jobs, statistics.

The heartbeat's answer says which claims are still ours. A job whose claim is gone is stopped; a
claim we know nothing of (its answer was lost with a connection) is handed back. Running jobs that
the platform's stop rule cancels are stopped, too. The answer also says that an operator wants this
worker to leave.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from worker.executor import Running
from worker.ledger import Lease, boottime
from worker.store import Pulse, Store, StoreError, Unavailable
from worker.tallies import Statistics
from worker.vitals import Turns

log = structlog.get_logger()


class PulseLoop:
    def __init__(
        self,
        store: Store,
        lease: Lease,
        *,
        worker: Callable[[], int],
        jobs: Callable[[], Iterable[Running]],
        holds: Callable[[int, int], bool],
        draining: Callable[[], bool],
        drain: Callable[[], None],
        given_up: Callable[[], Any],
        stoppable: Callable[[str], bool],
        seconds: float,
        turns: Turns | None = None,
    ) -> None:
        self._store = store
        self._lease = lease
        self._worker = worker
        self._jobs = jobs
        self._holds = holds
        self._draining = draining
        self._drain = drain
        self._given_up = given_up
        self._stoppable = stoppable
        self._seconds = seconds
        self._turns = turns or Turns()
        self._strangers: dict[int, int] = {}
        self._written: dict[tuple[int, int], tuple[float, str | None]] = {}
        self.statistics = Statistics()

    async def run(self) -> None:
        while True:
            try:
                with self._turns.turn("pulse"):
                    await self.run_once()
            except StoreError as error:
                log.warning("pulse.failed", error=str(error))
            await asyncio.sleep(self._seconds)

    async def run_once(self) -> None:
        asked, asked_monotonic = boottime(), time.monotonic()
        jobs = list(self._jobs())
        pulse = await self._store.heartbeat(
            self._worker(), running=len(jobs), draining=self._draining()
        )
        if pulse.drain:
            self._drain()  # first: the next incarnation of one that was given up isn't asked again
        if not pulse.alive:
            log.error("worker.given_up", worker=self._worker())
            await self._given_up()
            return
        # The lease counts from before the question was sent, not from the answer.
        self._lease.acknowledged = asked
        self._stop_lost(jobs, pulse, asked_monotonic)
        await self._stop_unwanted(jobs)
        await self._hand_back_strangers(pulse)
        await self._write_progress(jobs)
        await self._write_statistics()

    def _stop_lost(self, jobs: list[Running], pulse: Pulse, asked: float) -> None:
        for job in jobs:
            held = pulse.claims.get(job.attempt.queue_id) == job.attempt.token
            if not held and job.claimed_at < asked:
                job.stop(lost=True)

    async def _stop_unwanted(self, jobs: list[Running]) -> None:
        """Told once: a job that is stopped may still wait for what it has just bought."""
        by_source: dict[str, list[Running]] = defaultdict(list)
        for job in jobs:
            if job.stopped is None and self._stoppable(job.attempt.source):
                by_source[job.attempt.source].append(job)
        for source, running in by_source.items():
            entries = [{"queue_id": j.attempt.queue_id, "key": j.attempt.key} for j in running]
            try:
                async with asyncio.timeout(self._seconds):
                    stops = await self._store.stops(source, entries)
            except (StoreError, TimeoutError) as error:
                # A rule that fails, or takes longer than the lease has time for, stops nothing: the
                # pulse least of all.
                log.warning("stops.failed", source=source, error=str(error) or "it takes too long")
                continue
            for job in running:
                if job.attempt.queue_id in stops:
                    job.stop(why=stops[job.attempt.queue_id])

    async def _hand_back_strangers(self, pulse: Pulse) -> None:
        strangers = {
            queue_id: token
            for queue_id, token in pulse.claims.items()
            if not self._holds(queue_id, token)
        }
        # Seen twice: once may be a claim whose answer is still on its way to the consumer.
        stale = {q: t for q, t in strangers.items() if self._strangers.get(q) == t}
        self._strangers = strangers
        if stale:
            log.warning("claims.handed_back", count=len(stale))
            await self._store.hand_back(list(stale), list(stale.values()))

    async def _write_progress(self, jobs: list[Running]) -> None:
        by_source: dict[str, list[dict[str, Any]]] = defaultdict(list)
        written: dict[tuple[int, int], tuple[float, str | None]] = {}
        for job in jobs:
            claim = (job.attempt.queue_id, job.attempt.token)
            now = (job.percent, job.journal.external_id)
            written[claim] = now
            if now != self._written.get(claim, (0.0, None)):
                by_source[job.attempt.source].append(
                    {
                        "queue_id": claim[0],
                        "token": claim[1],
                        "key": job.attempt.key,
                        "progress": min(99, int(job.percent)),
                        "external_id": job.journal.external_id,
                    }
                )
        for source, entries in by_source.items():
            await self._store.progress(source, entries)
        self._written = written

    async def _write_statistics(self) -> None:
        rows = self.statistics.take(self._worker())
        if rows:
            try:
                await self._store.add_pulses(rows)
            except Unavailable:
                log.warning("statistics.dropped", rows=len(rows))
