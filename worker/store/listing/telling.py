"""What is told of each job on a page of a listing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from worker.generate.lists import (
    FINISHED,
    UNFINISHED,
    cancelled_before,
    created_at,
    ended_at,
    is_finished,
    shares_a_word,
    started_at,
    tenant_by_rule,
    when,
)
from worker.generate.words import CANCELLED, Target, ident, lane_of, literal, value_of
from worker.maps import Value
from worker.store.listing.filter import Place
from worker.store.listing.selecting import paid
from worker.store.listing.tables import Table
from worker.store.reading import Row, plain, seconds_between

GONE = "gone"
"""The state of a job whose row was deleted."""

# By name: other columns of the view count what is before each job.
_WAITING = """
SELECT w.id, w.why, w.reason, w.may_start_at FROM rowmill.waiting w WHERE w.id = ANY ($1::bigint[])
"""


async def told(
    connection: Any, tables: Mapping[str, Table], places: Sequence[Place], now: datetime
) -> list[Row]:
    rows: dict[tuple[str, str], Mapping[str, Any]] = {}
    for source in dict.fromkeys(place.source for place in places):
        keys = [place.key for place in places if place.source == source]
        for row in await connection.fetch(_jobs_of(tables[source]), keys):
            rows[source, row["key"]] = row
    queued = [row["queue_id"] for row in rows.values() if row["queue_id"] is not None]
    waits = {row["id"]: row for row in await connection.fetch(_WAITING, queued)} if queued else {}
    return [
        _job(place, tables[place.source], rows[place.source, place.key], waits, now)
        for place in places
    ]


def state_of(row: Mapping[str, Any]) -> str:
    """As the queue or the table has it now; GONE where neither has the job any more."""
    if row["queue_state"] is not None:
        return next(state for state, word in UNFINISHED.items() if word == row["queue_state"])
    return row["ended_as"] or GONE


def _job(
    place: Place,
    table: Table,
    row: Mapping[str, Any],
    waits: Mapping[int, Mapping[str, Any]],
    now: datetime,
) -> Row:
    place = place if place.state else replace(place, state=state_of(row))
    unfinished = place.state in UNFINISHED
    waiting = waits.get(row["queue_id"], {}) if unfinished else {}
    tries, most = _tries(table.target, place.state, row)
    finished = None if unfinished else _over(table.target, place.state, row)
    since = row["queued_at"] if unfinished else finished or row["created_at"]
    started = (row["claimed_at"] if place.state == "running" else None) or row["started_at"]
    return plain(
        {
            "source": place.source,
            "key": place.key,
            "platform": table.info.platform,
            "state": place.state,
            "status": row["status"],
            "kind": row["kind"],
            "lane": row["lane"],
            "tenant": row["tenant"],
            "rank": row["rank"],
            "priority": row["priority"],
            "run": row["run"],
            "tries": tries,
            "max_retries": most,
            "created_at": row["created_at"],
            "queued_at": row["queued_at"],
            "ready_at": row["ready_at"],
            "started_at": started,
            "finished_at": finished,
            "age_s": seconds_between(since, now),
            "ran_s": seconds_between(started, now if place.state == "running" else finished),
            "worker": row["worker"],
            "why": waiting.get("why"),
            "reason": waiting.get("reason"),
            "may_start_at": waiting.get("may_start_at"),
            "error": _error(row),
            "cost_cents": row["cost_cents"],
        }
    )


def _error(row: Mapping[str, Any]) -> Row | None:
    if row["error_kind"] is None:
        return None
    names = ("kind", "code", "message", "provider", "at")
    return plain({name: row[f"error_{name}"] for name in names})


def _over(target: Target, state: str, row: Mapping[str, Any]) -> datetime | None:
    recorded = state == "failed" or shares_a_word(target, state)
    at: datetime | None = row["finished_at"] or (row["error_at"] if recorded else None)
    return at


def _tries(target: Target, state: str, row: Mapping[str, Any]) -> tuple[int, int]:
    """Failed tries so far, and how many of them are followed by another one."""
    tries = target.source.tries
    if tries is None:
        told = row["queue_tries"]
        if told is None:
            # A cancel is recorded as an end of the try it came in.
            told = (row["failed_tries"] or 0) - (row["error_kind"] == CANCELLED)
        return max(told, 0), target.source.max_retries
    failed, most = row["counted_tries"] or 0, row["most_tries"]
    if tries.counts == "retries":
        return failed, tries.default_max if most is None else most
    this = state in {"running", "held", "completed"}  # a try that hasn't failed
    return max(failed - this, 0), max((tries.default_max + 1 if most is None else most) - 1, 0)


# --------------------------------------------------------------------------- the statement


def _jobs_of(table: Table) -> str:
    """All of the jobs of one table whose keys are in $1."""
    columns, joins = dict(_UNKNOWN), []
    if table.usable:
        for more in (_row(table.target), _words(table.target), _times(table.target)):
            columns |= more.columns
            joins += more.joins
    source = literal(table.info.name)
    listed = ",\n       ".join(f"{value} AS {name}" for name, value in columns.items())
    return f"""
SELECT k.key, q.id AS queue_id, q.state::text AS queue_state, coalesce(q.run, f.run) AS run, q.rank, q.ready_at,
       q.enqueued_at AS queued_at, q.claimed_at, q.tries AS queue_tries, w.name AS worker,
       f.try AS failed_tries, f.kind AS error_kind, f.code AS error_code,
       f.message AS error_message, f.provider AS error_provider, f.at AS error_at,
       {paid(source, "k.key")} AS cost_cents,
       {listed}
  FROM unnest($1::text[]) AS k (key)
  LEFT JOIN rowmill.queue q ON q.source = {table.info.id} AND q.row_key = k.key
  LEFT JOIN rowmill.workers w ON w.id = q.worker
  LEFT JOIN LATERAL (SELECT * FROM rowmill.failures f WHERE f.source = {source} AND f.row_key = k.key
                      ORDER BY f.id DESC LIMIT 1) f ON true
  {" ".join(joins)}"""


@dataclass(frozen=True, slots=True)
class _Part:
    columns: dict[str, str]
    joins: list[str] = field(default_factory=list)


_UNKNOWN = {
    "status": "NULL::text",
    "ended_as": "NULL::text",
    "kind": "NULL::text",
    "lane": "q.lane",
    "tenant": "q.tenant",
    "priority": "NULL::text",
    "counted_tries": "NULL::bigint",
    "most_tries": "NULL::bigint",
    "created_at": "NULL::timestamptz",
    "started_at": "NULL::timestamptz",
    "finished_at": "NULL::timestamptz",
}
"""What only the platform's row says."""


def _row(target: Target) -> _Part:
    source = target.source
    ends = " ".join(
        f"WHEN {is_finished(target, state)}{_apart(target, state)} THEN {literal(state)}"
        for state in FINISHED
    )
    columns = {
        "status": f"t.{ident(source.status.column)}::text",
        "ended_as": f"CASE {ends} END",
    }
    tries = source.tries
    if tries is not None and {tries.column, tries.max} <= target.columns.keys():
        columns["counted_tries"] = f"t.{ident(tries.column)}::bigint"
        columns["most_tries"] = f"t.{ident(tries.max)}::bigint"
    on = f"t.{ident(source.key)} = k.key::{target.key_type}"
    return _Part(columns, [f"LEFT JOIN {target.table} t ON {on}"])


def _apart(target: Target, state: str) -> str:
    if not shares_a_word(target, state):
        return ""
    return f" AND {'NOT ' if state == 'failed' else ''}{cancelled_before(target)}"


def _words(target: Target) -> _Part:
    """Texts along foreign keys; what the queue knows was true when the row was queued."""
    source = target.source
    kind, joins = value_of(source.kind, "t", "kind")
    lane, more = lane_of(target, "t")
    columns = {"kind": kind, "lane": f"coalesce(q.lane, {lane})"}
    joins = joins + more
    rule = target.rule("tenant")
    if source.tenant is not None:
        tenant, more = value_of(source.tenant, "t", "tenant")
        columns["tenant"] = f"coalesce(q.tenant, {tenant})"
        joins += more
    elif rule is not None:
        columns["tenant"] = f"coalesce(q.tenant, ({tenant_by_rule(target, rule)}))"
    if source.priority is not None:
        priority = Value(column=source.priority.column, path=source.priority.path)
        columns["priority"], more = value_of(priority, "t", "priority")
        joins += more
    return _Part(columns, joins)


def _times(target: Target) -> _Part:
    columns = {}
    for name, column in (("created_at", created_at(target)), ("started_at", started_at(target))):
        if column is not None:
            columns[name] = _readable(when(target, column).moment)
    ends = [
        f"WHEN {is_finished(target, state)} THEN {_readable(when(target, column).moment)}"
        for state in FINISHED
        if (column := ended_at(target, state)) is not None
    ]
    if ends:
        columns["finished_at"] = f"CASE {' '.join(dict.fromkeys(ends))} END"
    return _Part(columns)


def _readable(moment: str) -> str:
    """In years that every client can read."""
    clamped = f"least(greatest({moment}, timestamptz '1000-01-01'), timestamptz '9000-01-01')"
    return f"CASE WHEN {moment} IS NOT NULL THEN {clamped} END"
