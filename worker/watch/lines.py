"""Cells, bars, charts, and how a table fits into a width. Knows no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from worker.text.values import bar, duration, visible

EIGHTHS = " ▁▂▃▄▅▆▇█"
GAP = 1
APART = "\0"
"""Between the parts of a line's key: the one character that no text of Postgres holds."""


def clean(value: object) -> str:
    """A value of a row as one line of text that steers no terminal."""
    return visible(str(value), one_line=True)


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    width: int
    weight: int = 0
    """Of what is left over in a wide terminal."""
    right: bool = False
    leaves: int = 0
    """Where the terminal is narrow the highest leave first; 0 stays."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table; `key` says what the cursor is on, also after the next answer."""

    key: str
    cells: Sequence[Cell]
    style: str = ""


def fit(columns: Sequence[Column], width: int) -> list[int]:
    """How wide each column becomes; 0 for those there is no room for."""
    shown = set(range(len(columns)))

    def needed() -> int:
        return sum(columns[n].width for n in shown) + GAP * (len(shown) - 1)

    for number in sorted(shown, key=lambda n: columns[n].leaves, reverse=True):
        if needed() <= width or not columns[number].leaves:
            break
        shown.discard(number)
    widths = [columns[n].width if n in shown else 0 for n in range(len(columns))]
    spare, weights = max(0, width - needed()), sum(columns[n].weight for n in shown)
    for number in sorted(shown):
        if columns[number].weight:
            more = spare * columns[number].weight // weights
            widths[number] += more
            spare, weights = spare - more, weights - columns[number].weight
    return widths


def header(columns: Sequence[Column], widths: Sequence[int]) -> Text:
    cells = [Cell(column.title, "dim") for column in columns]
    return row(cells, columns, widths)


def row(
    cells: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], style: str = ""
) -> Text:
    text = Text(style=style, no_wrap=True, end="")
    for cell, column, width in zip(cells, columns, widths, strict=True):
        if width:
            if text:
                text.append(" " * GAP)
            text.append(sized(cell.text, width, right=column.right), cell.style)
    return text


def sized(text: str, width: int, *, right: bool = False) -> str:
    """Exactly that wide: filled with spaces, or cut with a sign that it was."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, max(0, width - 1)) + "…"[:width]
    space = " " * (width - length)
    return space + text if right else text + space


def age(seconds: float | None) -> str:
    """Whole seconds: what changes less is drawn less."""
    return duration(seconds) if seconds is None or seconds >= 60 else f"{max(0, seconds):.0f}s"


# --------------------------------------------------------------------------- bars and charts


def used(running: int, limit: int | None, width: int) -> str:
    """A bar and `running/limit`; without a limit just how many.

    Six more characters than the bar has are enough: it is shorter beside long numbers, which would
    be others if they were cut.
    """
    if limit is None:
        return str(running) if running else ""
    numbers = f"{running}/{limit}"
    width = min(width, width + 5 - len(numbers))
    return f"{bar(running, limit, width)} {numbers}" if width > 0 else numbers


def chart(values: Sequence[float | None], width: int, height: int) -> list[str]:
    """The last `width` values as bars, `height` lines high; nothing where nobody looked."""
    shown = [None] * (width - len(values)) + list(values[-width:] if width else [])
    top = max((value for value in shown if value), default=0.0)
    levels = [_level(value, top, height) for value in shown]
    return [
        "".join(EIGHTHS[max(0, min(8, level - 8 * (height - 1 - line)))] for level in levels)
        for line in range(height)
    ]


def _level(value: float | None, top: float, height: int) -> int:
    """What is more than nothing is seen."""
    if value is None or not top or value <= 0:
        return 0
    return max(1, round(value / top * height * 8))


# --------------------------------------------------------------------------- room


def heights(room: int, wanted: Sequence[int], least: Sequence[int], first: int) -> list[int]:
    """Share lines among panels: each its least, then the one with the cursor, then the others.

    What nobody wants stays empty below the last one.
    """
    given = list(least)
    spare = room - sum(given)
    for number in [first, *(n for n in range(len(given)) if n != first)]:
        more = max(0, min(spare, wanted[number] - given[number]))
        given[number] += more
        spare -= more
    given[-1] += max(0, spare)
    return given
