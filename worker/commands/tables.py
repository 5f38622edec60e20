"""Reports as text for people; `--json` has all of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
PIPED_WIDTH = 200
"""Where nobody's terminal sets the width, nothing should be cut off."""


def _console() -> Console:
    # Names and messages come from rows: nothing in them is markup, an emoji or a number to colour.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Columns whose name starts with a space hold numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for column in columns:
        right = column.startswith(" ")
        table.add_column(column.strip(), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def print_budgets(budgets: Sequence[Row]) -> None:
    columns = ("lane", "per", " limit", " used", " jobs waiting", "renewed")
    rows = [
        (
            "everything" if b["lane"] == "*" else b["lane"],
            b["period"],
            f"{b['limit_cents']} ¢",
            f"{b['used_cents']} ¢",
            str(b["waiting"]),
            b["renewed_at"][:16],
        )
        for b in budgets
    ]
    console = _console()
    console.print(
        _table("Budgets", columns, rows) if rows else "No budgets: spending isn't limited."
    )


PROVIDER_COLUMNS = (
    *("provider", "adapter", "state", "account", "base URL", "default models", "limits"),
    *("budgets", " today", " month", " open calls"),
)


def print_providers(providers: Sequence[Row]) -> None:
    console = _console()
    console.print(_table("Providers", PROVIDER_COLUMNS, map(_provider, providers)))
    for row in providers:
        if row["why"]:
            console.print(f"{row['provider']} ({row['state']}): {row['why']}", soft_wrap=True)


def _provider(row: Row) -> tuple[str, ...]:
    return (
        row["provider"],
        row["adapter"],
        row["state"],
        row["account"] or "",
        row["base_url"],
        ", ".join(f"{medium} {model}" for medium, model in row["models"].items()),
        "\n".join(map(_limit, row["limits"])),
        ", ".join(
            f"{b['used_cents']} of {b['limit_cents']} ¢ a {b['period']}"
            + (" in all" if b["lane"] == "*" else "")
            for b in row["budgets"]
        ),
        _money(row["spend_cents_today"]),
        _money(row["spend_cents_month"]),
        str(row["open_calls"] or ""),
    )


LIMITS = (
    ("max_running", "running"),
    ("requests_per_minute", "requests/min"),
    ("tokens_per_minute", "tokens/min"),
)


def _limit(limit: Row) -> str:
    told = [f"{limit[name]} {unit}" for name, unit in LIMITS if limit[name] is not None]
    return f"{limit['of']}: {', '.join(told)}"


# --------------------------------------------------------------------------- reconcile

IN_DOUBT = ("job", "step", "sent", " about", "verdict", "done", "why")
DIFFERENCES = ("job", "step", "task", "what", "here", "there")


def print_reconciled(report: Row) -> None:
    console = _console()
    for provider in report["providers"]:
        _print_reconciled(console, provider)
    verdicts = ("found", "absent", "dropped")
    doubts = [doubt for provider in report["providers"] for doubt in provider["in_doubt"]]
    waiting = sum(d["verdict"] in verdicts and not d["done"] for d in doubts)
    if waiting and not report["applied"]:
        console.print(f"Nothing was changed: --apply would write down {waiting} of these calls.")
    if not report["left"]:
        console.print("Ledger and providers agree, where they can be asked.")


def _print_reconciled(console: Console, row: Row) -> None:
    asked = row["why"] if row["asked"] != "listed" else f"{row['tasks']} tasks"
    more = f" ({row['why']})" if row["asked"] == "listed" and row["why"] else ""
    console.print(f"{row['provider']}, since {row['since'][:19]}Z: {asked}{more}", soft_wrap=True)
    if row["in_doubt"]:
        console.print(_table("Calls in doubt", IN_DOUBT, map(_in_doubt, row["in_doubt"])))
    if row["strangers"]["count"]:
        title = f"Tasks the ledger doesn't know: {row['strangers']['count']}"
        tasks = (
            (t["external_id"], t["created_at"][:19], t["phase"], ", ".join(t["models"]))
            for t in row["strangers"]["tasks"]
        )
        console.print(_table(title, ("task", "made", "phase", "model"), tasks))
    if row["ended"]["count"]:
        console.print(f"Ended there, to be taken up by a worker: {row['ended']['count']}")
    if row["differences"]["count"]:
        title = f"Otherwise here than there: {row['differences']['count']}"
        lines = (
            (d["job"], d["step"], d["external_id"], d["what"], d["ours"], d["theirs"] or "gone")
            for d in row["differences"]["calls"]
        )
        console.print(_table(title, DIFFERENCES, lines))


def _in_doubt(row: Row) -> tuple[str, ...]:
    return (
        row["job"],
        row["step"],
        row["intended_at"][:19],
        _money(row["estimate_cents"]),
        row["verdict"],
        "yes" if row["done"] else "",
        row["why"],
    )


# --------------------------------------------------------------------------- status

LANE_COLUMNS = (
    *("lane", "table", " ready", " scheduled", " running", " held", " failed 1h", " oldest"),
    *(" per min", " wait p50", " p95", " run p50", " p95", " today", "paused"),
)


def print_status(report: Row) -> None:
    console, database = _console(), report["database"]
    pooler = " behind a pooler" if database["pooler"] else ""
    console.print(
        f"rowmill {report['version']}, database {database['name']} "
        f"(PostgreSQL {database['server_version']}{pooler}), {report['at'][:19]}Z"
    )
    if report["lanes"]:
        console.print(_table("Lanes", LANE_COLUMNS, map(_lane, report["lanes"])))
    else:
        console.print("\nNo jobs waiting, running, or lately done.")
    columns = ("worker", "version", " running", " slots", " heartbeat", "", "lanes")
    console.print(_table("Workers", columns, map(_worker, report["workers"])))
    for title, items in (("Needs a person", "needs_person"), ("Good to know", "notices")):
        _print_items(console, title, report[items])
    if not report["needs_person"]:
        console.print("Nothing needs a person.")


def _lane(lane: Row) -> tuple[str, ...]:
    limit = "" if lane["limit"] is None else f"/{lane['limit']}"
    return (
        lane["lane"],
        lane["source"],
        str(lane["ready"]),
        str(lane["scheduled"]),
        f"{lane['running']}{limit}",
        str(lane["held"]),
        str(lane["failed_last_hour"]),
        _seconds(lane["oldest_wait_s"]),
        str(lane["per_minute_out"]),
        *(_ms(lane[name]) for name in ("wait_p50_ms", "wait_p95_ms", "run_p50_ms", "run_p95_ms")),
        _money(lane["spend_cents_today"]),
        _closed(lane),
    )


def _closed(lane: Row) -> str:
    if lane["paused"]:
        return lane["pause_reason"] or "yes"
    if lane["broken_until"]:
        return f"left alone: {lane['broken_why']}"
    return f"rate used up until {lane['slow_until'][11:19]}Z" if lane["slow_until"] else ""


def _worker(worker: Row) -> tuple[str, ...]:
    state = "draining" if worker["draining"] else "" if worker["alive"] else "silent"
    return (
        worker["name"],
        worker["version"],
        str(worker["running"]),
        str(worker["slots"]),
        _seconds(worker["heartbeat_age_s"]),
        state,
        ", ".join(worker["lanes"]),
    )


def _print_items(console: Console, title: str, items: list[Row]) -> None:
    if not items:
        return
    console.print(f"{title}:")
    for item in items:
        console.print(f"  {item['subject']}: {item['message']}", soft_wrap=True)
        for command in item["commands"]:
            console.print(f"      {command}", soft_wrap=True)
    console.print()


# --------------------------------------------------------------------------- one job

FAILURES = ("when", "run", "try", "kind", "provider", "message")
CALLS = (
    *("when", "run", "step", "provider", "model", "state", " cents"),
    *("external id", "error"),
)
ACTIONS = ("when", "who", "action", "what came of it")


def print_job(story: Row) -> None:
    console = _console()
    console.print(f"{story['source']}/{story['key']}  ({story['relation']}, {story['platform']})")
    console.print(story["why"], soft_wrap=True)
    if story["queue"]:
        facts = _facts(story["queue"], ("id", "note"))
        console.print(f"\nIn the queue: {facts}", soft_wrap=True)
    _section(console, "Failed tries", FAILURES, map(_failure, story["failures"]))
    _section(console, "Paid calls", CALLS, map(_submission, story["submissions"]))
    _section(console, "Operators", ACTIONS, map(_action, story["actions"]))
    if story["row"]:
        console.print("\nRow:")
        for name, value in story["row"].items():
            console.print(f"  {name:<28} {_short(value)}", soft_wrap=True)


def _section(
    console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    listed = list(rows)
    if listed:
        console.print(_table(f"\n{title}", columns, listed))


def _facts(row: Row, without: tuple[str, ...]) -> str:
    told = {k: v for k, v in row.items() if v is not None and k not in without}
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _failure(row: Row) -> tuple[str, ...]:
    last = " (last)" if row["final"] else ""
    code = f" {row['code']}" if row["code"] else ""
    attempt = f"{row['try']}{last}"
    kind = f"{row['kind']}{code}"
    return (_when(row["at"]), str(row["run"]), attempt, kind, row["provider"] or "", row["message"])


def _submission(row: Row) -> tuple[str, ...]:
    return (
        _when(row["intended_at"]),
        str(row["run"]),
        row["step"],
        row["provider"],
        row["model"],
        row["state"],
        row["cost_cents"] or f"~{row['estimate_cents']}",
        row["external_id"] or "",
        row["error"] or "",
    )


def _action(row: Row) -> tuple[str, ...]:
    return (_when(row["at"]), row["who"], row["action"], row["detail"].get("verdict", ""))


# --------------------------------------------------------------------------- values


def _when(iso: str) -> str:
    return f"{iso[:10]} {iso[11:19]}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _ms(milliseconds: int | None) -> str:
    return "" if milliseconds is None else _seconds(milliseconds / 1000)


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.1f}s"


def _money(cents: str) -> str:
    return f"${Decimal(cents) / 100:.2f}" if Decimal(cents) else ""
