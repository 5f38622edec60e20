"""Rows as plain JSON.

Times are ISO 8601 in UTC, money is a decimal string of US cents, ids are strings (they are 63 bits
wide, which JavaScript would round).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from worker.store.store import Store

Row = dict[str, Any]


@cache
def stored_query(name: str) -> str:
    return (files("sql") / "queries" / f"{name}.sql").read_text(encoding="utf-8")


async def read(store: Store, sql: str, *args: Any) -> list[Row]:
    return [plain(row) for row in await store.fetch(sql, *args)]


def plain(row: Mapping[str, Any]) -> Row:
    return {name: _value(value) for name, value in dict(row).items()}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return value


def seconds_between(since: datetime | None, until: datetime | None) -> float | None:
    """None where one isn't known; a time that is yet to come is no time at all."""
    if since is None or until is None:
        return None
    return max(0.0, round((until - since).total_seconds(), 3))
