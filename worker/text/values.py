"""How every report writes: its console, its tables, its times and its money."""

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


def new_console() -> Console:
    # Names and messages come from rows: nothing in them is markup, an emoji or a number to colour.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Columns whose name starts with a space hold numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for column in columns:
        right = column.startswith(" ")
        table.add_column(column.strip(), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def when(iso: str) -> str:
    return f"{iso[:10]} {iso[11:19]}"


def plain(text: str) -> str:
    """On one line, and without what a terminal obeys: it may come from anybody's row."""
    return "".join(
        " " if c.isspace() else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def ms(milliseconds: int | None) -> str:
    return "" if milliseconds is None else duration(milliseconds / 1000)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.1f}s"


def money(cents: str) -> str:
    return f"${Decimal(cents) / 100:.2f}" if Decimal(cents) else ""


def amount(cents: str) -> str:
    """Exact: money of single calls is small."""
    return f"{Decimal(cents).normalize():f} ¢"


def progress_bar(percent: float, width: int = 20) -> str:
    full = round(width * min(100.0, max(0.0, percent)) / 100)
    return f"{'━' * full}{'─' * (width - full)} {percent:.0f}%"
