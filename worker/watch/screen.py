"""The screen of `rowmill watch`: panels, keys, and when they are drawn anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import Input, Static

from worker.store import Store, StoreError, running
from worker.store.finding import UnknownName
from worker.watch import acts, panels
from worker.watch.dialogs import Job, Lane, Question, help_page
from worker.watch.kept import Kept, Row
from worker.watch.lines import APART, clean, heights
from worker.watch.listing import Listing
from worker.watch.overview import charts, head
from worker.watch.reading import OpenStore, Reader

FOOT = "q quit  ? help  Tab panel  / filter  s sort  Enter open  p pause  d drain"
HEAD = 2
SAID_FOR = 10.0
"""Seconds for which the last line tells what came of a key."""
NOT_NOW = "not done: there is no connection to the database"


class Watch(App[int]):
    """Draws what `kept` holds; `reader` fills it."""

    CSS = """
    Screen, ModalScreen { background: ansi_default; color: ansi_default; }
    Screen { overflow: hidden; }
    Listing { height: 3; }
    #head { height: 2; }
    #foot { height: 1; }
    #filter { display: none; }
    Input, Input:focus { height: 1; border: none; padding: 0; background: ansi_default; }
    ModalScreen { align: center middle; }
    .dialog { width: 76; max-width: 100%; height: auto; border: round ansi_cyan; padding: 0 1; }
    .page { width: 100%; height: 100%; }
    .page VerticalScroll { height: 1fr; scrollbar-size: 0 0; }
    .page Listing { height: 1fr; }
    .page Static { height: auto; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+q,ctrl+c", "leave"),
        Binding("question_mark", "explain"),
        Binding("slash", "filter"),
        Binding("escape", "all"),
        Binding("s", "sort"),
        Binding("p", "pause"),
        Binding("d", "drain"),
        Binding("ctrl+z", "suspend_process"),
    ]

    def __init__(
        self,
        open_store: OpenStore,
        *,
        every: float = 1.0,
        text: str = "",
        who: str = "",
        providers: Iterable[str] = (),
    ) -> None:
        super().__init__(ansi_color=True)
        self.animation_level = "none"
        self.kept = Kept()
        self.told = asyncio.Event()
        """Set with each answer; for whoever waits for one."""
        self._text = text
        self.reader = Reader(
            open_store, self.kept, every=every, text=lambda: self._text, told=self._on_told
        )
        self._who, self._providers = who, tuple(providers)
        self._said, self._said_at = "", 0.0
        self._written: dict[str, Text] = {}
        self._first = 0
        """The panel that has the cursor, or had it when a dialog opened."""
        self._sorts = {"lanes": 0, "running": 0, "workers": 0}

    # ----------------------------------------------------------------------- what is there

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="charts")
        yield Listing(panels.LANES, "Lanes", id="lanes")
        yield Listing(panels.RUNNING, "Running", id="running")
        yield Listing(panels.WORKERS, "Workers", id="workers")
        yield Listing(panels.NEEDS, "Needs a person", id="needs")
        yield Listing(panels.PROVIDERS, "Providers", id="providers", folds=True)
        yield Static(id="foot")
        box = Input(placeholder="part of a lane's, job's, tenant's or worker's name", id="filter")
        box.cursor_blink = False
        yield box

    @property
    def _panels(self) -> list[Listing]:
        """Also while a dialog is above them."""
        below = self.screen_stack[0]
        return [below.query_one(f"#{name}", Listing) for name in _PANELS]

    def _below(self, name: str) -> Static:
        return self.screen_stack[0].query_one(f"#{name}", Static)

    def on_mount(self) -> None:
        self._panels[0].focus()
        self._draw()
        self.run_worker(self.reader.run(), name="reader", exit_on_error=True)

    def on_resize(self, _event: Resize) -> None:
        self.call_after_refresh(self._draw)

    def on_descendant_focus(self) -> None:
        self._arrange()

    # ----------------------------------------------------------------------- drawing

    def _on_told(self) -> None:
        self._draw()
        self.told.set()

    def _draw(self) -> None:
        if not self.is_running or not self.screen_stack:
            return
        kept, width = self.kept, self.size.width
        self._write("head", head(kept, width, time.time()))
        if time.monotonic() > self._said_at + SAID_FOR:
            self._said = ""
        self._write("foot", Text(self._said or FOOT, "bold" if self._said else "dim", no_wrap=True))
        if kept.report is not None:
            self._show(kept.report)
        self._arrange()

    def _show(self, report: Row) -> None:
        lanes, jobs, workers, needs, providers = self._panels
        found = panels.lanes(report, self._text, panels.LANE_SORTS[self._sorts["lanes"]])
        lanes.show(self._titled("Lanes", "lanes"), list(map(panels.lane_line, found)))
        runs = panels.running(
            self.kept.running, self._text, panels.RUNNING_SORTS[self._sorts["running"]]
        )
        total = self.kept.running[0]["total"] if self.kept.running else 0
        title = f"Running: {len(runs)} of {total}" if total > len(runs) else "Running"
        if self.kept.untold is not None:
            title += f": can't be read: {clean(self.kept.untold)}"
        jobs.show(self._titled(title, "running"), list(map(panels.running_line, runs)))
        hands = panels.workers(report, self._text, panels.WORKER_SORTS[self._sorts["workers"]])
        workers.show(self._titled("Workers", "workers"), list(map(panels.worker_line, hands)))
        count = len(report["needs_person"])
        needs.show(f"Needs a person: {count}", panels.needs_lines(report))
        providers.show(panels.providers_title(report), panels.provider_lines(report))

    def _titled(self, title: str, panel: str) -> str:
        if self._text:
            title += f" /{clean(self._text)}"
        nth = self._sorts[panel]
        return f"{title} (by {_PANELS[panel][nth].name})" if nth else title

    def _write(self, name: str, text: Text) -> None:
        """Only what changed is drawn: terminals may be far away."""
        old = self._written.get(name)
        if old is None or (old.plain, old.spans, old.style) != (text.plain, text.spans, text.style):
            self._written[name] = text
            self._below(name).update(text)

    def _arrange(self) -> None:
        """Who has the cursor gets the room it wants."""
        if not self.screen_stack or not self.size.height:
            return
        every = self._panels
        chart = max(1, min(6, (self.size.height - 16) // 4))
        room = self.size.height - HEAD - chart - 1
        first = next((n for n, panel in enumerate(every) if panel.has_focus), self._first)
        self._first = first
        shares = heights(room, [p.wanted for p in every], [p.least for p in every], first)
        for panel, height in zip(every, shares, strict=True):
            _set_height(panel, height)
        _set_height(self._below("charts"), chart)
        self._write("charts", charts(self.kept, self.size.width, chart))

    # ----------------------------------------------------------------------- keys

    def action_leave(self) -> None:
        self.exit(0)

    def action_explain(self) -> None:
        self.push_screen(help_page())

    def action_sort(self) -> None:
        panel = self._here
        if panel.id in self._sorts:
            self._sorts[panel.id] = (self._sorts[panel.id] + 1) % len(_PANELS[panel.id])
        self._say("")

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.value = self._text
        self._below("foot").display = False
        box.display = True
        box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter" and event.input.display:
            self._text = event.value.strip()
            self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self._close_filter()

    def action_all(self) -> None:
        """Esc: everything is shown again."""
        self._text = ""
        self._close_filter()

    def _close_filter(self) -> None:
        box = self.query_one("#filter", Input)
        if box.display:
            box.display = False
            self._below("foot").display = True
            self._panels[self._first].focus()
        self._say("")

    @property
    def _here(self) -> Listing:
        """The panel with the cursor."""
        return self._panels[self._first]

    def _say(self, text: str) -> None:
        """In place of the keys, for a while."""
        self._said, self._said_at = text, time.monotonic()
        self._draw()

    # ----------------------------------------------------------------------- acts

    @work(group="acts")
    async def action_pause(self) -> None:
        lanes, key = self._panels[0], self._panels[0].key
        if self._here is not lanes or key is None:
            self._say("p pauses a lane: go to the lanes with Tab")
            return
        lane = self._lane(key)
        if lane is None:
            return
        name = lane["lane"]
        every = [row for row in self._report["lanes"] if row["lane"] == name]
        if lane["paused"]:
            question = Question(
                f"Resume lane {clean(name)}?", f"It is {panels.lane_state(lane).text}."
            )
        else:
            question = Question(
                f"Pause lane {clean(name)}?",
                f"Nothing more is claimed from it, of any table. What runs is finished: "
                f"{sum(row['running'] for row in every)} jobs. "
                f"{sum(row['ready'] + row['scheduled'] for row in every)} would wait.",
                reason=True,
            )
        reason = await self.push_screen_wait(question)
        if reason is None:
            return
        if lane["paused"]:
            await self._do(lambda s: acts.resume(s, name, who=self._who, providers=self._providers))
        else:
            await self._do(
                lambda s: acts.pause(
                    s, name, reason=reason or None, who=self._who, providers=self._providers
                )
            )

    @work(group="acts")
    async def action_drain(self) -> None:
        panel, key = self._panels[2], self._panels[2].key
        worker = next((w for w in self._report["workers"] if str(w["id"]) == key), None)
        if self._here is not panel or worker is None:
            self._say("d drains a worker: go to the workers with Tab")
            return
        question = Question(
            f"Drain worker {clean(worker['name'])}?",
            f"It claims nothing more, finishes its {worker['running']} jobs, or hands them on "
            "after its grace, and ends.",
        )
        if await self.push_screen_wait(question) is not None:
            await self._do(lambda s: acts.drain(s, worker["id"], self._who))

    async def _do(self, act: Callable[[Store], Awaitable[str]]) -> None:
        self._say("…")
        self._say(await self._done(act))

    async def _done(self, act: Callable[[Store], Awaitable[str]]) -> str:
        store = self.reader.store
        if store is None:
            return NOT_NOW
        try:
            said = await act(store)
        except (StoreError, UnknownName) as error:
            return acts.not_done(error)
        self.reader.report_next()
        return said

    # ----------------------------------------------------------------------- opening

    def on_listing_chosen(self, event: Listing.Chosen) -> None:
        if event.listing.id == "lanes":
            self._open_lane(*event.key.split(APART))
        elif event.listing.id == "running":
            self._open_job(event.key)
        elif event.listing.id == "needs" and event.key.split(APART)[1:2] == ["held"]:
            self._open_job(event.key.split(APART)[2])

    @work(exclusive=True, group="open")
    async def _open_lane(self, lane: str, source: str) -> None:
        async def ask() -> Sequence[Row]:
            return await running.next_jobs(self._store(), lane, source)

        job = await self.push_screen_wait(Lane(lane, source, ask))
        if job is not None:
            self._open_job(job)

    def _open_job(self, subject: str) -> None:
        source, _, key = subject.partition("/")
        if not any(source == row["source"] for row in self._report["sources"]):
            return  # "… and 12 more"

        async def tell(width: int) -> Sequence[str]:
            return await acts.told(self._store(), source, key, width)

        self.push_screen(
            Job(
                subject,
                tell,
                {
                    "cancel": (
                        "Also while it runs; its provider's task is cancelled where that can be.",
                        lambda: self._done(lambda s: acts.cancel(s, source, key, self._who)),
                    ),
                    "retry": (
                        "It starts over, or goes on; what is paid for already is used.",
                        lambda: self._done(lambda s: acts.retry(s, source, key, self._who)),
                    ),
                },
            )
        )

    def _store(self) -> Store:
        if self.reader.store is None:
            raise StoreError(NOT_NOW)
        return self.reader.store

    @property
    def _report(self) -> Row:
        return self.kept.report or {"lanes": [], "sources": [], "workers": []}

    def _lane(self, key: str) -> Row | None:
        return next((row for row in self._report["lanes"] if panels.lane_key(row) == key), None)

    # ----------------------------------------------------------------------- when it breaks

    def _fatal_error(self) -> None:
        """It would print local variables, which may hold what isn't anyone's business."""
        self._close_messages_no_wait()

    @property
    def broke(self) -> Exception | None:
        return self._exception


_PANELS: dict[str, tuple[panels.Sort, ...]] = {
    "lanes": panels.LANE_SORTS,
    "running": panels.RUNNING_SORTS,
    "workers": panels.WORKER_SORTS,
    "needs": (),
    "providers": (),
}


def _set_height(widget: Any, height: int) -> None:
    if widget.styles.height is None or widget.styles.height.value != height:
        widget.styles.height = height
