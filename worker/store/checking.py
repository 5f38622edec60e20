"""What in a live database a map can't work with: every problem, not only the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from worker.maps import MapError, Platform, Source
from worker.store import attaching


@dataclass(frozen=True, slots=True)
class Problem:
    severity: Literal["refuse", "warn"]
    message: str


async def problems(connection: Any, platform: Platform) -> list[Problem]:
    found = []
    for number, source in enumerate(platform.map.sources):
        where = f"{platform.origin}: sources[{number}] ({source.name})"
        found += [Problem("refuse", text) for text in await _of(connection, where, source)]
    return found


async def _of(connection: Any, where: str, source: Source) -> list[str]:
    columns = await attaching._live_columns(connection, source.table)  # noqa: SLF001
    if not columns:
        return [f"{where}.table: there is no table {source.table} in this database"]
    missing = [
        f"{where}.{key}: table {source.table} has no column {column!r}"
        for key, column in attaching._named_columns(source)  # noqa: SLF001
        if column not in columns
    ]
    if missing:
        return [*missing, f"{source.table} has the columns {', '.join(sorted(columns))}"]
    try:
        await attaching._check(connection, where, source, columns)  # noqa: SLF001
    except MapError as error:
        return [str(error)]
    return []
