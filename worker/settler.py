"""Group commit: settlements of finished jobs, written per source in batches.

A slot and a claim end when the commit is acknowledged, not before. A batch the data spoils, or one
that meets a lock nobody can skip, is bisected until the row at fault stands alone; a batch the
database couldn't take is repeated as it is; a row someone holds comes again a moment later.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext

import structlog

from jobs import failpoints
from worker import transitions
from worker.logs import about
from worker.store import (
    NO_FUNCTION,
    LockTimeout,
    MissingPartition,
    Refused,
    Store,
    StoreError,
    Unavailable,
    to_json,
)
from worker.transitions import Settlement
from worker.vitals import Turns

log = structlog.get_logger()

Settled = Callable[[Settlement, str], None]
BUSY_PAUSE = 0.05
OUTAGE_PAUSE = 0.5
UNFIT = re.compile(r"\\u(0000|d[89a-f])")
"""What JSON makes of characters that `transitions.clean` may have to take out."""


class Settler:
    def __init__(
        self,
        store: Store,
        *,
        batch: int,
        settled: Settled,
        make_partitions: Callable[[], Awaitable[None]],
        turns: Turns | None = None,
        settling: Callable[[int], AbstractContextManager[None]] = lambda _jobs: nullcontext(),
    ) -> None:
        self._store = store
        self._batch = batch
        self._settled = settled
        self._make_partitions = make_partitions
        self._turns = turns or Turns()
        self._settling = settling
        self._waiting: dict[str, deque[Settlement]] = defaultdict(deque)
        self._delayed = 0
        self._bell = asyncio.Event()

    def put(self, settlement: Settlement) -> None:
        self._waiting[settlement.source].append(settlement)
        self._bell.set()

    @property
    def pending(self) -> int:
        """Settlements not yet acknowledged and not in a statement right now."""
        return self._delayed + sum(len(queue) for queue in self._waiting.values())

    async def run(self) -> None:
        while True:
            await self._bell.wait()
            try:
                with self._turns.turn("settler"):
                    await self.run_once()
            except Unavailable as error:
                log.warning("settle.unavailable", error=str(error), pending=self.pending)
                await asyncio.sleep(OUTAGE_PAUSE)

    async def run_once(self) -> int:
        """Settle one batch per source; returns how many rows were acknowledged."""
        self._bell.clear()
        done = 0
        failed: Unavailable | None = None
        for source in [s for s, queue in self._waiting.items() if queue]:
            queue = self._waiting[source]
            batch = self._take(queue)
            try:
                done += await self._settle(source, batch)
            except BaseException as error:
                self._again(batch)
                if not isinstance(error, Unavailable) or not error.sqlstate:
                    raise
                # The server answers: what is missing (a right, a table) may be this source's alone.
                failed = error
        if any(self._waiting.values()):
            self._bell.set()
        if failed is not None:
            raise failed
        return done

    def _take(self, queue: deque[Settlement]) -> list[Settlement]:
        """A batch of different rows, because verdicts are by row.

        Of two results of one row (its claim was lost, and the row claimed again) the second waits.
        """
        batch: dict[int, Settlement] = {}
        while queue and len(batch) < self._batch and queue[0].queue_id not in batch:
            settlement = queue.popleft()
            batch[settlement.queue_id] = settlement
        return list(batch.values())

    def _again(self, batch: list[Settlement]) -> None:
        """Back to the front, unless a part of the batch was acknowledged meanwhile."""
        if batch:
            self._waiting[batch[0].source].extendleft(reversed(batch))
            self._bell.set()

    async def _settle(self, source: str, batch: list[Settlement]) -> int:
        """Rows leave `batch` as they are acknowledged, so that a repeat has the rest."""
        try:
            failpoints.reached("settle.due")
            verdicts = await self._write(source, batch)
            failpoints.reached("settle.committed")
        except MissingPartition as error:
            return await self._mend_partition(source, batch, error)
        except Refused as error:
            return await self._bisect(source, batch, error)
        except LockTimeout:
            return await self._around_lock(source, batch)
        except Unavailable as error:
            if not await self._detached(batch, error):
                raise
            verdicts = {}
        return self._acknowledge(batch, verdicts)

    async def _detached(self, batch: list[Settlement], error: Unavailable) -> bool:
        """Whether their table was detached, whose claims went with its functions."""
        claims = [(s.queue_id, s.token) for s in batch]
        return error.sqlstate == NO_FUNCTION and not await self._store.holds_any(claims)

    async def _write(self, source: str, batch: list[Settlement]) -> dict[int, str]:
        made = [s.row() for s in batch]
        rows = to_json(made)
        if UNFIT.search(rows):  # seldom, so looked for once and not in every value
            rows = to_json(transitions.clean(made))
        try:
            with self._settling(len(batch)):
                return await self._store.settle(source, rows)
        except LockTimeout:
            # Someone sits on a shared parent: settle the others, come back for these.
            with self._settling(len(batch)):
                return await self._store.settle(source, rows, wait=False)

    def _acknowledge(self, batch: list[Settlement], verdicts: dict[int, str]) -> int:
        busy = [s for s in batch if verdicts.get(s.queue_id, "lost") == "busy"]
        for settlement in batch:
            verdict = verdicts.get(settlement.queue_id, "lost")
            if verdict != "busy":
                self._settled(settlement, verdict)
        done = len(batch) - len(busy)
        batch.clear()
        self._later(BUSY_PAUSE, busy)
        return done

    def _later(self, seconds: float, settlements: list[Settlement]) -> None:
        if settlements:
            self._delayed += len(settlements)
            asyncio.get_running_loop().call_later(seconds, self._return, settlements)

    def _return(self, settlements: list[Settlement]) -> None:
        self._delayed -= len(settlements)
        self._again(settlements)

    async def _bisect(self, source: str, batch: list[Settlement], error: StoreError) -> int:
        if len(batch) == 1:
            (bad,) = batch
            log.error("settle.refused", **about(bad), verb=bad.verb, error=str(error))
            if bad.verb == "hold" and bad.error_code == "refused":
                # Even the plain hold was refused: the row itself can't be written. Keep the
                # claim and try again later rather than lose what is known.
                batch.clear()
                self._later(OUTAGE_PAUSE, [bad])
                return 0
            batch[:] = [transitions.refused(bad, str(error))]
            return await self._settle(source, batch)
        return await self._halves(source, batch)

    async def _around_lock(self, source: str, batch: list[Settlement]) -> int:
        """Someone holds a row that a foreign key points to: only the jobs that need it wait."""
        if len(batch) > 1:
            return await self._halves(source, batch)
        self._later(OUTAGE_PAUSE, [batch.pop()])
        return 0

    async def _halves(self, source: str, batch: list[Settlement]) -> int:
        middle = len(batch) // 2
        left, right = batch[:middle], batch[middle:]
        try:
            done = await self._settle(source, left)
            return done + await self._settle(source, right)
        finally:
            batch[:] = [*left, *right]

    async def _mend_partition(self, source: str, batch: list[Settlement], error: StoreError) -> int:
        """Make the month's partition and repeat; one that is still missing is the data's fault."""
        log.warning("settle.partition_missing", source=source, error=str(error))
        try:
            await self._make_partitions()
            verdicts = await self._write(source, batch)
        except (MissingPartition, Refused) as still:
            return await self._bisect(source, batch, still)
        return self._acknowledge(batch, verdicts)
