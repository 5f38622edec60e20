"""Connections: a small pool that also works behind a transaction-mode pooler."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import asyncpg

from worker.store.errors import Traffic, translated

# Its pool logs each failed attempt to reconnect. A worker's log has that; a command that sets up no
# logging says in its own words that the database is away, and prints no traceback beside them.
logging.getLogger("asyncpg").addHandler(logging.NullHandler())

Pool = Any
"""asyncpg's pool; its own types are generic over the record class and add nothing here."""


class Connection(asyncpg.Connection):
    """Our statements leave no session state, so a release needs no reset round trip."""

    def get_reset_query(self) -> str:
        return ""


async def connect(dsn: str) -> Any:
    """A connection of its own, with nothing cached, so that it is right behind a pooler too.

    With asyncpg's defaults behind a transaction-mode pooler another client's prepared statement
    can be the one that runs.
    """
    return await asyncpg.connect(dsn, statement_cache_size=0)


async def behind_pooler(dsn: str) -> bool:
    """A server pid that isn't the backend's means a pooler in between."""
    connection = await connect(dsn)
    try:
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        return bool(backend != connection.get_server_pid())
    finally:
        await connection.close()


STATEMENT_SECONDS = 60


def connect_options(
    *, pooled: bool, name: str = "rowmill", within: float = STATEMENT_SECONDS
) -> dict[str, Any]:
    options: dict[str, Any] = {"command_timeout": within}
    if pooled:
        return {**options, "statement_cache_size": 0}
    settings = {"application_name": name, "jit": "off"}
    if within < STATEMENT_SECONDS:  # whoever asks for less is cut off by the server itself
        settings["statement_timeout"] = f"{within * 1000:.0f}"
    return {**options, "server_settings": settings}


async def answers(dsn: str, within: float = 5.0) -> bool:
    """Whether the server takes a new connection and answers on it."""
    try:
        async with asyncio.timeout(within):
            connection = await connect(dsn)
            try:
                await connection.fetchval("SELECT 1")
            finally:
                connection.terminate()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        return False
    return True


async def open_pool(
    dsn: str, size: int, traffic: Traffic, *, name: str, within: float
) -> tuple[Pool, bool]:
    async def made(_connection: Any) -> None:
        traffic.connections += 1

    with translated(traffic):
        pooled = await behind_pooler(dsn)
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            connection_class=Connection,
            init=made,
            max_inactive_connection_lifetime=300,
            **connect_options(pooled=pooled, name=name, within=within),
        )
    return pool, pooled


class Line:
    """A connection for one loop's statements, one after the other.

    Taking a connection from a pool and giving it back costs 0.15 ms, as much as a small statement;
    between a job's INSERT and its start that would be paid twice.
    """

    def __init__(self, dsn: str, *, pooled: bool, traffic: Traffic) -> None:
        self._dsn = dsn
        self._traffic = traffic
        self._options = connect_options(pooled=pooled)
        self._connection: Any = None
        self._turn = asyncio.Lock()

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        with translated(self._traffic):
            async with self._turn:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(self._dsn, **self._options)
                    self._traffic.connections += 1
                return list(await self._connection.fetch(sql, *args))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
