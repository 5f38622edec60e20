"""Names for a shell to complete: few, quickly, or none."""

from __future__ import annotations

import asyncio

from worker.store.pool import connect

PATIENCE = 1.0
"""Seconds that a person with a finger on the Tab key waits."""

MOST = 50

# A queue of a million rows is walked from lane to lane, by index.
_LANES = """
WITH RECURSIVE waiting (lane) AS (
    (SELECT q.lane FROM rowmill.queue q WHERE q.state = 'ready' ORDER BY q.lane LIMIT 1)
    UNION ALL
    SELECT (SELECT q.lane FROM rowmill.queue q WHERE q.state = 'ready' AND q.lane > w.lane
             ORDER BY q.lane LIMIT 1)
      FROM waiting w WHERE w.lane IS NOT NULL
)
SELECT lane FROM waiting WHERE starts_with(lane, $1)
UNION SELECT lane FROM rowmill.lanes WHERE lane <> '*' AND starts_with(lane, $1)
UNION SELECT lane FROM rowmill.workers, unnest(lanes) AS lane
       WHERE stopped_at IS NULL AND starts_with(lane, $1)
"""

# The held ones first: those are asked about. Of failed ones the last: those are retried.
_JOBS = """
(SELECT q.row_key FROM rowmill.queue q WHERE q.state = 'held' AND starts_with(q.row_key, $1) LIMIT 50)
UNION
(SELECT q.row_key FROM rowmill.sources s CROSS JOIN LATERAL (
        SELECT row_key FROM rowmill.queue
         WHERE source = s.id AND row_key >= $1 AND row_key < $1 || chr(1114111)
         ORDER BY row_key LIMIT 50) q)
UNION
(SELECT f.row_key FROM (SELECT * FROM rowmill.failures ORDER BY id DESC LIMIT 500) f
  WHERE f.final AND starts_with(f.row_key, $1) LIMIT 50)
"""

QUERIES = {
    "lanes": _LANES,
    "jobs": _JOBS,
    "tables": "SELECT name FROM rowmill.sources WHERE starts_with(name, $1)",
    "attached": "SELECT DISTINCT platform FROM rowmill.sources WHERE starts_with(platform, $1)",
    "workers": "SELECT DISTINCT name FROM rowmill.workers"
    " WHERE stopped_at IS NULL AND starts_with(name, $1)",
    "hosts": "SELECT DISTINCT host FROM rowmill.workers"
    " WHERE stopped_at IS NULL AND starts_with(host, $1)",
}


async def names(dsn: str, what: str, begun: str) -> list[str]:
    """Those that begin so. Raises whatever keeps it from answering in time."""
    async with asyncio.timeout(PATIENCE):
        connection = await connect(dsn)
        try:
            rows = await connection.fetch(f"{QUERIES[what]} ORDER BY 1 LIMIT {MOST}", begun)
        finally:
            connection.terminate()
    return [row[0] for row in rows]
