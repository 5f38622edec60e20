"""What became of every row, and whether it all agrees: tables, files, ledger and the provider's bill."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlparse

from worker.demo.order import Order
from worker.demo.platform import Shown, choose
from worker.store import Store


@dataclass(frozen=True, slots=True)
class Row:
    """A job, as its platform's verdict.sql tells it."""

    platform: str
    source: str
    key: str
    status: str
    finished: str | None
    """completed, failed or cancelled in the map's own sense."""
    metered: bool
    usage: int
    url: str | None
    consistent: bool
    held: bool

    @property
    def marker(self) -> str:
        return f"{self.source}/{self.key}"

    @property
    def delivered(self) -> bool:
        """All that belongs to its status is there: file, usage, marks. Held, it has a person's word to wait for."""
        there = self.url is None or Path(unquote(urlparse(self.url).path)).is_file()
        sound = self.held if self.finished is None else self.consistent
        return sound and there and self.usage == int(self.metered)


@dataclass(frozen=True, slots=True)
class Count:
    """The numbers of one platform's jobs, or of all."""

    jobs: int
    completed: int
    failed: int
    cancelled: int
    held: int
    media_files: int
    usage_expected: int
    usage_records: int
    inconsistent_rows: int

    @classmethod
    def of(cls, rows: Sequence[Row], odd: Iterable[str]) -> Self:
        ends = [row.finished for row in rows]
        return cls(
            jobs=len(rows),
            completed=ends.count("completed"),
            failed=ends.count("failed"),
            cancelled=ends.count("cancelled"),
            held=sum(row.held for row in rows),
            media_files=sum(row.url is not None for row in rows),
            usage_expected=sum(row.metered for row in rows),
            usage_records=sum(row.usage for row in rows),
            inconsistent_rows=len(list(odd)),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    total: Count
    platforms: dict[str, Count]
    charges: int
    duplicate_charges: int
    order: Order
    kills: int
    seconds: float

    def row(self) -> dict[str, Any]:
        total = self.total
        return {
            "jobs": total.jobs,
            "completed": total.completed,
            "failed": total.failed,
            "held": total.held,
            "media_files": total.media_files,
            "usage_expected": total.usage_expected,
            "usage_records": total.usage_records,
            "charges": self.charges,
            "duplicate_charges": self.duplicate_charges,
            "inconsistent_rows": total.inconsistent_rows,
            "kills": self.kills,
            "seconds": self.seconds,
            "platforms": {name: asdict(count) for name, count in self.platforms.items()},
            "order": self.order.row(),
        }

    @property
    def sound(self) -> bool:
        total = self.total
        return (
            total.inconsistent_rows == 0
            and self.duplicate_charges == 0
            and total.usage_expected == total.usage_records
            and total.completed + total.failed + total.cancelled + total.held == total.jobs
            and self.order.inversions == 0
        )


_LEDGER = """
SELECT source || '/' || row_key AS marker, sum(coalesce(cost_cents, 0)) AS cents
  FROM rowmill.submissions GROUP BY 1
"""
_HELD = """
SELECT s.name || '/' || q.row_key AS marker
  FROM rowmill.queue q JOIN rowmill.sources s ON s.id = q.source WHERE q.state = 'held'
"""


async def rows_of(store: Store, shown: Sequence[Shown] | None = None) -> list[Row]:
    """Every row of the demo's tables, and whether the tables agree about it."""
    held = {row["marker"] for row in await store.fetch(_HELD)}
    return [
        _row(one.name, row, held)
        for one in (choose(()) if shown is None else shown)
        for row in await store.fetch(one.sql("verdict.sql"))
    ]


def _row(platform: str, row: Any, held: set[str]) -> Row:
    """A promise that NULL makes of its row is a broken one."""
    return Row(
        platform=platform,
        source=row["source"],
        key=row["key"],
        status=row["status"],
        finished=row["finished"],
        metered=bool(row["metered"]),
        usage=row["usage"],
        url=row["url"],
        consistent=row["consistent"] is True,
        held=f"{row['source']}/{row['key']}" in held,
    )


async def judge(
    store: Store,
    shown: Sequence[Shown],
    bill: dict[str, Any],
    order: Order,
    *,
    kills: int,
    seconds: float,
) -> Verdict:
    rows = await rows_of(store, shown)
    ledger = {row["marker"]: row["cents"] for row in await store.fetch(_LEDGER)}
    odd = oddities(rows, ledger, _billed(bill))
    by_platform = {one.name: [row for row in rows if row.platform == one.name] for one in shown}
    return Verdict(
        total=Count.of(rows, odd),
        platforms={
            name: Count.of(mine, (row.marker for row in mine if row.marker in odd))
            for name, mine in by_platform.items()
        },
        charges=len(bill["charges"]),
        duplicate_charges=bill["duplicate_charges"],
        order=order,
        kills=kills,
        seconds=round(seconds, 1),
    )


def oddities(
    rows: Sequence[Row], ledger: dict[str, Decimal], billed: dict[str, Decimal]
) -> set[str]:
    """Markers of jobs that aren't delivered, or whose ledger and bill differ; also of no job at all."""
    undelivered = {row.marker for row in rows if not row.delivered}
    differing = {
        marker
        for marker in ledger.keys() | billed.keys()
        if ledger.get(marker, 0) != billed.get(marker, 0)
    }
    return undelivered | differing


def _billed(bill: dict[str, Any]) -> dict[str, Decimal]:
    """What the provider charged per job, by the marker it found in the prompt."""
    billed: dict[str, Decimal] = defaultdict(Decimal)
    for charge in bill["charges"]:
        if charge["marker"]:
            billed[charge["marker"]] += Decimal(charge["cents"]) - Decimal(charge["refunded"])
    return billed
