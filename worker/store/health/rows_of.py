"""Rows as plain dictionaries."""

from __future__ import annotations

from typing import Any

from worker.store.store import Store

Row = dict[str, Any]


async def rows_of(store: Store, sql: str, *args: Any) -> list[Row]:
    return [dict(row) for row in await store.fetch(sql, *args)]
