"""What the live database says of attached tables: types and indexes, for SQL made when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.generate.words import Column, Target
from worker.generate.words import name as quoted
from worker.maps import Platform, parse_path
from worker.store.store import SourceInfo

# Types are qualified, so that they mean the same with any search_path.
_COLUMNS = """
SELECT asked.name AS relation, a.attname AS name, a.attnotnull AS required,
       CASE WHEN n.nspname = 'pg_catalog' THEN format_type(a.atttypid, NULL)
            ELSE format('%I.%I', n.nspname, t.typname) END AS type,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisvalid
                  AND a.attnum = ANY (i.indkey)) AS indexed
  FROM unnest($1::text[], $2::text[]) AS asked (name, relation)
  JOIN pg_attribute a ON a.attrelid = to_regclass(asked.relation) AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A source, its map, and its table as it is now."""

    info: SourceInfo
    target: Target
    ends: dict[str, str]
    """Types of the columns at the ends of foreign-key paths."""
    indexed: frozenset[str]
    required: frozenset[str]
    """Columns that are never null."""

    @property
    def usable(self) -> bool:
        """Its table may be gone, or made anew without what its map names."""
        source = self.target.source
        return {source.key, source.status.column} <= self.target.columns.keys()


async def tables(connection: Any, sources: Sequence[SourceInfo]) -> list[Table]:
    platforms = [Platform.from_definition(info.definition) for info in sources]
    mapped = [
        next(source for source in platform.map.sources if source.name == info.name)
        for info, platform in zip(sources, platforms, strict=True)
    ]
    paths = {s.tenant.path for s in mapped if s.tenant is not None and s.tenant.path is not None}
    ends = {path: parse_path(path)[1][-1] for path in paths}
    names = sorted({s.table for s in mapped} | {hop.table for hop in ends.values()})
    rows = await connection.fetch(_COLUMNS, names, [quoted(name) for name in names])
    of = {name: [row for row in rows if row["relation"] == name] for name in names}
    types = {
        path: row["type"]
        for path, hop in ends.items()
        for row in of[hop.table]
        if row["name"] == hop.column
    }
    return [
        Table(
            info,
            Target(
                platform,
                source,
                info.id,
                {row["name"]: Column(row["type"]) for row in of[source.table]},
                partitioned=False,
            ),
            types,
            frozenset(row["name"] for row in of[source.table] if row["indexed"]),
            frozenset(row["name"] for row in of[source.table] if row["required"]),
        )
        for info, platform, source in zip(sources, platforms, mapped, strict=True)
    ]
