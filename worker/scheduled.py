"""What is done once per period over the whole fleet: views refreshed, old rows removed.

Whoever finds it due takes its turn, and keeps it while it works; a worker that dies is followed by
another within two minutes. Should both be at work, neither does harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from worker.maps import Platform, Refresh, Retention
from worker.store import Store, StoreError, refreshing, retention, schedules
from worker.store.schedules import LEASE, Turn

log = structlog.get_logger()

AGAIN = 60.0
"""Seconds until more is removed where more is left."""
PATIENCE = 300.0
"""Seconds until what couldn't be done is tried again."""
MOST, SECONDS = 50_000, 30.0
"""Rows removed from one table per turn, and the time taken for it."""


class Scheduled:
    def __init__(self, store: Store, platforms: Callable[[], list[Platform]]) -> None:
        self._store = store
        self._platforms = platforms

    async def refreshes(self) -> None:
        for platform in self._platforms():
            for view in platform.map.refreshes:
                await self._refresh(platform, view)

    async def retention(self) -> None:
        for platform in self._platforms():
            for entry in platform.map.retention:
                await self._remove(platform, entry)

    async def _refresh(self, platform: Platform, view: Refresh) -> None:
        name = platform.map.platform
        turn = await schedules.take(self._store, name, "refresh", view.view, view.every)
        if turn is None:
            return
        fix = (
            "a role that owns the view (or, from PostgreSQL 17 on, has MAINTAIN on it) refreshes it"
        )
        async with _at_it(turn, fix):
            await refreshing.refresh(self._store, view)
            await turn.done()
            log.info("view.refreshed", platform=name, view=view.view)

    async def _remove(self, platform: Platform, entry: Retention) -> None:
        name = platform.map.platform
        turn = await schedules.take(self._store, name, "retention", entry.subject, entry.every)
        if turn is None:
            return
        fix = "the worker's role needs SELECT, UPDATE and DELETE there, SELECT on what refers to it"
        async with _at_it(turn, fix):
            done = await retention.remove(self._store, platform, entry, most=MOST, seconds=SECONDS)
            await (turn.done() if done.whole else turn.later(AGAIN))
            if done.removed or done.kept:
                tell = log.warning if done.kept else log.info
                tell(
                    "retention.removed",
                    platform=name,
                    table=entry.subject,
                    rows=done.removed,
                    kept=done.kept,
                    more=not done.whole,
                )


@asynccontextmanager
async def _at_it(turn: Turn, fix: str) -> AsyncIterator[None]:
    """The turn is ours for as long as it takes; what fails is tried again in a while."""
    async with _kept(turn.keep):
        try:
            yield
        except StoreError as error:
            missing_right = {"fix": fix} if error.sqlstate == "42501" else {}
            log.warning(
                "schedule.failed",
                chore=turn.chore,
                platform=turn.platform,
                subject=turn.subject,
                error=str(error),
                **missing_right,
            )
            await turn.later(PATIENCE, str(error))


@asynccontextmanager
async def _kept(keep: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    async def repeat() -> None:
        while True:
            await asyncio.sleep(LEASE / 4)
            with suppress(StoreError):  # the work itself will hear of it
                await keep()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
