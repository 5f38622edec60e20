"""rowmill workers."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from worker.text.status import column
from worker.text.values import (
    Row,
    bar,
    cut,
    draws,
    duration,
    fitted,
    new_console,
    on_one_line,
    styled,
    when,
)

STYLES = {"asked": "yellow", "draining": "yellow", "silent": "bold red", "stopped": "dim"}
ROOM = 40
"""Characters for the lanes of one worker in a terminal."""


def print_workers(rows: list[Row], console: Console | None = None) -> None:
    console = console or new_console()
    if not rows:
        console.print("No worker runs: start one with `rowmill run`.")
        return
    most = ROOM if console.is_terminal else None
    columns = [
        column("worker", rows, lambda r: on_one_line(r["name"]), 100),
        column("state", rows, _state, 95),
        column("slots", rows, lambda r: f"{r['running']}/{r['slots']}", 90, right=True),
        column(
            "heartbeat", rows, lambda r: f"{duration(r['heartbeat_age_s'])} ago", 85, right=True
        ),
        column("started", rows, lambda r: f"{when(r['started_at'])}Z", 60),
        column("version", rows, lambda r: on_one_line(r["version"]), 70),
        column("host", rows, lambda r: on_one_line(r["host"] or ""), 55),
        column("id", rows, lambda r: r["id"], 45),
        column("lanes", rows, lambda r: _lanes(r["lanes"], most), 50),
    ]
    if draws(console):
        columns.insert(
            3, column("", rows, lambda r: Text(bar(r["running"], r["slots"]), "cyan"), 65)
        )
    console.print(fitted(console, "Workers", columns))


def _lanes(lanes: list[str], most: int | None) -> str:
    text = on_one_line(", ".join(lanes))
    return cut(text, most) if most else text


def _state(row: Row) -> Text:
    return styled(_words(row), STYLES.get(row["state"], ""))


def _words(row: Row) -> str:
    match row["state"]:
        case "asked":
            return f"asked to drain {duration(row['drain_asked_age_s'])} ago"
        case "draining" if row["drain_asked_by"]:
            return f"draining for {on_one_line(row['drain_asked_by'])}"
        case "stopped":
            return f"stopped {when(row['stopped_at'])}Z"
        case state:
            return str(state)
