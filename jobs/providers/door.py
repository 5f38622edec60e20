"""The door every paid POST goes through: how fast a provider may be asked.

The worker keeps it for its whole fleet; without one (`Open`) nothing is ever kept waiting. Only
what may cost money is counted: polls, downloads and cancellations are paced by their own pauses,
and vendors count them apart.
"""

from __future__ import annotations

from typing import Protocol

from jobs.contract import Job


class Door(Protocol):
    def guards(self, provider: str, job: Job) -> bool:
        """Whether anything limits this call; where nothing does, `enter` need not be asked."""
        ...

    async def enter(self, provider: str, job: Job, tokens: int) -> None:
        """Wait in place for a moment, count the call, and return; before its intent.

        Raises `NotNow` when the wait is longer: the job gives up its slot, and keeps its place.
        """
        ...

    async def again(self, provider: str, job: Job, tokens: int) -> float:
        """The same for a POST that is repeated, without waiting.

        Seconds until it may be asked again; 0 when it is counted and may be sent.
        """
        ...

    def told(self, provider: str, seconds: float) -> None:
        """The provider wants nothing more for so long: all of the fleet leaves it alone."""
        ...


class Open:
    """No limits."""

    def guards(self, _provider: str, _job: Job) -> bool:
        return False

    async def enter(self, _provider: str, _job: Job, _tokens: int) -> None:
        return

    async def again(self, _provider: str, _job: Job, _tokens: int) -> float:
        return 0.0

    def told(self, _provider: str, _seconds: float) -> None:
        return
