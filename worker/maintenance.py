"""What has to happen now and then, on some worker: each chore is safe to run twice, or everywhere.

rescue       claims of workers that stopped go back to the queue
limits       the platform's own settings become gates
breakers     which lanes others have left alone
rates        how fast providers may be asked, and by how many
sources      newly attached tables, kinds that became possible
partitions   made ahead of time
sweep        ready rows that missed their trigger
orphans      accepted paid tasks whose job is over: what they cost is learnt and recorded, and
             what succeeds after its job had failed is delivered all the same
clean_up     old statistics and workers
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from worker.breaker import Breaker
from worker.executor import PaidCalls
from worker.ledger import ClaimJournal, Ledger, submission_of
from worker.maps import Platform
from worker.rates import Rates
from worker.store import Store, StoreError, upkeep

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Chore:
    name: str
    every: float
    work: Callable[[], Awaitable[None]]


class Maintenance:
    def __init__(
        self,
        store: Store,
        runner: PaidCalls,
        ledger: Ledger,
        *,
        worker: Callable[[], int],
        platforms: Callable[[], list[Platform]],
        breaker: Breaker,
        rates: Rates,
        reload: Callable[[], Awaitable[None]],
        lease: float,
        sweep_seconds: float,
    ) -> None:
        self._store = store
        self._runner = runner
        self._ledger = ledger
        self._worker = worker
        self._platforms = platforms
        self._lease = lease
        self._chores = [
            Chore("limits", 2.0, self.limits),
            Chore("breakers", 2.0, breaker.refresh),
            Chore("rates", 2.0, rates.refresh),
            Chore("rescue", lease / 4, self.rescue),
            Chore("sources", 5.0, reload),
            Chore("partitions", 3600.0, self.make_partitions),
            Chore("sweep", sweep_seconds, self.sweep),
            Chore("triggers", 30.0, self.triggers),
            Chore("orphans", max(2.0, lease / 2), self.orphans),
            Chore("clean_up", 3600.0, self.clean_up),
        ]

    async def run(self) -> None:
        """Each chore in a loop of its own: a provider that is slow to cancel delays no rescue."""
        async with asyncio.TaskGroup() as group:
            for chore in self._chores:
                group.create_task(self._repeat(chore))

    async def _repeat(self, chore: Chore) -> None:
        while True:
            await self._do(chore)
            # Spread out, so that a fleet doesn't do the same thing at the same moment.
            await asyncio.sleep(chore.every * random.uniform(0.8, 1.2))

    async def run_once(self) -> None:
        """Every chore once."""
        for chore in self._chores:
            await self._do(chore)

    async def _do(self, chore: Chore) -> None:
        """One that fails is tried again at its next turn."""
        try:
            await chore.work()
        except StoreError as error:
            log.warning("chore.failed", chore=chore.name, error=str(error))

    async def rescue(self) -> None:
        count = await self._store.rescue(self._worker())
        if count:
            log.warning("claims.rescued", count=count)

    async def limits(self) -> None:
        for platform in self._platforms():
            await upkeep.apply_limits(self._store, platform)

    async def make_partitions(self) -> None:
        for platform in self._platforms():
            await upkeep.make_partitions(self._store, platform)

    async def sweep(self) -> None:
        for platform in self._platforms():
            await upkeep.refresh_unserved(self._store, platform)
            for source in platform.map.sources:
                found = await self._store.sweep(source.name)
                if found:
                    log.warning("sweep.found", source=source.name, rows=found)

    async def triggers(self) -> None:
        for missing in await upkeep.missing_triggers(self._store):
            log.error("triggers.missing", table=missing, fix="rowmill attach PLATFORM")

    async def orphans(self) -> None:
        """One look at each; what isn't over yet is looked at again next time."""
        for row in await upkeep.orphans(self._store, self._lease):
            try:
                await self._finish(row)
            except Exception:  # one provider's trouble must not stop the other chores
                log.exception("orphan.failed", submission=row["id"], provider=row["provider"])

    async def _finish(self, row: Mapping[str, Any]) -> None:
        journal = ClaimJournal(self._ledger, queue_id=0, token=0, worker=self._worker())
        submission = submission_of(row, fresh=False)
        source, key = row["source"], row["row_key"]
        if await self._unwanted(source, key):
            await self._runner.abandon(journal, submission)
            return
        ended = await self._runner.settle_orphan(journal, submission)
        if not ended or await self._unwanted(source, key):
            return
        if await upkeep.deliver_late(self._store, source, submission.id):
            log.info("late.success", source=source, key=key)

    async def _unwanted(self, name: str, key: str) -> bool:
        """Cancelled or deleted: the provider need not go on. A failed row's task may succeed."""
        for platform in self._platforms():
            for source in platform.map.sources:
                if source.name == name:
                    status = await upkeep.row_status(self._store, source, key)
                    return status is None or status == source.status.cancelled
        return False

    async def clean_up(self) -> None:
        await upkeep.clean_up(self._store)
