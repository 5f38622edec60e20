"""rowmill jobs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from worker.text.values import Row, duration, money, new_console, visible

ROOMY = 110
"""In a terminal of so many columns there is one for why; else it stands below its job."""
LEAST = 8
"""What is shown of a lane in any terminal."""
SHORT = ("job", "state", "lane", " age", " tries")
WIDE = (
    *("job", "table", "state", "status", "lane", "kind", "tenant", " rank", " age", " ran"),
    *(" tries", " cost", "worker"),
)
STYLES = {
    "running": "cyan",
    "held": "bold yellow",
    "scheduled": "yellow",
    "failed": "red",
    "completed": "green",
    "cancelled": "dim",
}


def print_jobs(jobs: Sequence[Row], *, wide: bool) -> None:
    """A table in a terminal; in a pipe aligned columns, with nothing shortened."""
    console = new_console()
    columns = WIDE if wide else SHORT
    rows = [_cells(job, columns) for job in jobs]
    notes = [visible(note(job), one_line=True) for job in jobs]
    if not console.is_terminal:
        for line in aligned(
            (*columns, "why"), [(*row, n) for row, n in zip(rows, notes, strict=True)]
        ):
            print(line)  # noqa: T201 - rich would wrap it
        return
    if not wide:
        rows = _fitting(rows, console.width)
    beside = console.width >= ROOMY and not wide
    head, *lines = aligned(columns, rows)
    console.print(Text(f"{head}  WHY" if beside else head, "bold"), soft_wrap=True)
    for job, line, said in zip(jobs, lines, notes, strict=True):
        text = Text(line)
        text.highlight_words([job["state"]], STYLES.get(job["state"], ""))
        _print_row(console, text, said, beside=beside)


def _print_row(console: Console, line: Text, said: str, *, beside: bool) -> None:
    if beside:
        line.append(f"  {said}" if said else "")
        line.truncate(console.width, overflow="ellipsis")
    console.print(line, soft_wrap=True)
    if said and not beside:
        below = Text(f"    {said}", "dim")
        below.truncate(console.width, overflow="ellipsis")
        console.print(below, soft_wrap=True)


def line(job: Row, at: str) -> str:
    """One change, as it is followed."""
    cells = (at, job["state"].ljust(9), job["key"], job["lane"] or "-", note(job))
    return "  ".join(visible(cell, one_line=True) for cell in cells).rstrip()


def note(job: Row) -> str:
    """Why it isn't done, or what went wrong; nothing of a job that only waits its turn."""
    error, why = job["error"], job["why"] or ""
    if job["state"] in {"failed", "cancelled"} and error:
        return f"{error['kind']}: {error['message']}"
    return "" if why.startswith("ready: ") else why


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Two spaces apart; columns whose name starts with a space hold numbers."""
    head = [column.strip().upper() for column in columns]
    widths = [max(map(cell_len, cells)) for cells in zip(head, *rows, strict=True)]
    right = [column.startswith(" ") for column in columns]
    return ["  ".join(map(_padded, row, widths, right)).rstrip() for row in (head, *rows)]


def _padded(cell: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space


def _fitting(rows: Sequence[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """Lanes may be long; keys are to be typed, and stay whole."""
    lane = SHORT.index("lane")
    widths = [max(map(cell_len, cells)) for cells in zip(map(str.strip, SHORT), *rows, strict=True)]
    left = max(width - sum(widths) + widths[lane] - 2 * (len(SHORT) - 1), LEAST)
    return [
        tuple(_cropped(cell, left) if at == lane else cell for at, cell in enumerate(row))
        for row in rows
    ]


def _cropped(cell: str, width: int) -> str:
    text = Text(cell)
    text.truncate(width, overflow="ellipsis")
    return text.plain


def _cells(job: Row, columns: Sequence[str]) -> tuple[str, ...]:
    every = {
        "job": job["key"],
        "table": job["source"],
        "state": job["state"],
        "status": job["status"],
        "lane": job["lane"],
        "kind": job["kind"],
        "tenant": job["tenant"],
        "rank": job["rank"],
        "age": duration(job["age_s"]),
        "ran": duration(job["ran_s"]),
        "tries": f"{job['tries']}/{job['max_retries']}",
        "cost": money(job["cost_cents"]),
        "worker": job["worker"],
    }
    values = (every[column.strip()] for column in columns)
    # What is empty is a dash, so that the columns of a pipe can be counted.
    return tuple(
        visible(str(value), one_line=True) if value not in {None, ""} else "-" for value in values
    )
