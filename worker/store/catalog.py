"""What the catalog, and a bounded look at its rows, say of someone's table."""

from __future__ import annotations

import re
from typing import Any

import asyncpg

from worker.generate.words import ident
from worker.guessing import Column, Table, worth_sampling
from worker.guessing.constraints import DOMAIN, allowed, literal
from worker.guessing.table import Tie
from worker.maps import MapError
from worker.store.errors import translated
from worker.store.pool import connect

FIRST, NEWEST = 10_000, 1_000
"""Rows that are looked at for words: from the front, and by key from the end."""
WORDS = 40
"""A column with more different words than that is no state."""
PATIENCE = "SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '2s'"

_FIND = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.relispartition AS leaf,
       c.relpersistence = 't' AS temporary, c.relrowsecurity AS row_security,
       greatest(c.reltuples, 0)::bigint AS about_rows
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = ANY ($2)
   AND CASE WHEN $1::text[] IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = ANY ($1) END
 ORDER BY array_position($2, c.relname::text), array_position($1, n.nspname::text)
 LIMIT 1
"""

_COLUMNS = """
SELECT a.attnum, a.attname AS name, a.attnotnull OR t.typnotnull AS required,
       format_type(b.oid, NULL) AS type, b.typtype = 'e' AS enum, t.typtype = 'd' AS domain, t.oid AS type_oid,
       a.attgenerated <> '' OR a.attidentity = 'a' AS generated,
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS default,
       t.typdefault AS domain_default,
       CASE WHEN b.oid = 'numeric'::regtype AND m.modifier > 0 THEN (m.modifier - 4) & 2047 END AS scale
  FROM pg_attribute a
  JOIN pg_type t ON t.oid = a.atttypid
  JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
 CROSS JOIN LATERAL (SELECT CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END AS modifier) m
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
"""

_ENUMS = """
SELECT a.attname AS name, array_agg(e.enumlabel::text ORDER BY e.enumsortorder) AS words
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  JOIN pg_enum e ON e.enumtypid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
 GROUP BY a.attname
"""

_CHECKS = """
SELECT conname AS name, contypid AS domain, pg_get_constraintdef(oid) AS definition,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = conrelid AND a.attnum = ANY (conkey)) AS columns
  FROM pg_constraint
 WHERE contype = 'c' AND (conrelid = $1 OR contypid = ANY (
       SELECT atttypid FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped))
 ORDER BY name
"""

_PARENTS = """
SELECT a.attname AS name, n.nspname || '.' || c.relname AS parent, p.attname AS parent_column
  FROM pg_constraint k
  JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
  JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = k.confkey[1]
 WHERE k.contype = 'f' AND k.conrelid = $1 AND cardinality(k.conkey) = 1
"""

_KEYS = """
SELECT i.indisprimary AS primary, i.indnkeyatts AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY k(number, place)
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
              ORDER BY k.place) AS names
  FROM pg_index i
 WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
 ORDER BY i.indisprimary DESC, i.indexrelid
"""

_COMMON = """
SELECT most_common_vals::text::text[] AS words FROM pg_stats
 WHERE schemaname = $1 AND tablename = $2 AND attname = $3
 ORDER BY inherited DESC LIMIT 1
"""


async def describe(dsn: str, tables: list[str]) -> list[Table]:
    """Raises `MapError` for what can't be a job table at all."""
    with translated():
        connection = await connect(dsn)
        try:
            async with connection.transaction(readonly=True):
                await connection.execute(PATIENCE)
                return [await _table(connection, table) for table in tables]
        finally:
            await connection.close()


async def known(connection: Any, table: str) -> Table | None:
    """A map's table, without a look at its rows."""
    found = await connection.fetchrow(
        _FIND, [table.split(".", maxsplit=1)[0]], [table.split(".")[1]]
    )
    return await _described(connection, found) if found else None


async def _described(connection: Any, found: Any) -> Table:
    keys, several = await _keys(connection, found)
    checks = await connection.fetch(_CHECKS, found["oid"])
    return Table(
        found["schema"],
        found["name"],
        await _columns(connection, found["oid"], checks),
        keys,
        partitioned=found["kind"] == "p",
        row_security=found["row_security"],
        about_rows=found["about_rows"],
        unnamed_keys=several,
        ties=tuple(
            Tie(check["name"], tuple(check["columns"]), check["definition"])
            for check in checks
            if len(check["columns"]) > 1
        ),
    )


async def _table(connection: Any, asked: str) -> Table:
    found = await _find(connection, asked)
    _refuse(found, asked)
    table = await _described(connection, found)
    seen = {
        column: words
        for column in worth_sampling(table)
        if (words := await _seen(connection, table, column))
    }
    return table.with_words(seen)


# --------------------------------------------------------------------------- which table


def parts(asked: str) -> list[str]:
    """`public.jobs` → both parts, `"My.Jobs"` → one: quotes keep dots."""
    found = re.findall(r'"((?:[^"]|"")+)"|([^".]+)', asked)
    names = [quoted.replace('""', '"') or plain for quoted, plain in found]
    if not 1 <= len(names) <= 2:
        raise MapError(f"--table {asked}: give it as schema.table")
    return names


async def _find(connection: Any, asked: str) -> Any:
    """As it is written, else in lower case, as SQL would have it."""
    *schema, table = parts(asked)
    schemas = [schema[0], schema[0].lower()] if schema else None
    found = await connection.fetchrow(_FIND, schemas, [table, table.lower()])
    if found is None:
        raise MapError(
            f"there is no table {asked} in this database (or this role may not see it); "
            "name it as schema.table, with its schema"
        )
    return found


_OTHER_KINDS = {
    "v": "a view: rows are inserted into the table behind it; name that one",
    "m": "a materialized view, which has no triggers; name the table behind it",
    "f": "a foreign table: its rows live in another database; attach the table there",
}


def _refuse(found: Any, asked: str) -> None:
    why = _OTHER_KINDS.get(found["kind"])
    if found["leaf"]:
        why = "a partition; name the partitioned table it belongs to"
    elif found["temporary"]:
        why = "temporary: no worker can see it"
    elif found["schema"] in ("rowmill", "pg_catalog", "information_schema"):
        why = f"in the schema {found['schema']}, which isn't yours"
    if why:
        raise MapError(f"{asked} can't be a job table: it is {why}")


# --------------------------------------------------------------------------- its catalog


async def _keys(connection: Any, found: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns with a unique index of their own, and the others' columns.

    A partitioned table can't have one without its partition key: there the index's first column
    will do, as it does for `attach`.
    """
    rows = await connection.fetch(_KEYS, found["oid"])
    partitioned = found["kind"] == "p"
    single = [r["names"][0] for r in rows if r["names"] and (r["columns"] == 1 or partitioned)]
    several = [", ".join(r["names"]) for r in rows if r["columns"] > 1]
    return tuple(dict.fromkeys(single)), tuple(several)


async def _columns(connection: Any, oid: int, checks: list[Any]) -> tuple[Column, ...]:
    enums = {row["name"]: tuple(row["words"]) for row in await connection.fetch(_ENUMS, oid)}
    parents = {
        row["name"]: (row["parent"], row["parent_column"])
        for row in await connection.fetch(_PARENTS, oid)
    }
    return tuple(
        _column(row, enums.get(row["name"], ()), parents.get(row["name"]), checks)
        for row in await connection.fetch(_COLUMNS, oid)
    )


def _column(
    row: Any, enum: tuple[str, ...], parent: tuple[str, str] | None, checks: list[Any]
) -> Column:
    words, origin = enum, "enum" if enum else None
    low, high = None, None
    for check in checks:
        if check["domain"] not in (0, row["type_oid"]):
            continue
        of_domain = check["domain"] != 0
        says = allowed(check["definition"], DOMAIN if of_domain else row["name"])
        low, high = says.low if low is None else low, says.high if high is None else high
        if says.words:
            both = [word for word in says.words if not words or word in words]
            words, origin = tuple(both), "domain" if of_domain else "check"
    default = row["default"] or row["domain_default"]
    return Column(
        row["name"],
        row["type"],
        required=row["required"],
        default=literal(default) if default else None,
        generated=row["generated"],
        enum=row["enum"],
        words=words,
        origin=origin,  # type: ignore[arg-type]
        low=low,
        high=high,
        scale=row["scale"],
        parent=parent,
    )


# --------------------------------------------------------------------------- its rows


async def _seen(connection: Any, table: Table, column: str) -> tuple[str, ...]:
    """Its words in a few rows and in the server's statistics: never a scan of a large table."""
    try:
        async with connection.transaction():
            words = dict.fromkeys(await _sample(connection, table, column))
    except asyncpg.PostgresError:  # not ours to read, or too slow: its words are asked for
        words = {}
    common = await connection.fetchval(_COMMON, table.schema, table.name, column)
    words |= dict.fromkeys(common or ())
    return tuple(words) if len(words) <= WORDS else ()


async def _sample(connection: Any, table: Table, column: str) -> list[str]:
    at, source = ident(column), f"{ident(table.schema)}.{ident(table.name)}"
    looks = [f"SELECT {at}::text AS word FROM {source} LIMIT {FIRST}"]
    if table.keys and not table.partitioned:
        # By the key's index; what is new has states that the oldest rows have left.
        key = ident(table.keys[0])
        looks.append(f"SELECT {at}::text FROM {source} ORDER BY {key} DESC LIMIT {NEWEST}")
    inner = " UNION ALL ".join(f"({look})" for look in looks)
    rows = await connection.fetch(
        f"SELECT word, count(*) FROM ({inner}) s WHERE word <> '' AND length(word) <= 100 "
        f"GROUP BY word ORDER BY count(*) DESC LIMIT {WORDS + 1}"
    )
    return [row["word"] for row in rows]
