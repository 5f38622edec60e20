"""rowmill job show: one job's story, in order of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from rich.console import Console
from rich.text import Text

from worker.store.explaining import MOST_AHEAD
from worker.text.values import (
    PIPED_WIDTH,
    Row,
    amount,
    bar,
    draws,
    duration,
    many,
    new_console,
    short,
    visible,
    when,
)

STYLES = {
    "running": "cyan",
    "held": "bold red",
    "worker_silent": "red",
    "worker_gone": "red",
    "unserved": "red",
    "no_worker": "red",
    "unqueued": "red",
    "paused": "yellow",
    "closed": "yellow",
    "breaker": "yellow",
    "budget": "yellow",
}
"""Of reasons: red is what waits for a person."""

Pair = tuple[str, Text | str]


def print_job(story: Row, console: Console | None = None) -> None:
    console = console or new_console()
    title = Text(_line(f"{story['source']}/{story['key']}"), style="bold")
    console.print(title, Text(_line(story["status"] or "gone")), soft_wrap=True)
    _print(console, _facts(story, drawn=draws(console)))
    events = sorted(_events(story), key=lambda event: datetime.fromisoformat(event[0]))
    _section(console, "History, in UTC", ((when(at), what) for at, what in events))
    if len(story["runs"]) > 1:
        _section(console, "Runs", map(_run, story["runs"]))
    made = [*map(_output, story["outputs"]), *((k, str(v)) for k, v in story["delivered"].items())]
    _section(console, "Made", made)
    _section(console, "Row", ((name, short(value)) for name, value in (story["row"] or {}).items()))
    _section(console, "What you can do", (("", c) for c in story["explanation"]["commands"]))


# --------------------------------------------------------------------------- how it stands


def _facts(story: Row, *, drawn: bool) -> Iterator[Pair]:
    told, queue, timings = story["explanation"], story["queue"], story["timings"]
    yield "table", f"{story['relation']}, of platform {story['platform']}"
    yield "why", Text(_line(told["why"]), style=STYLES.get(told["reason"], ""))
    if told["ahead"] is not None and queue:
        yield "place", _place(told["ahead"], queue["lane"])
    if told["may_start_at"] and told["reason"] != "turn":
        yield "may start", f"{when(told['may_start_at'])} UTC at the earliest"
    if told["estimated_start_at"]:
        least = "not before " if told["ahead"] == MOST_AHEAD else ""
        at = when(told["estimated_start_at"])
        yield "starts", f"{least}about {at} UTC: an estimate, from what its lane got done lately"
    if queue and queue["state"] == "claimed" and queue["worker"]:
        yield "worker", f"{queue['worker']}, heard of {duration(queue['heartbeat_age_s'])} ago"
    if story["progress"] is not None and queue and queue["state"] == "claimed":
        percent = round(float(story["progress"]))
        yield "progress", (f"{bar(percent, 100, 20)} " if drawn else "") + f"{percent}%"
    if queue:
        yield "queue", _queue(queue)
    if timings["ran_s"] is not None or timings["waited_s"] is not None:
        yield "time", ", ".join(_times(timings, running=bool(queue and queue["claimed_at"])))
    if story["submissions"]:
        calls = many(len(story["submissions"]), "paid call")
        still = f", about {amount(story['open_cents'])} still open" if story["open_cents"] else ""
        yield "paid", f"{amount(story['spent_cents'])} for {calls}{still}"
    if story["error"]:
        yield "error", Text(_line(str(story["error"])), style="red")


def _place(ahead: int, lane: str) -> str:
    if ahead == 0:
        return f"first in lane {lane}"
    told = f"{ahead:,} or more" if ahead == MOST_AHEAD else f"{ahead:,}"
    return f"{told} before it in lane {lane}"


def _queue(queue: Row) -> str:
    parts = [f"lane {queue['lane']}", f"rank {queue['rank']}", f"run {queue['run']}"]
    if queue["tries"]:
        parts.append(many(queue["tries"], "failed try", "failed tries"))
    if queue["yields"]:
        parts.append(f"came back {many(queue['yields'], 'time')} without spending a try")
    if queue["tenant"]:
        parts.append(f"tenant {queue['tenant']}")
    return ", ".join(parts)


def _times(timings: Row, *, running: bool) -> Iterator[str]:
    if timings["waited_s"] is not None:
        waits = "waited" if timings["started_at"] else "has waited"
        yield f"{waits} {duration(timings['waited_s'])}"
    if timings["ran_s"] is not None:
        yield f"{'has run for' if running else 'ran'} {duration(timings['ran_s'])}"


# --------------------------------------------------------------------------- what happened


def _events(story: Row) -> Iterator[Pair]:
    queue, timings = story["queue"] or {}, story["timings"]
    if timings["enqueued_at"]:
        yield timings["enqueued_at"], "queued"
    if timings["started_at"]:
        by = f"worker {queue['worker']} took it" if queue.get("worker") else "started"
        yield timings["started_at"], by
    if timings["ended_at"]:
        yield timings["ended_at"], f"ended as {story['status']}"
    yield from ((failure["at"], _failure(failure)) for failure in story["failures"])
    yield from ((call["intended_at"], _call(call)) for call in story["submissions"])
    yield from ((action["at"], _action(action)) for action in story["actions"])


def _failure(row: Row) -> Text:
    code = f" ({row['code']})" if row["code"] else ""
    of = f" of {row['provider']}" if row["provider"] else ""
    last = ", for good" if row["final"] else ""
    what = f"try {row['try']} of run {row['run']} failed{last}: {row['kind']}{code}{of}: "
    return Text(_line(what), style="red").append(_line(row["message"]))


CALLS = {"finished": "green", "failed": "red", "unknown": "bold red", "intent": "yellow"}


def _call(row: Row) -> Text:
    nth = f", attempt {row['attempt']}" if row["attempt"] > 1 else ""
    text = Text(_line(f"call {row['step']} of run {row['run']}{nth}: "))
    text.append(_line(f"{row['model']} of {row['provider']} ({row['account']}), "))
    text.append(row["state"], style=CALLS.get(row["state"], ""))
    if row["took_s"] is not None:
        text.append(f" after {duration(row['took_s'])}")
    estimate = amount(row["estimate_cents"])
    paid = row["cost_cents"] and f"cost {amount(row['cost_cents'])}, estimated at {estimate}"
    text.append(f"; {paid or f'about {estimate}'}")
    if row["external_id"]:
        text.append(_line(f"; task {row['external_id']}"))
    if row["state"] == "finished" and not row["delivered_at"]:
        text.append("; not delivered yet")
    if row["error"]:
        text.append(_line(f"; {row['error']}"), style="red")
    return text


def _action(row: Row) -> str:
    verdict = row["detail"].get("verdict")
    return f"{row['who']}: {row['action']}" + (f", {verdict}" if verdict else "")


def _run(row: Row) -> Pair:
    took = f" in {duration(row['ran_s'])}" if row["ran_s"] is not None else ""
    failed = many(row["failed_tries"], "failed try", "failed tries")
    calls = many(row["calls"], "paid call")
    return f"run {row['run']}", f"{calls}, {failed}{took}, {amount(row['cost_cents'])}"


def _output(row: Row) -> Pair:
    facts = [row.get("mime_type"), _size(row.get("size")), _shape(row)]
    more = ", ".join(fact for fact in facts if fact)
    where = row.get("url") or row.get("key") or ""
    return str(row.get("role") or "file"), f"{where}" + (f" ({more})" if more else "")


def _size(size: int | None) -> str:
    return "" if size is None else f"{size / 1_000_000:.1f} MB" if size >= 100_000 else f"{size} B"


def _shape(row: Row) -> str:
    seconds = row.get("duration_seconds")
    size = f"{row['width']}x{row['height']}" if row.get("width") and row.get("height") else ""
    return " ".join(part for part in (size, duration(float(seconds)) if seconds else "") if part)


# --------------------------------------------------------------------------- lines


def _section(console: Console, title: str, pairs: Iterable[Pair]) -> None:
    listed = list(pairs)
    if listed:
        console.print(Text(f"\n{title}", style="bold"))
        _print(console, listed)


def _print(console: Console, pairs: Iterable[Pair]) -> None:
    """Names in a column, what is long wrapped beside it; in a pipe each is one line."""
    listed = [(_line(name), _text(value)) for name, value in pairs]
    indent = max((len(name) for name, _ in listed), default=0)
    indent = indent + 4 if indent else 2
    piped = not console.is_terminal and console.width == PIPED_WIDTH
    for name, text in listed:
        width = max(20, console.width - indent)
        lines = [text] if piped else text.wrap(console, width, overflow="fold")
        for number, line in enumerate(lines):
            label = f"  {name if number == 0 else ''}".ljust(indent)
            line.rstrip()
            console.print(Text(label, style="dim").append_text(line), soft_wrap=True)


def _line(text: str) -> str:
    return visible(text, one_line=True)


def _text(value: Text | str) -> Text:
    return value if isinstance(value, Text) else Text(_line(value))
