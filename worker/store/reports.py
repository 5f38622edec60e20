"""What `status` and `job show` tell. Reads only; the shapes are documented in docs/cli.md.

Everything in them is plain JSON: times are ISO 8601 in UTC, money is a decimal string of US cents,
ids are strings (they are 63 bits wide, which JavaScript would round).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from worker import __version__
from worker.store.needs import needs_person, notices
from worker.store.operators import EVERY, Found, Gate, platform_row
from worker.store.store import Store

Row = dict[str, Any]

BUCKETS = 32
"""Histograms of rowmill.pulses: bucket n holds the times below 2^n ms that bucket n-1 didn't."""

_DATABASE = """
SELECT clock_timestamp() AS at, current_database() AS name,
       current_setting('server_version') AS server_version,
       (SELECT extract(epoch FROM clock_timestamp() - min(a.xact_start))::double precision
          FROM pg_stat_activity a
         WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()) AS oldest_transaction_s
"""

_GATES = """
SELECT lane, source, paused_at IS NOT NULL AS paused, paused_by, pause_reason,
       platform_paused_why AS closed_why, least(max_running, platform_max_running) AS most,
       least(requests_per_minute, platform_requests_per_minute) AS requests_per_minute,
       least(tokens_per_minute, platform_tokens_per_minute) AS tokens_per_minute,
       broken_until, broken_why, broken_until > clock_timestamp() AS broken,
       CASE WHEN slow_until > clock_timestamp() THEN slow_until END AS slow_until
  FROM rowmill.lanes ORDER BY lane, source
"""

_SOURCES = """
SELECT s.name AS source, s.platform, s.relation, s.unserved,
       to_regclass(s.relation) IS NULL AS gone,
       ARRAY(SELECT 'rowmill_' || e FROM unnest(ARRAY['enqueue', 'change', 'remove', 'empty']) e
              WHERE NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = to_regclass(s.relation)
                                   AND t.tgname = 'rowmill_' || e AND t.tgenabled <> 'D')
            ) AS missing
  FROM rowmill.sources s ORDER BY s.id
"""

_WORKERS = """
SELECT w.id::text AS id, w.name, w.version, w.slots, w.running,
       extract(epoch FROM clock_timestamp() - w.heartbeat_at)::double precision AS heartbeat_age_s,
       w.heartbeat_at > clock_timestamp() - w.lease AS alive, w.draining, w.lanes
  FROM rowmill.workers w WHERE w.stopped_at IS NULL ORDER BY w.started_at
"""

_HELD = """
SELECT w.source || '/' || w.row_key AS job, w.why, count(*) OVER () AS total
  FROM rowmill.waiting w WHERE w.state = 'held' ORDER BY w.enqueued_at LIMIT 5
"""


async def status(store: Store) -> Row:
    """The whole fleet at a glance; `needs_person` is empty while all is well."""
    (database,) = await _rows(store, _DATABASE)
    gates = await gates_of(store)
    lanes = _with_gates(await _lanes(store), gates)
    sources = _sources(await _rows(store, _SOURCES), gates, lanes)
    workers = await _rows(store, _WORKERS)
    held = await _rows(store, _HELD)
    unresolved = await _rows(store, _query("unresolved"))
    return {
        "at": database.pop("at"),
        "version": __version__,
        "database": {**database, "pooler": store.pooled},
        "lanes": lanes,
        "sources": sources,
        "workers": workers,
        "needs_person": needs_person(lanes, sources, workers, held, unresolved),
        "notices": notices(lanes, gates),
    }


# --------------------------------------------------------------------------- lanes


async def gates_of(store: Store) -> list[Row]:
    """Every pause and limit there is."""
    return await _rows(store, _GATES)


async def _lanes(store: Store) -> list[Row]:
    rows = await _rows(store, _lanes_query())
    for row in rows:
        for name in ("wait", "run"):
            histogram = row.pop(f"{name}s")
            row[f"{name}_p50_ms"] = percentile(histogram, 0.50)
            row[f"{name}_p95_ms"] = percentile(histogram, 0.95)
    return rows


@cache
def _lanes_query() -> str:
    """Summed element by element: unnesting an hour of histograms costs ten times as much."""

    def summed(column: str) -> str:
        parts = (f"sum(p.{column}[{n}])::bigint" for n in range(1, BUCKETS + 1))
        return f"ARRAY[{', '.join(parts)}]"

    query = _query("status_lanes")
    return query.replace("{waits}", summed("waits")).replace("{runs}", summed("runs"))


def percentile(histogram: Sequence[int] | None, share: float) -> int | None:
    """Milliseconds below which this share of the times lies; buckets count as evenly filled."""
    total = sum(histogram or ())
    below, wanted = 0, share * total
    for bucket, count in enumerate(histogram or ()):
        if count and below + count >= wanted:
            low, high = (2 ** (bucket - 1), 2**bucket) if bucket else (0, 0)
            return round(low + (high - low) * (wanted - below) / count)
        below += count
    return None


def _with_gates(lanes: list[Row], gates: list[Row]) -> list[Row]:
    """Each lane with the limits and pauses that hold for it; lanes that are only gated, too."""
    known = {row["lane"] for row in lanes}
    idle = [g for g in gates if g["lane"] != EVERY and g["lane"] not in known]
    rows = [*lanes, *(_idle_lane(gate["lane"], gate["source"]) for gate in idle)]
    return [{**row, **_gated(gates, row["lane"], row["source"])} for row in rows]


def _idle_lane(lane: str, source: str) -> Row:
    counts = ("ready", "scheduled", "running", "held", "failed_last_hour", "per_minute_out")
    unknown = ("oldest_wait_s", "wait_p50_ms", "wait_p95_ms", "run_p50_ms", "run_p95_ms")
    return {
        "lane": lane,
        "source": source,
        **dict.fromkeys(counts, 0),
        **dict.fromkeys(unknown),
        "spend_cents_today": "0",
    }


def _gated(gates: list[Row], lane: str, source: str) -> Row:
    mine = [g for g in gates if Gate(g["lane"], g["source"]).matches(lane, source)]
    pauses = [g for g in mine if g["paused"]]
    reasons = [*(g["pause_reason"] for g in pauses), *(g["closed_why"] for g in mine)]
    broken = next((g for g in mine if g["broken_until"]), None)
    return {
        "limit": _least(mine, "most"),
        "requests_per_minute": _least(mine, "requests_per_minute"),
        "tokens_per_minute": _least(mine, "tokens_per_minute"),
        "slow_until": max((g["slow_until"] for g in mine if g["slow_until"]), default=None),
        "paused": bool(pauses) or any(g["closed_why"] for g in mine),
        "pause_reason": next((reason for reason in reasons if reason), None),
        "broken_until": broken and broken["broken_until"],
        "broken_why": broken and broken["broken_why"],
    }


def _least(gates: list[Row], name: str) -> int | None:
    return min((g[name] for g in gates if g[name] is not None), default=None)


def _sources(rows: list[Row], gates: list[Row], lanes: list[Row]) -> list[Row]:
    return [
        {
            "source": row["source"],
            "platform": row["platform"],
            "relation": row["relation"],
            "gone": row["gone"],
            "running": sum(lane["running"] for lane in lanes if lane["source"] == row["source"]),
            **{k: _gated(gates, EVERY, row["source"])[k] for k in ("limit", "paused")},
            "missing_triggers": row["missing"],
            "unserved": json.loads(row["unserved"]),
        }
        for row in rows
    ]


# --------------------------------------------------------------------------- one job

_QUEUED = """
SELECT q.id::text AS id, q.state::text AS state, q.lane, q.rank, q.run, q.tries, q.yields,
       q.ready_at, q.enqueued_at, q.claimed_at, w.name AS worker, q.tenant, q.note
  FROM rowmill.queue q
  JOIN rowmill.sources s ON s.id = q.source
  LEFT JOIN rowmill.workers w ON w.id = q.worker
 WHERE s.name = $1 AND q.row_key = $2
"""

_FAILURES = """
SELECT at, lane, run, try, final, kind, code, provider, message
  FROM rowmill.failures WHERE source = $1 AND row_key = $2 ORDER BY id
"""

_SUBMISSIONS = """
SELECT id::text AS id, run, step, attempt, provider, account, model, state::text AS state,
       external_id, estimate_cents, cost_cents, error,
       intended_at, accepted_at, ended_at, delivered_at
  FROM rowmill.submissions WHERE source = $1 AND row_key = $2 ORDER BY id
"""

_ACTIONS = "SELECT at, who, action, detail FROM rowmill.actions WHERE subject = $1 ORDER BY id"


async def job(store: Store, source: str, key: str) -> Row:
    """The whole story of one job, from its row to what was paid for it."""
    (info,) = [s for s in await store.sources() if s.name == source]
    row = await platform_row(store, info, key)
    queued = await _rows(store, _QUEUED, source, key)
    actions = await _rows(store, _ACTIONS, Found(source, key).subject)
    return {
        "source": source,
        "key": key,
        "platform": info.platform,
        "relation": info.relation,
        "why": await why(store, source, key),
        "ahead": await ahead(store, source, key),
        "queue": queued[0] if queued else None,
        "failures": await _rows(store, _FAILURES, source, key),
        "submissions": await _rows(store, _SUBMISSIONS, source, key),
        "actions": [{**a, "detail": json.loads(a["detail"])} for a in actions],
        "row": row.data if row else None,
    }


async def why(store: Store, source: str, key: str) -> str:
    """Why a job isn't done yet, in one line; where it isn't waiting at all, that."""
    rows = await store.fetch(
        "SELECT state::text AS state, lane, obstacle, why FROM rowmill.waiting "
        "WHERE source = $1 AND row_key = $2",
        source,
        key,
    )
    if not rows:
        return await _why_not_waiting(store, source, key)
    (row,) = rows
    if row["state"] != "ready" or row["obstacle"]:
        return str(row["why"])
    before = await ahead(store, source, key)
    return f"ready: {before or 'none'} ahead of it in lane {row['lane']}"


async def _why_not_waiting(store: Store, source: str, key: str) -> str:
    (info,) = [s for s in await store.sources() if s.name == source]
    row = await platform_row(store, info, key)
    if row is None:
        return f"not waiting: {info.relation} has no such row (any more)"
    (mine,) = [s for s in info.definition["map"]["sources"] if s["name"] == source]
    words, word = mine["status"], row.data.get(mine["status"]["column"])
    if (word or words.get("default")) in words["ready"]:
        return "not queued yet: its trigger was off when it was written; the sweep finds it"
    return f"not waiting: its {words['column']} is {word}"


async def ahead(store: Store, source: str, key: str) -> int | None:
    """How many of its lane come before it; None unless it is ready."""
    place: int | None = await store.value(_query("place"), source, key)
    return place


# --------------------------------------------------------------------------- platforms


async def platforms(store: Store) -> list[Row]:
    """What is attached, for `rowmill platforms`."""
    return await _rows(
        store,
        "SELECT platform, name AS source, relation, attached_at, definition ->> 'origin' AS origin "
        "FROM rowmill.sources ORDER BY platform, id",
    )


# --------------------------------------------------------------------------- helpers


@cache
def _query(name: str) -> str:
    return (files("sql") / "queries" / f"{name}.sql").read_text(encoding="utf-8")


async def _rows(store: Store, sql: str, *args: Any) -> list[Row]:
    return [_plain(row) for row in await store.fetch(sql, *args)]


def _plain(row: Mapping[str, Any]) -> Row:
    return {name: _value(value) for name, value in dict(row).items()}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return value
