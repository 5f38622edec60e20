"""What only a person can mend, each with the commands that do: the reason status exits with 1.

Judges what reports.py read, and reads nothing itself.
"""

from __future__ import annotations

from typing import Any

from worker.maps import builtin_platforms
from worker.store.gates import Gate

Row = dict[str, Any]


def needs_person(
    lanes: list[Row],
    sources: list[Row],
    workers: list[Row],
    held: list[Row],
    unresolved: list[Row],
) -> list[Row]:
    return [
        *_tables(sources),
        *_stuck_lanes(lanes, sources, workers),
        *_held(held),
        *_unresolved(unresolved),
    ]


def notices(lanes: list[Row], gates: list[Row]) -> list[Row]:
    """Worth knowing, but meant: nobody has to do anything about a pause, whosever it is."""
    items = []
    for row in gates:
        gate = Gate(row["lane"], row["source"])
        behind = sum(n["ready"] for n in lanes if gate.matches(n["lane"], n["source"]))
        if row["paused"] and behind:
            reason = f": {row['pause_reason']}" if row["pause_reason"] else ""
            message = f"paused by {row['paused_by']}{reason}; {_jobs(behind)}"
            items.append(_item("paused", gate.subject, message, f"rowmill resume {gate.arguments}"))
        if row["closed_why"] and behind:
            message = f"closed by its platform: {row['closed_why']}; {_jobs(behind)}"
            items.append(_item("closed", gate.subject, message))
        if row["broken_until"]:
            until = (
                f"left alone until {row['broken_until']}" if row["broken"] else "being tried again"
            )
            message = f"{until}: {row['broken_why']}; {_jobs(behind)}"
            items.append(
                _item("breaker", gate.subject, message, f"rowmill resume {gate.arguments}")
            )
    return items


def _item(kind: str, subject: str, message: str, *commands: str) -> Row:
    return {"kind": kind, "subject": subject, "message": message, "commands": list(commands)}


def _jobs(count: int) -> str:
    return "1 job waits" if count == 1 else f"{count} jobs wait"


# --------------------------------------------------------------------------- tables and lanes


def _tables(sources: list[Row]) -> list[Row]:
    items = []
    for source in sources:
        platform, relation = source["platform"], source["relation"]
        if source["gone"]:
            message = f"{relation} is gone from this database; if that is meant, detach"
            command = f"rowmill detach {platform}"
            items.append(_item("missing_table", source["source"], message, command))
        elif source["missing_triggers"]:
            missing = ", ".join(source["missing_triggers"])
            message = f"{relation} lacks {missing}: new rows are only found by the sweep"
            items.append(_item("missing_triggers", source["source"], message, _attach(platform)))
    return items


def _attach(platform: str) -> str:
    known = platform in builtin_platforms()
    return f"rowmill attach {platform if known else 'path/to/map.toml'}"


def _stuck_lanes(lanes: list[Row], sources: list[Row], workers: list[Row]) -> list[Row]:
    """Ready jobs that nobody will take: not paused, and no live worker serves their lane."""
    waiting = [lane for lane in lanes if lane["ready"] and not lane["paused"]]
    live = [worker for worker in workers if worker["alive"] and not worker["draining"]]
    served = {lane for worker in live for lane in worker["lanes"]}
    reasons = {source["source"]: source["unserved"] for source in sources}
    if waiting and not live:
        total = sum(lane["ready"] for lane in waiting)
        return [_item("no_workers", "fleet", f"{_jobs(total)}, and no worker runs", "rowmill run")]
    return [
        _stuck(lane, reasons.get(lane["source"], {}).get(lane["lane"]), sorted(served))
        for lane in waiting
        if lane["lane"] not in served
    ]


def _stuck(lane: Row, reason: str | None, served: list[str]) -> Row:
    name, count = lane["lane"], _jobs(lane["ready"])
    silence = f"rowmill pause {name} --reason 'not yet'"
    if reason is not None:
        message = f"{count}: no worker can do {name} on this database, {reason}"
        return _item("unserved", f"lane {name}", message, silence)
    message = (
        f"{count}: no live worker serves this lane (they serve {', '.join(served) or 'none'}); "
        "configure its provider (ROWMILL_PROVIDERS__…) or its handler (ROWMILL_HANDLERS)"
    )
    return _item("unserved", f"lane {name}", message, f"rowmill run --lanes {name}", silence)


# --------------------------------------------------------------------------- jobs


def _held(held: list[Row]) -> list[Row]:
    items = [
        _item("held", row["job"], row["why"], *_commands(row["job"], "show", "retry", "cancel"))
        for row in held
    ]
    more = (held[0]["total"] if held else 0) - len(held)
    if more:
        query = "SELECT * FROM rowmill.waiting WHERE state = 'held'"
        items.append(
            _item("held", f"{more} more", f"{more} more jobs are held", f'psql -c "{query}"')
        )
    return items


def _commands(job: str, *actions: str) -> list[str]:
    return [f"rowmill {'job show' if action == 'show' else action} {job}" for action in actions]


def _unresolved(unresolved: list[Row]) -> list[Row]:
    """A retry takes the same submission up again and asks the provider; it doesn't pay anew."""
    return [
        _item(
            "unresolved_payment",
            row["job"],
            f"step {row['step']!r} may have been paid at {row['provider']} "
            f"(about {row['estimate_cents']} cents, {row['intended_at']}), and nobody knows: "
            "look there, then resolve it; or retry the job, which takes the same call up again",
            *_commands(row["job"], "show", "resolve", "retry"),
        )
        for row in unresolved
    ]
