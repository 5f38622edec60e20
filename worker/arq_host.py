"""arq: the fleet's door and clock. The only module that imports it.

    arq worker.arq_host.WorkerSettings    a full worker, with the door and the clock in it
    serve()                               the same door and clock, inside `rowmill run`

The door takes the messages of `worker.inbox`; the clock starts what one worker of a fleet has to do
at a time. Rows never pass through here: claims and results work whether Redis is there or not, and
everything arq asks of Redis goes through a client that shrugs when it is away (`LenientRedis`).

Messages are JSON (`worker.inbox`): a pickled one is answered with an error, unread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC
from typing import Any, Protocol

import structlog
from arq import Retry, cron, func
from arq.connections import ArqRedis, RedisSettings
from arq.cron import CronJob
from arq.worker import Function
from arq.worker import Worker as ArqWorker

from worker.coordination import (
    ConnectionPool,
    Coordination,
    LenientRedis,
    ProgressLoop,
    connections,
)
from worker.inbox import MESSAGES, Answer, Inbox, deserialize, serialize
from worker.settings import Settings, database_url
from worker.store import Store, StoreError, Unavailable
from worker.store.migrations import pending

__all__ = ["connections", "door", "producer", "serve", "worker_settings"]

log = structlog.get_logger()
Context = dict[Any, Any]

DEFAULT_URL = "redis://localhost:6379"
"""arq's own, for `arq worker.arq_host.WorkerSettings` without ROWMILL_REDIS_URL."""


class Chores(Protocol):
    """What the clock starts; `worker.maintenance.Maintenance`, each safe to run twice."""

    async def make_partitions(self) -> None: ...
    async def sweep(self) -> None: ...
    async def clean_up(self) -> None: ...


# --------------------------------------------------------------------------- clients


class Door(LenientRedis, ArqRedis):  # type: ignore[misc] # two modules of redis's own disagree
    """arq's client for our side of the door."""

    async def close(self, close_connection_pool: bool | None = None) -> None:
        await self.aclose(close_connection_pool)  # arq calls it by the name redis gave up


def door(pool: ConnectionPool) -> Door:
    return Door(pool, job_serializer=serialize, job_deserializer=deserialize)


def producer(pool: ConnectionPool) -> ArqRedis:
    """A sender's client: enqueue_job() a message, then await its job's result()."""
    return ArqRedis(pool, job_serializer=serialize, job_deserializer=deserialize)


# --------------------------------------------------------------------------- door and clock

MESSAGE_TRIES = 20


def _message(name: str) -> Function:
    async def run(ctx: Context, /, *args: Any, **fields: Any) -> Answer:
        inbox: Inbox = ctx["inbox"]
        try:
            return await inbox.answer(name, args, fields)
        except Unavailable as error:
            log.warning("message.waits", message=name, error=str(error))
            raise Retry(defer=min(2 ** ctx["job_try"], 30)) from error

    # A field may be called ctx: it must not be taken for the context.
    return func(run, name=name, max_tries=MESSAGE_TRIES)  # type: ignore[arg-type]


def _chore(name: str, **when: int) -> CronJob:
    async def run(ctx: Context) -> None:
        try:
            await getattr(ctx["chores"], name)()
        except StoreError as error:
            log.warning("chore.failed", chore=name, error=str(error))

    # unique (arq's default): its id is its time, so one worker of the fleet runs it.
    return cron(run, name=f"cron:{name}", timeout=60, max_tries=1, **when)  # type: ignore[arg-type]


def _options(pool: ConnectionPool, worker_name: str | None) -> dict[str, Any]:
    """What both ways to start arq's worker have in common."""
    return {
        "functions": [_message(name) for name in MESSAGES],
        "cron_jobs": [
            _chore("sweep", second=30),
            _chore("make_partitions", minute=11),
            _chore("clean_up", minute=41),
        ],
        "redis_pool": door(pool),
        "job_serializer": serialize,
        "job_deserializer": deserialize,
        "timezone": UTC,
        "poll_delay": 0.1,
        "max_jobs": 20,
        "job_timeout": 30,
        "log_results": False,  # rows are nobody's business but their owner's
        "health_check_interval": 5,
        "health_check_key": f"rowmill:health:{worker_name or socket.gethostname()}",
    }


def _ctx(store: Store, chores: Chores, coordination: Coordination) -> Context:
    return {"inbox": Inbox(store, coordination), "chores": chores}


# --------------------------------------------------------------------------- inside `rowmill run`


async def serve(
    settings: Settings,
    store: Store,
    *,
    chores: Chores,
    running: Callable[[], Iterable[tuple[str, str, float]]] = tuple,
    pool: ConnectionPool | None = None,
) -> None:
    """Run door, clock and fine progress until cancelled; nothing to do without a Redis.

    `running` gives (source, key, percent) of the jobs in hand; `pool` replaces the connections to
    `settings.redis_url`, for a Redis inside this process.
    """
    if pool is None:
        if settings.redis_url is None:
            return
        pool = connections(settings.redis_url)
    coordination = Coordination(pool)
    progress = asyncio.create_task(ProgressLoop(coordination, running).run())
    try:
        await _supervise(lambda: _host(settings, pool, _ctx(store, chores, coordination)))
    finally:
        progress.cancel()
        await asyncio.gather(progress, return_exceptions=True)
        await coordination.close()


async def _supervise(run: Callable[[], Any]) -> None:
    """Again and again: whatever arq trips over, the claims of this process go on."""
    pause = 1.0
    while True:
        began = asyncio.get_running_loop().time()
        try:
            await run()
        except Exception:
            log.exception("arq.broken", again_in_seconds=pause)
        await asyncio.sleep(pause)
        lasted = asyncio.get_running_loop().time() - began
        pause = 1.0 if lasted > 120 else min(pause * 2, 30.0)


async def _host(settings: Settings, pool: ConnectionPool, ctx: Context) -> None:
    host = ArqWorker(ctx=ctx, handle_signals=False, **_options(pool, settings.worker_name))
    try:
        await host.main()
    finally:
        # Messages in hand are quick; let them end, then arq's own close has none to cancel.
        host.allow_pick_jobs = False
        await asyncio.gather(*host.tasks.values(), return_exceptions=True)
        host.tasks.clear()
        await host.close()


# --------------------------------------------------------------------------- `arq worker.arq_host…`


def worker_settings(settings: Settings) -> dict[str, Any]:
    url = settings.redis_url or DEFAULT_URL
    pool = connections(url)

    async def start(ctx: Context) -> None:
        await _start_worker(settings, url, pool, ctx)

    return {
        **_options(pool, settings.worker_name),
        "redis_settings": replace(RedisSettings.from_dsn(url), conn_retries=0),  # for --check
        "on_startup": start,
        "on_shutdown": _drained,
    }


async def _start_worker(settings: Settings, url: str, pool: ConnectionPool, ctx: Context) -> None:
    # Late: `arq --check` needs no worker's libraries.
    from worker import logs  # noqa: PLC0415
    from worker.app import Worker  # noqa: PLC0415

    logging.getLogger("arq").handlers.clear()  # its lines come through ours
    logs.configure(settings.log_level, settings.log_format, worker=settings.name)
    if missing := await pending(database_url(settings)):
        raise RuntimeError(f"the database lacks {', '.join(missing)}: run `rowmill migrate`")
    worker = await Worker.open(settings.model_copy(update={"redis_url": url}))
    await worker.start()
    coordination = Coordination(pool)
    progress = ProgressLoop(coordination, worker.progress)
    ctx.update(_ctx(worker.store, worker.maintenance, coordination))
    ctx["progress"] = asyncio.create_task(progress.run())
    ctx["drain"] = Drain(worker.drain)
    ctx["drain"].on_signals()
    ctx["asked"] = asyncio.create_task(ctx["drain"].when(worker.asked_to_leave))


async def _drained(ctx: Context) -> None:
    if "drain" in ctx:
        ctx["progress"].cancel()
        ctx["asked"].cancel()
        await ctx["drain"].begin()


class Drain:
    """Leaves the fleet once: at the first signal, when an operator asks, or when arq ends itself.

    Made in arq's main task.
    """

    def __init__(self, drain: Callable[[], Any]) -> None:
        main = asyncio.current_task()
        assert main is not None
        self._drain, self._main = drain, main
        self._task: asyncio.Task[None] | None = None
        self._signalled = False

    def begin(self) -> asyncio.Task[None]:
        if self._task is None:
            self._task = asyncio.ensure_future(self._drain())
        return self._task

    def on_signals(self) -> None:
        """In place of arq's handlers, which drop what runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received, number)

    async def when(self, asked: asyncio.Event) -> None:
        await asked.wait()
        self._end()

    def _received(self, number: int) -> None:
        if self._signalled:
            os._exit(128 + number)  # the second one means it
        self._signalled = True
        self._end()

    def _end(self) -> None:
        """The door stays open meanwhile. Then arq closes, with nothing left to drop."""
        if self._task is None:
            self.begin().add_done_callback(lambda _: self._main.cancel())


def __getattr__(name: str) -> Any:
    """`WorkerSettings` is made when asked for: the environment is read then, not on import."""
    if name == "WorkerSettings":
        return worker_settings(Settings())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
