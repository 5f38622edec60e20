"""What happened to a worker's jobs, counted by source and lane.

Counted once for two readers: `rowmill.pulses` gets what is new with every pulse, `/metrics` the
sums since the process began.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from worker.executor import Running
from worker.transitions import Settlement

BUCKETS = 32
STEPS, STEP = 30, 2.0
"""Arrivals are told of the last minute, in steps of two seconds."""
LEAVES = ("succeed", "fail", "cancel")
LOST = "lost"
"""In place of a verb: the claim was gone, so nothing was written."""


@dataclass(slots=True)
class Tally:
    """Times are counted in powers of two milliseconds: bucket n has those below 2^n."""

    started: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """By the settlement's verb."""
    waits: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    runs: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    """Of those that succeeded."""
    waited_ms: int = 0
    ran_ms: int = 0
    arrived: list[int] = field(default_factory=lambda: [0] * STEPS)
    """What left the queue, by how many times two seconds before it had come. For pulses alone."""

    def add(self, other: Tally) -> None:
        self.started += other.started
        self.ended.update(other.ended)
        self.waits = [a + b for a, b in zip(self.waits, other.waits, strict=True)]
        self.runs = [a + b for a, b in zip(self.runs, other.runs, strict=True)]
        self.waited_ms += other.waited_ms
        self.ran_ms += other.ran_ms

    def row(self) -> dict[str, Any]:
        """As in rowmill.pulses."""
        return {
            "started": self.started,
            "succeeded": self.ended["succeed"],
            "failed": self.ended["fail"],
            "retried": self.ended["retry"],
            "yielded": self.ended["yield"] + self.ended["wait"],
            "waits": self.waits,
            "runs": self.runs,
            "arrived": list(accumulate(self.arrived)) if any(self.arrived) else [],
        }


Tallies = dict[tuple[str, str], Tally]
"""By source and lane."""


class Statistics:
    def __init__(self) -> None:
        self._new: Tallies = defaultdict(Tally)
        self._taken: Tallies = defaultdict(Tally)

    def started(self, running: Running) -> None:
        tally = self._new[running.attempt.source, running.attempt.lane]
        tally.started += 1
        tally.waits[_bucket(running.waited_ms)] += 1
        tally.waited_ms += max(0, running.waited_ms)

    def settled(self, settlement: Settlement, age: float | None = None) -> None:
        """`age` is how many seconds ago its row was enqueued, where that is known."""
        tally = self._new[settlement.source, settlement.lane]
        tally.ended[settlement.verb] += 1
        if settlement.verb in LEAVES and age is not None and age < STEPS * STEP:
            tally.arrived[max(0, int(age / STEP))] += 1
        if settlement.verb == "succeed":
            tally.runs[_bucket(settlement.duration_ms)] += 1
            tally.ran_ms += settlement.duration_ms

    def lost(self, source: str, lane: str) -> None:
        self._new[source, lane].ended[LOST] += 1

    def take(self, worker: int) -> list[dict[str, Any]]:
        """What is new since the last time."""
        new, self._new = self._new, defaultdict(Tally)
        _merge(self._taken, new)
        return [
            {"worker": worker, "source": source, "lane": lane, **tally.row()}
            for (source, lane), tally in new.items()
        ]

    def total(self) -> Tallies:
        """All since the beginning."""
        total: Tallies = defaultdict(Tally)
        _merge(total, self._taken)
        _merge(total, self._new)
        return total


def _merge(into: Tallies, tallies: Tallies) -> None:
    for name, tally in tallies.items():
        into[name].add(tally)


def _bucket(milliseconds: int) -> int:
    return min(BUCKETS - 1, max(0, milliseconds).bit_length())
