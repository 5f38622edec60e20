"""Sessions, transactions, slots, clocks, and what stands between us and the server."""

from __future__ import annotations

from datetime import datetime

import asyncpg

from worker.store.errors import translated
from worker.store.health.rows_of import Row, rows_of
from worker.store.pool import connect
from worker.store.store import Store

_SERVER = """
SELECT current_setting('server_version_num')::integer / 10000 AS major,
       current_setting('server_version') AS version,
       current_setting('max_connections')::integer
         - current_setting('superuser_reserved_connections')::integer AS most,
       (SELECT sum(numbackends) FROM pg_stat_database)::integer AS used,
       clock_timestamp() AS clock
"""

# Of sessions that this role may not see there is neither a state nor a start.
_OLD = """
SELECT a.pid, a.usename::text AS who, a.application_name AS application, a.state,
       extract(epoch FROM clock_timestamp() - a.xact_start)::double precision AS age,
       extract(epoch FROM clock_timestamp() - a.state_change)::double precision AS idle,
       a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL AS holds
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.backend_type = 'client backend'
   AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
   AND (a.xact_start < clock_timestamp() - make_interval(secs => $1)
        OR (a.state LIKE 'idle in transaction%'
            AND a.state_change < clock_timestamp() - make_interval(secs => $2)))
 ORDER BY a.xact_start LIMIT 10
"""

_HIDDEN = """
SELECT count(*) FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.backend_type IS NULL AND a.state IS NULL
   AND a.usename IS NOT NULL
"""

_PREPARED = """
SELECT p.gid, p.owner::text AS who,
       extract(epoch FROM clock_timestamp() - p.prepared)::double precision AS age
  FROM pg_prepared_xacts p
 WHERE p.database = current_database() AND p.prepared < clock_timestamp() - make_interval(secs => $1)
 ORDER BY p.prepared LIMIT 10
"""

_SLOTS = """
SELECT s.slot_name::text AS name, s.slot_type AS kind, age(s.xmin) AS behind,
       CASE WHEN NOT pg_is_in_recovery()
            THEN pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint END AS bytes
  FROM pg_replication_slots s
 WHERE NOT s.active
"""


async def server(store: Store) -> Row:
    ((row),) = await rows_of(store, _SERVER)
    return row


async def old(store: Store, age: float, idle: float) -> list[Row]:
    return await rows_of(store, _OLD, age, idle)


async def hidden(store: Store) -> int:
    """Sessions in this database that this role may not look at."""
    return int(await store.value(_HIDDEN))


async def prepared(store: Store, age: float) -> list[Row]:
    return await rows_of(store, _PREPARED, age)


async def slots(store: Store) -> list[Row]:
    """Those that nobody uses now."""
    return await rows_of(store, _SLOTS)


async def clock(store: Store) -> datetime:
    at: datetime = await store.value("SELECT clock_timestamp()")
    return at


async def refuses_transactions(dsn: str) -> str | None:
    """What a statement-mode pooler says to a transaction."""
    with translated():
        connection = await connect(dsn)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.fetchval("SELECT 1")
            await transaction.rollback()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            return str(error)
        finally:
            connection.terminate()
    return None
