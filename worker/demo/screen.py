"""What the demo shows: live progress in a terminal, plain lines in a pipe, nothing with --json."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from worker.demo.verdict import Verdict


class Screen:
    def __init__(self, *, silent: bool) -> None:
        self._console = Console(file=sys.stderr if silent else sys.stdout, quiet=silent)
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=silent or not self._console.is_terminal,
        )
        self._bars: dict[str, TaskID] = {}
        self._tenth = -1

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def show(self, tables: Mapping[str, tuple[int, int, int]]) -> None:
        """Per table: how many rows, finished, running."""
        for name, (total, done, running) in tables.items():
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(name, total=total, note="")
            self._progress.update(
                self._bars[name], total=total, completed=done, note=f"{running} running"
            )
        if self._progress.disable:
            self._line(sum(t[1] for t in tables.values()), sum(t[0] for t in tables.values()))

    def _line(self, done: int, total: int) -> None:
        """In a pipe, a line per tenth of the way is enough."""
        tenth = done * 10 // max(1, total)
        if tenth != self._tenth:
            self._tenth = tenth
            self.say(f"  {done} of {total} jobs done")

    def result(self, verdict: Verdict, bill: Mapping[str, Any], outputs: str) -> None:
        table = Table(title="What was done", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        row = verdict.row()
        platforms, order = row.pop("platforms"), verdict.order
        del row["order"]
        for name, value in row.items():
            table.add_row(name.replace("_", " "), str(value))
        table.add_row("billed", f"{bill['total_cents']} cents")
        table.add_row(
            "claimed while a more urgent one waited", f"{order.inversions} of {order.compared}"
        )
        self._console.print(table)
        if len(platforms) > 1:
            self._console.print(_by_platform(platforms))
        self.say(f"Outputs lie in {outputs}")

    def commands(self, lines: list[str]) -> None:
        self.say("\nGo on with:")
        for line in lines:
            self._console.print(f"  {line}", highlight=False, soft_wrap=True)


def _by_platform(platforms: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table(title="By platform", title_justify="left")
    table.add_column("")
    for name in platforms:
        table.add_column(name, justify="right")
    for count in next(iter(platforms.values())):
        table.add_row(count.replace("_", " "), *(str(of[count]) for of in platforms.values()))
    return table
