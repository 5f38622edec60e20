"""What the panels say, of a report and the running jobs. Knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from worker.text.values import bar, count, dollars, many, money, ms
from worker.watch.kept import Row
from worker.watch.lines import APART, Cell, Column, Line, age, clean, used

GOOD, BUSY, BAD, QUIET = "green", "yellow", "red", "dim"


@dataclass(frozen=True, slots=True)
class Sort:
    name: str
    key: Callable[[Row], Any]


def matches(row: Row, text: str, *names: str) -> bool:
    """Whether any of these values holds what was typed behind `/`."""
    wanted = text.casefold()
    return not wanted or any(wanted in str(row.get(name) or "").casefold() for name in names)


# --------------------------------------------------------------------------- lanes

LANES = (
    Column("lane", 16, weight=3),
    Column("table", 14, weight=1, leaves=7),
    Column("running", 10),
    Column("ready", 6, right=True),
    Column("later", 5, right=True, leaves=4),
    Column("held", 4, right=True),
    Column("fail", 4, right=True, leaves=3),
    Column("oldest", 6, right=True),
    Column("in/m", 5, right=True, leaves=2),
    Column("out/m", 5, right=True),
    Column("wait", 6, right=True, leaves=1),
    Column("p95", 6, right=True, leaves=8),
    Column("run", 6, right=True, leaves=5),
    Column("p95", 6, right=True, leaves=9),
    Column("today", 7, right=True, leaves=6),
    Column("state", 9, weight=4),
)


def lane_key(lane: Row) -> str:
    return f"{lane['lane']}{APART}{lane['source']}"


def lane_state(lane: Row) -> Cell:
    """Why nothing more is claimed from it; empty where it is open."""
    if lane["paused"]:
        why = f" {clean(lane['pause_reason'])}" if lane["pause_reason"] else ""
        by = f" by {clean(lane['paused_by'])}" if lane["paused_by"] else ""
        return Cell(f"paused{by}:{why}" if why else f"paused{by}", BUSY)
    if lane["broken_until"]:
        return Cell(f"breaker: {clean(lane['broken_why'] or '')}", BAD)
    if lane["slow_until"]:
        return Cell(f"rate, until {lane['slow_until'][11:19]}Z", BUSY)
    if lane["limit"] is not None and lane["running"] >= lane["limit"] and lane["ready"]:
        return Cell("full", QUIET)
    return Cell("")


def lane_line(lane: Row) -> Line:
    return Line(
        lane_key(lane),
        (
            Cell(clean(lane["lane"]), "bold"),
            Cell(clean(lane["source"]), QUIET),
            Cell(used(lane["running"], lane["limit"], 4), GOOD),
            Cell(counted(lane, "ready")),
            Cell(counted(lane, "scheduled"), QUIET),
            Cell(counted(lane, "held"), BAD),
            Cell(number(lane["failed_last_hour"]), BAD),
            Cell(age(lane["oldest_wait_s"]) if lane["ready"] else ""),
            Cell(number(lane["per_minute_in"])),
            Cell(number(lane["per_minute_out"])),
            Cell(ms(lane["wait_p50_ms"])),
            Cell(ms(lane["wait_p95_ms"]), QUIET),
            Cell(ms(lane["run_p50_ms"])),
            Cell(ms(lane["run_p95_ms"]), QUIET),
            Cell(money(lane["spend_cents_today"])),
            lane_state(lane),
        ),
    )


def _matters(lane: Row) -> tuple[object, ...]:
    """Trouble with work behind it, then work, then the rest; by name among equals."""
    waits = lane["ready"] + lane["scheduled"]
    trouble = bool(lane["held"] or ((lane["paused"] or lane["broken_until"]) and waits))
    busy = bool(lane["running"] or lane["held"] or waits)
    return (not trouble, not busy, lane["lane"], lane["source"])


LANE_SORTS = (
    Sort("what matters", _matters),
    Sort("ready", lambda lane: -lane["ready"]),
    Sort("oldest wait", lambda lane: -(lane["oldest_wait_s"] or 0)),
    Sort("failed", lambda lane: -lane["failed_last_hour"]),
    Sort("out", lambda lane: -lane["per_minute_out"]),
    Sort("spend", lambda lane: -float(lane["spend_cents_today"])),
)


def lanes(report: Row, text: str, sort: Sort) -> list[Row]:
    found = [lane for lane in report["lanes"] if matches(lane, text, "lane", "source")]
    return sorted(found, key=lambda lane: (sort.key(lane), lane["lane"], lane["source"]))


# --------------------------------------------------------------------------- running jobs

RUNNING = (
    Column("progress", 15),
    Column("job", 12, weight=9),
    Column("lane", 12, weight=2),
    Column("kind", 12, weight=1, leaves=1),
    Column("for", 6, right=True),
    Column("try", 3, right=True),
    Column("worker", 10, weight=1),
    Column("tenant", 10, weight=1, leaves=3),
    Column("table", 14, weight=1, leaves=2),
)
BAR = 10


def job_key(job: Row) -> str:
    return f"{job['source']}/{job['key']}"


def running_line(job: Row) -> Line:
    percent = job["percent"]
    progress = (
        Cell(f"{bar(round(percent), 100, BAR)} {percent:3.0f}%", GOOD)
        if percent is not None
        else Cell("running", QUIET)  # its table has no column for it: the time tells
    )
    return Line(
        job_key(job),
        (
            progress,
            Cell(clean(job["key"]), "bold"),
            Cell(clean(job["lane"])),
            Cell(clean(job["kind"] or "")),
            Cell(age(job["running_s"])),
            Cell(str(job["try"]), BUSY if job["try"] > 1 else ""),
            Cell(clean(job["worker"] or "gone")),
            Cell(clean(job["tenant"] or ""), QUIET),
            Cell(clean(job["source"]), QUIET),
        ),
    )


RUNNING_SORTS = (
    Sort("longest", lambda job: job["since"]),
    Sort("newest", lambda job: job["running_s"]),
    Sort("progress", lambda job: -(job["percent"] if job["percent"] is not None else -1)),
    Sort("lane", lambda job: job["lane"]),
    Sort("worker", lambda job: job["worker"] or ""),
)


def running(rows: Sequence[Row], text: str, sort: Sort) -> list[Row]:
    """Filtered here too: what was typed holds at once, the next answer brings the rest."""
    found = [
        {**job, "name": job_key(job)}
        for job in rows
        if matches({**job, "name": job_key(job)}, text, "name", "lane", "tenant", "worker")
    ]
    return sorted(found, key=lambda job: (sort.key(job), job["since"], job["name"]))


# --------------------------------------------------------------------------- workers

WORKERS = (
    Column("worker", 12, weight=2),
    Column("host", 10, weight=1, leaves=2),
    Column("version", 7, leaves=3),
    Column("slots", 12, weight=1),
    Column("beat", 6, right=True),
    Column("up", 6, right=True, leaves=1),
    Column("state", 8),
    Column("lanes", 14, weight=4),
)


def worker_state(worker: Row) -> Cell:
    if not worker["alive"]:
        return Cell(worker["state"], BAD)
    return Cell("" if worker["state"] == "working" else worker["state"], BUSY)


def worker_line(worker: Row) -> Line:
    return Line(
        str(worker["id"]),
        (
            Cell(clean(worker["name"]), "bold"),
            Cell(clean(worker["host"] or ""), QUIET),
            Cell(clean(worker["version"]), QUIET),
            Cell(used(worker["running"], worker["slots"], 6), GOOD),
            Cell(age(worker["heartbeat_age_s"])),
            Cell(age(worker["up_s"]), QUIET),
            worker_state(worker),
            Cell(clean(", ".join(worker["lanes"])), QUIET),
        ),
    )


WORKER_SORTS = (
    Sort("started", lambda _worker: 0),
    Sort("name", lambda worker: worker["name"]),
    Sort("busiest", lambda worker: -worker["running"]),
    Sort("heartbeat", lambda worker: -worker["heartbeat_age_s"]),
)


def workers(report: Row, text: str, sort: Sort) -> list[Row]:
    """Sorting is stable: equals stay as they were answered, the oldest first."""
    now = datetime.fromisoformat(report["at"])
    found = [
        {**worker, "up_s": (now - datetime.fromisoformat(worker["started_at"])).total_seconds()}
        for worker in report["workers"]
        if matches(worker, text, "name", "host")
        or any(text.casefold() in lane.casefold() for lane in worker["lanes"])
    ]
    return sorted(found, key=sort.key)


# --------------------------------------------------------------------------- what needs a person

NEEDS = (Column("", 20, weight=1),)


def needs_lines(report: Row) -> list[Line]:
    """What needs a person and what ends it; then what is only good to know."""
    lines = []
    for name, style in (("needs_person", "bold red"), ("notices", "")):
        for nth, item in enumerate(report[name]):
            key = APART.join((name, item["kind"], item["subject"], str(nth)))
            said = f"{clean(item['subject'])}: {clean(item['message'])}"
            lines.append(Line(key, (Cell(said, style),)))
            lines.extend(
                Line(f"{key}{APART}{command}", (Cell(f"    {clean(command)}", "cyan"),))
                for command in item["commands"]
            )
    return lines or [Line("none", (Cell("Nothing needs a person.", QUIET),))]


# --------------------------------------------------------------------------- who is paid

PROVIDERS = (
    Column("provider", 12, weight=2),
    Column("state", 14),
    Column("today", 8, right=True),
    Column("open", 5, right=True, leaves=1),
    Column("fail", 4, right=True, leaves=2),
    Column("budgets", 24, weight=3),
    Column("why", 10, weight=3, leaves=3),
)
EVERYTHING = "everything"


def providers_title(report: Row) -> str:
    """What one has to know of it while it is folded."""
    rows = report["providers"]
    states = {row["state"]: 0 for row in rows}
    for row in rows:
        states[row["state"]] += 1
    told = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    return f"Providers: {told or 'none'}; {many(len(report['budgets']), 'budget')}"


def provider_lines(report: Row) -> list[Line]:
    """A line per provider; and per budget of what is none, such as of everything."""
    named = [row["lane"] for row in report["providers"]]
    limited = dict.fromkeys(b["lane"] for b in report["budgets"] if b["lane"] not in named)
    others = [
        Line(
            f"budget{APART}{lane}",
            (
                Cell(EVERYTHING if lane == "*" else clean(lane), "bold"),
                *(Cell("") for _ in range(4)),
                _budgets(report, lane),
                Cell(""),
            ),
        )
        for lane in limited
    ]
    return [*(_provider(report, row) for row in report["providers"]), *others]


def _provider(report: Row, row: Row) -> Line:
    return Line(
        row["provider"],
        (
            Cell(clean(row["provider"]), "bold"),
            Cell(clean(row["state"]), {"ok": GOOD, "broken": BAD}.get(row["state"], BUSY)),
            Cell(money(row["spend_cents_today"])),
            Cell(number(row["open_calls"])),
            Cell(number(row["failed_last_hour"]), BAD),
            _budgets(report, row["lane"]),
            Cell(clean(row["why"] or ""), QUIET),
        ),
    )


def _budgets(report: Row, lane: str) -> Cell:
    """Red where one is used up, or jobs wait for it."""
    mine = [b for b in report["budgets"] if b["lane"] == lane]
    over = any(b["waiting"] or Decimal(b["used_cents"]) >= Decimal(b["limit_cents"]) for b in mine)
    told = (
        f"{dollars(Decimal(b['used_cents']))} of {dollars(Decimal(b['limit_cents']))}"
        f" a {b['period']}"
        for b in mine
    )
    return Cell(", ".join(told), BAD if over else "")


def counted(lane: Row, name: str) -> str:
    """With a sign where it was too many to count in a report."""
    about = lane[f"{name}_estimated"]
    return count(lane[name], about=True) if about else number(lane[name])


def number(value: int | None) -> str:
    """Empty for nothing, and short where it is long."""
    if not value:
        return ""
    if value < 100_000:
        return str(value)
    return f"{value / 1000:.0f}k" if value < 10_000_000 else f"{value / 1_000_000:.0f}M"
