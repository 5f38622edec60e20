"""Whether a worker lives, and whether it is ready: what `/healthz` and `/readyz` say.

Alive    its event loop answers, and none of its loops has been at one and the same turn for
         `stuck_seconds` while the database answered. Only that is worth a restart: while Postgres
         is away a new process could do no more than this one, and the jobs in hand would be lost.
Ready    registered, its last heartbeat acknowledged within half a lease, and not leaving.

A loop that waits for work, or for a free slot, is at rest: that may take as long as it likes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

TICK = 0.5
FROZEN = 2.0
"""A tick this late tells that the whole process stood still: none of its loops is to blame."""


class Turns:
    """Since when each loop is at its present turn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    @contextmanager
    def turn(self, loop: str) -> Iterator[None]:
        self._since[loop] = self._clock()
        try:
            yield
        finally:
            del self._since[loop]

    def longer_than(self, seconds: float, since: float) -> list[str]:
        """Loops whose present turn takes longer, not counting what was before `since`."""
        now = self._clock()
        return sorted(
            loop for loop, began in self._since.items() if now - max(began, since) > seconds
        )


class Vitals:
    def __init__(
        self,
        turns: Turns,
        *,
        stuck_seconds: float,
        database_answers: Callable[[], Awaitable[bool]],
        lagged: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._turns = turns
        self._limit = stuck_seconds
        self._database_answers = database_answers
        self._lagged = lagged
        self._clock = clock
        self._since = clock()
        """Time before this is held against no loop: the database or the whole process was away."""
        self._asked = 0.0
        self.stuck: list[str] = []
        """Loops that make no turn though they could."""

    async def run(self) -> None:
        while True:
            due = self._clock() + TICK
            await asyncio.sleep(TICK)
            lag = max(0.0, self._clock() - due)
            self._lagged(lag)
            if lag > FROZEN:
                self._since = self._clock()
            await self.look()

    async def look(self) -> None:
        """The database is asked only when a loop is late, and then now and then."""
        if not self._turns.longer_than(self._limit / 2, self._since):
            self.stuck = []
            return
        if self._clock() - self._asked >= self._limit / 10:
            self._asked = self._clock()
            if not await self._database_answers():
                self._since = self._clock()
        self.stuck = self._turns.longer_than(self._limit, self._since)
