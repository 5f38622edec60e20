"""What paid calls brought, and what customers were charged for them."""

from __future__ import annotations

import re

from worker.generate import Target
from worker.store.health.rows_of import Row, all_rows_of, rows_of
from worker.store.store import Store

RECENT = 20_000
"""Calls that are looked at: the newest ones, by id, which no index has to be made for."""

# The last thirty days: what is older was looked at, or never will be.
_UNDELIVERED = """
SELECT u.source, count(*) AS calls, sum(u.cost_cents) AS cents, min(u.row_key) AS example
  FROM rowmill.submissions u
 WHERE u.intended_at > now() - interval '30 days'
   AND u.state = 'finished' AND u.delivered_at IS NULL AND u.cost_cents > 0
   AND NOT EXISTS (SELECT FROM rowmill.queue q JOIN rowmill.sources s ON s.id = q.source
                    WHERE s.name = u.source AND q.row_key = u.row_key AND q.run = u.run)
 GROUP BY u.source ORDER BY u.source
"""

_OPEN = """
SELECT u.provider, u.account, count(*) AS calls, sum(u.estimate_cents) AS cents,
       min(u.source || '/' || u.row_key) AS example,
       extract(epoch FROM clock_timestamp() - min(u.accepted_at))::double precision AS age
  FROM rowmill.submissions u
 WHERE u.state = 'accepted' AND u.accepted_at < clock_timestamp() - make_interval(secs => $1)
 GROUP BY u.provider, u.account ORDER BY u.provider, u.account
"""

DELIVERED = f"""
SELECT DISTINCT u.row_key
  FROM (SELECT * FROM rowmill.submissions ORDER BY id DESC LIMIT {RECENT}) u
 WHERE u.source = $1 AND u.state = 'finished' AND u.delivered_at > now() - interval '7 days'
"""
"""Jobs of the last days that took what was bought for them."""

# Of any age: a job that was done again has the records of its earlier runs, too.
_RUNS = f"""
SELECT d.row_key, (SELECT count(DISTINCT u.run) FROM rowmill.submissions u
                    WHERE u.source = $1 AND u.row_key = d.row_key
                      AND u.state = 'finished' AND u.delivered_at IS NOT NULL) AS runs
  FROM ({DELIVERED}) d
"""


async def undelivered(store: Store) -> list[Row]:
    """Results that were paid for, and whose job is over without them."""
    return await rows_of(store, _UNDELIVERED)


async def long_open(store: Store, age: float) -> list[Row]:
    return await rows_of(store, _OPEN, age)


async def charged(store: Store, target: Target, rule: str) -> list[Row]:
    """Delivered jobs that have no usage `records`, or more than `runs`.

    Only those of which the platform's rule says that there must be some.
    """
    delivered = await rows_of(store, _RUNS, target.source.name)
    runs = {row["row_key"]: row["runs"] for row in delivered}
    # As a parameter, and not as a query: the server then looks keys up by hashing.
    sql = re.sub(
        r"\browmill_keys\b", f"($1::text[]::{target.key_type}[])", rule.strip().rstrip(";")
    )
    found = await all_rows_of(
        store,
        f"SELECT c.key::text AS key, c.records::bigint AS records FROM (\n{sql}\n) c",
        list(runs),
    )
    return [row for row in found if not 1 <= row["records"] <= runs[row["key"]]]
