"""rowmill status: tables first; what needs a person last, beside the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal

from rich.console import Console
from rich.text import Text

from worker.text.values import (
    Column,
    Row,
    bar,
    count,
    cut,
    dollars,
    draws,
    duration,
    fitted,
    money,
    ms,
    new_console,
    spark,
    styled,
    visible,
)

GOOD, BAD, POOR, FAINT = "green", "bold red", "yellow", "dim"
WIDE = 100
"""Columns of a terminal that has room for reasons in a table; they stand below it, too."""


def print_status(report: Row) -> None:
    console, database = new_console(), report["database"]
    pooler = " behind a pooler" if database["pooler"] else ""
    console.print(
        f"rowmill {report['version']}, database {database['name']} "
        f"(PostgreSQL {database['server_version'].split()[0]}{pooler}), {report['at'][:19]}Z"
    )
    if report["lanes"]:
        console.print(fitted(console, "\nLanes", lane_columns(console, report)))
    else:
        console.print("\nNo jobs waiting, running, or lately done.")
    if report["workers"]:
        console.print(fitted(console, "\nWorkers", worker_columns(console, report)))
    else:
        console.print("\nNo worker runs.")
    _print_history(console, report["history"])
    if report["providers"]:
        console.print(
            fitted(console, "\nProviders", provider_columns(console, report["providers"]))
        )
    if report["budgets"]:
        console.print(fitted(console, "\nBudgets", budget_columns(console, report["budgets"])))
    _print_items(console, "Good to know", report["notices"], POOR)
    _print_items(console, "Needs a person", report["needs_person"], BAD)
    if not report["needs_person"]:
        console.print("\nNothing needs a person.", style=GOOD)


def column(
    name: str,
    rows: Sequence[Row],
    tell: Callable[[Row], str | Text],
    weight: int,
    *,
    right: bool = False,
) -> Column:
    return Column(name, [tell(row) for row in rows], weight, right)


def number(value: int, style: str = "", *, about: bool = False) -> Text:
    """Nothing is told, but faintly."""
    return Text(count(value, about=about), style=style if value else FAINT)


# --------------------------------------------------------------------------- lanes


def lane_columns(console: Console, report: Row) -> list[Column]:
    lanes, pictures = report["lanes"], draws(console)
    tables = {lane["source"] for lane in lanes}

    def told(name: str, row: Row, style: str = "") -> Text:
        return number(row[name], style, about=row[f"{name}_estimated"])

    columns = [
        column("lane", lanes, lambda r: r["lane"], 100),
        column("ready", lanes, lambda r: told("ready", r), 95, right=True),
        column("running", lanes, _running, 92, right=True),
        column("oldest", lanes, lambda r: duration(r["oldest_wait_s"]), 85, right=True),
        column("held", lanes, lambda r: told("held", r, BAD), 80, right=True),
        column("failed 1h", lanes, lambda r: number(r["failed_last_hour"], POOR), 75, right=True),
        column("scheduled", lanes, lambda r: told("scheduled", r), 55, right=True),
        column("in/min", lanes, lambda r: number(r["per_minute_in"]), 65, right=True),
        column("out/min", lanes, lambda r: number(r["per_minute_out"]), 70, right=True),
        column("wait p50", lanes, lambda r: ms(r["wait_p50_ms"]), 40, right=True),
        column("wait p95", lanes, lambda r: ms(r["wait_p95_ms"]), 45, right=True),
        column("run p50", lanes, lambda r: ms(r["run_p50_ms"]), 35, right=True),
        column("run p95", lanes, lambda r: ms(r["run_p95_ms"]), 38, right=True),
        column("today", lanes, lambda r: money(r["spend_cents_today"]), 60, right=True),
    ]
    if len(tables) > 1 or not console.is_terminal:
        columns.insert(1, column("table", lanes, lambda r: r["source"], 72))
    if pictures:
        columns.insert(4, column("", lanes, _limited, 50))
        columns.append(column("out, last hour", lanes, _outs, 48))
    room = (0 if console.width < WIDE else 30) if console.is_terminal else None
    columns.append(column("", lanes, lambda r: lane_state(r, report["at"], room), 90))
    return columns


def _running(lane: Row) -> Text:
    limit = "" if lane["limit"] is None else f"/{lane['limit']}"
    return Text(f"{lane['running']}{limit}", style="" if lane["running"] else FAINT)


def _limited(lane: Row) -> Text:
    if lane["limit"] is None:
        return Text()
    return Text(bar(lane["running"], lane["limit"]), style="cyan")


def _outs(lane: Row) -> Text:
    told = lane["out_history"]
    return Text(spark(told, 15), style="cyan") if any(told) else Text()


def lane_state(lane: Row, at: str, room: int | None = None) -> Text:
    """What keeps its jobs from being claimed, and so much of the reason as there is room for."""
    state, why, style = "", None, POOR
    if lane["paused"]:
        state, why = "paused", lane["pause_reason"]
    elif lane["broken_until"]:
        state = "left alone" if lane["broken_until"] > at else "tried again"
        why, style = lane["broken_why"], BAD
    elif lane["slow_until"]:
        state, why = "rate used up", f"until {lane['slow_until'][11:19]}Z"
    elif lane["limit"] is not None and lane["ready"] and lane["running"] >= lane["limit"]:
        state = "full"
    text = f"{state}: {why}" if why and room != 0 else state
    return styled(cut(text, room) if room else text, style)


# --------------------------------------------------------------------------- the fleet


def worker_columns(console: Console, report: Row) -> list[Column]:
    workers = report["workers"]
    columns = [
        column("worker", workers, lambda r: r["name"], 100),
        column("host", workers, lambda r: r["host"] or "", 58),
        column("slots", workers, _slots, 90, right=True),
        column("heartbeat", workers, lambda r: _ago(r["heartbeat_age_s"]), 80, right=True),
        column("up", workers, lambda r: _up(r, report["at"]), 50, right=True),
        column("version", workers, lambda r: r["version"], 60),
        column("", workers, _worker_state, 95),
        column("lanes", workers, lambda r: _list(r["lanes"], console), 40),
    ]
    if draws(console):
        columns.insert(
            3, column("", workers, lambda r: Text(bar(r["running"], r["slots"]), "cyan"), 70)
        )
    return columns


def _slots(worker: Row) -> str:
    return f"{worker['running']}/{worker['slots']}"


def _ago(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration(max(0.0, seconds))} ago"


def _up(worker: Row, at: str) -> str:
    if worker["started_at"] is None:
        return ""
    since = datetime.fromisoformat(at) - datetime.fromisoformat(worker["started_at"])
    return duration(max(0.0, since.total_seconds()))


TOLD = {"asked": "asked to drain", "draining": "draining"}


def _worker_state(worker: Row) -> Text:
    if not worker["alive"]:
        holds = f", holds {worker['claims']}" if worker["claims"] else ""
        return Text(f"{worker['state']}{holds}", style=BAD)
    return Text("" if worker["state"] == "working" else TOLD[worker["state"]], style=POOR)


def _list(names: Sequence[str], console: Console) -> str:
    text = ", ".join(names)
    return cut(text, 40) if console.is_terminal else text


def _print_history(console: Console, history: Row) -> None:
    """The last hour of all of it, as pictures; numbers stand in the tables."""
    done = [a + b for a, b in zip(history["succeeded"], history["failed"], strict=True)]
    if not draws(console) or not any((*done, *history["started"])):
        return
    waits = [wait for wait in history["wait_p50_ms"] if wait is not None]
    console.print(Text("\nLast hour of all lanes", style="bold"))
    rows = [
        ("done", done, GOOD, f"{sum(done)} in all"),
        ("failed", history["failed"], "red", f"{sum(history['failed'])} in all"),
        ("wait", history["wait_p50_ms"], POOR, f"p50 up to {ms(max(waits, default=0))}"),
    ]
    for name, values, style, note in rows:
        if any(values):
            console.print(Text.assemble(f"  {name:<7}", (spark(values), style), f"  {note}"))


# --------------------------------------------------------------------------- money


STATES = {"ok": GOOD, "broken": BAD}


def provider_columns(console: Console, rows: Sequence[Row]) -> list[Column]:
    def why(row: Row) -> str:
        text = row["why"] or ""
        return cut(text, 50) if console.is_terminal else text

    return [
        column("provider", rows, lambda r: r["provider"], 100),
        column("state", rows, lambda r: Text(r["state"], STATES.get(r["state"], POOR)), 95),
        column("failed 1h", rows, lambda r: number(r["failed_last_hour"], POOR), 80, right=True),
        column("open calls", rows, lambda r: number(r["open_calls"]), 70, right=True),
        column("today", rows, lambda r: money(r["spend_cents_today"]), 90, right=True),
        column("", rows, why, 60),
    ]


def budget_columns(console: Console, rows: Sequence[Row]) -> list[Column]:
    columns = [
        column("budget of", rows, lambda r: "everything" if r["lane"] == "*" else r["lane"], 100),
        column("per", rows, lambda r: r["period"], 95),
        column("used", rows, lambda r: dollars(Decimal(r["used_cents"])), 92, right=True),
        column("limit", rows, lambda r: dollars(Decimal(r["limit_cents"])), 93, right=True),
        column("jobs waiting", rows, lambda r: number(r["waiting"], POOR), 80, right=True),
        column("renewed", rows, lambda r: f"{r['renewed_at'][:16].replace('T', ' ')}Z", 50),
    ]
    if draws(console):
        columns.insert(4, column("", rows, _budget_bar, 70))
    return columns


def _budget_bar(row: Row) -> Text:
    used, limit = float(row["used_cents"]), float(row["limit_cents"])
    share = min(1.0, used / limit) if limit else 1.0
    style = BAD if share >= 1 else POOR if share >= 0.8 else GOOD
    return Text(bar(round(1000 * share), 1000, 10), style=style)


# --------------------------------------------------------------------------- what to do


def _print_items(console: Console, title: str, items: list[Row], style: str) -> None:
    if not items:
        return
    console.print(Text(f"\n{title}:", style=style))
    for item in items:
        line = visible(f"{item['subject']}: {item['message']}", one_line=True)
        console.print(f"  {line}", soft_wrap=True)
        for command in item["commands"]:
            console.print(f"      {visible(command, one_line=True)}", style="cyan", soft_wrap=True)
