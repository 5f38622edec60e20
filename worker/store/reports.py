"""What `status` tells: one statement, whatever it is asked for, that costs the same however much waits.

sql/queries/status.sql reads it in parts, by name; `lanes` is the one that others want by itself. The
shapes are documented with the command (worker/commands/overview.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from worker import __version__
from worker.store import calls
from worker.store.gates import EVERY, Gate
from worker.store.needs import FIRST, needs_person, notices
from worker.store.reading import Row, read, stored_query
from worker.store.store import Store

BUCKETS = 32
"""Histograms of rowmill.pulses: bucket n holds the times below 2^n ms that bucket n-1 didn't."""

WINDOWS = 30
SECONDS = 3600 // WINDOWS
"""The last hour is told in so many parts of so many seconds, the oldest first."""

_PARTS = (
    *("database", "lanes", "gates", "sources", "workers", "history", "ledger", "ended", "budgets"),
    *("held", "held_for", "unresolved"),
)


async def status(store: Store) -> Row:
    """The whole fleet at a glance; `needs_person` is empty while all is well."""
    part = await _read(store, _PARTS)
    (database,) = part["database"]
    told, workers = _lanes(part), part["workers"]
    sources = _sources(part["sources"], part["gates"], told)
    report = {
        "at": database.pop("at"),
        "version": __version__,
        "database": {**database, "pooler": store.pooled},
        "lanes": told,
        "sources": sources,
        "workers": workers,
        "providers": _providers(part, workers),
        "budgets": part["budgets"],
        "unserved": _unserved(told, sources, workers),
        "history": _history(part["history"]),
    }
    return {
        **report,
        "needs_person": needs_person(report, part),
        "notices": notices(told, part["gates"], part["budgets"]),
    }


async def lanes(store: Store) -> list[Row]:
    """The report's `lanes` alone."""
    return _lanes(await _read(store, ("lanes", "gates")))


def narrowed(report: Row, *, lane: str = EVERY, source: str = EVERY) -> Row:
    """Only what concerns a lane or a table; what needs a person is never left out."""

    def mine(row: Row) -> bool:
        return Gate(lane, source).matches(row["lane"], row["source"])

    lanes = [row for row in report["lanes"] if mine(row)]
    names = {lane} if lane != EVERY or source == EVERY else {row["lane"] for row in lanes}
    every = EVERY in names
    return {
        **report,
        "lanes": lanes,
        "sources": [row for row in report["sources"] if source in (EVERY, row["source"])],
        "workers": [row for row in report["workers"] if every or names & {*row["lanes"]}],
        "providers": [row for row in report["providers"] if every or row["lane"] in names],
        "budgets": [row for row in report["budgets"] if every or row["lane"] in names | {EVERY}],
        "unserved": [row for row in report["unserved"] if mine(row)],
    }


async def gates_of(store: Store) -> list[Row]:
    """Every pause and limit there is."""
    return (await _read(store, ("gates",)))["gates"]


async def _read(store: Store, parts: Sequence[str]) -> dict[str, list[Row]]:
    (row,) = await store.fetch(_query(tuple(parts)))
    return {part: json.loads(row[part]) for part in parts}


@cache
def _query(parts: tuple[str, ...]) -> str:
    def summed(column: str) -> str:
        parts = (f"sum(p.{column}[{n}])::bigint" for n in range(1, BUCKETS + 1))
        return f"ARRAY[{', '.join(parts)}]"

    filled = {
        "{windows}": str(WINDOWS),
        "{waits}": summed("waits"),
        "{runs}": summed("runs"),
        "{ended}": calls.ENDED,
        "{unresolved}": stored_query("unresolved"),
        "{most}": str(FIRST),
    }
    text = re.sub(r"{\w+}", lambda found: filled[found[0]], _without_comments("status"))
    selected = (f"(SELECT coalesce(json_agg(p), '[]') FROM {part} p) AS {part}" for part in parts)
    return f"{text}SELECT {', '.join(selected)}"


def _without_comments(name: str) -> str:
    return re.sub(r"^--.*\n", "", stored_query(name), flags=re.MULTILINE)


# --------------------------------------------------------------------------- lanes


def _lanes(part: Mapping[str, list[Row]]) -> list[Row]:
    rows = part["lanes"]
    for row in rows:
        for name in ("wait", "run"):
            histogram = row.pop(f"{name}s")
            row[f"{name}_p50_ms"] = percentile(histogram, 0.50)
            row[f"{name}_p95_ms"] = percentile(histogram, 0.95)
        row["out_history"] = _windows(row["out_history"] or {})
    return _with_gates(rows, part["gates"])


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


def _windows(told: Mapping[str, int]) -> list[int]:
    return [told.get(str(nth), 0) for nth in range(WINDOWS)]


def _with_gates(lanes: list[Row], gates: list[Row]) -> list[Row]:
    """Each lane with the limits and pauses that hold for it; lanes that are only gated, too."""
    known = {row["lane"] for row in lanes}
    idle = [g for g in gates if g["lane"] != EVERY and g["lane"] not in known]
    rows = [*lanes, *(_idle_lane(gate["lane"], gate["source"]) for gate in idle)]
    return [{**row, **_gated(gates, row["lane"], row["source"])} for row in rows]


def _idle_lane(lane: str, source: str) -> Row:
    counts = (
        *("ready", "scheduled", "running", "held", "failed_last_hour"),
        *("per_minute_in", "per_minute_out"),
    )
    exact = ("ready_estimated", "scheduled_estimated", "held_estimated")
    unknown = ("oldest_wait_s", "wait_p50_ms", "wait_p95_ms", "run_p50_ms", "run_p95_ms")
    return {
        "lane": lane,
        "source": source,
        **dict.fromkeys(counts, 0),
        **dict.fromkeys(exact, False),
        **dict.fromkeys(unknown),
        "out_history": [0] * WINDOWS,
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
        "paused_by": next((g["paused_by"] for g in pauses), None),
        "pause_reason": next((reason for reason in reasons if reason), None),
        "broken_until": broken and broken["broken_until"],
        "broken_why": broken and broken["broken_why"],
    }


def _least(gates: list[Row], name: str) -> int | None:
    return min((g[name] for g in gates if g[name] is not None), default=None)


# --------------------------------------------------------------------------- the fleet


def _history(rows: Iterable[Row]) -> Row:
    told = {row["nth"]: row for row in rows}
    all_ = [told.get(nth, {}) for nth in range(WINDOWS)]
    return {
        "seconds": SECONDS,
        **{name: [row.get(name, 0) for row in all_] for name in ("started", "succeeded", "failed")},
        "wait_p50_ms": [percentile(row.get("waits"), 0.50) for row in all_],
    }


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
            "unserved": row["unserved"],
        }
        for row in rows
    ]


def _live(workers: list[Row]) -> list[Row]:
    return [worker for worker in workers if worker["alive"] and not worker["draining"]]


def _unserved(lanes: list[Row], sources: list[Row], workers: list[Row]) -> list[Row]:
    """What waits and no live worker takes; and kinds that none may, whose lane others share."""
    served = {lane for worker in _live(workers) for lane in worker["lanes"]}
    reasons = {source["source"]: source["unserved"] for source in sources}
    return [
        {
            "source": lane["source"],
            "lane": lane["lane"],
            "kind": lane["lane"] if lane["lane"] in reasons.get(lane["source"], {}) else None,
            "waiting": lane["ready"],
            "estimated": lane["ready_estimated"],
            "paused": lane["paused"],
            "why": reasons.get(lane["source"], {}).get(lane["lane"]),
        }
        for lane in lanes
        if lane["ready"] and lane["lane"] not in served
    ]


# --------------------------------------------------------------------------- providers


def _providers(part: Mapping[str, list[Row]], workers: list[Row]) -> list[Row]:
    """Those that live workers serve, that have a gate, or that were called lately."""
    ledger = {row["provider"]: row for row in part["ledger"]}
    broken: dict[str, str] = {}
    for (provider, _account), why in calls.reasons(part["ended"]).items():
        broken.setdefault(provider, why)
    lanes = {lane for worker in workers if worker["alive"] for lane in worker["lanes"]}
    gated = {gate["lane"] for gate in part["gates"]} - {EVERY}
    names = {name for name in lanes | gated if ":" not in name} | ledger.keys()
    return [
        _provider(name, ledger.get(name, {}), part["gates"], broken.get(name))
        for name in sorted(names)
    ]


def _provider(name: str, told: Row, gates: list[Row], broken: str | None) -> Row:
    state, why = _state(name, gates, broken)
    return {
        "provider": name,
        "lane": name,
        "state": state,
        "why": why,
        "spend_cents_today": str(told.get("spend_cents_today", "0")),
        "open_calls": told.get("open_calls", 0),
        "failed_last_hour": told.get("failed_last_hour", 0),
    }


def _state(name: str, gates: list[Row], broken: str | None) -> tuple[str, str | None]:
    """The first that holds, as `rowmill providers` has it."""
    mine = [gate for gate in gates if gate["lane"] in (EVERY, name)]
    for gate in mine:
        if gate["paused"] and gate["source"] == EVERY:
            reason = f": {gate['pause_reason']}" if gate["pause_reason"] else ""
            return (
                "paused",
                f"{Gate(gate['lane']).subject} is paused by {gate['paused_by']}{reason}",
            )
    for gate in mine:
        if gate["closed_why"] and gate["lane"] == name:
            subject = Gate(gate["lane"], gate["source"]).subject
            return "paused", f"{subject} is closed by its platform: {gate['closed_why']}"
    for gate in mine:
        if gate["broken"]:
            return "broken", f"left alone until {gate['broken_until'][:19]}Z: {gate['broken_why']}"
    if broken:
        return "broken", broken
    slow = max((gate["slow_until"] for gate in mine if gate["slow_until"]), default=None)
    return ("rate used up", f"until {slow[:19]}Z") if slow else ("ok", None)


# --------------------------------------------------------------------------- platforms


async def platforms(store: Store) -> list[Row]:
    """What is attached, for `rowmill platforms`."""
    return await read(
        store,
        "SELECT platform, name AS source, relation, attached_at, definition ->> 'origin' AS origin "
        "FROM rowmill.sources ORDER BY platform, id",
    )
