"""Runs one job: claim → handler → outcome → settlement. Knows no SQL.

A job ends early for four reasons, and each means something else:

    its claim is lost   someone cancelled, reset or deleted the row, or this worker was given up:
                        nothing is written; a provider's task of a cancelled row is cancelled too
    the worker drains   the job is handed back; what a provider accepted is resumed by whoever
                        takes it next
    it is stopped       the platform's stop rule says so: it is settled as cancelled, and once that
                        is written a provider's task is cancelled too
    its time is up      the job's own failure: costs a try

Whatever comes together, the job's task hands in one settlement or none: a result that is there
before the stop is heard is written, what comes later finds the claim gone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
import structlog

from jobs import failpoints, pages
from jobs.compute import Compute, ComputeFailed, ComputeInterrupted
from jobs.contract import (
    MAX_PAGE,
    CallResult,
    Cancelled,
    Failed,
    Failure,
    FailureKind,
    Fetched,
    Held,
    Job,
    JobEnds,
    Outcome,
    Output,
    RetryLater,
    Task,
    Yield,
)
from jobs.mail import Mailer
from jobs.network import HostPolicy, post
from jobs.outputs import STORAGE, OutputError, OutputStore, key_for
from jobs.providers.errors import HeldForPerson, ProviderError
from jobs.providers.journal import Journal, LostClaim, NotAllowed, NotNow, Submission
from jobs.registry import Kind, Registry, RetryPolicy
from worker import transitions
from worker.ledger import ClaimJournal
from worker.logs import bind_job
from worker.store import Unavailable
from worker.transitions import Settlement, Try
from worker.turns import Turns

log = structlog.get_logger()
T = TypeVar("T")
NO_POLICY = RetryPolicy()


@dataclass(slots=True, eq=False)
class Running:
    """A job in this worker's hands."""

    attempt: Try
    job: Job
    journal: ClaimJournal
    claimed_at: float
    """Monotonic time of its claim, to tell it from claims a heartbeat can't know yet."""
    waited_ms: int
    age_ms: int = 0
    """How old its row in the queue was then."""
    percent: float = 0.0
    lost: bool = False
    draining: bool = False
    stopped: str | None = None
    """Why the platform's rules end it."""
    leaving: bool = False
    """Its tasks are being ended at the provider, which no second word may interrupt."""
    settlement: Settlement | None = None
    """What was handed in for it; none where its claim was lost."""
    task: asyncio.Task[None] | None = None
    began: float = field(default_factory=time.monotonic)

    def stop(self, *, lost: bool = False, draining: bool = False, why: str | None = None) -> None:
        self.lost = self.lost or lost
        self.draining = self.draining or draining
        self.stopped = self.stopped or why
        if self.task is not None and not self.leaving:
            self.task.cancel()

    @property
    def duration_ms(self) -> int:
        return int((time.monotonic() - self.began) * 1000)

    @property
    def age(self) -> float:
        """Seconds since its row was enqueued."""
        return self.age_ms / 1000 + time.monotonic() - self.claimed_at


class JobContext:
    """What a handler may ask of us; see `jobs.contract.Context`."""

    def __init__(self, running: Running, services: Services, deadline: asyncio.Timeout) -> None:
        self._running = running
        self._services = services
        self._deadline = deadline
        self._entering = asyncio.Lock()
        self._has_room = False

    def close(self) -> None:
        if self._has_room:
            self._services.room.release()
            self._has_room = False

    async def call(self, step: str, provider: str, task: Task) -> CallResult:
        running, health = self._running, self._services.health
        try:
            with self._services.calling(provider):
                result = await self._services.runner.call(
                    running.journal, running.job, step, provider, task, progress=self.progress
                )
        except ProviderError as error:
            health.failed(provider, error.failure)
            raise
        health.succeeded(provider)
        return result

    def check(self, provider: str, task: Task) -> None:
        self._services.runner.check(provider, task)

    def progress(self, percent: float) -> None:
        self._running.percent = max(self._running.percent, min(100.0, percent))

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        return await post(self._services.client, self._services.policy, url, body, headers)

    async def fetch(
        self, url: str, headers: Mapping[str, str] | None = None, *, max_bytes: int = MAX_PAGE
    ) -> Fetched:
        services = self._services
        return await pages.get(services.client, services.policy, url, headers or {}, max_bytes)

    async def turn(self, name: str, gap_seconds: float) -> None:
        await self._services.turns.take(name, gap_seconds)

    async def mail(self, message: EmailMessage) -> None:
        job = self._running.job
        await self._services.mailer.send(message, (job.source, job.key, str(job.run)))

    async def offload(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(work, *args)

    async def compute(
        self,
        work: Callable[..., T],
        *args: Any,
        timeout: float = 600,  # noqa: ASYNC109 - kept by the pool, from the work's start
    ) -> T:
        # Waiting for a processor takes nothing from the job's time: else many films at once would
        # all run out of it, and begin anew, and again.
        waiting = partial(suspended, self._deadline)
        return await self._services.compute.run(work, *args, seconds=timeout, waiting=waiting)

    @asynccontextmanager
    async def file(self, reference: str) -> AsyncIterator[Path]:
        """Not all of a worker's jobs hold their files at once: a disk has an end."""
        async with self._entering:
            if not self._has_room:
                with suspended(self._deadline):
                    await self._services.room.acquire()
                self._has_room = True
        async with self._services.outputs.borrow(reference) as path:
            yield path

    def link(self, reference: str) -> str | None:
        return self._services.outputs.link(reference)

    async def keep(self, path: Path, name: str) -> Output:
        job = self._running.job
        return await self._services.outputs.keep_file(path, key_for(job.source, job.key, name))


@contextmanager
def suspended(deadline: asyncio.Timeout) -> Iterator[None]:
    """It doesn't come nearer in this block."""
    loop, due = asyncio.get_running_loop(), deadline.when()
    if due is None or deadline.expired():  # suspended already, or over
        yield
        return
    began = loop.time()
    deadline.reschedule(None)
    try:
        yield
    finally:
        deadline.reschedule(due + loop.time() - began)


class PaidCalls(Protocol):
    """The runner, as the worker sees it."""

    async def call(
        self,
        journal: Journal,
        job: Job,
        step: str,
        provider: str,
        task: Task,
        *,
        progress: Callable[[float], None],
    ) -> CallResult: ...

    def check(self, provider: str, task: Task) -> None: ...

    async def abandon(self, journal: Journal, submission: Submission) -> bool: ...

    async def settle_orphan(self, journal: Journal, submission: Submission) -> bool: ...


class Health(Protocol):
    """Hears how each paid call went; see worker/breaker.py."""

    def failed(self, lane: str, failure: Failure) -> None: ...

    def succeeded(self, lane: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What handlers reach through their context, shared by all jobs of a worker."""

    runner: PaidCalls
    client: httpx.AsyncClient
    policy: HostPolicy
    health: Health
    turns: Turns
    mailer: Mailer
    outputs: OutputStore
    compute: Compute
    room: asyncio.Semaphore
    """How many jobs may have copies of files at the same time."""
    calling: Callable[[str], AbstractContextManager[None]] = lambda _provider: nullcontext()
    """Around each paid call, with its provider, for those who count them."""


class Executor:
    def __init__(
        self,
        registry: Registry,
        services: Services,
        *,
        max_yields: int,
        put: Callable[[Settlement], None],
        dropped: Callable[[Running], None],
    ) -> None:
        self._registry = registry
        self._services = services
        self._max_yields = max_yields
        self._put = put
        self._dropped = dropped

    def launch(self, running: Running) -> None:
        running.task = asyncio.create_task(self.run(running))

    async def run(self, running: Running) -> None:
        bind_job(running.attempt)
        try:
            settlement = await self._settlement(running)
        except LostClaim:
            settlement = None
        except asyncio.CancelledError:
            settlement = None if running.lost else self._stopped(running)
        if settlement is None:
            log.info("job.lost")
            await self._drop(running)
        else:
            failpoints.reached("outcome.known")
            running.settlement = settlement
            self._put(settlement)

    def leave(self, running: Running) -> None:
        """It was settled as cancelled: what goes on for nobody is ended, then its slot is free."""
        running.leaving = True  # from now on: a task cancelled before it begins frees no slot
        running.task = asyncio.create_task(self._end(running))

    async def _end(self, running: Running) -> None:
        bind_job(running.attempt)  # nothing was bound where it was left from
        await self._drop(running)

    def _stopped(self, running: Running) -> Settlement:
        if running.stopped is not None:
            log.info("job.stopped", why=running.stopped)
            return self._settle(running, Cancelled(running.stopped), None)
        if running.draining:
            return transitions.release(running.attempt)
        failure = Failure(FailureKind.UNKNOWN, "the handler cancelled itself", code="exception")
        return self._settle(running, RetryLater(failure), None)

    async def _settlement(self, running: Running) -> Settlement:
        kind = self._registry.get(running.attempt.kind)
        outcome = await self._outcome(running, kind) if kind else self._no_handler(running)
        return self._settle(running, outcome, kind)

    def _no_handler(self, running: Running) -> Outcome:
        known = ", ".join(self._registry.names())
        message = f"no handler for kind {running.attempt.kind!r}; there are {known}"
        return Failed(Failure(FailureKind.INVALID, message, code="kind"))

    def _settle(self, running: Running, outcome: Outcome, kind: Kind | None) -> Settlement:
        return transitions.settle(
            outcome,
            running.attempt,
            policy=kind.retry if kind else NO_POLICY,
            max_yields=self._max_yields,
            chance=random.random(),
            duration_ms=running.duration_ms,
            spent=running.journal.spent,
        )

    async def _outcome(self, running: Running, kind: Kind) -> Outcome:
        try:
            async with asyncio.timeout(kind.timeout) as deadline:
                context = JobContext(running, self._services, deadline)
                try:
                    return await kind.handler(running.job, context)
                finally:
                    context.close()
        except JobEnds as ending:
            return ending.outcome
        except ProviderError as error:
            return transitions.outcome_of(error.failure, billed=running.journal.wasted > 0)
        except HeldForPerson as error:
            return Held(str(error))
        except NotNow as error:
            return Yield(error.reason, error.after, counts=False, keeps_place=error.keeps_place)
        except NotAllowed as error:
            return Failed(Failure(FailureKind.ALLOWANCE, str(error), code="used_up"))
        except Unavailable as error:  # our own trouble: the job has no part in it
            return Yield(f"the database was away: {error}")
        except TimeoutError as error:
            message = str(error) or f"not done within {kind.timeout:g} s"
            return RetryLater(Failure(FailureKind.TRANSIENT, message, code="deadline"))
        except (LostClaim, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - a handler may raise anything; the job answers
            return _raised(error)

    async def _drop(self, running: Running) -> None:
        """Nothing may be written for this row any more; what goes on for nobody is ended."""
        running.leaving = True
        try:
            for submission in await running.journal.abandoned():
                await self._services.runner.abandon(running.journal, submission)
        except Exception:  # maintenance settles what is left open
            log.exception("job.abandon_failed")
        finally:
            self._dropped(running)


def _raised(error: Exception) -> Outcome:
    """Files that can't be had, computations that end; else a crash of the handler's own."""
    match error:
        case OutputError(failure=failure) if failure.code == STORAGE:  # our own trouble
            return Yield(failure.message, failure=failure)
        case OutputError(failure=failure) if failure.kind in transitions.HOPELESS:
            return Failed(failure)
        case OutputError(failure=failure) | ComputeFailed(failure=failure):
            return RetryLater(failure)
        case ComputeInterrupted():
            return Yield(str(error))
    log.error("job.crashed", exc_info=error)
    message = f"{type(error).__name__}: {error}"
    return RetryLater(Failure(FailureKind.UNKNOWN, message, code="exception"))
