"""Connections: a small pool that also works behind a transaction-mode pooler."""

from __future__ import annotations

from typing import Any

import asyncpg

from worker.store.errors import translated

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


async def open_pool(dsn: str, size: int) -> tuple[Pool, bool]:
    with translated():
        pooled = await behind_pooler(dsn)
        direct: dict[str, Any] = {
            "server_settings": {"application_name": "rowmill", "jit": "off"},
        }
        through_pooler: dict[str, Any] = {"statement_cache_size": 0}
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            connection_class=Connection,
            command_timeout=60,
            max_inactive_connection_lifetime=300,
            **(through_pooler if pooled else direct),
        )
    return pool, pooled
