"""Which jobs are meant, and in what order they are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from worker.generate.lists import STATES, UNFINISHED

Sort = Literal["order", "newest", "oldest", "longest", "cost", "failure"]
SORTS: tuple[Sort, ...] = ("order", "newest", "oldest", "longest", "cost", "failure")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs; what is empty or None doesn't matter, and everything named has to hold."""

    lanes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    """Of STATES."""
    tenant: str | None = None
    older_than: timedelta | None = None
    """Of an unfinished job since it was queued, of a finished one since it ended."""
    newer_than: timedelta | None = None
    error_kind: str | None = None
    """Of its last failed try."""
    error_text: str | None = None
    """Part of that try's message, in capitals or not."""

    @property
    def of_errors(self) -> bool:
        return self.error_kind is not None or self.error_text is not None

    @property
    def wanted_states(self) -> tuple[str, ...]:
        return tuple(state for state in STATES if not self.states or state in self.states)

    def default_sort(self) -> Sort:
        """Errors by when they came, jobs that wait in the order of claims, others newest first."""
        if self.of_errors:
            return "failure"
        return "order" if set(self.wanted_states) <= set(UNFINISHED) else "newest"


@dataclass(frozen=True, slots=True)
class Place:
    """A job as a listing finds it."""

    source: str
    key: str
    state: str
    """One of STATES; empty where it isn't known yet."""

    @property
    def subject(self) -> str:
        return f"{self.source}/{self.key}"
