"""How much waits, for `/metrics`: counted up to a bound, never over a whole backlog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.store.reading import stored_query
from worker.store.store import Store

COUNTED_UP_TO = 2_000

_GATES = """
SELECT k.lane,
       coalesce(bool_or(g.paused_at IS NOT NULL OR g.platform_paused_why IS NOT NULL), false) AS paused,
       coalesce(bool_or(g.broken_until > clock_timestamp()), false) AS broken
  FROM (SELECT DISTINCT lane FROM rowmill.workers w, unnest(w.lanes) AS lane
         WHERE w.stopped_at IS NULL AND w.heartbeat_at > clock_timestamp() - w.lease
         ORDER BY lane LIMIT 200) k
  LEFT JOIN rowmill.lanes g ON g.lane IN (k.lane, '*') AND g.source = '*'
 GROUP BY k.lane
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    lane: str
    """Empty for all lanes that no living worker serves."""
    source: str
    state: str
    jobs: int
    """At most COUNTED_UP_TO."""
    oldest_wait: float | None


@dataclass(frozen=True, slots=True)
class LaneState:
    lane: str
    paused: bool
    broken: bool


async def waiting(store: Store) -> Sequence[Waiting]:
    rows = await store.fetch(stored_query("queue_depth"), COUNTED_UP_TO)
    return [
        Waiting(r["lane"], r["source"], r["state"], r["count"], r["oldest_wait_s"]) for r in rows
    ]


async def lane_states(store: Store) -> Sequence[LaneState]:
    return [LaneState(r["lane"], r["paused"], r["broken"]) for r in await store.fetch(_GATES)]
