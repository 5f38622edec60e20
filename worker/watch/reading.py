"""Asks the database, one light statement at a time, and rests between them.

The report and the running jobs take turns. A slow answer slows the rhythm, nothing piles up, and a
database that is away is asked again until it is back. While the terminal is suspended the whole
process stands still, and with it this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from worker.store import Store, StoreError, reports
from worker.store.running import RunningJobs
from worker.watch.kept import Kept, pause_after

WITHIN = 10.0
"""Seconds after which the server itself ends a viewer's statement."""
PATIENCE = 3.0
"""Seconds without an answer after which the screen says so."""
GIVE_UP = 30.0
"""Seconds after which a connection is given up: its other end may be gone without a word."""
MAPS_ANEW = 60
"""Turns after which the attached tables are looked at again."""

NO_ANSWER = ("08", "53", "57")
"""Connections lost, a server that is full, ends, or ended the statement."""

OpenStore = Callable[[], Awaitable[Store]]


async def open_store(dsn: str) -> Store:
    """One connection: two statements of a viewer never run at the same time."""
    return await Store.open(dsn, size=1, name="rowmill watch", within=WITHIN)


class Reader:
    def __init__(
        self,
        open_store: OpenStore,
        kept: Kept,
        *,
        every: float,
        text: Callable[[], str],
        told: Callable[[], None],
    ) -> None:
        self.store: Store | None = None
        """For what keys do, too; None while there is no connection."""
        self._open = open_store
        self._kept = kept
        self._every = every
        self._text = text
        self._told = told
        self._jobs: RunningJobs | None = None
        self._turn = 0

    async def open(self) -> None:
        """The first report; raises what is wrong with the database before a screen hides it."""
        self.store = await self._open()
        await self._ask()

    async def close(self) -> None:
        """At once: a statement may never be answered."""
        store, self.store = self.store, None
        if store is not None:
            await store.close()

    async def run(self) -> None:
        rest = self._every
        while True:
            await asyncio.sleep(rest)
            began = time.monotonic()
            await self._asked()
            self._told()
            rest = pause_after(self._every, time.monotonic() - began)

    def report_next(self) -> None:
        """Something was done: the next turn shows what came of it."""
        self._turn = 0

    async def _asked(self) -> None:
        """One question; says on the screen when its answer is overdue."""
        question = asyncio.ensure_future(self._ask())
        waited = 0.0
        try:
            while not (await asyncio.wait({question}, timeout=PATIENCE))[0]:
                waited += PATIENCE
                self._kept.failed("the last question isn't answered yet", time.time())
                self._told()
                if waited >= GIVE_UP:
                    await self.close()
                    return
            question.result()
        except (StoreError, OSError, TimeoutError) as error:
            self._turn += 1  # what can't be answered doesn't keep the other from being asked
            self._kept.failed(str(error) or type(error).__name__, time.time())
        finally:
            if not question.done():
                question.cancel()
                await asyncio.wait({question}, timeout=1)
            if question.done() and not question.cancelled():
                question.exception()  # told already

    async def _ask(self) -> None:
        """A connection, or one statement."""
        if self.store is None:
            self.store = await self._open()
        elif self._turn % 2 == 0:
            self._kept.reported(await reports.status(self.store), time.time())
            self._turn += 1
        elif self._jobs is None or self._turn > MAPS_ANEW:
            self._jobs = await RunningJobs.of(self.store)
            self._turn = 1
        else:
            await self._ask_running(self.store, self._jobs)
            self._turn += 1

    async def _ask_running(self, store: Store, jobs: RunningJobs) -> None:
        """A platform's table may have changed, or be closed to us; the rest is told still."""
        try:
            rows = await jobs.read(store, self._text())
        except StoreError as error:
            self._jobs = None
            if not error.sqlstate or error.sqlstate.startswith(NO_ANSWER):
                raise
            self._kept.cant_tell_running(str(error), time.time())
        else:
            self._kept.told_running(rows, time.time())
