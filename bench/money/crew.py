"""Three workers, of whom some are always about to die, and the replacement of the dead."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from jobs import failpoints
from worker.demo.fleet import Fleet
from worker.store import Store

SIZE = 3
LEASE = 3.0
SLOTS = 12
STEADY_SLOTS = 4
"""Most of the work is for those that are about to die."""
RARE = (
    *("answer.away", "kept.committed"),
    *("written_off.committed", "search.found", "search.due", "failed.committed"),
    *("unknown.committed", "poll.ended", "outputs.stored"),
)
"""Places that few jobs get to. They come first, while there is much to do."""
AT_ONCE = 3
"""So many places a worker is armed with; it dies at the first it gets to."""

# Those that have work in hand: killing others proves nothing.
_BUSY = """
SELECT DISTINCT w.name FROM rowmill.queue q JOIN rowmill.workers w ON w.id = q.worker
 WHERE q.state = 'claimed' AND w.stopped_at IS NULL ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Death:
    worker: str
    seen_at: datetime
    point: str | None = None
    """Where it killed itself; None: it was killed at a random moment."""
    marker: str | None = None
    """The job that was there, where it was one alone."""


@dataclass(slots=True)
class Crew:
    fleet: Fleet
    store: Store
    dice: random.Random
    points: Sequence[str]
    kills: int
    """At random moments, beside those at points."""
    deaths: list[Death] = field(default_factory=list)
    steady: str = ""
    """The one that isn't armed: someone must live long enough to judge the others."""
    hired: int = 0
    next_kill: float = 0.0

    @property
    def missing(self) -> list[str]:
        """Points at which nobody has died so far, the rarest first."""
        met = {death.point for death in self.deaths}
        left = [point for point in self.points if point not in met]
        return sorted(left, key=lambda point: RARE.index(point) if point in RARE else len(RARE))

    @property
    def killed(self) -> int:
        return sum(death.point is None for death in self.deaths)

    @property
    def progress(self) -> float:
        """How much of the dying is done, from 0 to 1."""
        over = len(self.points) - len(self.missing) + min(self.killed, self.kills)
        return over / max(1, len(self.points) + self.kills)

    async def tend(self) -> None:
        """Bury, kill if it is time, and hire."""
        for name, process in list(self.fleet.workers.items()):
            if process.returncode is not None:
                del self.fleet.workers[name]
                self.deaths.append(self._death(name, process.returncode))
        if self.killed < self.kills and time.monotonic() >= self.next_kill:
            await self._kill_someone()
        while len(self.fleet.workers) < SIZE:
            await self._hire()

    async def _kill_someone(self) -> None:
        busy = [row["name"] for row in await self.store.fetch(_BUSY)]
        names = [name for name in busy if name in self.fleet.workers]
        if names and self.hired >= SIZE:
            name = self.dice.choice(names)
            await self.fleet.kill(name)
            self.deaths.append(Death(name, datetime.now(UTC)))
            self.next_kill = time.monotonic() + LEASE * self.dice.uniform(0.3, 1.2)

    async def _hire(self) -> None:
        self.hired += 1
        name = f"worker-{self.hired}"
        if self.steady not in self.fleet.workers or not self.missing:
            self.steady = name
            await self.fleet.hire(name, slots=STEADY_SLOTS if self.missing else SLOTS)
            return
        armed = [f"{point}={self._passes(point)}" for point in self.missing[:AT_ONCE]]
        await self.fleet.hire(
            name, slots=SLOTS, main=("bench.doomed", "--unlock", failpoints.UNLOCK, *armed)
        )

    def _passes(self, point: str) -> int:
        return 1 if point in RARE else self.dice.randint(1, 4)

    def _death(self, name: str, code: int) -> Death:
        """Its last words tell where; any other end is a fault of ours."""
        log = self.fleet.log_of(name)
        words = [line for line in log.read_text().splitlines() if line.startswith("failpoint ")]
        if code != -signal.SIGKILL or not words:
            raise RuntimeError(f"{name} ended by itself with {code}: see {log}")
        _, point, marker = words[-1].split(" ", 2)
        return Death(name, datetime.now(UTC), point, None if "None" in marker else marker)
