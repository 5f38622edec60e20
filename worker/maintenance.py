"""What has to happen now and then, on some worker: each chore is safe to run twice, or everywhere.

rescue       claims of workers that stopped go back to the queue
limits       what the platform's own tables say of its lanes becomes gates
breakers     which lanes others have left alone
rates        how fast providers may be asked, and by how many
sources      newly attached tables, kinds that became possible
partitions   made ahead of time
sweep        ready rows that missed their trigger
timeline     that the server's timeline was seen: what a failover may have lost came after
allowances   what cancelled and deleted jobs held of them is given back
orphans      accepted paid tasks whose job is over: what they cost is learnt and recorded, and
             what succeeds after its job had failed is delivered all the same
refreshes    materialized views, once per period
retention    old rows of the platforms' tables, once per period
clean_up     old statistics, turns and workers
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import structlog

from worker.breaker import Breaker
from worker.executor import PaidCalls
from worker.ledger import ClaimJournal, Ledger, submission_of
from worker.logs import job_fields
from worker.maps import MapError, Platform
from worker.rates import Rates
from worker.scheduled import Scheduled
from worker.store import (
    NO_FUNCTION,
    LockTimeout,
    Refused,
    Store,
    StoreError,
    Unavailable,
    limits,
    upkeep,
)
from worker.store.finding import Found
from worker.transitions import clean

log = structlog.get_logger()


class LateJournal(ClaimJournal):
    """Of a call that no job waits for: one commit records a success and brings it to its row."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        row: Mapping[str, Any],
        worker: int,
        unwanted: Callable[[Found], Awaitable[bool]],
    ) -> None:
        super().__init__(ledger, queue_id=0, token=0, worker=worker)
        self.times[row["id"]] = row["intended_at"]
        self.providers[row["id"]] = row["provider"]
        self._store = store
        self._job = Found(row["source"], row["row_key"])
        self._unwanted = unwanted

    async def finished(
        self, submission: int, *, result: Mapping[str, Any], cost_cents: Decimal
    ) -> None:
        if await self._unwanted(self._job):
            await super().finished(submission, result=result, cost_cents=cost_cents)
            return
        entry = {"id": submission, "intended_at": self.times[submission], "state": "finished"}
        told = clean({**entry, "result": result, "cost_cents": cost_cents})
        try:
            late = await upkeep.deliver_late(self._store, self._job, told)
            if late.delivered:
                log.info("late.success")
            if late.recorded:
                self._spent(submission, cost_cents)
        except (Refused, Unavailable) as error:
            if isinstance(error, Unavailable) and error.sqlstate != NO_FUNCTION:
                raise
            # The row can't take it, or its table was detached; what it cost is known all the same.
            log.exception("late.refused")
            await super().finished(submission, result=result, cost_cents=cost_cents)


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
        accounts: Sequence[tuple[str, str]],
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
        self._accounts = accounts
        self._lease = lease
        scheduled = Scheduled(store, platforms)
        self._chores = [
            Chore("limits", 2.0, self.limits),
            Chore("breakers", 2.0, breaker.refresh),
            Chore("timeline", 2.0, store.mark_timeline),
            Chore("rates", 2.0, rates.refresh),
            Chore("rescue", lease / 4, self.rescue),
            Chore("sources", 5.0, reload),
            Chore("partitions", 3600.0, self.make_partitions),
            Chore("sweep", sweep_seconds, self.sweep),
            Chore("allowances", 5.0, self.allowances),
            Chore("triggers", 30.0, self.triggers),
            Chore("orphans", max(2.0, lease / 2), self.orphans),
            Chore("statistics", 20.0, self.statistics),
            Chore("refreshes", 30.0, scheduled.refreshes),
            Chore("retention", 30.0, scheduled.retention),
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
            try:
                await limits.apply(self._store, platform)
            except (StoreError, MapError) as error:  # what one says must not stop another's
                name = platform.map.platform
                log.warning("chore.failed", chore="limits", platform=name, error=str(error))

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

    async def allowances(self) -> None:
        for platform in self._platforms():
            for source in platform.map.sources:
                if platform.rule(source.name, "reserve") is not None:
                    while await self._store.reclaim(source.name):
                        pass

    async def triggers(self) -> None:
        for missing in await upkeep.missing_triggers(self._store):
            log.error("triggers.missing", table=missing, fix="rowmill attach PLATFORM")

    async def orphans(self) -> None:
        """One look at each; what isn't over yet is looked at again next time."""
        for row in await upkeep.orphans(self._store, self._accounts, self._lease):
            fields = job_fields(row["source"], row["row_key"], run=row["run"])
            with structlog.contextvars.bound_contextvars(**fields):
                try:
                    await self._finish(row)
                except LockTimeout:
                    pass  # someone has its row
                except Exception:  # one provider's trouble must not stop the other chores
                    log.exception("orphan.failed", submission=row["id"], provider=row["provider"])

    async def _finish(self, row: Mapping[str, Any]) -> None:
        journal = LateJournal(self._ledger, self._store, row, self._worker(), self._unwanted)
        submission = submission_of(row, fresh=False)
        if await self._unwanted(Found(row["source"], row["row_key"])):
            await self._runner.abandon(journal, submission)
        else:
            await self._runner.settle_orphan(journal, submission)

    async def _unwanted(self, job: Found) -> bool:
        """Cancelled or deleted: the provider need not go on. A failed row's task may succeed."""
        for platform in self._platforms():
            for source in platform.map.sources:
                if source.name == job.source:
                    return await upkeep.unwanted(self._store, source, job.key)
        return False

    async def statistics(self) -> None:
        await upkeep.condense(self._store)
        await upkeep.sum_up(self._store)

    async def clean_up(self) -> None:
        await upkeep.clean_up(self._store)
