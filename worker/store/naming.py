"""Names for a shell to complete: few, quickly, or none."""

from __future__ import annotations

import asyncio

from worker.store.pool import connect

PATIENCE = 1.0
"""Seconds that a person with a finger on the Tab key waits."""

MOST = 50

_LANES = """
SELECT lane FROM rowmill.scan(NULL) s, unnest(s.lanes) AS lane WHERE starts_with(lane, $1)
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
