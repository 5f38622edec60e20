"""What a map would make of the rows a table has now: by the very expressions its triggers use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from worker.generate import Target
from worker.generate.words import ident, lane_of, rank_of, status_of, value_of
from worker.guessing.table import Table
from worker.maps import Platform, Source, Value
from worker.store import catalog, checking
from worker.store.checking import Problem
from worker.store.errors import translated
from worker.store.pool import connect

ROWS = 200_000
"""Of a larger table only as many are looked at."""
GROUPS = 400


@dataclass(frozen=True, slots=True)
class Count:
    """How many of the rows that were looked at have these values."""

    values: tuple[Any, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Found:
    """One source's table."""

    table: Table | None
    statuses: Sequence[Count] = ()
    kinds: Sequence[Count] = ()
    """(kind, lane)"""
    priorities: Sequence[Count] = ()
    """(what the row has, rank)"""
    sampled: bool = False
    uncounted: str | None = None
    """Why nothing is known of its rows."""


@dataclass(frozen=True, slots=True)
class Look:
    problems: list[Problem]
    found: dict[str, Found] = field(default_factory=dict)


async def look(dsn: str, platform: Platform) -> Look:
    """Changes nothing; rows are only counted where the map fits its table."""
    with translated():
        connection = await connect(dsn)
        try:
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute("SET LOCAL search_path = pg_catalog")
                await connection.execute("SET LOCAL statement_timeout = '30s'")
                problems = await checking.problems(connection, platform)
                refused = any(problem.severity == "refuse" for problem in problems)
                found = {
                    source.name: await _found(connection, platform, source, count=not refused)
                    for source in platform.map.sources
                }
            finally:
                await transaction.rollback()
            return Look(problems, found)
        finally:
            await connection.close()


async def _found(connection: Any, platform: Platform, source: Source, *, count: bool) -> Found:
    table = await catalog.known(connection, source.table)
    if table is None or not count:
        return Found(table)
    target = Target(platform, source, 0, {}, table.partitioned)
    try:
        async with connection.transaction():
            rows = await connection.fetch(_counting(target))
    except asyncpg.PostgresError as error:  # not ours to read, or too slow
        return Found(table, uncounted=f"its rows could not be looked at: {error}")
    groups: dict[int, list[Count]] = {0: [], 1: [], 2: []}
    for row in rows:
        values = (("status",), ("kind", "lane"), ("priority", "rank"))[row["part"]]
        groups[row["part"]].append(Count(tuple(row[v] for v in values), row["rows"]))
    looked = sum(count.rows for count in groups[0])
    return Found(table, groups[0], groups[1], groups[2], sampled=looked >= ROWS)


def _counting(target: Target) -> str:
    source = target.source
    kind, kind_joins = value_of(source.kind, "n", "kind")
    lane, lane_joins = lane_of(target, "n")
    rank, rank_joins = rank_of(target, "n")
    priority, priority_joins = "NULL", list[str]()
    if source.priority and source.priority.column:
        priority = f"n.{ident(source.priority.column)}"
    elif source.priority and source.priority.path:
        priority, priority_joins = value_of(Value(path=source.priority.path), "n", "word")
    joins = " ".join([*kind_joins, *lane_joins, *rank_joins, *priority_joins])
    return f"""
        SELECT CASE WHEN grouping(status) = 0 THEN 0 WHEN grouping(kind) = 0 THEN 1 ELSE 2 END AS part,
               status, kind, lane, priority, rank, count(*) AS rows
          FROM (SELECT {status_of(target, "n")} AS status, {kind} AS kind, {lane} AS lane,
                       ({priority})::text AS priority, ({rank})::int AS rank
                  FROM (SELECT * FROM {target.table} LIMIT {ROWS}) n {joins}) looked
         GROUP BY GROUPING SETS ((status), (kind, lane), (priority, rank))
         ORDER BY part, rank DESC NULLS LAST, rows DESC
         LIMIT {GROUPS}"""
