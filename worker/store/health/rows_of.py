"""Rows as plain dictionaries."""

from __future__ import annotations

from typing import Any

from worker.store.pool import STATEMENT_SECONDS
from worker.store.store import Store

Row = dict[str, Any]


async def rows_of(store: Store, sql: str, *args: Any) -> list[Row]:
    return [dict(row) for row in await store.fetch(sql, *args)]


async def all_rows_of(store: Store, sql: str, *args: Any) -> list[Row]:
    """The same of a platform's tables: where row-level security would hide rows, it is an error."""
    async with store.look(STATEMENT_SECONDS) as connection:
        return [dict(row) for row in await connection.fetch(sql, *args)]
