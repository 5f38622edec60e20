"""rowmill job show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from worker.text.values import Row, new_console, short, table, when

FAILURES = ("when", "run", "try", "kind", "provider", "message")
CALLS = (
    *("when", "run", "step", "provider", "model", "state", " cents"),
    *("external id", "error"),
)
ACTIONS = ("when", "who", "action", "what came of it")


def print_job(story: Row, console: Console | None = None) -> None:
    console = console or new_console()
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
            console.print(f"  {name:<28} {short(value)}", soft_wrap=True)


def _section(
    console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    listed = list(rows)
    if listed:
        console.print(table(f"\n{title}", columns, listed))


def _facts(row: Row, without: tuple[str, ...]) -> str:
    told = {k: v for k, v in row.items() if v is not None and k not in without}
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _failure(row: Row) -> tuple[str, ...]:
    last = " (last)" if row["final"] else ""
    code = f" {row['code']}" if row["code"] else ""
    attempt = f"{row['try']}{last}"
    kind = f"{row['kind']}{code}"
    return (when(row["at"]), str(row["run"]), attempt, kind, row["provider"] or "", row["message"])


def _submission(row: Row) -> tuple[str, ...]:
    return (
        when(row["intended_at"]),
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
    return (when(row["at"]), row["who"], row["action"], row["detail"].get("verdict", ""))
