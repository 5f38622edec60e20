"""Where a platform's rows and our queue contradict each other.

Both change in one transaction, so a single statement sees no row between two states. Of large
tables a sample is looked at.
"""

from __future__ import annotations

from contextlib import suppress

from worker.generate import Target
from worker.generate.words import ident, literal, status_of, unfinished, words
from worker.store.errors import LockTimeout
from worker.store.health.money import DELIVERED
from worker.store.health.rows_of import Row, all_rows_of
from worker.store.store import Store

SAMPLE = 20_000
"""Rows; a table with up to five times as many is looked at as a whole."""
EXAMPLES = 1000


async def queued(store: Store, target: Target) -> list[Row]:
    """Queue rows (`key`, `state`, `how`) whose row is `gone` or `over`, or has used up its `tries`.

    In the order of their keys, which says nothing about their age: as good as drawn by lot.
    """
    source = target.source
    key, type_ = ident(source.key), target.key_type
    spent = "false"
    if source.tries is not None:
        column, most = ident(source.tries.column), ident(source.tries.max)
        spent = f"(t.{column} > t.{most} AND q.state IN ('ready', 'scheduled'))"
    return await all_rows_of(
        store,
        f"""
SELECT * FROM (
    SELECT q.row_key AS key, q.state::text AS state,
           CASE WHEN t.{key} IS NULL THEN 'gone'
                WHEN {status_of(target, "t")} NOT IN {unfinished(target)} THEN 'over'
                WHEN {spent} THEN 'tries' END AS how
      FROM (SELECT * FROM rowmill.queue WHERE source = $1 ORDER BY row_key LIMIT {SAMPLE}) q
      LEFT JOIN LATERAL (SELECT r.* FROM {target.table} r WHERE r.{key} = q.row_key::{type_}
                          LIMIT 1) t ON true
) f WHERE f.how IS NOT NULL LIMIT {EXAMPLES}""",
        target.id,
    )


async def unqueued(store: Store, target: Target) -> list[Row]:
    """Rows (`key`, `running`) that are ready or said to be running, and in no queue."""
    source = target.source
    key, status = ident(source.key), status_of(target, "n")
    return await all_rows_of(
        store,
        f"""
SELECT n.{key}::text AS key, {status} = {literal(source.status.running)} AS running
  FROM {target.table} n {await _sampled(store, target)}
 WHERE {status} IN {unfinished(target)}
   AND (SELECT q.id FROM rowmill.queue q
         WHERE q.source = $1 AND q.row_key = n.{key}::text LIMIT 1) IS NULL
 LIMIT {EXAMPLES}""",
        target.id,
    )


async def _sampled(store: Store, target: Target) -> str:
    """Blocks drawn by lot, where the whole would take long."""
    rows = float(
        await store.value(
            "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0) FROM pg_class c"
            " WHERE c.oid = to_regclass($1)"
            " OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass($1)))",
            target.table,
        )
    )
    if rows <= 5 * SAMPLE:
        return ""
    return f"TABLESAMPLE SYSTEM ({100 * SAMPLE / rows:.6f})"


async def empty(store: Store, target: Target) -> list[str]:
    """Completed and delivered rows without the file that their map writes down."""
    source = target.source
    files = [c for c, field in source.set.success.items() if field in ("media_id", "url")]
    if not files:
        return []
    key = ident(source.key)
    lacking = " AND ".join(f"t.{ident(column)} IS NULL" for column in files)
    rows = await all_rows_of(
        store,
        f"""
WITH delivered AS MATERIALIZED ({DELIVERED})
SELECT d.row_key AS key FROM delivered d
 CROSS JOIN LATERAL (SELECT r.* FROM {target.table} r
                      WHERE r.{key} = d.row_key::{target.key_type} LIMIT 1) t
 WHERE {status_of(target, "t")} IN {words([source.status.succeeded])} AND {lacking}
 ORDER BY 1 LIMIT {EXAMPLES}""",
        source.name,
    )
    return [row["key"] for row in rows]


async def drop(store: Store, target: Target, keys: list[str]) -> int:
    """Take rows from the queue whose job is over: looked at again with both rows locked.

    The row first, then its queue row, as everyone does: whoever makes it ready meanwhile waits, or
    has done so and is seen. One that is claimed stays its worker's.
    """
    dropped = 0
    statement = f"""
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', '250ms', true)
), job AS MATERIALIZED (
    SELECT rowmill.lock_{target.source.name}($1) AS its FROM patience
), dropped AS (
    DELETE FROM rowmill.queue q USING job
     WHERE q.source = {target.id} AND q.row_key = $1 AND (its).state <> 'claimed'
       AND (NOT (its).there OR coalesce((its).status, '') NOT IN {unfinished(target)})
    RETURNING q.id)
SELECT count(*) FROM dropped"""
    for key in keys:
        with suppress(LockTimeout):  # someone is changing it
            dropped += int(await store.value(statement, key))
    return dropped
