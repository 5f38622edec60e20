"""What was answered, and what is kept of it over time. Knows no terminal and no database."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Row = dict[str, Any]

KEPT = 600
"""Stretches kept beyond those of a report: as many as the widest chart could show."""


@dataclass(frozen=True, slots=True)
class Point:
    """What happened in a stretch of time."""

    seconds: float
    ended: int
    wait_ms: int | None

    @property
    def per_minute_out(self) -> float:
        return self.ended * 60 / self.seconds


@dataclass(slots=True)
class History:
    """The stretches that end now, as each report tells them, and before them what has left it."""

    recent: list[Point] = field(default_factory=list)
    older: deque[Point | None] = field(default_factory=lambda: deque(maxlen=KEPT))
    _base: tuple[float, list[Point]] = (0.0, [])
    """A report of at most one stretch ago: its oldest ones leave next."""

    def add(self, report: Row) -> None:
        at, points = datetime.fromisoformat(report["at"]).timestamp(), _points(report["history"])
        then, leaving = self._base
        if leaving and leaving[0].seconds != points[0].seconds:
            self.older.clear()  # another version answers now
            leaving = []
        left = int((at - then) // points[0].seconds)
        if left > 0:
            gone = leaving[:left] + [None] * (left - len(leaving)) if leaving else []
            self.older.extend(gone[-KEPT:])
        if left > 0 or not leaving:
            self._base = (at, points)
        self.recent = points

    def last(self, count: int) -> list[Point | None]:
        """The newest `count` stretches, oldest first; None where nobody was looking."""
        return [*self.older, *self.recent][-count:] if count > 0 else []


def _points(told: Row) -> list[Point]:
    columns = (told[name] for name in ("succeeded", "failed", "wait_p50_ms"))
    return [
        Point(told["seconds"], succeeded + failed, wait)
        for succeeded, failed, wait in zip(*columns, strict=True)
    ]


@dataclass(slots=True)
class Kept:
    """The last picture, and since when there is no newer one."""

    report: Row | None = None
    reports: int = 0
    running: Sequence[Row] = ()
    untold: str | None = None
    """Why the running jobs can't be read, while the report can."""
    history: History = field(default_factory=History)
    answered_at: float | None = None
    """By this machine's clock, which goes on while no one answers."""
    silent_since: float | None = None
    problem: str | None = None

    def answered(self, now: float) -> None:
        self.answered_at, self.silent_since, self.problem = now, None, None

    def reported(self, report: Row, now: float) -> None:
        self.report = report
        self.reports += 1
        self.history.add(report)
        self.answered(now)

    def told_running(self, rows: Sequence[Row], now: float) -> None:
        self.running, self.untold = rows, None
        self.answered(now)

    def cant_tell_running(self, problem: str, now: float) -> None:
        self.running, self.untold = (), problem
        self.answered(now)

    def failed(self, problem: str, now: float) -> None:
        """The last picture stays; since when it is old is counted from its answer."""
        if self.silent_since is None:
            self.silent_since = self.answered_at if self.answered_at is not None else now
        self.problem = problem


def totals(report: Row) -> Row:
    """The sums of the header."""
    lanes = report["lanes"]
    workers = [w for w in report["workers"] if w["alive"]]
    return {
        **{name: sum(lane[name] for lane in lanes) for name in ("ready", "running", "held")},
        "scheduled": sum(lane["scheduled"] for lane in lanes),
        "estimated": any(lane["ready_estimated"] for lane in lanes),
        "slots": sum(w["slots"] for w in workers),
        "workers": len(workers),
        "per_minute_in": sum(lane["per_minute_in"] for lane in lanes),
        "per_minute_out": sum(lane["per_minute_out"] for lane in lanes),
        "failed": sum(lane["failed_last_hour"] for lane in lanes),
        "spend_cents": sum(float(lane["spend_cents_today"]) for lane in lanes),
    }


def pause_after(every: float, took: float) -> float:
    """Seconds from an answer to the next question.

    Questions begin `every` seconds apart or more, and one that was slow to be answered is followed
    by as long a rest: no viewer keeps a server busy for more than half of the time.
    """
    return max(every - took, took)
