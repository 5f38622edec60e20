"""A panel: a title, a header and lines, with a cursor that stays on what it is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Blur, Focus
from textual.geometry import Region
from textual.message import Message
from textual.widget import Widget

from worker.watch.lines import Column, Line, fit, header, row, sized


class Listing(Widget, can_focus=True):
    """Draws itself anew only when what it says has changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)"),
        Binding("up,k", "move(-1)"),
        Binding("pagedown,space", "page(1)"),
        Binding("pageup", "page(-1)"),
        Binding("home,g", "move(-1000000)"),
        Binding("end,G", "move(1000000)"),
        Binding("enter", "choose"),
    ]

    class Chosen(Message):
        """Enter was pressed on a line."""

        def __init__(self, listing: Listing, key: str) -> None:
            super().__init__()
            self.listing, self.key = listing, key

    def __init__(
        self,
        columns: Sequence[Column],
        title: str,
        *,
        id: str,  # noqa: A002 - textual's name
        folds: bool = False,
    ) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.title = title
        self._folds = folds
        self.lines: list[Line] = []
        self._has_header = any(column.title for column in columns)
        self._cursor = 0
        self._top = 0
        self._drawn: list[Text] = []

    @property
    def least(self) -> int:
        """Title, header and one line; of what can wait until one goes there, the title alone."""
        return 1 if self._folds else 2 + self._has_header

    @property
    def wanted(self) -> int:
        return 1 + self._has_header + max(1, len(self.lines))

    @property
    def key(self) -> str | None:
        """What the cursor is on."""
        return self.lines[self._cursor].key if self.lines else None

    def show(self, title: str, lines: Sequence[Line]) -> None:
        if (title, list(lines)) == (self.title, self.lines):
            return
        key = self.key
        self.title, self.lines = title, list(lines)
        self._cursor = self._where(key)
        self._draw_changed()

    def _draw_changed(self) -> None:
        """Line by line: a panel whose clocks go on is mostly as it was."""
        old, new = self._drawn, self._lines_of_text()
        if len(old) != len(new):
            self.refresh()
            return
        changed = [
            Region(0, at, self.size.width, 1)
            for at, (was, now) in enumerate(zip(old, new, strict=True))
            if (was.plain, was.spans, was.style) != (now.plain, now.spans, now.style)
        ]
        if changed:
            self.refresh(*changed)

    def _where(self, key: str | None) -> int:
        """The line it was on, wherever that is now; else the same place."""
        for number, line in enumerate(self.lines):
            if line.key == key:
                return number
        return max(0, min(self._cursor, len(self.lines) - 1))

    @property
    def _room(self) -> int:
        return max(1, self.size.height - 1 - self._has_header)

    def render(self) -> Text:
        self._drawn = self._lines_of_text()
        return Text("\n", no_wrap=True, end="").join(self._drawn)

    def _lines_of_text(self) -> list[Text]:
        width = self.size.width
        widths = fit(self.columns, width)
        self._top = max(0, min(self._top, self._cursor, len(self.lines) - self._room))
        self._top = max(self._top, self._cursor - self._room + 1)
        parts = [self._title(width)]
        if self._has_header:
            parts.append(header(self.columns, widths))
        for number, line in enumerate(self.lines[self._top : self._top + self._room], self._top):
            here = self.has_focus and number == self._cursor
            parts.append(row(line.cells, self.columns, widths, "reverse" if here else line.style))
        return parts

    def _title(self, width: int) -> Text:
        first, last = self._top + 1, min(len(self.lines), self._top + self._room)
        place = f" {first}-{last} of {len(self.lines)}" if len(self.lines) > self._room else ""
        rule = "━" if self.has_focus else "─"
        said = f"{rule} {self.title} "
        gap = width - cell_len(said) - len(place)
        text = said + rule * gap + place if gap >= 0 else sized(said, width)
        return Text(text, "bold cyan" if self.has_focus else "cyan", no_wrap=True, end="")

    def on_focus(self, _event: Focus) -> None:
        self.refresh()

    def on_blur(self, _event: Blur) -> None:
        self.refresh()

    def action_move(self, by: int) -> None:
        target = max(0, min(self._cursor + by, len(self.lines) - 1))
        if target != self._cursor:
            self._cursor = target
            self.refresh()

    def action_page(self, by: int) -> None:
        self.action_move(by * self._room)

    def action_choose(self) -> None:
        if self.key is not None:
            self.post_message(self.Chosen(self, self.key))
