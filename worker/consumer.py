"""Takes work from the queue: claim, start, hand to the executor.

An idle worker waits for its doorbell, and looks by itself every poll interval. A busy one goes from
claim to claim, and remembers for up to a second where in each lane it is (`Heads`), so that a claim
doesn't walk again over entries that are already gone.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import structlog

from worker.logs import job_fields
from worker.store import (
    Claimed,
    Head,
    LockTimeout,
    Refused,
    Started,
    Store,
    StoreError,
    Unavailable,
)
from worker.vitals import Turns

log = structlog.get_logger()

Launch = Callable[[str, Claimed, Started], None]
"""Told the source's name: it may be detached by now, and nobody else knows it then."""
STOPPED = {"refuse", "cancel"}
FULL_SCAN_SECONDS = 1.0
OUTAGE_PAUSE = 0.5


class Heads:
    """Low-water marks per head, good for one second since the scan they come from."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, int, int], Head] = {}
        self._until = 0.0

    def learn(self, heads: Sequence[Head]) -> None:
        self._marks = {(h.lane, h.source, h.rank): h for h in heads}
        self._until = time.monotonic() + FULL_SCAN_SECONDS

    def forget(self) -> None:
        self._until = 0.0

    def current(self, lanes: Sequence[str]) -> list[Head] | None:
        if time.monotonic() >= self._until:
            return None
        return [head for head in self._marks.values() if head.lane in lanes]

    def advance(self, claims: Sequence[Claimed]) -> None:
        """Claims come in order, so everything a head had up to the last one is taken."""
        for claim in claims:
            key = (claim.lane, claim.source, claim.rank)
            if key in self._marks:
                self._marks[key] = replace(self._marks[key], ready_from=claim.ready_at)


class Consumer:
    def __init__(
        self,
        store: Store,
        *,
        worker: Callable[[], int],
        lanes: Callable[[], Sequence[str]],
        free_slots: Callable[[], int],
        source_name: Callable[[int], str | None],
        launch: Launch,
        stop: Launch,
        refuse: Callable[[str, Claimed, str], None],
        rested: Callable[[], None],
        batch: int,
        poll: float,
        turns: Turns | None = None,
        claiming: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._store = store
        self._worker = worker
        self._lanes = lanes
        self._free_slots = free_slots
        self._source_name = source_name
        self._launch = launch
        self._stop = stop
        self._refuse = refuse
        self._rested = rested
        self._batch = batch
        self._poll = poll
        self._turns = turns or Turns()
        self._claiming = claiming
        self._heads = Heads()
        self.starting: set[int] = set()
        """Queue ids between their claim and their launch."""
        self.busy = False
        """Whether a claim is under way: its jobs are nobody's yet."""
        self.bell = asyncio.Event()
        self.slot_freed = asyncio.Event()

    async def run(self) -> None:
        while True:
            if self._free_slots() <= 0:
                self.slot_freed.clear()
                if self._free_slots() <= 0:
                    await self.slot_freed.wait()
            self.bell.clear()
            self.busy = True
            try:
                with self._turns.turn("consumer"):
                    claimed = await self.run_once()
            except StoreError as error:
                # Also when we were given up for dead: the pulse notices, and registers anew.
                log.warning("claim.failed", error=str(error))
                await asyncio.sleep(OUTAGE_PAUSE)
                continue
            finally:
                self.busy = False
                self._rested()
            if claimed:
                await asyncio.sleep(0)  # let what was launched begin before the next claim
            else:
                await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._poll):
                await self.bell.wait()
        except TimeoutError:
            pass

    async def run_once(self) -> int:
        """Claim once and start what was claimed; returns how many rows the claim brought."""
        want = min(self._batch, self._free_slots())
        lanes = self._lanes()
        heads = self._heads.current(lanes)
        token = secrets.randbits(63)
        with self._claiming():
            claims = await self._store.claim(self._worker(), token, lanes, want, heads)
        if heads is None and len(claims) == want:
            self._heads.learn(await self._store.scan(lanes))
        elif len(claims) == want:
            self._heads.advance(claims)
        elif heads is not None:
            # Short on remembered heads proves nothing: look at the whole queue before resting.
            self._heads.forget()
            await self.start(claims)
            return max(1, len(claims))
        await self.start(claims)
        return len(claims)

    async def start(self, claims: Sequence[Claimed]) -> None:
        by_source: dict[int, list[Claimed]] = {}
        for claim in claims:
            by_source.setdefault(claim.source, []).append(claim)
        for source, batch in by_source.items():
            name = self._source_name(source)
            if name is None:
                continue  # attached since we looked: the pulse hands these back, and looks again
            self.starting.update(claim.queue_id for claim in batch)
            try:
                await self._start(name, batch)
            finally:
                self.starting.difference_update(claim.queue_id for claim in batch)

    async def _start(self, source: str, batch: list[Claimed]) -> None:
        ids = [claim.queue_id for claim in batch]
        try:
            started = await self._read(source, batch[0], ids)
        except Refused as error:
            if len(batch) == 1:
                bad = batch[0]
                fields = job_fields(
                    source,
                    bad.key,
                    lane=bad.lane,
                    run=bad.run,
                    queue_id=bad.queue_id,
                    token=bad.token,
                )
                log.warning("start.refused", **fields, error=str(error))
                self._refuse(source, bad, str(error))
                return
            middle = len(batch) // 2
            await self._start(source, batch[:middle])
            await self._start(source, batch[middle:])
            return
        rows = {row.queue_id: row for row in started}
        for claim in batch:  # in the order they were claimed
            row = rows.get(claim.queue_id)
            if row is not None and row.verdict == "run":
                self._launch(source, claim, row)
            elif row is not None and row.verdict in STOPPED:
                self._stop(source, claim, row)

    async def _read(self, source: str, claim: Claimed, ids: list[int]) -> list[Started]:
        """Starting twice is harmless, so an outage is waited out: these claims are ours.

        Unless their table was detached: then they are gone with it.
        """
        wait = True
        while True:
            try:
                return await self._store.start(source, claim.token, ids, wait=wait)
            except LockTimeout:
                wait = False
            except Unavailable as error:
                log.warning("start.unavailable", error=str(error))
                if self._source_name(claim.source) is None:
                    return []
                await asyncio.sleep(OUTAGE_PAUSE)
