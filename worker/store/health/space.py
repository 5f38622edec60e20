"""Dead rows, missing statistics, autovacuum, transaction ids."""

from __future__ import annotations

import asyncio

from worker.store.errors import translated
from worker.store.health.rows_of import Row, rows_of
from worker.store.pool import connect
from worker.store.store import Store

_TABLES = """
SELECT c.oid::regclass::text AS name, n.nspname = 'rowmill' AS ours,
       coalesce(s.n_dead_tup, 0) AS dead, coalesce(s.n_live_tup, 0) AS living,
       s.last_autovacuum, s.last_vacuum,
       c.reltuples < 0 AND s.last_analyze IS NULL AND s.last_autoanalyze IS NULL AS unanalyzed,
       pg_relation_size(c.oid) AS bytes,
       EXISTS (SELECT FROM unnest(c.reloptions) o
                WHERE o IN ('autovacuum_enabled=false', 'autovacuum_enabled=off',
                            'autovacuum_enabled=0', 'autovacuum_enabled=no')) AS unvacuumed
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
 WHERE c.relkind = 'r'
   AND (n.nspname = 'rowmill'
        OR c.oid IN (SELECT t.relid FROM rowmill.sources x,
                            pg_partition_tree(to_regclass(x.relation)) t)
        OR c.oid IN (SELECT to_regclass(x.relation) FROM rowmill.sources x))
 ORDER BY 1
"""

_AUTOVACUUM = """
SELECT name FROM pg_settings WHERE name IN ('autovacuum', 'track_counts') AND setting = 'off'
 ORDER BY name
"""

_AGES = """
SELECT greatest(age(datfrozenxid), mxid_age(datminmxid))::bigint AS age
  FROM pg_database WHERE datname = current_database()
"""


async def tables(store: Store) -> list[Row]:
    """Rowmill's own and the attached ones, with their partitions."""
    return await rows_of(store, _TABLES)


_VACUUMED = """
SELECT last_vacuum >= $2::timestamptz FROM pg_stat_all_tables WHERE relid = to_regclass($1)
"""


async def switched_off(store: Store) -> list[str]:
    return [row["name"] for row in await rows_of(store, _AUTOVACUUM)]


async def age(store: Store) -> int:
    """Transaction ids, or multixact ids, since the oldest that isn't frozen: of 2^31."""
    return int(await store.value(_AGES))


async def vacuum(store: Store, table: str) -> None:
    """Of Rowmill's own tables alone. Waits for nobody for long, and shuts nobody out."""
    with translated():
        connection = await connect(store.dsn)
        try:
            name = await connection.fetchval(
                "SELECT c.oid::regclass::text FROM pg_class c"
                " WHERE c.oid = to_regclass($1) AND c.relnamespace = 'rowmill'::regnamespace",
                table,
            )
            if name is None:
                raise ValueError(f"{table} is no table of Rowmill's")
            began = await connection.fetchval("SELECT clock_timestamp()")
            await connection.execute(f"VACUUM (ANALYZE, SKIP_LOCKED) {name}")
            for _ in range(20):  # before PostgreSQL 15, statistics tell of it a moment later
                if await connection.fetchval(_VACUUMED, name, began):
                    break
                await asyncio.sleep(0.1)
        finally:
            await connection.close()
