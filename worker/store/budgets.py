"""Budgets: what may be spent per lane or in all. How they are kept stands in sql/functions/ledger.sql."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from worker.store.gates import EVERY, known_gate
from worker.store.store import Store

OVER_BUDGET = "over budget"
"""The note of the jobs that wait for more, by which they are found again."""

_SET = """
WITH before AS (
    SELECT to_jsonb(b) AS budget FROM rowmill.budgets b WHERE b.lane = $1 AND b.period = $2
), set AS (
    INSERT INTO rowmill.budgets AS b (lane, period, limit_cents) VALUES ($1, $2, $3)
    ON CONFLICT (lane, period) DO UPDATE SET limit_cents = excluded.limit_cents
), hastened AS (
    UPDATE rowmill.queue q SET ready_at = clock_timestamp(), state = 'ready'
     WHERE q.state = 'scheduled' AND q.note = $5 AND $1 IN ('*', q.lane)
)
INSERT INTO rowmill.actions (who, action, subject, detail)
VALUES ($4, 'budget', $1, jsonb_build_object('period', $2::text, 'limit_cents', $3::numeric,
                                             'before', (SELECT budget FROM before)))
"""

_UNSET = """
WITH gone AS (
    DELETE FROM rowmill.budgets b WHERE b.lane = $1 AND b.period = $2 RETURNING to_jsonb(b) AS budget
), hastened AS (
    UPDATE rowmill.queue q SET ready_at = clock_timestamp(), state = 'ready'
     WHERE q.state = 'scheduled' AND q.note = $4 AND $1 IN ('*', q.lane) AND EXISTS (SELECT FROM gone)
)
INSERT INTO rowmill.actions (who, action, subject, detail)
SELECT $3, 'budget', $1, jsonb_build_object('period', $2::text, 'before', budget) FROM gone
RETURNING id
"""

# A budget nobody has spent from in this window still shows the last one's use.
_ALL = """
SELECT b.lane, b.period, b.limit_cents,
       CASE WHEN b.window_start = rowmill.window_of(b.period) THEN b.used_cents
            ELSE rowmill.used_in(b.lane, rowmill.window_of(b.period)) END AS used_cents,
       rowmill.window_of(b.period) + ('1 ' || b.period)::interval AS renewed_at,
       (SELECT count(*) FROM rowmill.queue q
         WHERE q.state = 'scheduled' AND q.note = $1 AND b.lane IN ('*', q.lane)) AS waiting
  FROM rowmill.budgets b ORDER BY b.lane, b.period
"""


async def set_budget(
    store: Store,
    lane: str,
    period: str,
    cents: Decimal,
    who: str,
    *,
    providers: Iterable[str] = (),
) -> None:
    """A raised budget takes effect at once: what waited for it is ready again."""
    gate = await known_gate(store, lane, EVERY, providers)
    await store.value(_SET, gate.lane, period, cents, who, OVER_BUDGET)


async def unset_budget(store: Store, lane: str, period: str, who: str) -> bool:
    return await store.value(_UNSET, lane, period, who, OVER_BUDGET) is not None


async def budgets(store: Store) -> list[dict[str, Any]]:
    return [
        {
            "lane": row["lane"],
            "period": row["period"],
            "limit_cents": f"{row['limit_cents']:f}",
            "used_cents": f"{row['used_cents']:f}",
            "renewed_at": row["renewed_at"].isoformat(),
            "waiting": row["waiting"],
        }
        for row in await store.fetch(_ALL, OVER_BUDGET)
    ]
