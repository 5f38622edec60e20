"""What the checks look at, what they return, and where they draw the line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from worker.findings import FINDINGS, Severity
from worker.maps import MapError, Platform
from worker.settings import Settings
from worker.store import SourceInfo, Store, reports

T = TypeVar("T")
Row = dict[str, Any]

Mending = Literal["migrate", "attach", "partitions", "vacuum", "sweep", "drop"]


@dataclass(frozen=True, slots=True)
class Mend:
    """What `--repair` would do, and to what: a platform, a table or a source."""

    how: Mending
    target: str


@dataclass(frozen=True, slots=True)
class Finding:
    id: str
    severity: Severity
    subject: str
    evidence: str
    fix: str
    mend: Mend | None = None
    """Only where nothing can be lost by it."""

    def __post_init__(self) -> None:
        known = FINDINGS[self.id]
        assert self.severity in known.severities, self
        assert self.mend is None or known.repair, self

    def row(self) -> Row:
        """Its documented shape."""
        names = ("id", "severity", "subject", "evidence", "fix")
        return {n: getattr(self, n) for n in names} | {"repairable": self.mend is not None}


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a finding begins. Seconds, rows and bytes."""

    check: float = 5.0
    """How long one check may take."""
    ask: float = 4.0
    """How long one question to somebody outside may take."""
    old_transaction: float = 900.0
    idle_transaction: float = 300.0
    slot_bytes: int = 1024**3
    slot_transactions: int = 100_000
    """A standby that is being restarted is no news."""
    dead_rows: int = 50_000
    dead_platform_rows: int = 1_000_000
    unanalyzed_bytes: int = 1024**2
    wraparound: float = 0.5
    """Of 2^31 transaction ids; four fifths are an error."""
    connections: float = 0.9
    clock: float = 10.0
    silent_leases: float = 3.0
    rescue: float = 120.0
    """After which a claim without a worker should be back in the queue."""
    open_call: float = 86400.0
    mixed_versions: float = 3600.0


@dataclass
class Patient:
    """What several checks look at is read once, by whoever asks first."""

    store: Store
    settings: Settings
    limits: Limits
    behind: Sequence[str]
    """Migrations that aren't applied."""
    _reading: dict[str, asyncio.Task[Any]] = field(default_factory=dict)

    async def _once(self, name: str, read: Callable[[], Awaitable[T]]) -> T:
        async def reading() -> T:
            return await read()

        if name not in self._reading:
            self._reading[name] = asyncio.create_task(reading())
        # Who gives up waiting takes it from nobody else.
        return await asyncio.shield(self._reading[name])

    async def status(self) -> Row:
        return await self._once("status", lambda: reports.status(self.store))

    async def sources(self) -> list[SourceInfo]:
        return await self._once("sources", self.store.sources)

    async def platforms(self) -> list[Platform]:
        """As they are attached; without those that only a newer version can read."""
        found: dict[str, Platform] = {}
        for info in await self.sources():
            try:
                found.setdefault(info.platform, Platform.from_definition(info.definition))
            except MapError:
                continue
        return list(found.values())

    @property
    def keyed(self) -> set[str]:
        """Providers that can be paid from here."""
        given = self.settings.providers.items()
        return {name for name, one in given if one.api_key.get_secret_value()}

    def close(self) -> None:
        for task in self._reading.values():
            task.cancel()
