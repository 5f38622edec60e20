"""Attach and detach a platform: check its map against the live tables, then make the SQL run.

All in one transaction under an advisory lock: a map that can't work changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from worker.generate import (
    Target,
    attach_sql,
    audit_function,
    detach_sql,
    drop_audit,
    functions_sql,
    give_back_sql,
)
from worker.generate.words import name as quoted
from worker.generate.words import relation
from worker.maps import MapError, Platform, Source
from worker.store import limits
from worker.store.checking import live_columns, problems
from worker.store.errors import translated
from worker.store.migrations import LOCK
from worker.store.pool import connect

WARNING = "warning: "


async def attach(
    dsn: str,
    platform: Platform,
    *,
    dry_run: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Attach every table of the platform; returns the SQL that was (or would be) run.

    What is only to be known about is reported in lines that begin with `warning: `.
    """
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
                report(f"{relation(source.table)}: {found} unfinished rows queued")
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
    found = await problems(connection, platform)
    refusals = [problem.message for problem in found if problem.severity == "refuse"]
    if refusals:
        raise MapError("\n".join(refusals))
    for problem in found:
        report(f"{WARNING}{problem.message}")
    await _detach_dropped(connection, platform)
    await _forget_dropped(connection, platform)
    targets = [await _target(connection, platform, source) for source in platform.map.sources]
    printed = []
    for target in targets:
        report(f"attaching {relation(target.source.table)}")
        for statement in attach_sql(target):
            printed.append(statement)
            await connection.execute(statement)
    printed.append(audit_function(platform))
    await connection.execute(printed[-1])
    return printed


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


async def _forget_dropped(connection: Any, platform: Platform) -> None:
    """Views and tables an earlier form of this map named: their last error is nobody's any more."""
    subjects = [("refresh", refresh.view) for refresh in platform.map.refreshes]
    subjects += [("retention", entry.subject) for entry in platform.map.retention]
    await connection.execute(
        "DELETE FROM rowmill.schedules WHERE platform = $1 AND NOT EXISTS (SELECT FROM"
        " unnest($2::text[], $3::text[]) AS t (chore, subject)"
        " WHERE (t.chore, t.subject) = (schedules.chore, schedules.subject))",
        platform.map.platform,
        [chore for chore, _ in subjects],
        [subject for _, subject in subjects],
    )


async def _backfill(connection: Any, source: str) -> int:
    total = 0
    while True:
        count: int = await connection.fetchval(f"SELECT rowmill.sweep_{source}(50000, true)")
        total += count
        if count < 50000:
            return total


async def _target(connection: Any, platform: Platform, source: Source) -> Target:
    if platform.rule(source.name, "reserve") is None:
        await _give_back(connection, source.name)
    source_id = await _source_row(connection, platform, source)
    columns = await live_columns(connection, source.table)
    return Target(platform, source, source_id, columns, await partitioned(connection, source.table))


async def _source_row(connection: Any, platform: Platform, source: Source) -> int:
    return int(
        await connection.fetchval(
            "INSERT INTO rowmill.sources (name, platform, relation, definition, unserved, reserves) "
            "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO UPDATE "
            "SET relation = excluded.relation, definition = excluded.definition, "
            "unserved = excluded.unserved, reserves = excluded.reserves RETURNING id",
            source.name,
            platform.map.platform,
            relation(source.table),
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
        named = table if '"' in table else quoted(table)
        if not await value("SELECT to_regclass($1) IS NOT NULL", named):
            missing[kind] = f"table {table} does not exist here"
    return missing


async def partitioned(connection: Any, table: str) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass($1)", quoted(table)
        )
    )


async def regenerate(
    connection: Any, source_id: int, name: str, definition: dict[str, Any]
) -> None:
    """Make a source's functions again, after an upgrade; its triggers stay as they are."""
    platform = Platform.from_definition(definition)
    source = next(s for s in platform.map.sources if s.name == name)
    columns = await live_columns(connection, source.table)
    if not columns:
        return  # the table is gone; doctor and status report it
    target = Target(
        platform, source, source_id, columns, await partitioned(connection, source.table)
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
