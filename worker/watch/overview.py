"""The lines above the panels: whose fleet this is, its sums, and what it did lately. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.text import Text

from worker.text.values import count, duration, money, ms
from worker.watch.kept import Kept, Point, Row, totals
from worker.watch.lines import chart, clean, sized

LABEL = 15


def head(kept: Kept, width: int, now: float) -> Text:
    """Two lines; the second one says so while the database doesn't answer."""
    first = _whose(kept.report, width) if kept.report else Text("rowmill", "bold")
    return Text("\n", no_wrap=True, end="").join([first, _second(kept, width, now)])


def _whose(report: Row, width: int) -> Text:
    database = report["database"]
    name = f"rowmill {clean(report['version'])}"
    where = (
        f"  {clean(database['name'])}  PostgreSQL {clean(database['server_version'].split()[0])}"
    )
    at = f"{report['at'][11:19]}Z"
    room = max(0, width - len(name) - len(at) - 1)
    return Text.assemble((name, "bold"), sized(where, room), " ", at, no_wrap=True, end="")


def _second(kept: Kept, width: int, now: float) -> Text:
    if kept.problem is not None:
        since = kept.silent_since or now
        clock = datetime.fromtimestamp(since, UTC).strftime("%H:%M:%SZ")
        ago = duration(max(0.0, round(now - since)))
        said = f"no answer since {clock} ({ago}): {clean(kept.problem)}"
        return Text(sized(said, width), "bold red reverse", no_wrap=True, end="")
    if kept.report is None:
        return Text("asking the database …", "dim", no_wrap=True, end="")
    return _sums(totals(kept.report), kept.report)


def _sums(sums: Row, report: Row) -> Text:
    parts = [
        ("ready ", count(sums["ready"], about=sums["estimated"])),
        ("running ", f"{sums['running']}/{sums['slots']}"),
        ("in ", f"{sums['per_minute_in']}"),
        ("out ", f"{sums['per_minute_out']}/min"),
        ("today ", money(str(sums["spend_cents"])) or "$0"),
    ]
    text = Text(no_wrap=True, end="")
    for label, value in parts:
        text.append(label, "dim").append(value, "bold").append("  ")
    if sums["held"]:
        text.append(f"held {sums['held']}  ", "bold red")
    if report["needs_person"]:
        count_ = len(report["needs_person"])
        text.append(f"{count_} need{'s' if count_ == 1 else ''} a person", "bold red")
    return text


def charts(kept: Kept, width: int, height: int) -> Text:
    """Jobs that ended a minute, and how long half of them had waited, side by side."""
    each = (width - 2) // 2
    room = max(0, each - LABEL)
    points = kept.history.last(room)
    out = [None if point is None else point.per_minute_out for point in points]
    wait = [None if point is None else point.wait_ms for point in points]
    span = _span(points)
    left = _chart(("out a minute", _rate(points), span), "green", chart(out, room, height))
    right = _chart(("wait, median", _wait(points), span), "yellow", chart(wait, room, height))
    lines = [a + b for a, b in zip(left, right, strict=True)]
    return Text("\n", no_wrap=True, end="").join(lines)


def _chart(labels: tuple[str, str, str], style: str, bars: list[str]) -> list[Text]:
    said = [*labels[: len(bars)], *([""] * (len(bars) - len(labels)))]
    if len(bars) == 1:
        said = [f"{labels[0].split()[0].rstrip(',')} {labels[1]}"]
    return [
        Text.assemble(sized(label, LABEL), (line, style), "  ", no_wrap=True, end="")
        for label, line in zip(said, bars, strict=True)
    ]


def _known(points: Sequence[Point | None]) -> list[Point]:
    return [point for point in points if point is not None]


def _rate(points: Sequence[Point | None]) -> str:
    known = _known(points)
    return f"{known[-1].per_minute_out:.0f}/min" if known else ""


def _wait(points: Sequence[Point | None]) -> str:
    waits = [point.wait_ms for point in _known(points) if point.wait_ms is not None]
    return ms(waits[-1]) if waits else ""


def _span(points: Sequence[Point | None]) -> str:
    known = _known(points)
    return f"last {duration(len(points) * known[0].seconds)}" if known else ""
