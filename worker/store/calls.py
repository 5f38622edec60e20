"""What the ledger knows of each provider: spend, open calls, and how the last ones ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from worker.store.store import Store

LAST = 5
"""How many of a provider's latest ended calls are looked at, if they are of the last ten minutes."""

THEIRS = ("auth", "quota", "transient")
"""Kinds of failure that no other task would escape."""

Who = tuple[str, str]
"""Provider and account."""

# A month of UTC holds the day; its start stands here in full, so that the planner knows how much of
# the ledger it must read, and reads no more (submissions_at).
_SPENT = """
SELECT u.provider, coalesce(sum(u.cost_cents), 0) AS month,
       coalesce(sum(u.cost_cents) FILTER (WHERE u.intended_at >= (SELECT rowmill.window_of('day'))), 0) AS today
  FROM rowmill.submissions u
 WHERE u.intended_at >= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
 GROUP BY u.provider
"""

_OPEN = """
SELECT u.provider, count(*) AS calls, sum(u.estimate_cents) AS cents
  FROM rowmill.submissions u WHERE u.state IN ('intent', 'accepted', 'unknown') GROUP BY u.provider
"""

# A failed call's result is its failure.
ENDED = f"""
SELECT l.provider, l.account, count(*) AS ended, count(*) FILTER (WHERE l.kind IN {THEIRS}) AS failed,
       (array_agg(l.kind || ': ' || coalesce(l.error, '') ORDER BY l.nth))[1] AS latest
  FROM (SELECT u.provider, u.account, u.error,
               CASE u.state WHEN 'failed' THEN u.result ->> 'kind' ELSE u.state::text END AS kind,
               row_number() OVER (PARTITION BY u.provider, u.account ORDER BY u.ended_at DESC) AS nth
          FROM rowmill.submissions u
         WHERE u.intended_at > now() - interval '10 minutes' AND u.state IN ('finished', 'failed')) l
 WHERE l.nth <= {LAST} GROUP BY l.provider, l.account
"""


@dataclass(frozen=True, slots=True)
class Spent:
    today: Decimal = Decimal(0)
    month: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Open:
    calls: int = 0
    cents: Decimal = Decimal(0)


async def spent(store: Store) -> dict[str, Spent]:
    rows = await store.fetch(_SPENT)
    return {row["provider"]: Spent(row["today"], row["month"]) for row in rows}


async def still_open(store: Store) -> dict[str, Open]:
    rows = await store.fetch(_OPEN)
    return {row["provider"]: Open(row["calls"], row["cents"]) for row in rows}


async def broken(store: Store) -> dict[Who, str]:
    """The providers and accounts whose latest calls all failed, and for no task's fault; with why."""
    return reasons(await store.fetch(ENDED))


def reasons(ended: Iterable[Mapping[str, Any]]) -> dict[Who, str]:
    return {
        (row["provider"], row["account"]): (
            f"the last {row['ended']} calls that ended failed, the latest as {row['latest']}"
            if row["ended"] > 1
            else f"the last call that ended failed as {row['latest']}"
        )
        for row in ended
        if row["failed"] == row["ended"]
    }
