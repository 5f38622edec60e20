"""What became of every row, and whether it all agrees: tables, files, ledger and the provider's bill."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from worker.store import Store


@dataclass(frozen=True, slots=True)
class Verdict:
    jobs: int
    completed: int
    failed: int
    held: int
    media_files: int
    usage_expected: int
    usage_records: int
    charges: int
    duplicate_charges: int
    inconsistent_rows: int
    kills: int
    seconds: float

    def row(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sound(self) -> bool:
        return (
            self.inconsistent_rows == 0
            and self.duplicate_charges == 0
            and self.usage_expected == self.usage_records
            and self.completed + self.failed + self.held == self.jobs
        )


_ROWS = """
SELECT 'generation_jobs' AS source, j.id::text AS key, j.status::text AS status,
       j.status = 'completed' AS metered, f.file_url AS url,
       CASE j.status
            WHEN 'completed' THEN f.id IS NOT NULL AND j.completed_at IS NOT NULL
                 AND j.progress_percentage = 100 AND j.started_at <= j.completed_at
            WHEN 'failed' THEN j.failed_at IS NOT NULL AND j.error_message IS NOT NULL
            ELSE EXISTS (SELECT FROM rowmill.queue q WHERE q.row_key = j.id::text AND q.state = 'held')
       END AS consistent,
       (SELECT count(*) FROM public.usage_records u WHERE u.generation_job_id = j.id) AS usage
  FROM public.generation_jobs j LEFT JOIN public.media_files f ON f.id = j.output_file_id
UNION ALL
SELECT 'ai_generations', g.id::text, g.status, g.status = 'completed', NULL,
       CASE g.status
            WHEN 'completed' THEN g.response <> '' AND g.tokens_used > 0 AND g.cost > 0
                 AND g.completed_at IS NOT NULL AND g.processing_time_ms IS NOT NULL
            WHEN 'failed' THEN g.error_message IS NOT NULL
            ELSE EXISTS (SELECT FROM rowmill.queue q WHERE q.row_key = g.id::text AND q.state = 'held')
       END,
       (SELECT count(*) FROM billing.usage_records u WHERE u.ai_generation_id = g.id)
  FROM ai_processing.ai_generations g
UNION ALL
SELECT 'background_jobs', b.id::text, b.status, false, NULL,
       CASE b.status
            WHEN 'completed' THEN b.completed_at IS NOT NULL AND b.error_message IS NULL
            WHEN 'failed' THEN b.error_message IS NOT NULL
            ELSE EXISTS (SELECT FROM rowmill.queue q WHERE q.row_key = b.id::text AND q.state = 'held')
       END, 0
  FROM system.background_jobs b
"""

_LEDGER = """
SELECT source || '/' || row_key AS marker, sum(coalesce(cost_cents, 0)) AS cents
  FROM rowmill.submissions GROUP BY 1
"""


async def rows_of(store: Store) -> list[Any]:
    """Every row of the demo's tables, and whether the tables agree about it."""
    return await store.fetch(_ROWS)


def delivered(row: Any) -> bool:
    """All that belongs to its status is there: file, usage, marks."""
    there = row["url"] is None or Path(unquote(urlparse(row["url"]).path)).is_file()
    return bool(row["consistent"]) and there and row["usage"] == int(row["metered"])


async def judge(store: Store, bill: dict[str, Any], *, kills: int, seconds: float) -> Verdict:
    rows = await rows_of(store)
    ledger = {row["marker"]: row["cents"] for row in await store.fetch(_LEDGER)}
    billed = _billed(bill)
    odd = [row for row in rows if not _agrees(row, ledger, billed)]
    statuses = [row["status"] for row in rows]
    return Verdict(
        jobs=len(rows),
        completed=statuses.count("completed"),
        failed=statuses.count("failed"),
        held=await store.value("SELECT count(*) FROM rowmill.queue WHERE state = 'held'"),
        media_files=sum(row["url"] is not None for row in rows),
        usage_expected=sum(row["metered"] for row in rows),
        usage_records=sum(row["usage"] for row in rows),
        charges=len(bill["charges"]),
        duplicate_charges=bill["duplicate_charges"],
        inconsistent_rows=len(odd),
        kills=kills,
        seconds=round(seconds, 1),
    )


def _billed(bill: dict[str, Any]) -> dict[str, Decimal]:
    """What the provider charged per job, by the marker it found in the prompt."""
    billed: dict[str, Decimal] = defaultdict(Decimal)
    for charge in bill["charges"]:
        if charge["marker"]:
            billed[charge["marker"]] += Decimal(charge["cents"]) - Decimal(charge["refunded"])
    return billed


def _agrees(row: Any, ledger: dict[str, Decimal], billed: dict[str, Decimal]) -> bool:
    marker = f"{row['source']}/{row['key']}"
    return delivered(row) and ledger.get(marker, 0) == billed.get(marker, 0)
