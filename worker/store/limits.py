"""The platform's own word on its lanes (`limits.sql`), kept in the gates beside the operators'.

A lane is closed or limited for one of the platform's own tables: lanes are shared with whoever else
has jobs in this database, and what one platform says must not stop another.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from worker.generate.rules import statements
from worker.maps import MapError, Platform
from worker.store.errors import Refused
from worker.store.store import Store

TEXT = ("text", "character varying", "character", "name")
NUMBER = ("integer", "smallint", "bigint")
NEEDED = {"lane": TEXT, "source": TEXT}
COLUMNS = {
    **NEEDED,
    "max_running": NUMBER,
    "requests_per_minute": NUMBER,
    "tokens_per_minute": NUMBER,
    "paused": TEXT,
}
"""What the rule may return; a column that isn't there is null."""

_NOTHING = "SELECT NULL::text AS lane, NULL::text AS source WHERE false"

# Of several rows for one gate the strictest holds. Rows that stay as they are aren't touched: this
# runs every few seconds on every worker. (One that read before a change may write after one that read
# it; the next round puts that right.) What it returns are sources that aren't the platform's.
_APPLY = """
WITH stated AS MATERIALIZED (
    SELECT to_jsonb(body) AS row FROM ({body}
    ) AS body
), wanted AS MATERIALIZED (
    SELECT s.row ->> 'lane' AS lane, s.row ->> 'source' AS source,
           min((s.row ->> 'max_running')::integer) AS max_running,
           min((s.row ->> 'requests_per_minute')::integer) AS requests_per_minute,
           min((s.row ->> 'tokens_per_minute')::integer) AS tokens_per_minute,
           min(s.row ->> 'paused') AS paused_why
      FROM stated s WHERE s.row ->> 'source' = ANY ($1) GROUP BY 1, 2
    HAVING count(s.row ->> 'max_running') + count(s.row ->> 'requests_per_minute')
         + count(s.row ->> 'tokens_per_minute') + count(s.row ->> 'paused') > 0
), gone AS (
    UPDATE rowmill.lanes l
       SET platform_max_running = NULL, platform_requests_per_minute = NULL,
           platform_tokens_per_minute = NULL, platform_paused_why = NULL
     WHERE l.source = ANY ($1)
       AND num_nonnulls(l.platform_max_running, l.platform_requests_per_minute,
                        l.platform_tokens_per_minute, l.platform_paused_why) > 0
       AND NOT EXISTS (SELECT FROM wanted w WHERE w.lane = l.lane AND w.source = l.source)
), kept AS (
    INSERT INTO rowmill.lanes
           (lane, source, platform_max_running, platform_requests_per_minute,
            platform_tokens_per_minute, platform_paused_why)
    SELECT w.lane, w.source, w.max_running, w.requests_per_minute, w.tokens_per_minute, w.paused_why
      FROM wanted w LEFT JOIN rowmill.lanes l ON l.lane = w.lane AND l.source = w.source
     WHERE (l.platform_max_running, l.platform_requests_per_minute,
            l.platform_tokens_per_minute, l.platform_paused_why)
           IS DISTINCT FROM (w.max_running, w.requests_per_minute, w.tokens_per_minute, w.paused_why)
     ORDER BY w.lane, w.source
    ON CONFLICT (lane, source) DO UPDATE
       SET platform_max_running = excluded.platform_max_running,
           platform_requests_per_minute = excluded.platform_requests_per_minute,
           platform_tokens_per_minute = excluded.platform_tokens_per_minute,
           platform_paused_why = excluded.platform_paused_why
)
SELECT array_agg(DISTINCT coalesce(s.row ->> 'source', 'null')) FROM stated s
 WHERE (s.row ->> 'source' = ANY ($1)) IS NOT TRUE
"""

_FORGET = """
UPDATE rowmill.lanes
   SET platform_max_running = NULL, platform_requests_per_minute = NULL,
       platform_tokens_per_minute = NULL, platform_paused_why = NULL
 WHERE source = $1
"""


async def apply(store: Store, platform: Platform) -> None:
    """Write what the platform says now. A value that can't be kept leaves all as it was."""
    body = _body(platform) or _NOTHING
    own = [source.name for source in platform.map.sources]
    strange = await store.value(_APPLY.replace("{body}", body), own)
    if strange:
        raise Refused(
            f"limits.sql of {platform.map.platform}: source must be one of its tables "
            f"({', '.join(own)}), not {', '.join(strange)}; those rows are left out"
        )


async def forget(connection: Any, source: str) -> None:
    """It is no platform's table any more."""
    await connection.execute(_FORGET, source)


async def check(connection: Any, platform: Platform) -> None:
    """Refuse a rule whose columns aren't the ones that are read."""
    body = _body(platform)
    if body is None:
        return
    types = await _columns(connection, body)
    for name, type_ in types.items():
        if name not in COLUMNS:
            raise MapError(
                f"limits.sql: {name!r} is no column of this rule; it may return "
                f"{', '.join(COLUMNS)}"
            )
        if type_ not in COLUMNS[name]:
            raise MapError(f"limits.sql: {name} is {type_}, and must be {COLUMNS[name][0]}")
    if not NEEDED.keys() <= types.keys():
        raise MapError(f"limits.sql: must return {' and '.join(NEEDED)}")


async def _columns(connection: Any, body: str) -> dict[str, str]:
    try:
        prepared = await connection.prepare(f"SELECT * FROM ({body}\n) AS body")
    except asyncpg.PostgresError as error:
        raise MapError(f"limits.sql: {error}") from error
    type_ = "SELECT format_type($1, NULL)"
    return {
        column.name: await connection.fetchval(type_, column.type.oid)
        for column in prepared.get_attributes()
    }


def _body(platform: Platform) -> str | None:
    sql = platform.rules.get("limits")
    if sql is None:
        return None
    parts = statements(sql)
    if len(parts) != 1:
        raise MapError(f"limits.sql: one SELECT is wanted, there are {len(parts)} statements")
    return parts[0]
