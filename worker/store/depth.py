"""How much waits, for `/metrics`: as `rowmill status` counts it, which reads little of a large queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.store.store import Store

_KNOWN = """(SELECT DISTINCT lane FROM rowmill.workers w, unnest(w.lanes) AS lane
         WHERE w.stopped_at IS NULL AND w.heartbeat_at > clock_timestamp() - w.lease
         ORDER BY lane LIMIT 200)"""

_DEPTH = f"""
SELECT coalesce(k.lane, '') AS lane, s.name AS source, v.state, sum(v.jobs)::bigint AS jobs,
       extract(epoch FROM clock_timestamp() - min(c.oldest) FILTER (WHERE v.state = 'ready'))::double precision
           AS oldest_wait_s
  FROM rowmill.counted() c
  JOIN rowmill.sources s ON s.id = c.source
 CROSS JOIN LATERAL (VALUES ('ready', c.ready), ('scheduled', c.scheduled), ('running', c.running), ('held', c.held))
       AS v (state, jobs)
  LEFT JOIN {_KNOWN} k ON k.lane = c.lane
 WHERE v.jobs > 0
 GROUP BY 1, 2, 3
"""

_GATES = f"""
SELECT k.lane,
       coalesce(bool_or(g.paused_at IS NOT NULL OR g.platform_paused_why IS NOT NULL), false) AS paused,
       coalesce(bool_or(g.broken_until > clock_timestamp()), false) AS broken
  FROM {_KNOWN} k
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
    """Of many, an estimate."""
    oldest_wait: float | None


@dataclass(frozen=True, slots=True)
class LaneState:
    lane: str
    paused: bool
    broken: bool


async def waiting(store: Store) -> Sequence[Waiting]:
    return [Waiting(*row) for row in await store.fetch(_DEPTH)]


async def lane_states(store: Store) -> Sequence[LaneState]:
    return [LaneState(r["lane"], r["paused"], r["broken"]) for r in await store.fetch(_GATES)]
