"""How fast providers are asked: limits per lane that the whole fleet keeps, and `slow_until`.

    enter ── closed for now? ── the windows of every limit ── counted ── the POST may be intended
               │                    └ full: a short wait is waited for, in place
               └ a longer one: the lane is closed for the fleet (`rowmill.slow`), the job goes
                 back as it was; what isn't claimed costs nothing

Windows are moving ones, by `limits`: within one no more is let through than its limit. Redis keeps
them for the fleet. Without it each process keeps its own, of its share: the limit divided by the
live workers of the lane. Only what may be paid is counted (see jobs/providers/door.py).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

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
from worker.store.operators import EVERY, Gate

log = structlog.get_logger()

IN_PLACE = 2.0
"""Seconds a job waits in its slot; for more it goes back."""
EARLY = 1.0
"""Its lane is opened that much before the window has room, so that who is claimed then is there."""
WORTH_TELLING = 1.0
"""A shorter wait is over before the fleet would have looked."""
LONGEST = 600.0
"""Seconds a provider's word closes a lane for; then one more answer tells."""
NO_REDIS = 5.0
"""How long a Redis that gave no answer isn't asked again."""
MINUTE = 60
WINDOWS = (10, 12, 15, 20, 30, MINUTE)
"""Seconds: the shortest that divides a limit evenly, so that no minute's worth is sent at once."""
FINE = 600
"""A limit from here on is rounded down until the shortest window divides it."""
UNITS = 6000
"""Tokens are counted in parts of a limit, at most so many: a window keeps a line for each."""


@dataclass(frozen=True, slots=True)
class Limit:
    gate: Gate
    requests: int | None
    """A minute, as are these."""
    tokens: int | None

    def permits(self, tokens: int, among: int) -> Iterator[Permit]:
        if self.requests is not None:
            whole, share = window_of(self.requests), window_of(self.requests, among)
            yield Permit(self.gate, "requests", whole, share, 1)
        if self.tokens is not None and tokens:
            unit = -(-self.tokens // UNITS)
            whole = RateLimitItemPerSecond(self.tokens // unit, MINUTE)
            share = RateLimitItemPerSecond(max(1, whole.amount // among), MINUTE)
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
    wait: float
    at_once: int | None = None
    """How many such calls a window lets through."""


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
        wait = min(max(renewed - time.time(), 0.05), item.get_expiry())
        return Refusal(permit.gate, wait, max(1, item.amount // permit.cost))


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
        self._closed: dict[Gate, float] = {}
        """Until when, by the monotonic clock, as far as we know."""
        self._telling: dict[Gate, Telling] = {}
        self._turn = asyncio.Lock()
        self._shared = Windows(shared) if shared is not None else None
        self._own = Windows(MemoryStorage())
        self._outage = Outage("rates")
        self._away_until = self._careful_until = 0.0

    async def refresh(self) -> None:
        """What operators, platforms and other workers say."""
        found, self._workers = await self._store.rates(), await self._store.alive_by_lane()
        now = time.monotonic()
        short = {g: until for g, until in self._closed.items() if until - now < WORTH_TELLING}
        self._closed = short | {Gate(r.lane, r.source): now + r.slow for r in found if r.slow}
        self._limits = self._configured + [
            Limit(Gate(r.lane, r.source), r.requests, r.tokens)
            for r in found
            if r.requests or r.tokens
        ]

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
        self._close(gate, seconds)
        if seconds >= WORTH_TELLING:
            log.info("rate.told", lane=provider, seconds=round(seconds, 1))
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
            self._close(refusal.gate, refusal.wait)
        return refusal

    async def _take(self, permits: list[Permit]) -> Refusal | None:
        now = time.monotonic()
        if self._shared is None or now < self._away_until:
            return await self._own.take(permits, _share)
        if now < self._careful_until:  # it may have forgotten, and never heard of some
            for permit in permits:
                if refusal := await self._own.full(permit, permit.share):
                    return refusal
        try:
            refusal = await self._shared.take(permits, _whole)
        except StorageError as error:
            self._outage.began(error)
            self._away_until = now + NO_REDIS
            self._careful_until = self._away_until + MINUTE
            return await self._own.take(permits, _share)
        self._outage.ended()
        if refusal is None:
            await self._own.note(permits)  # should Redis go away, this much was ours
        return refusal

    def _among(self, gate: Gate, provider: str) -> int:
        """How many live workers share a limit."""
        lane = provider if gate.lane == EVERY else gate.lane
        return max(1, self._workers.get(lane) or max(self._workers.values(), default=1))

    # ------------------------------------------------------------------ closing

    def _closed_for(self, provider: str, job: Job) -> Refusal | None:
        now = time.monotonic()
        waits = [
            Refusal(gate, until - now)
            for gate, until in self._closed.items()
            if until > now and _holds(gate, provider, job)
        ]
        return max(waits, key=lambda refusal: refusal.wait, default=None)

    def _close(self, gate: Gate, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._closed[gate] = max(until, self._closed.get(gate, 0.0))

    async def _go_back(self, refusal: Refusal, job: Job) -> None:
        """Raises `NotNow`. The lane is closed before the job is back in it, or it would spin."""
        seconds = max(WORTH_TELLING, refusal.wait - EARLY)
        at_once = refusal.at_once
        if at_once is not None:
            at_once = -(-at_once // self._among(refusal.gate, job.lane))
        told = [self._tell(gate, seconds, at_once) for gate in _claimed_through(refusal.gate, job)]
        reason = f"{refusal.gate.subject} has used up its rate"
        keeps_place = all(await asyncio.gather(*(asyncio.shield(task) for task in told)))
        raise NotNow(reason, refusal.wait, keeps_place=keeps_place)

    def _tell(self, gate: Gate, seconds: float, at_once: int | None) -> asyncio.Task[bool]:
        """Jobs that are refused together tell it together."""
        until = time.monotonic() + seconds
        if gate in self._telling and self._telling[gate].until > until - WORTH_TELLING / 2:
            return self._telling[gate].task
        task = asyncio.ensure_future(self._slow(gate, seconds, at_once))
        self._telling[gate] = mine = Telling(until, task)

        def told(_: asyncio.Task[bool]) -> None:
            if self._telling.get(gate) is mine:
                del self._telling[gate]

        task.add_done_callback(told)
        return task

    async def _slow(self, gate: Gate, seconds: float, at_once: int | None) -> bool:
        try:
            await self._store.slow(gate.lane, gate.source, seconds, at_once)
        except StoreError as error:
            log.warning("rate.not_told", gate=gate.subject, error=str(error))
            return False
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
