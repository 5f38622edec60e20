"""What in a live database a platform's map can't work with: all of it, before anything is changed.

Names of tables and columns, rules that can't be planned, what the platform's own `attach.sql` says,
and columns without a time zone that are filled in another than the map's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from worker.generate import Column
from worker.generate.rules import statements
from worker.generate.words import literal
from worker.generate.words import name as quoted
from worker.generate.words import relation as relation_of
from worker.maps import PROGRESS_FIELDS, MapError, Platform, Source, parse_path
from worker.relocating import PLAIN
from worker.store import limits, refreshing, retention
from worker.store.problem import Problem

__all__ = ["Problem", "live_columns", "problems"]


_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type, a.atttypmod AS modifier,
       a.attnotnull AS required
  FROM pg_attribute a
 WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
"""

_UNIQUE = """
SELECT EXISTS (
    SELECT FROM pg_index i
     WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indpred IS NULL
       -- A partitioned table can't have a unique index without its partition key.
       AND (i.indnkeyatts = 1 OR (SELECT relkind = 'p' FROM pg_class WHERE oid = i.indrelid))
       AND (SELECT attnum FROM pg_attribute WHERE attrelid = i.indrelid AND attname = $2) = i.indkey[0])
"""

_LABELS = """
SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum
 WHERE enumtypid = to_regtype($1)
"""

_SCHEMAS = """
SELECT string_agg(nspname, ', ' ORDER BY nspname) FROM pg_namespace
 WHERE nspname !~ '^pg_' AND nspname NOT IN ('rowmill', 'information_schema')
"""

# A map can be checked before there is such a schema, and by whoever may only read the platform's.
_ATTACHING = """
SELECT CASE WHEN has_schema_privilege(n.oid, 'USAGE') THEN to_regclass('rowmill.sources') IS NOT NULL END
  FROM pg_namespace n WHERE n.nspname = 'rowmill'
"""

# Sources this map once had, and has no more, are detached by `attach`: they are in nobody's way.
_TAKEN = """
SELECT s.name, s.platform, s.relation, to_regclass(s.relation) IS NOT NULL AS there
  FROM rowmill.sources s WHERE s.platform <> $1 OR s.name = ANY ($2)
"""

_RESULTS = {
    "rank": ("key", "bonus::integer"),
    "stop": ("key = ANY (rowmill_keys)", "verdict::text", "message::text"),
    "tenant": ("key = ANY (rowmill_keys)", "tenant::text"),
}
"""Rules that no producer and no job should be the first to try."""

# Whoever has no zone of its own has the database's, or else the server's: as we do, without our own.
_ZONES = """
WITH setting AS (
    SELECT s.setrole, s.setdatabase, split_part(c, '=', 2) AS zone
      FROM pg_db_role_setting s, unnest(s.setconfig) c
     WHERE lower(split_part(c, '=', 1)) = 'timezone'
       AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
), zone AS (
    SELECT 'role ' || r.rolname AS who, s.zone
      FROM (SELECT DISTINCT ON (setrole) * FROM setting WHERE setrole <> 0
             ORDER BY setrole, setdatabase DESC) s
      JOIN pg_roles r ON r.oid = s.setrole
    UNION ALL
    SELECT 'this database', coalesce(
        (SELECT zone FROM setting WHERE setrole = 0 AND setdatabase <> 0),
        (SELECT reset_val FROM pg_settings WHERE name = 'TimeZone' AND NOT EXISTS (
            SELECT FROM setting JOIN pg_roles r ON r.oid = setrole WHERE r.rolname = session_user)))
)
SELECT z.who, z.zone FROM zone z
 WHERE EXISTS (SELECT FROM unnest(ARRAY['2024-01-01 00:00Z', '2024-07-01 00:00Z']::timestamptz[]) t
                WHERE t AT TIME ZONE z.zone <> t AT TIME ZONE $1)
 ORDER BY z.who
"""

_CLOCKS = """
SELECT a.attname AS name
  FROM pg_attribute a
  JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = to_regclass($1) AND NOT a.attisdropped
   AND a.atttypid = 'timestamp without time zone'::regtype
   AND pg_get_expr(d.adbin, d.adrelid) ~* $re$(now|_timestamp) *\\(|(current|local)_?timestamp$re$
   AND pg_get_expr(d.adbin, d.adrelid) !~* $re$at time zone|timezone *\\($re$
 ORDER BY a.attnum
"""


async def problems(connection: Any, platform: Platform) -> list[Problem]:
    """Everything that stands between this map and this database; nothing is changed."""
    async with connection.transaction():
        # Types come out qualified, as functions with a pinned search_path need them.
        await connection.execute("SET LOCAL search_path = pg_catalog")
        return [problem async for problem in _all(connection, platform)]


async def _all(connection: Any, platform: Platform) -> AsyncIterator[Problem]:
    if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", platform.schema):
        there = await connection.fetchval(_SCHEMAS)
        yield _no(
            f"there is no schema {platform.schema!r} in this database (it has {there}); `--schema` "
            "names the one that holds what the map calls `public.`"
        )
        return
    async for message in _taken(connection, platform):
        yield _no(message)
    whole = True
    for number, source in enumerate(platform.map.sources):
        where = f"{platform.origin}: sources[{number}] ({source.name})"
        async for message in _of_source(connection, where, source):
            whole = False
            yield _no(message)
    async for problem in _of_rules(connection, platform, tables_fit=whole):
        yield problem
    for problem in (
        *await refreshing.problems(connection, platform),
        *await retention.problems(connection, platform),
    ):
        yield problem
    async for problem in _of_clocks(connection, platform):
        yield problem


def _no(message: str) -> Problem:
    return Problem("refuse", message)


# --------------------------------------------------------------------------- names


async def live_columns(connection: Any, table: str) -> dict[str, Column]:
    return {row["name"]: _column(row) for row in await connection.fetch(_COLUMNS, quoted(table))}


def _column(row: Any) -> Column:
    kind, modifier = row["type"], row["modifier"]
    length = modifier - 4 if kind == "character varying" and modifier > 0 else None
    scale = ((modifier - 4) & 0x7FF) if kind == "numeric" and modifier > 0 else None
    return Column(kind, length, scale)


async def _taken(connection: Any, platform: Platform) -> AsyncIterator[str]:
    """What others have attached already, or this platform has in another schema."""
    if not await connection.fetchval(_ATTACHING):
        return
    name = platform.map.platform
    names = [source.name for source in platform.map.sources]
    rows = await connection.fetch(_TAKEN, name, names)
    mapped: dict[str, str] = {}
    for number, source in enumerate(platform.map.sources):
        where = f"{platform.origin}: sources[{number}] ({source.name})"
        relation = relation_of(source.table)
        for row in rows:
            if row["name"] != source.name:
                continue
            if row["platform"] != name:
                yield (
                    f"{where}.name: platform {row['platform']} already has a source of this name; "
                    "give this one another"
                )
            elif row["relation"] != relation and row["there"]:
                yield _elsewhere(where, name, source, row["relation"])
        others = {row["relation"]: row["name"] for row in rows if row["name"] != source.name}
        if twice := others.get(relation) or mapped.get(relation):
            yield f"{where}.table: {source.table} is already attached, as source {twice}"
        mapped[relation] = source.name


def _elsewhere(where: str, platform: str, source: Source, relation: str) -> str:
    schema = relation.split(".", maxsplit=1)[0]
    renew = f"`rowmill attach {platform} --schema {schema}` brings that one up to date, "
    return (
        f"{where}.table: source {source.name} is attached to {relation}, and can't be attached to "
        f"{source.table} beside it; {renew if PLAIN.fullmatch(schema) else ''}"
        f"`rowmill detach {platform}` makes it free"
    )


async def _of_source(connection: Any, where: str, source: Source) -> AsyncIterator[str]:
    columns = await live_columns(connection, source.table)
    if not columns:
        yield f"{where}.table: there is no table {source.table} in this database"
        return
    for key, column in _named_columns(source):
        if column not in columns:
            yield (
                f"{where}.{key}: table {source.table} has no column {column!r} "
                f"(it has {', '.join(sorted(columns))})"
            )
    if source.key in columns and not await connection.fetchval(
        _UNIQUE, quoted(source.table), source.key
    ):
        yield (
            f"{where}.key: {source.table}.{source.key} has no unique index, so it can't name a job"
        )
    if source.status.column in columns:
        async for message in _misfits(
            connection, where, source, columns[source.status.column].type
        ):
            yield message
    for column, field in source.set.progress.items():
        if field not in PROGRESS_FIELDS:
            yield (
                f"{where}.set.progress.{column}: {field!r} is not known while a job runs; "
                f"use one of {', '.join(sorted(PROGRESS_FIELDS))}"
            )
    async for message in _other_tables(connection, where, source):
        yield message


async def _misfits(connection: Any, where: str, source: Source, type_: str) -> AsyncIterator[str]:
    """Words that aren't of the status column's type: a job whose end can't be written is held."""
    status = source.status
    words = [(status.ready[0], "ready"), (status.running, "running")]
    words += [(status.succeeded, "succeeded"), (status.failed, "failed")]
    words += [(status.cancelled or status.failed, "cancelled")]
    words += [(word, "ready") for word in status.ready]
    for word, key in dict(reversed(words)).items():
        try:
            async with connection.transaction():
                await connection.execute(f"SELECT CAST({literal(word)} AS {type_})")
        except asyncpg.DataError:
            labels = await connection.fetchval(_LABELS, type_)
            yield (
                f"{where}.status.{key} = {word!r}: {source.table}.{status.column} is {type_}"
                + (f" and allows only {labels}" if labels else ", which it can't be written to")
            )


def _named_columns(source: Source) -> list[tuple[str, str]]:
    named: list[tuple[str, str | None]] = [
        ("key", source.key),
        ("status.column", source.status.column),
        ("schedule", source.schedule),
        ("kind.column", source.kind.column),
        ("lane.column", source.lane.column),
        ("tenant.column", source.tenant.column if source.tenant else None),
    ]
    if source.tries:
        named += [("tries.column", source.tries.column), ("tries.max", source.tries.max)]
    if source.priority:
        named.append(("priority.column", source.priority.column))
    for key, path in _paths(source):
        named.append((key, parse_path(path)[0]))
    named += [(f"locks[{n}].column", lock.column) for n, lock in enumerate(source.locks)]
    for group in type(source.set).model_fields:
        named += [(f"set.{group}", column) for column in getattr(source.set, group)]
    return [(key, column) for key, column in named if column is not None]


def _paths(source: Source) -> list[tuple[str, str]]:
    paths = [("lane.path", source.lane.path), ("kind.path", source.kind.path)]
    paths.append(("tenant.path", source.tenant.path if source.tenant else None))
    paths.append(("priority.path", source.priority.path if source.priority else None))
    return [(key, path) for key, path in paths if path is not None]


async def _other_tables(connection: Any, where: str, source: Source) -> AsyncIterator[str]:
    wanted = [(f"locks[{n}]", lock.table, lock.key) for n, lock in enumerate(source.locks)]
    for key, path in _paths(source):
        for hop in parse_path(path)[1]:
            wanted += [(key, hop.table, hop.key), (key, hop.table, hop.column)]
    missing = set()
    for key, table, column in dict.fromkeys(wanted):
        live = await live_columns(connection, table)
        if not live and (key, table) not in missing:
            missing.add((key, table))
            yield f"{where}.{key}: there is no table {table} in this database"
        elif live and column not in live:
            yield f"{where}.{key}: table {table} has no column {column!r}"


# --------------------------------------------------------------------------- rules


async def _of_rules(
    connection: Any, platform: Platform, *, tables_fit: bool
) -> AsyncIterator[Problem]:
    if tables_fit:  # else what they say is said already
        async for problem in _tried(connection, platform):
            yield problem
    if sql := platform.rules.get("attach"):
        for problem in await _attach_rule(connection, sql):
            yield problem


async def _tried(connection: Any, platform: Platform) -> AsyncIterator[Problem]:
    try:
        async with connection.transaction():
            await limits.check(connection, platform)
    except MapError as error:
        yield _no(str(error))
    # A rule may call rowmill's own functions, which a database that is only looked at may not have.
    migrated = await connection.fetchval("SELECT to_regnamespace('rowmill') IS NOT NULL")
    for source in platform.map.sources:
        key_type = (await live_columns(connection, source.table))[source.key].type
        for rule, columns in _RESULTS.items():
            sql = platform.rule(source.name, rule)
            if sql is None or ("rowmill." in sql and not migrated):
                continue
            try:
                async with connection.transaction():
                    await connection.execute(_trial(sql, key_type, columns))
            except asyncpg.InvalidSchemaNameError as error:
                if '"rowmill"' not in str(error):
                    yield _no(f"{source.name}.{rule}.sql: {error}")
                else:  # a map can be checked before there is such a schema
                    yield Problem(
                        "warn",
                        f"{source.name}.{rule}.sql: not tried, as it calls functions of Rowmill's: "
                        "`rowmill migrate`, then check again",
                    )
            except (asyncpg.PostgresError, ValueError) as error:
                yield _no(f"{source.name}.{rule}.sql: {error}")


def _trial(sql: str, key_type: str, columns: tuple[str, ...]) -> str:
    """The rule as a function embeds it, for no job at all."""
    body = f"""
DECLARE
    rowmill_keys {key_type}[] := '{{}}';
BEGIN
    PERFORM {", ".join(f"a.{column}" for column in columns)} FROM (
{_one(sql)}
    ) a;
END"""
    return f"DO {literal(body)}"


async def _attach_rule(connection: Any, sql: str) -> list[Problem]:
    try:
        async with connection.transaction():
            rows = await connection.fetch(
                f"SELECT a.severity::text, a.message::text FROM (\n{_one(sql)}\n) a"
            )
    except (asyncpg.PostgresError, ValueError) as error:
        return [_no(f"attach.sql: {error}")]
    found = []
    for row in rows:
        if row["severity"] not in {"refuse", "warn"} or row["message"] is None:
            found.append(_no(f"attach.sql answered {tuple(row)}: wanted are 'refuse' and 'warn'"))
        else:
            found.append(Problem(row["severity"], row["message"]))
    return found


def _one(sql: str) -> str:
    parts = statements(sql)
    if len(parts) != 1:
        raise ValueError(f"one SELECT is wanted, there are {len(parts)} statements")
    return parts[0]


# --------------------------------------------------------------------------- clocks


async def _of_clocks(connection: Any, platform: Platform) -> AsyncIterator[Problem]:
    zone = platform.map.timezone
    try:
        async with connection.transaction():
            others = await connection.fetch(_ZONES, zone)
    except asyncpg.PostgresError as error:
        yield _no(f"{platform.origin}: timezone: {error}")
        return
    said = ", ".join(f"{row['who']} has {row['zone']}" for row in others)
    for number, source in enumerate(platform.map.sources):
        names = [row["name"] for row in await connection.fetch(_CLOCKS, quoted(source.table))]
        if names and others:
            yield Problem(
                "warn",
                f"{platform.origin}: sources[{number}] ({source.name}): {source.table} fills "
                f"{', '.join(names)} without a time zone, in that of whoever inserts ({said}), and "
                f"the map's timezone is {zone}: ALTER DATABASE … SET timezone TO '{zone}', or "
                "change the map's",
            )
