"""When a lane's provider is left alone: the breaker of each lane, shared by the fleet.

    works ── failures in a row ──> left alone ── its time is up ──> one job at a time
      ^                                ^                              │       │
      │                                └────────── it fails ──────────┘       │
      └───────────────────────────────────────────── it succeeds ─────────────┘

The state is in `rowmill.lanes`, where claims look anyway; this only counts, and tells. What fails
because of it costs no try, and what isn't claimed costs nothing at all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping
from contextvars import Context
from typing import Any

import structlog

from jobs.contract import Failure, FailureKind
from worker.store import Store, StoreError

log = structlog.get_logger()

# How many failures in a row, and for how many seconds at first. Of a key that is refused, or money
# that is used up, a second look tells nothing new.
PATIENCE: Mapping[FailureKind, tuple[int, float]] = {
    FailureKind.TRANSIENT: (10, 5.0),
    FailureKind.QUOTA: (2, 60.0),
    FailureKind.AUTH: (2, 60.0),
}
UNSETTLED = "unsettled"
"""Of an earlier call: says nothing about the provider now."""


class Breaker:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._failures: Counter[tuple[str, FailureKind]] = Counter()
        self._broken: set[str] = set()
        """Lanes that may have to be healed, as last heard."""
        self._telling: set[asyncio.Task[None]] = set()

    def failed(self, lane: str, failure: Failure) -> None:
        patience = PATIENCE.get(failure.kind)
        if patience is None or failure.code == UNSETTLED:
            return
        self._failures[lane, failure.kind] += 1
        most, seconds = patience
        if self._failures[lane, failure.kind] >= most or lane in self._broken:
            self._forget(lane)
            self._broken.add(lane)
            # With its kind, by which `status` knows what no waiting will mend.
            self._tell(self._trip(lane, f"{failure.kind}: {failure.message}", seconds))

    def succeeded(self, lane: str) -> None:
        self._forget(lane)
        if lane in self._broken:
            self._broken.discard(lane)
            self._tell(self._heal(lane))

    async def refresh(self) -> None:
        """Other workers trip breakers too; whoever sees a success heals them."""
        self._broken = await self._store.broken_lanes()

    def _forget(self, lane: str) -> None:
        for kind in PATIENCE:
            self._failures.pop((lane, kind), None)

    def _tell(self, work: Coroutine[Any, Any, None]) -> None:
        # About the lane, whichever job it was that told.
        task = asyncio.create_task(work, context=Context())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _trip(self, lane: str, why: str, seconds: float) -> None:
        try:
            until = await self._store.trip(lane, why, seconds)
        except StoreError as error:  # the next failure tells again
            log.warning("breaker.not_told", lane=lane, error=str(error))
            return
        if until is not None:
            log.warning("breaker.open", lane=lane, until=until.isoformat(), why=why)

    async def _heal(self, lane: str) -> None:
        try:
            await self._store.heal(lane)
        except StoreError as error:
            self._broken.add(lane)
            log.warning("breaker.not_told", lane=lane, error=str(error))
            return
        log.info("breaker.closed", lane=lane)
