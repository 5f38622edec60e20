"""Attached tables as they are now: their triggers, generated functions, partitions, and their map."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from worker.generate import Target, audit_function, functions_sql
from worker.generate.words import name as quoted
from worker.maps import Partitions, Platform
from worker.store import checking
from worker.store.attaching import partitioned
from worker.store.errors import translated
from worker.store.health.rows_of import Row, rows_of
from worker.store.migrations import functions
from worker.store.pool import connect
from worker.store.problem import Problem
from worker.store.store import SourceInfo, Store

_REPLICAS = """
SELECT CASE WHEN s.setrole = 0 THEN 'every role' ELSE 'role ' || r.rolname END
       || CASE WHEN s.setdatabase = 0 THEN '' ELSE ' in this database' END AS who
  FROM pg_db_role_setting s
  LEFT JOIN pg_roles r ON r.oid = s.setrole
 WHERE 'session_replication_role=replica' = ANY (s.setconfig)
   AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
UNION ALL
SELECT 'the server' FROM pg_settings
 WHERE name = 'session_replication_role' AND reset_val = 'replica'
   AND source IN ('configuration file', 'command line')
 ORDER BY 1
"""

_FUNCTIONS = """
SELECT p.proname::text AS name, p.prosrc AS body
  FROM pg_proc p WHERE p.pronamespace = 'rowmill'::regnamespace
"""

# Bounds of ranges, read as they are printed. A key of several columns goes by its first.
_PARTITIONS = """
WITH part AS (
    SELECT pg_get_expr(c.relpartbound, c.oid) AS bound, c.oid
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = to_regclass($1) AND c.relpartbound IS NOT NULL
), range AS (
    SELECT substring(p.bound FROM $re$FROM \\('([^']+)'$re$) AS low,
           substring(p.bound FROM $re$TO \\('([^']+)'$re$) AS high FROM part p
), month AS (
    SELECT n, date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n) AS at
      FROM generate_series(0, 1) n
)
SELECT ARRAY(SELECT m.n FROM month m WHERE NOT EXISTS (
             SELECT FROM range r WHERE r.low::timestamp <= m.at + interval '14 days'
                AND r.high::timestamp > m.at + interval '14 days') ORDER BY 1) AS lacking,
       (SELECT oid::regclass::text FROM part WHERE bound = 'DEFAULT') AS default_partition
 WHERE EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1) AND relkind = 'p')
"""

_STUCK = """
SELECT c.chore, c.subject, c.error FROM rowmill.schedules c
 WHERE c.error IS NOT NULL AND EXISTS (SELECT FROM rowmill.sources s WHERE s.platform = c.platform)
 ORDER BY 1, 2
"""

_UNAUDITED = """
SELECT f.platform, count(*) AS acts, (array_agg(f.why ORDER BY a.id DESC))[1] AS why
  FROM rowmill.actions a, jsonb_each_text(a.detail -> 'audit_failed') AS f (platform, why)
 WHERE a.at > now() - interval '30 days' AND a.detail ? 'audit_failed'
 GROUP BY f.platform ORDER BY f.platform
"""

_AHEAD = """
SELECT version, name FROM rowmill.migrations WHERE version > $1 ORDER BY version
"""

_NEWEST = "SELECT checksum FROM rowmill.functions ORDER BY applied_at DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Made:
    """A generated function that isn't what this version makes."""

    function: str
    missing: bool


async def triggers(store: Store) -> list[Row]:
    """Those that are missing or not fired; `leaf` is a partition, null for the table itself."""
    return await rows_of(
        store,
        "SELECT source, platform, relation, leaf::text AS leaf, trigger, how"
        " FROM rowmill.missing_triggers()",
    )


async def gone(store: Store) -> list[Row]:
    return await rows_of(
        store,
        "SELECT name AS source, platform, relation FROM rowmill.sources"
        " WHERE to_regclass(relation) IS NULL ORDER BY id",
    )


async def replicas(store: Store) -> list[str]:
    return [row["who"] for row in await rows_of(store, _REPLICAS)]


async def stuck(store: Store) -> list[Row]:
    """Views that couldn't be refreshed, tables whose old rows couldn't be removed."""
    return await rows_of(store, _STUCK)


async def unaudited(store: Store) -> list[Row]:
    """Operators' acts that a platform's audit.sql couldn't record; why, of the last one."""
    return await rows_of(store, _UNAUDITED)


async def ahead(store: Store) -> list[str]:
    """Migrations of this database that this version has never heard of."""
    return [row["name"] for row in await rows_of(store, _AHEAD, functions().version)]


async def problems(store: Store, platform: Platform) -> list[Problem]:
    """What `attach` would say of it now."""
    with translated():
        connection = await connect(store.dsn)
        try:
            return await checking.problems(connection, platform)
        finally:
            await connection.close()


async def unlike(store: Store, info: SourceInfo) -> list[Made]:
    """Functions that are missing, or not made by this version of this map.

    Nothing where another version made them last: then it is that one's to say.
    """
    if await store.value(_NEWEST) != functions().checksum:
        return []
    target = await target_of(store, info)
    if target is None:
        return []
    live = {row["name"]: row["body"] for row in await rows_of(store, _FUNCTIONS)}
    wanted = dict(_bodies([*functions_sql(target), audit_function(target.platform)]))
    return [
        Made(name, name not in live)
        for name, body in wanted.items()
        if _words(live.get(name, "")) != _words(body)
    ]


def _words(body: str) -> list[str]:
    """In no order: the map that comes back from the database has its keys in another one."""
    return sorted(re.split(r"[\s,()]+", body))


def _bodies(statements: list[str]) -> Iterator[tuple[str, str]]:
    """The name and the body of each function that these statements make."""
    for statement in statements:
        made = re.search(r"FUNCTION rowmill\.(\w+)\s*\(", statement)
        parts = statement.split("$rowmill$")
        if made and len(parts) == 3:
            yield made[1], parts[1]


async def target_of(store: Store, info: SourceInfo) -> Target | None:
    """A source with its live columns; None where its table or its key is gone."""
    platform = Platform.from_definition(info.definition)
    source = next(s for s in platform.map.sources if s.name == info.name)
    with translated():
        connection = await connect(store.dsn)
        try:
            async with connection.transaction():
                # Types come out qualified, as they did when the functions were made.
                await connection.execute("SET LOCAL search_path = pg_catalog")
                columns = await checking.live_columns(connection, source.table)
                split = await partitioned(connection, source.table)
        finally:
            await connection.close()
    if source.key not in columns or source.status.column not in columns:
        return None
    return Target(platform, source, info.id, columns, split)


async def partitions(store: Store, table: Partitions) -> Row | None:
    """Months from now (0, 1) that have no partition; None for a table that isn't partitioned."""
    rows = await rows_of(store, _PARTITIONS, quoted(table.table))
    return rows[0] if rows else None


async def any_row(store: Store, table: str) -> bool:
    """`table` is a regclass as text, which is quoted already."""
    return bool(await store.value(f"SELECT EXISTS (SELECT FROM {table})"))
