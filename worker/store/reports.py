"""What `status` tells. Reads only; the shapes are documented in docs/cli.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from worker import __version__
from worker.store.gates import EVERY, Gate
from worker.store.needs import needs_person, notices
from worker.store.reading import Row, read, stored_query
from worker.store.store import Store

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
    (database,) = await read(store, _DATABASE)
    gates = await gates_of(store)
    lanes = _with_gates(await _lanes(store), gates)
    sources = _sources(await read(store, _SOURCES), gates, lanes)
    workers = await read(store, _WORKERS)
    held = await read(store, _HELD)
    unresolved = await read(store, stored_query("unresolved"))
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
    return await read(store, _GATES)


async def _lanes(store: Store) -> list[Row]:
    rows = await read(store, _lanes_query())
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

    query = stored_query("status_lanes")
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


# --------------------------------------------------------------------------- platforms


async def platforms(store: Store) -> list[Row]:
    """What is attached, for `rowmill platforms`."""
    return await read(
        store,
        "SELECT platform, name AS source, relation, attached_at, definition ->> 'origin' AS origin "
        "FROM rowmill.sources ORDER BY platform, id",
    )
