"""The workers of the fleet, as they said with their last heartbeat."""

from __future__ import annotations

from worker.store.reading import Row, read
from worker.store.store import Store

# Whoever was given up, or left, is kept for a week.
_WORKERS = """
SELECT w.id::text AS id, w.name, w.host, w.version, w.lanes, w.slots, w.running,
       rowmill.state_of(w) AS state,
       extract(epoch FROM clock_timestamp() - w.heartbeat_at)::double precision AS heartbeat_age_s,
       w.stopped_at IS NULL AND w.heartbeat_at > clock_timestamp() - w.lease AS alive, w.draining,
       w.started_at, w.stopped_at, w.drain_asked_at, w.drain_asked_by, w.drain_reason,
       extract(epoch FROM clock_timestamp() - w.drain_asked_at)::double precision
         AS drain_asked_age_s
  FROM rowmill.workers w
 WHERE (w.stopped_at IS NULL OR $1) AND ($2::bigint[] IS NULL OR w.id = ANY ($2))
 ORDER BY w.stopped_at IS NOT NULL, w.started_at, w.id
"""


async def workers(
    store: Store, *, stopped: bool = False, ids: list[int] | None = None
) -> list[Row]:
    """All that haven't stopped; with `stopped`, also those of the last week that have.

    `state` is a word of rowmill.state_of().
    """
    return await read(store, _WORKERS, stopped, ids)
