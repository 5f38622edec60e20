"""Work for the processor, in processes of its own: the loop goes on, and what must stop is killed.

    Compute.run(work, *args) ──> its turn ──> a child process ──> result, or what went wrong

One process more than asked for is kept for what takes a minute at most: a page to be read never
stands behind hours of film.

A child is a fresh process (no threads, sockets or connections of ours), nicer than the worker, with
a bound on its memory. It dies with its task when that takes too long or its job is cancelled, and
with the worker, however that ended.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from jobs.contract import Failure, FailureKind

T = TypeVar("T")

PRELOADED = ("jobs.renditions",)
"""Imported once, and shared by all children."""
TASKS_OF_A_CHILD = 100
"""Decoders leak; a child is replaced now and then."""
NICENESS = 10
LOOK_SECONDS = 1.0
QUICK_SECONDS = 60.0
START_SECONDS = 30.0
"""A task whose turn it is begins within this, or something is wrong with the pool."""
POOLS = 3
"""How many pools may break under one task."""
NOBODY_SAW = 255
"""How multiprocessing says that the fork server ended, too: nobody knows how the child did."""
OOM_SCORE = 500
"""Where the machine runs out of memory, a child goes before the worker does."""


class ComputeFailed(Exception):
    """The work ended its process, or took too long or too much memory: the job's own failure."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.failure = Failure(FailureKind.TRANSIENT, message, code)


class ComputeInterrupted(Exception):
    """Someone ended the process from outside: the job has no part in it."""


class Compute:
    def __init__(self, processes: int, memory_mb: int) -> None:
        self._processes = processes + 1
        self._memory_mb = memory_mb
        self._turns = asyncio.Semaphore(processes)
        self._quick_turns = asyncio.Semaphore(1)
        self._changing = threading.Lock()
        """Held in threads alone: a job that is cancelled meanwhile leaves no pool half made."""
        self._pool: ProcessPool | None = None

    async def run(
        self,
        work: Callable[..., T],
        *args: Any,
        seconds: float,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> T:
        """`work(*args)` in a child. What it raises passes, if it can be pickled.

        `waiting` is entered until it is this work's turn.
        """
        turns = self._quick_turns if seconds <= QUICK_SECONDS else self._turns
        with waiting():  # here, not in the pool, where it can be cancelled at no cost
            await turns.acquire()
        try:
            return await self._run(work, args, seconds)
        finally:
            turns.release()

    async def close(self) -> None:
        await asyncio.to_thread(self._close, None)

    async def _run(self, work: Callable[..., T], args: tuple[Any, ...], seconds: float) -> T:
        for _ in range(POOLS):
            pool = await asyncio.to_thread(self._open)
            try:
                future = _scheduled(pool, work, args, seconds)
                return await self._result(pool, future, seconds)
            except (BrokenExecutor, _Stuck):
                await asyncio.to_thread(self._close, pool)
        raise ComputeInterrupted("the process pool broke again and again; see the worker's log")

    async def _result(self, pool: ProcessPool, future: ProcessFuture[T], seconds: float) -> T:
        result = asyncio.wrap_future(future)
        asked = time.monotonic()
        try:
            while not result.done():
                await asyncio.wait([result], timeout=LOOK_SECONDS)
                begun = future.running() or future.done()
                late = not begun and time.monotonic() - asked > START_SECONDS
                if not result.done() and (late or not pool.active):
                    raise _Stuck
            return await result
        except ProcessExpired as error:
            raise _expired(error) from error
        except TimeoutError as error:
            raise ComputeFailed(f"computing took longer than {seconds:g} s", "deadline") from error
        except MemoryError as error:
            raise ComputeFailed(
                f"computing needs more than {self._memory_mb} MB; "
                "ROWMILL_COMPUTE_MEMORY_MB allows more",
                "memory",
            ) from error
        finally:
            future.cancel()  # type: ignore[no-untyped-call]  # kills its child, if it is still there

    def _open(self) -> ProcessPool:
        with self._changing:
            if self._pool is not None and not self._pool.active:
                self._stop()
            if self._pool is None:
                self._pool = _started(self._processes, self._memory_mb)
            return self._pool

    def _close(self, pool: ProcessPool | None) -> None:
        """That pool, if it is still the one in use; None: any."""
        with self._changing:
            if self._pool is not None and pool in (None, self._pool):
                self._stop()

    def _stop(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            _stopped(pool)


class _Stuck(Exception):
    """The pool no longer does what it should."""


def _expired(error: ProcessExpired) -> Exception:
    code = error.exitcode
    if code in (-signal.SIGTERM, NOBODY_SAW):  # a service manager ends a whole group at once
        return ComputeInterrupted("its process was terminated")
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    return ComputeFailed(f"the process that computed it ended {how}", "crashed")


def _started(processes: int, memory_mb: int) -> ProcessPool:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    pool = ProcessPool(
        max_workers=processes,
        max_tasks=TASKS_OF_A_CHILD,
        initializer=begin,
        initargs=(memory_mb,),
        context=context,
    )
    try:
        pool.active  # noqa: B018 - starts it
    except (OSError, EOFError, RuntimeError) as error:
        _stopped(pool)  # some may have begun
        reason = error.__cause__ or error
        raise ComputeInterrupted(f"no process could be started: {reason!r}") from error
    return pool


def _scheduled(
    pool: ProcessPool, work: Callable[..., T], args: tuple[Any, ...], seconds: float
) -> ProcessFuture[T]:
    try:
        return pool.schedule(perform, args=(work, *args), timeout=seconds)
    except RuntimeError as error:  # it broke, or was stopped, since it was looked at
        raise _Stuck from error


def _stopped(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


# --------------------------------------------------------------------------- in the child


def begin(memory_mb: int) -> None:
    """Before its first task."""
    # The default action: also a decoder deep in C ends at once. (Pebble's handler is Python.)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_the_worker, daemon=True).start()
    os.nice(NICENESS)
    with suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
    if memory_mb:
        with suppress(OSError, ValueError):  # not every system has such a limit
            limit = memory_mb * 1024**2
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def perform(work: Callable[..., T], *args: Any) -> T:
    try:
        return work(*args)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
        except Exception:  # noqa: BLE001 - the parent couldn't read it, and would give up the whole pool
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise


def _die_with_the_worker() -> None:
    """The worker holds the other end of a pipe. SIGKILL closes it, too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
