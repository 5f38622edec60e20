"""What opens above the panels: a question, a page to read, a job, a lane's next jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from worker.store import StoreError
from worker.store.finding import UnknownName
from worker.watch.kept import Row
from worker.watch.lines import Cell, Column, Line, age, clean
from worker.watch.listing import Listing


class Question(ModalScreen[str | None]):
    """y or n; or, where a reason is asked for, a line of text. None is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "answer(False)"),
        Binding("y", "answer(True)"),
        Binding("n,q", "answer(False)"),
    ]

    def __init__(self, question: str, explained: str, *, reason: bool = False) -> None:
        super().__init__()
        self._question, self._explained, self._reason = question, explained, reason

    def compose(self) -> ComposeResult:
        keys = "Enter: yes   Esc: no" if self._reason else "y: yes   n: no"
        with Vertical(classes="dialog"):
            yield Static(Text(self._question, "bold"))
            yield Static(Text(self._explained))
            if self._reason:
                box = Input(placeholder="reason (others read it)", id="reason", max_length=200)
                box.cursor_blink = False
                yield box
            yield Static(Text(keys, "dim"))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def action_answer(self, yes: bool) -> None:
        self.dismiss("" if yes else None)


class Page(ModalScreen[None]):
    """Text to read and to scroll."""

    KEYS = "Esc: back   arrows, j, k: scroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c,question_mark", "close"),
        Binding("down,j", "scroll(1)"),
        Binding("up,k", "scroll(-1)"),
        Binding("pagedown,space", "scroll(12)"),
        Binding("pageup", "scroll(-12)"),
        Binding("home,g", "scroll(-100000)"),
        Binding("end,G", "scroll(100000)"),
    ]

    def __init__(self, title: str, lines: Sequence[str] = ()) -> None:
        super().__init__()
        self._title, self._lines = title, lines

    def compose(self) -> ComposeResult:
        with Vertical(classes="page"):
            yield Static(Text(self._title, "bold", no_wrap=True), id="title")
            with VerticalScroll(id="scroll", can_focus=False):
                yield Static(Text("\n".join(self._lines)), id="text")
            yield Static(Text(self.KEYS, "dim"), id="keys")

    def write(self, lines: Sequence[str]) -> None:
        self.query_one("#text", Static).update(Text("\n".join(lines)))

    def action_close(self) -> None:
        self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        self.query_one("#scroll").scroll_relative(y=by, animate=False)


Tell = Callable[[int], Awaitable[Sequence[str]]]
Act = Callable[[], Awaitable[str]]


class Job(Page):
    """The story of one job, and what may be done to it."""

    KEYS = "Esc: back   c: cancel   r: retry   u: look again   arrows: scroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "do('cancel')"),
        Binding("r", "do('retry')"),
        Binding("u", "look"),
    ]

    def __init__(self, subject: str, tell: Tell, acts: dict[str, tuple[str, Act]]) -> None:
        super().__init__(f"rowmill job show {clean(subject)}", ["asking the database …"])
        self._subject, self._tell, self._acts = clean(subject), tell, acts

    def on_mount(self) -> None:
        self.action_look()

    @work(exclusive=True, group="look")
    async def action_look(self) -> None:
        try:
            self.write(await self._tell(max(40, self.size.width - 4)))
        except (StoreError, UnknownName) as error:
            self.write([clean(error)])

    @work(group="acts")
    async def action_do(self, what: str) -> None:
        explained, act = self._acts[what]
        question = f"{what.capitalize()} {self._subject}?"
        if await self.app.push_screen_wait(Question(question, explained)) is None:
            return
        keys = self.query_one("#keys", Static)
        keys.update(Text("…", "dim"))
        keys.update(
            Text.assemble((f"{await act()}   ", "bold"), ("u: look again   Esc: back", "dim"))
        )
        self.action_look()


NEXT = (
    Column("state", 6),
    Column("rank", 4, right=True),
    Column("job", 20, weight=3),
    Column("since", 6, right=True),
    Column("tenant", 10, weight=1, leaves=1),
    Column("note", 10, weight=4),
)


class Lane(ModalScreen[str | None]):
    """What a lane of a table does next; Enter opens a job of it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,ctrl+c", "close")]

    def __init__(self, lane: str, source: str, ask: Callable[[], Awaitable[Sequence[Row]]]) -> None:
        super().__init__()
        self._title = f"{clean(lane)} of {clean(source)}: next, then held"
        self._ask = ask

    def compose(self) -> ComposeResult:
        with Vertical(classes="page"):
            yield Listing(NEXT, self._title, id="next")
            yield Static(Text("Esc: back   Enter: open", "dim"), id="keys")

    def on_mount(self) -> None:
        self.look()

    @work(exclusive=True)
    async def look(self) -> None:
        try:
            lines = [_next_line(row) for row in await self._ask()]
        except StoreError as error:
            lines = [_only(error)]
        self.query_one(Listing).show(self._title, lines or [_only("nothing waits")])

    def on_listing_chosen(self, event: Listing.Chosen) -> None:
        event.stop()
        if event.key != "none":
            self.dismiss(event.key)

    def action_close(self) -> None:
        self.dismiss(None)


def _only(said: object) -> Line:
    return Line("none", (Cell(""), Cell(""), Cell(clean(said), "dim"), *[Cell("")] * 3))


def _next_line(row: Row) -> Line:
    return Line(
        f"{row['source']}/{row['key']}",
        (
            Cell(row["state"], "red" if row["state"] == "held" else "green"),
            Cell(str(row["rank"])),
            Cell(clean(row["key"]), "bold"),
            Cell(age(row["since_s"])),
            Cell(clean(row["tenant"] or ""), "dim"),
            Cell(clean(row["note"] or "")),
        ),
    )


HELP = """\
Everything that `rowmill status` tells, asked for at most once a second. What
keys do asks first, and is recorded in rowmill.actions under your name.

  Tab, Shift-Tab    from panel to panel; yours gets the room it wants
  arrows, j, k      up and down; PgUp, PgDn, Home, End too
  /                 show only what holds a text in its name; Esc: all again
  s                 sort the panel by something else
  Enter             of a lane: what comes next; of a job: its story
  p                 pause the lane, or resume it
  d                 drain the worker: it takes nothing more, and ends when its
                    jobs are done
  c, r              in a job's story: cancel it, let it run again
  Ctrl-Z            suspend: nothing is asked until `fg`
  q                 quit

running, limit, ready, later (scheduled), held, failed in the last hour, the
oldest wait, jobs in and out a minute, how long half of the jobs and 95 % of
them waited and ran in the last hour, and what was spent today
state: why nothing more is claimed: paused; breaker (the provider fails); rate
(used up); full (its limit runs already)
running: the longest first, fifty at most; bars where a table has progress\
"""


def help_page() -> Page:
    return Page("rowmill watch", HELP.split("\n"))
