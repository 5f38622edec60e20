"""Old rows removed: in small transactions, oldest first, never one that is still a job of ours."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from worker.generate.words import Target, ident, literal, name, relation, status_of, words
from worker.maps import Platform, Retention, Source
from worker.store.errors import LockTimeout, Refused, translated
from worker.store.pool import connect
from worker.store.problem import Problem
from worker.store.store import Store

BATCH = 1_000
"""Rows per transaction."""
STUBBORN = 1_000
"""Rows that refuse to go, until a column is given up for this round."""

_COLUMN = """
SELECT format_type(a.atttypid, NULL) AS type,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisvalid
                  AND i.indpred IS NULL AND i.indkey[0] = a.attnum) AS indexed
  FROM pg_attribute a
 WHERE a.attrelid = to_regclass($1) AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
"""

# What refuses a delete, as conditions on row t: a row that is left out costs less than one refused.
_REFERRING = """
SELECT c.conname AS constraint, c.conrelid::regclass::text AS referring,
       (SELECT string_agg(format('c.%I = t.%I', f.attname, k.attname), ' AND ')
          FROM unnest(c.conkey, c.confkey) AS pair (f, k)
          JOIN pg_attribute f ON f.attrelid = c.conrelid AND f.attnum = pair.f
          JOIN pg_attribute k ON k.attrelid = c.confrelid AND k.attnum = pair.k) AS condition
  FROM pg_constraint c
 WHERE c.contype = 'f' AND c.confrelid = to_regclass($1) AND c.confdeltype IN ('a', 'r')
   AND c.conparentid = 0
 ORDER BY c.conname
"""

# Tables whose rows would go along.
_CASCADING = """
WITH RECURSIVE along AS (
    SELECT c.conrelid, c.conname FROM pg_constraint c
     WHERE c.contype = 'f' AND c.confrelid = to_regclass($1) AND c.confdeltype = 'c'
    UNION
    SELECT c.conrelid, c.conname FROM pg_constraint c JOIN along a ON c.confrelid = a.conrelid
     WHERE c.contype = 'f' AND c.confdeltype = 'c'
)
SELECT min(a.conname::text) AS constraint, s.relation FROM along a
  JOIN unnest($2::text[]) AS s (relation) ON to_regclass(s.relation) = a.conrelid
 GROUP BY s.relation ORDER BY s.relation
"""

_READABLE = """
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = 'rowmill' AND c.relname = 'sources'
                  AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))
"""

_TIMES = ("timestamp with time zone", "timestamp without time zone", "date")


_IN_SMALL = (
    "SET LOCAL lock_timeout = '250ms'; SET LOCAL statement_timeout = '10s';"
    "SET LOCAL row_security = off; SET LOCAL synchronous_commit = off; SET LOCAL jit = off;"
    "SET CONSTRAINTS ALL IMMEDIATE"
)
"""A hidden row is an error, nobody waits for us long, and what refuses does so at once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to remove from one table, as conditions on row `t`; `$1` is what `keep` says."""

    table: str
    ages: tuple[str, ...]
    """One per column: that it says the row is old, and the order in which to look."""
    spared: str
    """True of rows that are no job of ours any more."""
    referring: tuple[tuple[str, str], ...]
    """Who refers to the table, and that a row is referred to: its delete would be refused."""


@dataclass(slots=True)
class Round:
    removed: int = 0
    whole: bool = True
    """Nothing old is left that could go."""
    kept: list[str] = field(default_factory=list)
    """Old rows that can't go, and why."""


async def remove(
    store: Store, platform: Platform, entry: Retention, *, most: int, seconds: float
) -> Round:
    """Remove about so many rows, for about so long; `whole` if no more are left."""
    done, end = Round(), time.monotonic() + seconds
    with translated():
        connection = await connect(store.dsn)
        try:
            plan = await plan_of(connection, platform, entry)
            for age in plan.ages:
                stubborn: dict[str, str] = {}
                batch = partial(_batch, connection, plan, age, entry.keep, stubborn)
                while (removed := await batch()) is not None:
                    done.removed += removed
                    if done.removed >= most or time.monotonic() > end:
                        done.whole = False
                        return done
                if stubborn:
                    why = next(iter(stubborn.values()))
                    done.kept.append(f"{len(stubborn)} refused to go: {why}")
            done.kept += await _referred(connection, plan, entry.keep)
            return done
        finally:
            await connection.close()


def pick_of(plan: Plan, age: str) -> str:
    free = "".join(f"\n   AND NOT {refers}" for _, refers in plan.referring)
    return f"""
SELECT t.tableoid::text AS relation, t.ctid::text AS row FROM {plan.table} t
 WHERE {plan.spared}{free}
   AND NOT (t.tableoid::text || t.ctid::text) = ANY ($2::text[])
   AND {age}
 LIMIT {BATCH} FOR UPDATE OF t SKIP LOCKED"""


async def _batch(
    connection: Any, plan: Plan, age: str, keep: str, stubborn: dict[str, str]
) -> int | None:
    """One transaction: how many rows it removed; None if there was nothing (more) to do."""
    if len(stubborn) >= STUBBORN:
        return None
    removed = 0
    async with connection.transaction():
        await connection.execute(_IN_SMALL)
        rows = await connection.fetch(pick_of(plan, age), keep, list(stubborn))
        for relation in sorted({row["relation"] for row in rows}):
            found = [row["row"] for row in rows if row["relation"] == relation]
            refused = await _delete(connection, plan.table, relation, found)
            removed += len(found) - len(refused)
            stubborn |= {relation + row: why for row, why in refused.items()}
    return removed if rows else None


async def _delete(connection: Any, table: str, relation: str, rows: list[str]) -> dict[str, str]:
    """Rows that are locked by us, by where they lie; returns those that can't go, and why.

    By way of the whole table: who may delete there need have no right on its partitions.
    """
    try:
        with translated():
            async with connection.transaction():
                await connection.execute(
                    f"DELETE FROM {table} WHERE tableoid = $2::text::oid"
                    " AND ctid = ANY ($1::text[]::tid[])",
                    rows,
                    relation,
                )
    except (Refused, LockTimeout) as error:
        if len(rows) == 1:
            return {rows[0]: str(error)}
        middle = len(rows) // 2
        first = await _delete(connection, table, relation, rows[:middle])
        return first | await _delete(connection, table, relation, rows[middle:])
    return {}


async def _referred(connection: Any, plan: Plan, keep: str) -> list[str]:
    """Old rows that others still refer to, told by who."""
    told = []
    for who, refers in plan.referring:
        old = " UNION ALL ".join(
            f"(SELECT FROM {plan.table} t WHERE {plan.spared} AND {refers} AND {age} LIMIT {BATCH})"
            for age in plan.ages
        )
        kept = await connection.fetchval(f"SELECT count(*) FROM ({old}) AS kept", keep)
        if kept:
            told.append(f"{kept}{'+' * (kept >= BATCH)} are still referred to by {who}")
    return told


# --------------------------------------------------------------------------- what to look for


async def plan_of(connection: Any, platform: Platform, entry: Retention) -> Plan:
    table, spared = entry.table, "true"
    if entry.source is not None:
        source = next(s for s in platform.map.sources if s.name == entry.source)
        table, spared = source.table, _over(platform, source)
    assert table is not None
    ages, before = [], ""
    for column in entry.columns:
        live = await connection.fetchrow(_COLUMN, name(table), column)
        if live is None:
            raise Refused(f"retention: {table} has no column {column!r}: rowmill attach says more")
        at = f"t.{ident(column)}"
        # Without an index, the order would cost a look at the whole table for every batch.
        order = f" ORDER BY {at}" if live["indexed"] else ""
        ages.append(f"{before}{at} < {_cutoff(live['type'], platform.map.timezone)}{order}")
        before += f"{at} IS NULL AND "
    # Made after this map was attached: a foreign key, or another platform's table.
    for row in await connection.fetch(_CASCADING, name(table), await _attached(connection)):
        raise Refused(f"retention: {table}: {_along(row)}")
    referring = await connection.fetch(_REFERRING, name(table))
    return Plan(
        name(table),
        tuple(ages),
        spared,
        tuple(
            (
                f"{row['referring']} ({row['constraint']})",
                f"EXISTS (SELECT FROM {row['referring']} c WHERE {row['condition']})",
            )
            for row in referring
        ),
    )


def _cutoff(type_: str, timezone: str) -> str:
    """Days and months are the platform's own, whatever the session's time zone."""
    local = f"(now() AT TIME ZONE {literal(timezone)} - $1::text::interval)"
    if type_ == "timestamp with time zone":
        return f"({local} AT TIME ZONE {literal(timezone)})"
    return f"{local}::date" if type_ == "date" else local


def _over(platform: Platform, source: Source) -> str:
    """Finished, out of the queue, and nothing that was paid is still open.

    What it holds of an allowance is settled first: without its row, it would count as not used.
    Who makes such a row a job again changes its status, and then it isn't the row we locked.
    """
    status, key = source.status, f"t.{ident(source.key)}::text"
    number = f"(SELECT s.id FROM rowmill.sources s WHERE s.name = {literal(source.name)})"
    finished = [w for w in (status.succeeded, status.failed, status.cancelled) if w]
    word = status_of(Target(platform, source, 0, {}, partitioned=False), "t")
    return f"""{word} IN {words(finished)}
   AND NOT EXISTS (SELECT FROM rowmill.queue q
                    WHERE q.source = {number} AND q.row_key = {key})
   AND NOT EXISTS (SELECT FROM rowmill.allowances h
                    WHERE h.source = {number} AND h.row_key = {key})
   AND NOT EXISTS (SELECT FROM rowmill.submissions u
                    WHERE u.source = {literal(source.name)} AND u.row_key = {key}
                      AND u.state IN ('intent', 'accepted', 'unknown'))"""


# --------------------------------------------------------------------------- checked by attach


async def problems(connection: Any, platform: Platform) -> list[Problem]:
    """What this database's tables have against the map's retention."""
    found: list[Problem] = []
    tables = {source.name: source.table for source in platform.map.sources}
    jobs = sorted({*map(relation, tables.values()), *await _attached(connection)})
    for number, entry in enumerate(platform.map.retention):
        table = entry.table or tables[entry.source or ""]
        where = f"{platform.origin}: retention[{number}] ({table})"
        if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name(table)):
            found.append(Problem("refuse", f"{where}: there is no such table in this database"))
            continue
        for column in entry.columns:
            live = await connection.fetchrow(_COLUMN, name(table), column)
            if live is None:
                found.append(Problem("refuse", f"{where}: it has no column {column!r}"))
            elif live["type"] not in _TIMES:
                found.append(
                    Problem(
                        "refuse",
                        f"{where}: {column} is {live['type']}, and must be a time or a date",
                    )
                )
        found += [
            Problem("refuse", f"{where}: {_along(row)}")
            for row in await connection.fetch(_CASCADING, name(table), jobs)
        ]
    return found


def _along(row: Any) -> str:
    return (
        f"removing its rows would remove jobs of {row['relation']}, too "
        f"(ON DELETE CASCADE of {row['constraint']})"
    )


async def _attached(connection: Any) -> list[str]:
    """Everyone's job tables; a map may be checked before there are any, or without a right to see."""
    if not await connection.fetchval(_READABLE):
        return []
    return [row[0] for row in await connection.fetch("SELECT relation FROM rowmill.sources")]
