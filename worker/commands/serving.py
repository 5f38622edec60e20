"""A worker process: start, wait for a signal or an operator's word, drain."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import structlog
from obstore.exceptions import BaseError as StorageError

from worker.app import Worker
from worker.commands.problems import PlainError, a_wrong_setting
from worker.endpoint import PortTaken
from worker.settings import Settings, database_url
from worker.store.migrations import migrate, pending

log = structlog.get_logger()


async def serve(settings: Settings, *, burst: bool, migrate_first: bool) -> None:
    stop = asyncio.Event()
    _on_signals(stop)
    await _check_schema(database_url(settings), migrate_first=migrate_first)
    worker = await _open(settings)
    try:
        await worker.start()
    except PortTaken as error:
        raise PlainError(str(error)) from error
    door = asyncio.create_task(_door(settings, worker))
    try:
        await _until_stopped(worker, stop, burst=burst)
    finally:
        worker.draining = True  # while its door closes nothing more is claimed, and /readyz says so
        await ended(door)
        await worker.drain()


async def ended(task: asyncio.Task[None], patience: float = 5.0) -> None:
    """Cancelled until it has ended.

    Before Python 3.12 a cancellation can be lost in `asyncio.wait_for`. Our connections to Redis
    don't lose it (coordination.py); what else arq awaits must not keep a worker from stopping.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=patience)


async def _door(settings: Settings, worker: Worker) -> None:
    """Arq's messages and clock, where there is a Redis; supervised, it never ends the worker."""
    if settings.redis_url is None:
        return
    from worker import arq_host  # noqa: PLC0415 - most workers need no arq

    await arq_host.serve(settings, worker.store, chores=worker.maintenance, running=worker.progress)


async def _open(settings: Settings) -> Worker:
    """Providers and storage are opened before any work; what they refuse is a setting."""
    with a_wrong_setting(StorageError):
        return await Worker.open(settings)


def _on_signals(stop: asyncio.Event) -> None:
    """The first signal drains; the second ends the process at once, as `kill -9` would.

    Also of a worker that drains because an operator said so: it was told by no signal yet.
    """

    def received(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        log.info("signal", name=number.name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)


async def _check_schema(dsn: str, *, migrate_first: bool) -> None:
    """A worker on an older schema would fail job by job; it is better not to start."""
    if migrate_first:
        log.info("schema.migrated", applied=await migrate(dsn))
        return
    missing = await pending(dsn)
    if missing:
        raise PlainError(
            f"this database lacks {', '.join(missing)}: "
            "run `rowmill migrate`, or `rowmill run --migrate`"
        )


async def _until_stopped(worker: Worker, stop: asyncio.Event, *, burst: bool) -> None:
    waiting: list[asyncio.Task[Any]] = [
        asyncio.create_task(stop.wait()),
        asyncio.create_task(worker.asked_to_leave.wait()),
    ]
    if burst:
        waiting.append(asyncio.create_task(worker.until_done()))
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # an error in it is ours too
    finally:
        for task in waiting:
            task.cancel()
