"""What messages ask of the database: a row put in, a job read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.generate.words import ident, literal, name
from worker.maps import Platform, Source
from worker.store.finding import UnknownName
from worker.store.store import SourceInfo, Store, to_json

_COLUMNS = """
SELECT a.attname FROM pg_attribute a
 WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

_OUTPUTS = """
SELECT coalesce(jsonb_agg(o.file ORDER BY u.id, o.place), '[]')::text
  FROM rowmill.submissions u
 CROSS JOIN LATERAL jsonb_array_elements(
       CASE jsonb_typeof(u.result -> 'outputs') WHEN 'array' THEN u.result -> 'outputs'
            ELSE '[]' END) WITH ORDINALITY AS o (file, place)
 WHERE u.source = $1 AND u.row_key = $2 AND u.state = 'finished'
   AND u.run = (SELECT max(l.run) FROM rowmill.submissions l
                 WHERE l.source = $1 AND l.row_key = $2)
"""


@dataclass(frozen=True, slots=True)
class JobTable:
    """An attached table, and the columns it has right now."""

    info: SourceInfo
    source: Source
    columns: tuple[str, ...]

    @property
    def sql(self) -> str:
        return name(self.source.table)


@dataclass(frozen=True, slots=True)
class Inserted:
    key: str
    """As the database writes it."""
    created: bool
    exists: bool
    """False where the table's own trigger dropped the row without an error."""


async def job_table(store: Store, wanted: str) -> JobTable:
    known = await store.sources()
    for info in known:
        if info.name == wanted:
            source = source_of(info)
            rows = await store.fetch(_COLUMNS, name(source.table))
            return JobTable(info, source, tuple(row["attname"] for row in rows))
    names = ", ".join(info.name for info in known) or "none yet"
    raise UnknownName(f"no attached table {wanted!r}; attached: {names}")


def source_of(info: SourceInfo) -> Source:
    platform = Platform.from_definition(info.definition)
    return next(source for source in platform.map.sources if source.name == info.name)


def field_of(source: Source, row: Mapping[str, Any], field: str) -> Any:
    """The value of the first column that the map fills with this field."""
    sets = source.set
    for group in (sets.progress, sets.failure, sets.success):
        for column, filled_with in group.items():
            if filled_with == field:
                return row.get(column)
    return None


async def insert(store: Store, table: JobTable, row: Mapping[str, Any]) -> Inserted:
    """Put a row in unless its key is there already: once, however often it is asked for.

    Postgres itself reads the values, as the columns' types; columns that aren't given get their
    defaults. The caller has checked that every key of `row` is one of `table.columns`.
    """
    key = ident(table.source.key)
    given = ", ".join(ident(column) for column in row)
    made = await store.fetch(
        f"WITH given AS MATERIALIZED ("
        f" SELECT {given} FROM jsonb_populate_record(NULL::{table.sql}, $1::text::jsonb)),"
        f" made AS (INSERT INTO {table.sql} ({given}) SELECT {given} FROM given"
        f" ON CONFLICT ({key}) DO NOTHING RETURNING 1)"
        f" SELECT g.{key}::text AS key, EXISTS (SELECT FROM made) AS created FROM given g",
        to_json(row),
    )
    inserted, created = made[0]["key"], made[0]["created"]
    # In a statement of its own: its snapshot sees whoever came first.
    there = created or await store.value(
        f"SELECT EXISTS (SELECT FROM {table.sql} t, jsonb_populate_record(NULL::{table.sql},"
        f" jsonb_build_object({literal(table.source.key)}, $1::text)) g WHERE t.{key} = g.{key})",
        inserted,
    )
    return Inserted(inserted, created, there)


async def outputs(store: Store, source: str, key: str) -> list[dict[str, Any]]:
    """The files that the latest run's paid calls brought, as the ledger has them."""
    found: list[dict[str, Any]] = json.loads(await store.value(_OUTPUTS, source, key))
    return found
