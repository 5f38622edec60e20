"""How fast providers are asked: limits per lane that the whole fleet keeps, and `slow_until`.

    enter ── closed for now? ── the windows of every limit ── counted ── the POST may be intended
               │                    │
               └────────────────────┴─ a short wait is waited for, in place; for a longer one the
                                       lane is closed, and the job goes back as it was

Windows are moving ones, by `limits`: within one no more is let through than its limit. Redis keeps
them for the fleet, and a full one closes its lane for the fleet (`rowmill.slow`): what isn't
claimed costs nothing. Without Redis each process keeps windows of its own, for its share: the limit
divided by the live workers of the lane. A full one closes the lane for this process, which claims
nothing from it meanwhile. Only what may be paid is counted (see jobs/providers/door.py).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context
from dataclasses import dataclass, replace

import structlog
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

from jobs.contract import Job
from jobs.providers.journal import NotNow
from jobs.providers.registry import Provider
from jobs.providers.wire import Sleep
from worker.coordination import Outage
from worker.store import Store, StoreError
from worker.store.gates import EVERY, Gate

log = structlog.get_logger()

IN_PLACE = 2.0
"""Seconds a job waits in its slot; for more it goes back."""
SHORTEST = 0.05
WORTH_TELLING = 1.0
"""A shorter wait is over before the fleet would have looked."""
LONGEST = 600.0
"""Seconds a provider's word closes a lane for; then one more answer tells."""
MINUTE = 60
WINDOWS = (10, 12, 15, 20, 30, MINUTE)
"""Seconds: the shortest that divides a limit evenly, so that no minute's worth is sent at once."""
FINE = 600
"""A limit from here on is rounded down until the shortest window divides it."""
UNITS = 6000
"""Tokens are counted in parts of a limit, at most so many: a window keeps a line for each."""
NOBODYS = RateLimitItemPerSecond(1)


@dataclass(frozen=True, slots=True)
class Limit:
    gate: Gate
    requests: int | None
    """A minute, as are these."""
    tokens: int | None

    def permits(self, tokens: int, among: int) -> Iterator[Permit]:
        if self.requests is not None:
            whole = window_of(self.requests)
            share = whole if among == 1 else window_of(self.requests, among)
            yield Permit(self.gate, "requests", whole, share, 1)
        if self.tokens is not None and tokens:
            unit = -(-self.tokens // UNITS)
            whole = RateLimitItemPerSecond(self.tokens // unit, MINUTE)
            shared = RateLimitItemPerSecond(max(1, whole.amount // among), MINUTE)
            share = whole if among == 1 else shared
            yield Permit(self.gate, "tokens", whole, share, -(-tokens // unit))


@dataclass(frozen=True, slots=True)
class Permit:
    """What one call takes of one window."""

    gate: Gate
    what: str
    whole: RateLimitItem
    share: RateLimitItem
    cost: int

    @property
    def name(self) -> tuple[str, str, str]:
        return self.gate.lane, self.gate.source, self.what

    def paid(self, window: RateLimitItem) -> int:
        """A call that is larger than its window takes all of it, or it would never be made."""
        return min(self.cost, window.amount)


@dataclass(frozen=True, slots=True)
class Refusal:
    gate: Gate
    until: float
    """By the monotonic clock."""
    at_once: int | None = None
    """How many such calls a window lets through."""
    own: bool = False
    """It is our share that is used up: others may have theirs."""
    known: float = math.inf
    """Since when the database has it, by the same clock."""

    @property
    def wait(self) -> float:
        return max(0.0, self.until - time.monotonic())


def window_of(a_minute: int, among: int = 1) -> RateLimitItem:
    """The window in which a share of so many a minute is counted."""
    share = a_minute // among
    if not share:
        return RateLimitItemPerSecond(1, math.ceil(MINUTE * among / a_minute))
    if share >= FINE:
        share -= share % (MINUTE // WINDOWS[0])
    seconds = next(s for s in WINDOWS if share * s % MINUTE == 0)
    return RateLimitItemPerSecond(share * seconds // MINUTE, seconds)


class Windows:
    """Moving windows in one storage."""

    def __init__(self, storage: MemoryStorage | RedisStorage) -> None:
        self._limiter = MovingWindowRateLimiter(storage)

    async def look(self) -> None:
        """Raises `StorageError` where they can't be kept: also by one that runs no scripts."""
        await self._limiter.get_window_stats(NOBODYS)

    async def take(
        self, permits: Iterable[Permit], window: Callable[[Permit], RateLimitItem]
    ) -> Refusal | None:
        """All of them, or as good as none: what is refused is looked at before any is taken."""
        for permit in permits:
            if refusal := await self.full(permit, window(permit)):
                return refusal
        for permit in permits:
            item = window(permit)
            if not await self._limiter.hit(item, *permit.name, cost=permit.paid(item)):
                return await self._refusal(permit, item)  # another process was quicker
        return None

    async def full(self, permit: Permit, item: RateLimitItem) -> Refusal | None:
        if await self._limiter.test(item, *permit.name, cost=permit.paid(item)):
            return None
        return await self._refusal(permit, item)

    async def note(self, permits: Iterable[Permit]) -> None:
        """That our share of them was used, whether there was room or not."""
        for permit in permits:
            await self._limiter.hit(permit.share, *permit.name, cost=permit.paid(permit.share))

    async def _refusal(self, permit: Permit, item: RateLimitItem) -> Refusal:
        renewed = (await self._limiter.get_window_stats(item, *permit.name)).reset_time
        wait = min(max(renewed - time.time(), SHORTEST), item.get_expiry())
        at_once = max(1, item.amount // permit.cost)
        return Refusal(permit.gate, time.monotonic() + wait, at_once, own=item is not permit.whole)


class Rates:
    """The door of one worker; see jobs/providers/door.py."""

    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        shared: RedisStorage | None = None,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._sleep = sleep
        self._configured = [
            Limit(Gate(name), provider.requests_per_minute, provider.tokens_per_minute)
            for name, provider in providers.items()
            if provider.requests_per_minute or provider.tokens_per_minute
        ]
        self._limits = list(self._configured)
        self._workers: dict[str, int] = {}
        self._full: dict[Gate, Refusal] = {}
        """Windows that have no room for now."""
        self._told: dict[Gate, Refusal] = {}
        """What was closed by the word of a provider, or by another worker, as far as we know."""
        self._telling: dict[Gate, Telling] = {}
        self._turn = asyncio.Lock()
        self._shared = Windows(shared) if shared is not None else None
        self._own = Windows(MemoryStorage())
        self._outage = Outage("rates")
        self._away = False
        self._careful_until = 0.0

    async def refresh(self) -> None:
        """What operators, platforms and other workers say."""
        asked = time.monotonic()
        found, self._workers = await self._store.rates(), await self._store.alive_by_lane()
        now = time.monotonic()
        # What the database had and has no more was opened by an operator. What it didn't have when
        # it was asked is ours alone to keep: short ones, the latest, those it couldn't be told.
        self._told = {g: told for g, told in self._told.items() if told.wait and told.known > asked}
        for row in found:
            if row.slow:
                gate = Gate(row.lane, row.source)
                self._close(Refusal(gate, now + row.slow, known=asked))
        limits = self._configured + [
            Limit(Gate(row.lane, row.source), row.requests, row.tokens)
            for row in found
            if row.requests or row.tokens
        ]
        if limits != self._limits:
            self._limits, self._full = limits, {}
        await self._look_for_redis()

    def closed(self, lane: str) -> bool:
        """Whether nothing should be claimed from it now."""
        gates = (gate for gate in self._full if gate.source == EVERY and gate.lane in (EVERY, lane))
        return any(self._full[gate].wait for gate in gates)

    # ------------------------------------------------------------------ the door

    def guards(self, provider: str, job: Job) -> bool:
        return bool(self._closed_for(provider, job)) or any(
            _holds(limit.gate, provider, job) for limit in self._limits
        )

    async def enter(self, provider: str, job: Job, tokens: int) -> None:
        waited = 0.0
        while refusal := await self._ask(provider, job, tokens):
            if waited + refusal.wait > IN_PLACE:
                await self._go_back(refusal, job)
            await self._sleep(refusal.wait)
            waited += refusal.wait

    async def again(self, provider: str, job: Job, tokens: int) -> float:
        refusal = await self._ask(provider, job, tokens)
        return refusal.wait if refusal else 0.0

    def told(self, provider: str, seconds: float) -> None:
        gate, seconds = Gate(provider), min(seconds, LONGEST)
        self._close(Refusal(gate, time.monotonic() + seconds))
        if seconds >= WORTH_TELLING:
            log.info("rate.told", provider=provider, seconds=round(seconds, 1))
            self._tell(gate, seconds, None)

    # ------------------------------------------------------------------ asking

    async def _ask(self, provider: str, job: Job, tokens: int) -> Refusal | None:
        """None: counted, and may be sent."""
        if refusal := self._closed_for(provider, job):
            return refusal
        permits = [
            permit
            for limit in self._limits
            if _holds(limit.gate, provider, job)
            for permit in limit.permits(tokens, self._among(limit.gate, provider))
        ]
        if not permits:
            return None
        # One at a time: a Redis that hangs is waited for once, and not by every job.
        async with self._turn:
            if refusal := self._closed_for(provider, job):
                return refusal
            refusal = await self._take(permits)
        if refusal:
            # Also for calls that would still fit: a large one mustn't be overtaken for ever.
            self._full[refusal.gate] = refusal
        return refusal

    async def _take(self, permits: list[Permit]) -> Refusal | None:
        if self._shared is None or self._away:
            return await self._own.take(permits, _share)
        if time.monotonic() < self._careful_until:  # it may have forgotten, and never heard of some
            for permit in permits:
                if refusal := await self._own.full(permit, permit.share):
                    return refusal
        try:
            refusal = await self._shared.take(permits, _whole)
        except StorageError as error:
            self._went_away(error)
            return await self._own.take(permits, _share)
        if refusal is None:
            await self._own.note(permits)  # should Redis go away, this much was ours
        return refusal

    async def _look_for_redis(self) -> None:
        """Here, and not by a job: one that hangs would keep each of them for seconds."""
        if self._shared is None or not self._limits:
            return
        try:
            await self._shared.look()
        except StorageError as error:
            self._went_away(error)
            return
        if self._away:
            self._away = False
            self._careful_until = time.monotonic() + MINUTE
            self._outage.ended()

    def _went_away(self, error: StorageError) -> None:
        self._away = True
        self._outage.began(error)

    def _among(self, gate: Gate, provider: str) -> int:
        """How many live workers share a limit."""
        lane = provider if gate.lane == EVERY else gate.lane
        return max(1, self._workers.get(lane) or max(self._workers.values(), default=1))

    # ------------------------------------------------------------------ closing

    def _close(self, refusal: Refusal) -> None:
        """For as long as the longest says."""
        told = self._told.get(refusal.gate)
        if told is None or told.until < refusal.until:
            self._told[refusal.gate] = refusal

    def _closed_for(self, provider: str, job: Job) -> Refusal | None:
        refusals = [*self._full.values(), *self._told.values()]
        mine = [r for r in refusals if r.wait and _holds(r.gate, provider, job)]
        return max(mine, key=lambda refusal: refusal.until, default=None)

    async def _go_back(self, refusal: Refusal, job: Job) -> None:
        """Raises `NotNow`. The lane is closed before the job is back in it, or it would spin."""
        gates, at_once = _claimed_through(refusal.gate, job), refusal.at_once
        # We can leave a lane alone, but not one table in it.
        alone = refusal.own and refusal.gate.source == EVERY
        seconds = 0.0 if alone else max(WORTH_TELLING, refusal.wait)
        if alone:
            self._full |= dict.fromkeys(gates, refusal)
        elif at_once is not None:
            at_once = -(-at_once // self._among(refusal.gate, job.lane))
        told = await asyncio.gather(
            *(asyncio.shield(self._tell(gate, seconds, at_once)) for gate in gates)
        )
        reason = f"{refusal.gate.subject} has used up its rate"
        raise NotNow(reason, refusal.wait, keeps_place=all(told))

    def _tell(self, gate: Gate, seconds: float, at_once: int | None) -> asyncio.Task[bool]:
        """Jobs that are refused together tell it together."""
        until = time.monotonic() + seconds
        if gate in self._telling and self._telling[gate].until > until - WORTH_TELLING / 2:
            return self._telling[gate].task
        task = asyncio.create_task(self._slow(gate, seconds, at_once), context=Context())
        self._telling[gate] = mine = Telling(until, task)

        def told(_: asyncio.Task[bool]) -> None:
            if self._telling.get(gate) is mine:
                del self._telling[gate]

        task.add_done_callback(told)
        return task

    async def _slow(self, gate: Gate, seconds: float, at_once: int | None) -> bool:
        until = time.monotonic() + seconds
        try:
            await self._store.slow(gate.lane, gate.source, seconds, at_once)
        except StoreError as error:
            log.warning("rate.not_told", gate=gate.subject, error=str(error))
            return False
        told = self._told.get(gate)
        if told is not None and told.until < until + WORTH_TELLING:  # told together: about as long
            self._told[gate] = replace(told, known=time.monotonic())
        return True


@dataclass(frozen=True, slots=True)
class Telling:
    until: float
    task: asyncio.Task[bool]


def _whole(permit: Permit) -> RateLimitItem:
    return permit.whole


def _share(permit: Permit) -> RateLimitItem:
    return permit.share


def _holds(gate: Gate, provider: str, job: Job) -> bool:
    """A call may be made for a job of another lane: both lanes' limits hold for it."""
    return gate.lane in (EVERY, provider, job.lane) and gate.source in (EVERY, job.source)


def _claimed_through(gate: Gate, job: Job) -> list[Gate]:
    """What has to be closed, so that this job isn't claimed meanwhile."""
    return [gate] if gate.lane in (EVERY, job.lane) else [gate, Gate(job.lane, gate.source)]
