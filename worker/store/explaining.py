"""Why a job isn't done yet: the one explanation that the CLI, messages and `rowmill try` give.

Words, reason and times are the view's (`rowmill.waiting`). Here are only what may be done about each
reason, and what there is to say of a job that isn't in the queue.
"""

from __future__ import annotations

from shlex import quote
from typing import Any

from worker.store.finding import Found, platform_row
from worker.store.gates import EVERY, Gate
from worker.store.reading import Row, read
from worker.store.store import SourceInfo, Store

MOST_AHEAD = 10_000
"""As far as the view counts: that many, or more."""

_WAITING = """
SELECT w.reason, w.why, w.subject, w.ahead, w.may_start_at, w.estimated_start_at,
       w.lane, w.gate_lane, w.gate_source,
       CASE w.reason
       WHEN 'full' THEN (SELECT l.max_running IS NOT DISTINCT FROM least(l.max_running, l.platform_max_running)
                           FROM rowmill.lanes l WHERE l.lane = w.gate_lane AND l.source = w.gate_source)
       WHEN 'unserved' THEN (SELECT NOT s.unserved ? w.lane FROM rowmill.sources s WHERE s.name = w.source)
       WHEN 'held' THEN EXISTS (SELECT FROM rowmill.submissions u
                                 WHERE u.source = w.source AND u.row_key = w.row_key
                                   AND (u.state IN ('intent', 'unknown')
                                        OR (u.state = 'accepted' AND u.ref IS NULL)))
       END AS operators,
       CASE WHEN w.reason = 'budget' THEN (SELECT b.period FROM rowmill.budgets b WHERE b.lane = w.gate_lane
                                            ORDER BY b.limit_cents - b.used_cents LIMIT 1) END AS period
  FROM rowmill.waiting w WHERE w.source = $1 AND w.row_key = $2
"""
# operators: whether an operator can do something about it, of reasons where that depends


async def explain(store: Store, source: str, key: str) -> Row:
    """`reason`, `why`, `subject`, `ahead`, `may_start_at`, `estimated_start_at`, `commands`."""
    job = Found(source, key)
    rows = await read(store, _WAITING, source, key)
    if not rows:
        told = await _not_waiting(store, job)
        # In no queue, and now its row says otherwise: it may have been put there just between.
        rows = await read(store, _WAITING, source, key) if told["reason"] == "unqueued" else []
        if not rows:
            return told
    (row,) = rows
    names = ("reason", "why", "subject", "ahead", "may_start_at", "estimated_start_at")
    commands = [*_remedies(job, row), f"rowmill cancel {quote(job.subject)}"]
    return {**{name: row[name] for name in names}, "commands": commands}


def _remedies(job: Found, row: Row) -> list[str]:
    """What may be run against the reason; N, CENTS and PRIORITY are to be filled in."""
    name, lane = quote(job.subject), quote(row["lane"])
    gate = Gate(row["gate_lane"], row["gate_source"]) if row["gate_lane"] else None
    match row["reason"]:
        case "paused" | "breaker" | "rate" if gate:
            return [f"rowmill resume {gate.arguments}"]
        case "full" if gate and row["operators"]:
            return [f"rowmill limit {gate.arguments} --running N"]
        case "budget" if gate and row["period"]:
            which = "--all" if gate.lane == EVERY else quote(gate.lane)
            return [f"rowmill budget set {which} --{row['period']} CENTS"]
        case "no_worker":
            return ["rowmill run"]
        case "unserved" if row["operators"]:
            return [f"rowmill run --lanes {lane}"]
        case "held":
            return [
                *([f"rowmill resolve {name}"] if row["operators"] else []),
                f"rowmill retry {name}",
            ]
        case "turn":
            return [f"rowmill priority {name} --to PRIORITY"]
        case "scheduled" | "retry" | "budget" | "rate":
            return [f"rowmill retry {name}"]
    return []


# --------------------------------------------------------------------------- not in the queue


async def _not_waiting(store: Store, job: Found) -> Row:
    (info,) = [s for s in await store.sources() if s.name == job.source]
    row = await platform_row(store, info, job.key)
    if row is None:
        return _told("missing", f"not waiting: {info.relation} has no such row (any more)")
    words = _status_words(info)
    word = row.data.get(words["column"]) or words.get("default")
    if word in words["ready"]:
        why = "not queued yet: its trigger was off when it was written; the sweep finds it"
        return _told("unqueued", why)
    if word == words["running"]:
        why = f"its {words['column']} is {word}, but it is in no queue: nobody here runs it"
        return _told("unqueued", why)
    again = word in (words["failed"], words.get("cancelled"))
    why = f"not waiting: its {words['column']} is {word}"
    return _told("over", why, *([f"rowmill retry {quote(job.subject)}"] if again else []))


def _told(reason: str, why: str, *commands: str) -> Row:
    nothing = dict.fromkeys(("subject", "ahead", "may_start_at", "estimated_start_at"))
    return {"reason": reason, "why": why, **nothing, "commands": list(commands)}


def _status_words(info: SourceInfo) -> dict[str, Any]:
    (mine,) = [s for s in info.definition["map"]["sources"] if s["name"] == info.name]
    return dict(mine["status"])
