"""Attach and detach a platform: check its map against the live tables, then make the SQL run.

All in one transaction under an advisory lock: a map that can't work changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from worker.generate import (
    Column,
    Target,
    attach_sql,
    audit_function,
    detach_sql,
    drop_audit,
    functions_sql,
    give_back_sql,
)
from worker.maps import PROGRESS_FIELDS, MapError, Platform, Source, parse_path
from worker.store import limits, refreshing, retention
from worker.store.errors import translated
from worker.store.migrations import LOCK
from worker.store.pool import connect

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


async def attach(
    dsn: str,
    platform: Platform,
    *,
    dry_run: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Attach every table of the platform; returns the SQL that was (or would be) run."""
    with translated():
        connection = await connect(dsn)
        try:
            transaction = connection.transaction()
            await transaction.start()
            try:
                sql = await _attach(connection, platform, report)
            except BaseException:
                await transaction.rollback()
                raise
            if dry_run:
                await transaction.rollback()
                return sql
            await transaction.commit()
            # The triggers are live, so nothing can slip in between: what they didn't see is there.
            for source in platform.map.sources:
                found = await _backfill(connection, source.name)
                report(f"{source.table}: {found} unfinished rows queued")
            return sql
        finally:
            await connection.close()


async def _attach(connection: Any, platform: Platform, report: Callable[[str], None]) -> list[str]:
    await connection.execute("SELECT pg_advisory_xact_lock($1, 0)", LOCK)
    # Types come out qualified, as functions with a pinned search_path need them; and a producer's
    # long transaction stops us instead of everyone who queues up behind us.
    await connection.execute("SET LOCAL search_path = pg_catalog; SET LOCAL lock_timeout = '10s'")
    if not await connection.fetchval("SELECT to_regclass('rowmill.queue') IS NOT NULL"):
        raise MapError("this database has no rowmill schema yet: run `rowmill migrate` first")
    await _check_schema(connection, platform)
    await _detach_dropped(connection, platform)
    targets = [
        await _target(connection, platform, number, source)
        for number, source in enumerate(platform.map.sources)
    ]
    await limits.check(connection, platform)
    await _check_chores(connection, platform, report)
    printed = []
    for target in targets:
        report(f"attaching {target.source.table}")
        for statement in attach_sql(target):
            printed.append(statement)
            await connection.execute(statement)
    printed.append(audit_function(platform))
    await connection.execute(printed[-1])
    return printed


async def _check_schema(connection: Any, platform: Platform) -> None:
    if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", platform.schema):
        there = await connection.fetchval(
            "SELECT string_agg(nspname, ', ' ORDER BY nspname) FROM pg_namespace"
            " WHERE nspname !~ '^pg_' AND nspname NOT IN ('rowmill', 'information_schema')"
        )
        raise MapError(f"there is no schema {platform.schema!r} in this database (it has {there})")


async def _check_chores(connection: Any, platform: Platform, report: Callable[[str], None]) -> None:
    found = [
        *await refreshing.problems(connection, platform),
        *await retention.problems(connection, platform),
    ]
    refused = [message for severity, message in found if severity == "refuse"]
    if refused:
        raise MapError("\n".join(refused))
    for _, message in found:
        report(f"warning: {message}")


async def _detach_dropped(connection: Any, platform: Platform) -> None:
    """Sources an earlier form of this map had."""
    rows = await connection.fetch(
        "SELECT id, name, relation, definition FROM rowmill.sources"
        " WHERE platform = $1 AND name <> ALL ($2)",
        platform.map.platform,
        [source.name for source in platform.map.sources],
    )
    for row in rows:
        await _detach(connection, row)


async def _backfill(connection: Any, source: str) -> int:
    total = 0
    while True:
        count: int = await connection.fetchval(f"SELECT rowmill.sweep_{source}(50000, true)")
        total += count
        if count < 50000:
            return total


async def _target(connection: Any, platform: Platform, number: int, source: Source) -> Target:
    where = f"{platform.origin}: sources[{number}] ({source.name})"
    columns = await _live_columns(connection, source.table)
    if not columns:
        raise MapError(f"{where}.table: there is no table {source.table} in this database")
    await _check(connection, where, source, columns)
    if platform.rule(source.name, "reserve") is None:
        await _give_back(connection, source.name)
    source_id = await _source_row(connection, platform, source, where)
    return Target(
        platform, source, source_id, columns, await _partitioned(connection, source.table)
    )


async def _source_row(connection: Any, platform: Platform, source: Source, where: str) -> int:
    elsewhere = await connection.fetchval(
        "SELECT relation FROM rowmill.sources WHERE name = $1 AND platform = $2"
        " AND relation <> $3 AND to_regclass(relation) IS NOT NULL",
        source.name,
        platform.map.platform,
        source.table,
    )
    if elsewhere is not None:
        schema = elsewhere.split(".")[0]
        raise MapError(
            f"{where}.table: source {source.name} is attached to {elsewhere}, and can't be attached "
            f"to {source.table} beside it; `rowmill attach {platform.map.platform} --schema {schema}`"
            f" brings that one up to date, `rowmill detach {platform.map.platform}` makes it free"
        )
    other = await connection.fetchval(
        "SELECT platform FROM rowmill.sources WHERE name = $1 AND platform <> $2",
        source.name,
        platform.map.platform,
    )
    if other is not None:
        raise MapError(
            f"{where}.name: platform {other} already has a source of this name; "
            "give this one another"
        )
    twice = await connection.fetchval(
        "SELECT name FROM rowmill.sources WHERE relation = $1 AND name <> $2",
        source.table,
        source.name,
    )
    if twice is not None:
        raise MapError(f"{where}.table: {source.table} is already attached, as source {twice}")
    return int(
        await connection.fetchval(
            "INSERT INTO rowmill.sources (name, platform, relation, definition, unserved, reserves) "
            "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO UPDATE "
            "SET relation = excluded.relation, definition = excluded.definition, "
            "unserved = excluded.unserved, reserves = excluded.reserves RETURNING id",
            source.name,
            platform.map.platform,
            source.table,
            json.dumps(platform.definition(source)),
            json.dumps(await unserved(connection.fetchval, source)),
            platform.rule(source.name, "reserve") is not None,
        )
    )


async def _give_back(connection: Any, name: str) -> None:
    """What its jobs hold of their customers' allowances, where it has the rule and will lose it."""
    source_id = await connection.fetchval(
        "SELECT id FROM rowmill.sources WHERE name = $1 AND reserves FOR UPDATE", name
    )
    if source_id is not None:
        await connection.execute(give_back_sql(source_id, name))


async def unserved(value: Callable[..., Awaitable[Any]], source: Source) -> dict[str, str]:
    """Kinds whose table this database lacks (an extension that isn't there, for one)."""
    missing = {}
    for kind, table in source.requires.items():
        if not await value("SELECT to_regclass($1) IS NOT NULL", table):
            missing[kind] = f"table {table} does not exist here"
    return missing


async def _partitioned(connection: Any, table: str) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass($1)", table
        )
    )


async def _live_columns(connection: Any, table: str) -> dict[str, Column]:
    return {row["name"]: _column(row) for row in await connection.fetch(_COLUMNS, table)}


def _column(row: Any) -> Column:
    kind, modifier = row["type"], row["modifier"]
    length = modifier - 4 if kind == "character varying" and modifier > 0 else None
    scale = ((modifier - 4) & 0x7FF) if kind == "numeric" and modifier > 0 else None
    return Column(kind, length, scale)


async def _check(connection: Any, where: str, source: Source, columns: dict[str, Column]) -> None:
    for key, column in _named_columns(source):
        if column not in columns:
            raise MapError(
                f"{where}.{key}: table {source.table} has no column {column!r} "
                f"(it has {', '.join(sorted(columns))})"
            )
    if not await connection.fetchval(_UNIQUE, source.table, source.key):
        raise MapError(
            f"{where}.key: {source.table}.{source.key} has no unique index, so it can't name a job"
        )
    for column, field in source.set.progress.items():
        if field not in PROGRESS_FIELDS:
            raise MapError(
                f"{where}.set.progress.{column}: {field!r} is not known while a job runs; "
                f"use one of {', '.join(sorted(PROGRESS_FIELDS))}"
            )
    await _check_tables(connection, where, source)


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


async def _check_tables(connection: Any, where: str, source: Source) -> None:
    wanted = [(f"locks[{n}]", lock.table, lock.key) for n, lock in enumerate(source.locks)]
    for key, path in _paths(source):
        for hop in parse_path(path)[1]:
            wanted += [(key, hop.table, hop.key), (key, hop.table, hop.column)]
    for key, table, column in wanted:
        live = await _live_columns(connection, table)
        if not live:
            raise MapError(f"{where}.{key}: there is no table {table} in this database")
        if column not in live:
            raise MapError(f"{where}.{key}: table {table} has no column {column!r}")


async def regenerate(
    connection: Any, source_id: int, name: str, definition: dict[str, Any]
) -> None:
    """Make a source's functions again, after an upgrade; its triggers stay as they are."""
    platform = Platform.from_definition(definition)
    source = next(s for s in platform.map.sources if s.name == name)
    columns = await _live_columns(connection, source.table)
    if not columns:
        return  # the table is gone; doctor and status report it
    target = Target(
        platform, source, source_id, columns, await _partitioned(connection, source.table)
    )
    for statement in (*functions_sql(target), audit_function(platform)):
        await connection.execute(statement)


async def detach(dsn: str, platform_name: str) -> list[str]:
    """Take a platform's triggers, functions and queue rows away; its own tables keep their rows.

    The ledger, failures and actions stay: they are the record of what was paid.
    """
    with translated():
        connection = await connect(dsn)
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1, 0)", LOCK)
                rows = await connection.fetch(
                    "SELECT id, name, relation, definition FROM rowmill.sources WHERE platform = $1",
                    platform_name,
                )
                for row in rows:
                    await _detach(connection, row)
                return [row["relation"] for row in rows]
        finally:
            await connection.close()


async def _detach(connection: Any, row: Any) -> None:
    platform = Platform.from_definition(json.loads(row["definition"]))
    source = next(s for s in platform.map.sources if s.name == row["name"])
    target = Target(platform, source, row["id"], {}, partitioned=False)
    exists = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", row["relation"])
    # First: it waits for the payments under way, whose reservations are then there to be given back.
    await connection.execute("DELETE FROM rowmill.queue WHERE source = $1", row["id"])
    await _give_back(connection, row["name"])
    for statement in detach_sql(target):
        if exists or not statement.startswith("DROP TRIGGER"):
            await connection.execute(statement)
    # What producers inserted until their triggers were gone.
    await connection.execute("DELETE FROM rowmill.queue WHERE source = $1", row["id"])
    await limits.forget(connection, row["name"])
    await connection.execute("DELETE FROM rowmill.sources WHERE id = $1", row["id"])
    name = platform.map.platform
    others = "SELECT EXISTS (SELECT FROM rowmill.sources WHERE platform = $1)"
    if not await connection.fetchval(others, name):
        await connection.execute(drop_audit(name))
        await connection.execute("DELETE FROM rowmill.schedules WHERE platform = $1", name)
