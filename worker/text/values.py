"""How every report writes: its console, its tables, its times, money and small pictures.

Names, reasons and notes come from rows, and whoever wrote them isn't to be trusted with a terminal:
in whatever is printed here, control characters and those that can't be seen or turn the direction
of writing are spelt out (`visible`). Nothing in them is markup either.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Row = dict[str, Any]
PIPED_WIDTH = 10_000
"""Where nobody's terminal sets the width, nothing is cut off or wrapped."""

_JOINERS = "\u200c\u200d"
"""Some scripts, and some emoji, can't be written without them."""


def visible(text: str, *, one_line: bool = False) -> str:
    r"""What a terminal would obey, or wouldn't show, spelt out: ␛ for ESC, \u202e for the others.

    A line feed stays, unless the text is to be one line: then a name can't fake another.
    """
    if text.isprintable():
        return text
    return "".join(_shown(character, one_line=one_line) for character in text)


def on_one_line(text: str) -> str:
    return visible(text, one_line=True)


def _shown(character: str, *, one_line: bool) -> str:
    code = ord(character)
    if character.isprintable() or character in _JOINERS or (character == "\n" and not one_line):
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    if code <= 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class SafeConsole(Console):
    """Every string that is printed, a table's cells too, comes through here."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def new_console() -> Console:
    # Nothing in what comes from rows is markup, an emoji or a number to colour.
    console = SafeConsole(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def draws(console: Console) -> bool:
    """A terminal that can show bars and sparklines."""
    able = console.is_terminal and not console.is_dumb_terminal
    return able and not console.options.ascii_only


def styled(text: str, style: str = "") -> Text:
    return Text(visible(text), style=style)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Columns whose name starts with a space hold numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for column in columns:
        right = column.startswith(" ")
        table.add_column(column.strip(), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


# --------------------------------------------------------------------------- tables that fit


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    cells: Sequence[str | Text]
    weight: int
    """Of several that don't fit, the lightest is left out first."""
    right: bool = False


def fitted(console: Console, title: str, columns: Sequence[Column]) -> Table:
    """As many of these columns as the terminal has room for; in a pipe all of them.

    In a terminal, one that has nothing to tell is left out as well.
    """
    kept = list(columns)
    if console.is_terminal:
        kept = [c for c in kept if any(str(cell) for cell in c.cells)]
        while _width(console, _of_columns(title, kept)) > console.width and len(kept) > 1:
            kept.remove(min(kept, key=lambda column: column.weight))
    return _of_columns(title, kept)


def _of_columns(title: str, columns: Sequence[Column]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        justify = "right" if column.right else "left"
        table.add_column(column.name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table


def _width(console: Console, table: Table) -> int:
    wide = console.options.update(width=PIPED_WIDTH)
    return Measurement.get(console, wide, table).maximum


# --------------------------------------------------------------------------- small pictures

_LEVELS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def spark(values: Sequence[int | None], width: int | None = None) -> str:
    """One character per value, or per several of them; only nothing at all is as low as can be."""
    told = _grouped(values, width or len(values))
    most = max((value for value in told if value is not None), default=0)
    return "".join(" " if v is None else _LEVELS[-(-7 * v // most) if most else 0] for v in told)


def _grouped(values: Sequence[int | None], width: int) -> list[int | None]:
    """Equal parts, each as high as its highest; the newest is always a whole one."""
    size = max(1, -(-len(values) // width))
    first = len(values) % size
    starts = [*([0] if first else []), *range(first, len(values), size)]
    parts = [values[at : at + (first if at < first else size)] for at in starts]
    return [max((v for v in part if v is not None), default=None) for part in parts]


def bar(used: int, of: int, width: int = 6) -> str:
    """Filled by eighths; something is never drawn as nothing, nor less than all as full."""
    eighths = round(8 * width * min(1.0, used / of)) if of else 8 * width
    if 0 < used < of:
        eighths = min(8 * width - 1, max(1, eighths))
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width, "·")


# --------------------------------------------------------------------------- values


def when(iso: str) -> str:
    return f"{iso[:10]} {iso[11:19]}"


def short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def cut(text: str, length: int) -> str:
    """To so many characters, in one line."""
    text = visible(text, one_line=True)
    return text if len(text) <= length else f"{text[: max(0, length - 1)]}…"


def count(number: int, *, about: bool = False) -> str:
    """All of it, or ~1.0M where it is an estimate."""
    if not about:
        return str(number)
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"~{number / size:.{1 if number < 10 * size else 0}f}{unit}"
    return f"~{number}"


def many(number: int, one: str, others: str | None = None) -> str:
    return f"{number} {one if number == 1 else others or one + 's'}"


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


def dollars(cents: Decimal) -> str:
    """To the cent; where that is much of it, as small as it is."""
    amount = cents / 100
    if amount >= 1 or not amount:
        return f"${amount:.2f}"
    whole, _, rest = f"{amount:.6f}".partition(".")
    return f"${whole}.{rest.rstrip('0').ljust(2, '0')}"


def amount(cents: str) -> str:
    """Exact: money of single calls is small."""
    return f"{Decimal(cents).normalize():f} ¢"
