"""What only a person can mend, each with the commands that do: the reason status exits with 1.

Judges what reports.py read, and reads nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from worker.maps import builtin_platforms
from worker.store.finding import names, nearest
from worker.store.gates import EVERY, Gate

Row = dict[str, Any]


FIRST = 5
"""How many of one kind are told one by one; the others are counted."""

HOPELESS = ("auth", "quota")
"""Failures of a provider that last until someone does something about its account."""


def needs_person(report: Row, part: Mapping[str, list[Row]]) -> list[Row]:
    """The worst first: what loses work or money, what stands still, what waits for a decision."""
    return [
        *_tables(report["sources"]),
        *_unresolved(part["unresolved"]),
        *_stuck_lanes(report),
        *_providers(report["providers"]),
        *_held(part["held"], part["held_for"], sum(lane["held"] for lane in report["lanes"])),
    ]


def notices(lanes: list[Row], gates: list[Row], budgets: list[Row]) -> list[Row]:
    """Worth knowing, but meant: nobody has to do anything about a pause, whosever it is."""
    return [item for gate in gates for item in _gate(gate, lanes)] + [
        _item(
            "budget",
            _budgeted(budget["lane"]),
            f"{_dollars(budget['used_cents'])} of {_dollars(budget['limit_cents'])} "
            f"a {budget['period']} are used; {_jobs(budget['waiting'])} "
            f"for more until {budget['renewed_at'][:16].replace('T', ' ')} UTC",
            f"rowmill budget set {'--all' if budget['lane'] == '*' else budget['lane']} "
            f"--{budget['period']} CENTS",
        )
        for budget in budgets
        if budget["waiting"]
    ]


def _gate(row: Row, lanes: list[Row]) -> list[Row]:
    gate, items = Gate(row["lane"], row["source"]), []
    behind = _behind(lane for lane in lanes if gate.matches(lane["lane"], lane["source"]))
    if row["paused"] and behind.count:
        reason = f": {row['pause_reason']}" if row["pause_reason"] else ""
        message = f"paused by {row['paused_by']}{reason}; {behind}"
        items.append(_item("paused", gate.subject, message, f"rowmill resume {gate.arguments}"))
    if row["closed_why"] and behind.count:
        message = f"closed by its platform: {row['closed_why']}; {behind}"
        items.append(_item("closed", gate.subject, message))
    if row["broken_until"]:
        at = f"{row['broken_until'][:19].replace('T', ' ')} UTC"
        until = f"left alone until {at}" if row["broken"] else "being tried again"
        message = f"{until}: {row['broken_why']}; {behind}"
        items.append(_item("breaker", gate.subject, message, f"rowmill resume {gate.arguments}"))
    return items


def _budgeted(lane: str) -> str:
    return "everything" if lane == EVERY else f"lane {lane}"


def _dollars(cents: str) -> str:
    return f"${Decimal(cents) / 100:.2f}"


def _item(kind: str, subject: str, message: str, *commands: str) -> Row:
    return {"kind": kind, "subject": subject, "message": message, "commands": list(commands)}


@dataclass(frozen=True, slots=True)
class Behind:
    """How many jobs wait behind something, in words."""

    count: int
    about: bool

    def __str__(self) -> str:
        return _jobs(self.count, about=self.about)


def _behind(lanes: Iterable[Row]) -> Behind:
    told = list(lanes)
    return Behind(
        sum(lane["ready"] for lane in told), any(lane["ready_estimated"] for lane in told)
    )


def _jobs(count: int, *, about: bool = False) -> str:
    return "1 job waits" if count == 1 else f"{'about ' if about else ''}{count} jobs wait"


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
            items.append(_item("missing_triggers", source["source"], message, attach(platform)))
    return items


def attach(platform: str) -> str:
    known = platform in builtin_platforms()
    return f"rowmill attach {platform if known else 'path/to/map.toml'}"


def _stuck_lanes(report: Row) -> list[Row]:
    """Ready jobs that nobody will take: not paused, and no live worker serves their lane."""
    waiting = [lane for lane in report["lanes"] if lane["ready"] and not lane["paused"]]
    live = [w for w in report["workers"] if w["alive"] and not w["draining"]]
    if waiting and not live:
        message = f"{_behind(waiting)}, and no worker runs"
        return [_item("no_workers", "fleet", message, "rowmill run")]
    served = {lane for worker in live for lane in worker["lanes"]}
    return [_stuck(row, served) for row in report["unserved"] if not row["paused"]]


def _stuck(row: Row, served: set[str]) -> Row:
    name, count = row["lane"], _jobs(row["waiting"], about=row["estimated"])
    silence = f"rowmill pause {name} --reason 'not yet'"
    if row["why"] is not None:
        message = f"{count}: no worker can do {name} on this database, {row['why']}"
        return _item("unserved", f"lane {name}", message, silence)
    message = (
        f"{count}: no live worker serves this lane (they serve {names(served, FIRST) if served else 'none'}"
        f"{nearest(name, served)}); "
        "configure its provider (ROWMILL_PROVIDERS__…) or its handler (ROWMILL_HANDLERS)"
    )
    return _item("unserved", f"lane {name}", message, f"rowmill run --lanes {name}", silence)


def _providers(providers: list[Row]) -> list[Row]:
    """A refused key or an empty account stays so until someone mends it there."""
    return [
        _item(
            "provider",
            f"provider {row['provider']}",
            f"{row['why']}: look at its key and its account",
            "rowmill providers",
            f"rowmill resume {row['lane']}",
        )
        for row in providers
        if row["state"] == "broken" and re.search(rf"\b({'|'.join(HOPELESS)}):", row["why"])
    ]


# --------------------------------------------------------------------------- jobs


def _held(held: list[Row], causes: list[Row], total: int) -> list[Row]:
    items = [
        _item("held", row["job"], row["why"], *_commands(row["job"], "show", "retry", "cancel"))
        for row in held
    ]
    more = total - len(held)
    if more > 0:
        message = f"{more} more jobs are held, for: {'; '.join(row['why'] for row in causes)}"
        items.append(_item("held", f"{more} more", message, "rowmill jobs --state held"))
    return items


def _commands(job: str, *actions: str) -> list[str]:
    return [f"rowmill {'job show' if action == 'show' else action} {job}" for action in actions]


def _unresolved(unresolved: list[Row]) -> list[Row]:
    """A retry takes the same submission up again and asks the provider; it doesn't pay anew."""
    items = [
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
    more = (unresolved[0]["total"] if unresolved else 0) - len(unresolved)
    if more:
        message = f"{more} more calls may have been paid, and no job looks after them"
        items.append(_item("unresolved_payment", f"{more} more", message, "rowmill reconcile"))
    return items
