"""Workers that are silent, gone, dying at once, or of different versions."""

from __future__ import annotations

from worker.store.health.rows_of import Row, rows_of
from worker.store.store import Store

_SILENT = """
SELECT w.name, w.version,
       extract(epoch FROM clock_timestamp() - w.heartbeat_at)::double precision AS silent,
       (SELECT count(*) FROM rowmill.queue q WHERE q.state = 'claimed' AND q.worker = w.id) AS claims
  FROM rowmill.workers w
 WHERE w.stopped_at IS NULL AND w.heartbeat_at < clock_timestamp() - $1::double precision * w.lease
 ORDER BY w.heartbeat_at LIMIT 20
"""

_ALIVE = """
SELECT w.name, w.version, extract(epoch FROM clock_timestamp() - w.started_at)::double precision AS age,
       greatest(extract(epoch FROM w.heartbeat_at - clock_timestamp()), 0)::double precision AS ahead
  FROM rowmill.workers w
 WHERE w.stopped_at IS NULL AND w.heartbeat_at > clock_timestamp() - w.lease
 ORDER BY w.started_at
"""

_ABANDONED = """
SELECT count(*) AS claims, min(q.row_key) AS example, min(s.name) AS source
  FROM rowmill.queue q JOIN rowmill.sources s ON s.id = q.source
 WHERE q.state = 'claimed' AND q.claimed_at < clock_timestamp() - make_interval(secs => $1)
   AND NOT EXISTS (SELECT FROM rowmill.workers w WHERE w.id = q.worker AND w.stopped_at IS NULL)
"""

# One that left by itself stops at its last heartbeat. Who runs for a minute does no crash loop.
_CRASHES = """
SELECT split_part(w.name, ':', 1) AS host, count(*) AS deaths, max(w.started_at) AS last
  FROM rowmill.workers w
 WHERE w.started_at > clock_timestamp() - interval '30 minutes'
   AND w.heartbeat_at - w.started_at < interval '1 minute'
   AND coalesce(w.stopped_at, clock_timestamp()) - w.heartbeat_at > w.lease
 GROUP BY 1 HAVING count(*) >= 3 ORDER BY 1
"""


async def silent(store: Store, leases: float) -> list[Row]:
    return await rows_of(store, _SILENT, leases)


async def alive(store: Store) -> list[Row]:
    return await rows_of(store, _ALIVE)


async def abandoned(store: Store, seconds: float) -> Row | None:
    ((row),) = await rows_of(store, _ABANDONED, seconds)
    return row if row["claims"] else None


async def crashes(store: Store) -> list[Row]:
    return await rows_of(store, _CRASHES)
