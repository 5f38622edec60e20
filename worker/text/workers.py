"""rowmill workers."""

from __future__ import annotations

from worker.text.values import Row, duration, new_console, on_one_line, table, when

COLUMNS = (
    *("worker", "id", "host", "version", "state", " running", " slots", " heartbeat"),
    *("started", "lanes"),
)


def print_workers(rows: list[Row]) -> None:
    console = new_console()
    if not rows:
        console.print("No worker runs: start one with `rowmill run`.")
        return
    console.print(table("Workers", COLUMNS, map(_line, rows)))


def _line(row: Row) -> tuple[str, ...]:
    return (
        on_one_line(row["name"]),
        row["id"],
        on_one_line(row["host"] or ""),
        on_one_line(row["version"]),
        _state(row),
        str(row["running"]),
        str(row["slots"]),
        duration(row["heartbeat_age_s"]),
        f"{when(row['started_at'])}Z",
        on_one_line(", ".join(row["lanes"])),
    )


def _state(row: Row) -> str:
    match row["state"]:
        case "asked":
            return f"asked to drain {duration(row['drain_asked_age_s'])} ago"
        case "draining" if row["drain_asked_by"]:
            return f"draining for {on_one_line(row['drain_asked_by'])}"
        case "stopped":
            return f"stopped {when(row['stopped_at'])}Z"
        case state:
            return str(state)
