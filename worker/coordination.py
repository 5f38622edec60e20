"""Redis, and what its absence looks like. The only module that imports redis.

    Coordination    fine progress, counters and a probe; works (as nothing) without Redis
    ProgressLoop    publishes the progress of running jobs several times a second
    LenientRedis    a client for loops that must outlive Redis: one that is away looks empty

Nothing here holds a promise: rows, claims and results are in Postgres. What is lost with Redis is
a finer progress than the one the row shows, and messages whose senders had no answer yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from limits.aio.storage import RedisStorage
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError, WatchError
from redis.exceptions import TimeoutError as NoAnswer

__all__ = [
    "ConnectionPool",
    "Coordination",
    "LenientRedis",
    "Outage",
    "ProgressLoop",
    "connections",
]

log = structlog.get_logger()

Progress = tuple[str, str, float]
"""Source, row key, percent."""

FINE_SECONDS = 0.25
FINE_LIFE = 30
"""Seconds until a fine progress that nobody renews is forgotten."""


def connections(url: str) -> ConnectionPool:
    """Connections that give up soon: a Redis that hangs is as good as none."""
    pool: ConnectionPool = ConnectionPool.from_url(
        url, socket_connect_timeout=1.0, socket_timeout=2.0
    )
    pool.connection_class = type("Connection", (Cancellable, pool.connection_class), {})
    return pool


class Cancellable:
    """For connections, whose sending may swallow the cancellation of whoever sends.

    They use `asyncio.wait_for`, which before Python 3.12 gives its result back where both come in
    the same moment. A loop that was told to end would go on for ever, a cancelled job to its end.
    """

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        await super().send_packed_command(*args, **options)  # type: ignore[misc]
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            await self.disconnect(nowait=True)  # type: ignore[attr-defined] # nobody reads its answer
            raise asyncio.CancelledError


# --------------------------------------------------------------------------- coordination


class Coordination:
    """What the processes of a fleet tell each other; without a pool every answer is "unknown"."""

    def __init__(self, pool: ConnectionPool | None = None) -> None:
        self._pool = pool
        self._redis = Redis(connection_pool=pool) if pool is not None else None
        self._outage = Outage("progress")

    @classmethod
    def of(cls, url: str | None) -> Coordination:
        return cls(connections(url) if url else None)

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.aclose(close_connection_pool=True)

    async def alive(self) -> bool | None:
        """Whether Redis answers; None where there is none to ask."""
        if self._redis is None:
            return None
        try:
            await self._redis.ping()
        except RedisError:
            return False
        return True

    async def publish(self, entries: Iterable[Progress]) -> bool:
        """Set fine progress; False where it couldn't be (it is in the row soon, all the same)."""
        if self._redis is None:
            return False
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for source, key, percent in entries:
                    pipe.set(_progress_key(source, key), percent, ex=FINE_LIFE)
                await pipe.execute()
        except RedisError as error:
            self._outage.began(error)
            return False
        self._outage.ended()
        return True

    def counters(self) -> RedisStorage | None:
        """Where the fleet counts what it asks of providers; see worker/rates.py.

        What they are asked raises `limits.errors.StorageError` where Redis gives no answer.
        """
        if self._pool is None:
            return None
        options: dict[str, Any] = {"connection_pool": self._pool}
        return RedisStorage(
            "redis://",  # the pool knows where it is
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="rowmill:rates",
            **options,
        )

    async def progress(self, source: str, key: str) -> float | None:
        if self._redis is None:
            return None
        try:
            percent = await self._redis.get(_progress_key(source, key))
            return None if percent is None else float(percent)
        except (RedisError, ValueError):
            return None


def _progress_key(source: str, key: str) -> str:
    return f"rowmill:progress:{source}/{key}"


class ProgressLoop:
    """Publishes what changed since the last look; everything again once Redis is back."""

    def __init__(
        self,
        coordination: Coordination,
        running: Callable[[], Iterable[Progress]],
        seconds: float = FINE_SECONDS,
    ) -> None:
        self._coordination = coordination
        self._running = running
        self._seconds = seconds
        self._known: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        while True:
            await self.run_once()
            await asyncio.sleep(self._seconds)

    async def run_once(self) -> int:
        """Returns how many jobs' progress was published."""
        now = {(source, key): percent for source, key, percent in self._running()}
        changed = [
            (source, key, percent)
            for (source, key), percent in now.items()
            if percent > 0 and self._known.get((source, key)) != percent
        ]
        if changed and not await self._coordination.publish(changed):
            return 0
        self._known = now
        return len(changed)


# --------------------------------------------------------------------------- outages


class Outage:
    """Says once that Redis is away, and once that it is back."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._away = False

    def began(self, error: Exception) -> None:
        if not self._away:
            log.warning("redis.away", what=self._what, error=f"{type(error).__name__}: {error}")
        self._away = True

    def ended(self) -> None:
        if self._away:
            log.info("redis.back", what=self._what)
        self._away = False


EMPTY: dict[str, Any] = {
    "EXISTS": 1,  # someone else has it: leave it alone
    "INFO": {},
    "ZCARD": 0,
    "ZRANGEBYSCORE": (),
}
"""What a Redis that is away "answers", per command; None for all others."""

PAUSES = (0.1, 0.4, 1.0)
"""Between tries of a write that would be a pity to lose over a restart of Redis."""


class LenientRedis(Redis):
    """A client whose commands never fail, for arq's loop, which ends with the first one that does.

    A Redis that is away, full or read-only looks empty: nothing to do, nothing recorded. What is
    left undone by it is done again when the message is found a second time, which is harmless.
    """

    outage = Outage("messages")

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            answer = await super().execute_command(  # type: ignore[no-untyped-call]
                *args, **options
            )
        except RedisError as error:
            self.outage.began(error)
            return EMPTY.get(args[0])
        self.outage.ended()
        return answer

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return LenientPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class LenientPipeline(Pipeline):
    """Under WATCH an outage is a lost race, which callers expect; else it is tried a few times."""

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().immediate_execute_command(  # type: ignore[no-untyped-call]
                *args, **options
            )
        except RedisError as error:
            LenientRedis.outage.began(error)
            self.watching = True  # so that what follows comes here, too
            return EMPTY.get(args[0])

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, watched = list(self.command_stack), self.watching or self.explicit_transaction
        for pause in (*PAUSES, None):
            try:
                return await super().execute(raise_on_error)
            except RedisError as error:
                if watched:
                    raise WatchError("Redis went away") from error
                if pause is None or not isinstance(error, NoConnection | NoAnswer):
                    LenientRedis.outage.began(error)
                    break
            await asyncio.sleep(pause)
            self.command_stack = list(commands)  # emptied by the try
        return [EMPTY.get(str(args[0])) for args, _ in commands]

    async def reset(self) -> None:
        try:
            await super().reset()  # type: ignore[no-untyped-call]
        except RedisError:
            # UNWATCH found no answer: the connection is closed, and with it its watches.
            if self.connection is not None:
                await self.connection.disconnect()
            self.watching = False
            await super().reset()  # type: ignore[no-untyped-call]
