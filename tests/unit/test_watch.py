"""What `rowmill watch` keeps and says, without a terminal and a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.watch import panels
from worker.watch.available import missing
from worker.watch.kept import KEPT, History, Kept, pause_after, totals
from worker.watch.lines import (
    Cell,
    Column,
    chart,
    fit,
    header,
    heights,
    row,
    sized,
    used,
)
from worker.watch.overview import charts, head

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def report(at: datetime = NOON, **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"lanes": [], "workers": [], "needs_person": [], "notices": []}
    empty |= {"providers": [], "budgets": []}
    empty["history"] = past(0)
    database = {"name": "shop", "server_version": "17.1"}
    return {"at": at.isoformat(), "version": "1", "database": database, **empty, **more}


def past(*ended: int, seconds: int = 60) -> dict[str, Any]:
    count = len(ended)
    return {
        "seconds": seconds,
        "started": [0] * count,
        "succeeded": list(ended),
        "failed": [0] * count,
        "wait_p50_ms": [None] * count,
    }


# --------------------------------------------------------------------------- over time


def ended(history: History, count: int) -> list[int | None]:
    return [None if point is None else point.ended for point in history.last(count)]


def test_history_grows_beyond_what_one_report_tells() -> None:
    """Its stretches end when it was asked, so they move; whole ones that left it are kept."""
    history = History()
    history.add(report(NOON, history=past(1, 2, 3)))
    history.add(report(NOON + timedelta(seconds=30), history=past(1, 3, 4)))
    assert ended(history, 9) == [1, 3, 4]
    history.add(report(NOON + timedelta(seconds=60), history=past(2, 3, 5)))
    assert ended(history, 9) == [1, 2, 3, 5]
    history.add(report(NOON + timedelta(seconds=130), history=past(3, 5, 7)))
    assert ended(history, 9) == [1, 2, 3, 5, 7]
    assert ended(history, 2) == [5, 7]
    assert ended(history, 0) == []


def test_a_long_gap_in_the_watching_stays_a_gap() -> None:
    history = History()
    history.add(report(NOON, history=past(1, 2)))
    history.add(report(NOON + timedelta(minutes=4), history=past(3, 4)))
    assert ended(history, 9) == [1, 2, None, None, 3, 4]


def test_history_keeps_only_so_much() -> None:
    history = History()
    for minute in range(0, KEPT * 3, 7):
        history.add(report(NOON + timedelta(minutes=minute), history=past(1, 1)))
    assert len(history.last(10_000)) == KEPT + 2


def test_a_server_that_counts_in_other_stretches_begins_anew() -> None:
    history = History()
    history.add(report(NOON, history=past(1, 2)))
    history.add(report(NOON + timedelta(minutes=1), history=past(2, 2)))
    history.add(report(NOON + timedelta(minutes=2), history=past(3, seconds=120)))
    assert ended(history, 9) == [3]


def test_silence_is_counted_from_the_last_answer_and_ends_with_the_next() -> None:
    kept = Kept()
    kept.reported(report(), 100.0)
    kept.failed("refused", 105.0)
    kept.failed("still", 110.0)
    assert (kept.silent_since, kept.problem) == (100.0, "still")
    said = head(kept, 60, 130.0).plain.split("\n")[1]
    assert said.startswith("no answer since 00:01:40Z (30.0s): still")
    kept.told_running([], 120.0)
    assert (kept.silent_since, kept.problem) == (None, None)


@pytest.mark.parametrize(
    ("took", "rest"), [(0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (3.0, 3.0), (10.0, 10.0)]
)
def test_a_slow_answer_is_followed_by_as_long_a_rest(took: float, rest: float) -> None:
    assert pause_after(1.0, took) == rest


def test_totals_count_the_slots_of_the_living() -> None:
    lane: dict[str, Any] = {
        "ready": 2,
        "ready_estimated": False,
        "running": 1,
        "held": 0,
        "scheduled": 4,
        "per_minute_in": 3,
    }
    lane |= {"per_minute_out": 5, "failed_last_hour": 1, "spend_cents_today": "10.5"}
    workers = [{"alive": True, "slots": 8}, {"alive": False, "slots": 50}]
    sums = totals(report(lanes=[lane, lane], workers=workers))
    assert (sums["ready"], sums["slots"], sums["workers"], sums["spend_cents"]) == (4, 8, 1, 21.0)
    assert (sums["per_minute_in"], sums["per_minute_out"]) == (6, 10)


# --------------------------------------------------------------------------- text


@pytest.mark.parametrize("text", ["", "short", "exactly10!", "longer than that", "日本語テキスト"])
def test_cells_are_exactly_as_wide_as_they_should_be(text: str) -> None:
    from rich.cells import cell_len

    assert cell_len(sized(text, 10)) == 10
    assert cell_len(sized(text, 10, right=True)) == 10


COLUMNS = (Column("a", 5, weight=1), Column("b", 5, leaves=1), Column("c", 5, leaves=2))


def test_columns_leave_where_there_is_no_room_and_share_what_is_left() -> None:
    assert fit(COLUMNS, 40) == [28, 5, 5]
    assert fit(COLUMNS, 17) == [5, 5, 5]
    assert fit(COLUMNS, 16) == [10, 5, 0]
    assert fit(COLUMNS, 8) == [8, 0, 0]
    assert fit(COLUMNS, 3) == [5, 0, 0]


@pytest.mark.parametrize("columns", [panels.LANES, panels.RUNNING, panels.WORKERS])
@pytest.mark.parametrize("width", [80, 100, 133, 200])
def test_every_panel_fills_a_terminal_and_never_more(columns: Any, width: int) -> None:
    widths = fit(columns, width)
    assert len(header(columns, widths).plain) == width
    assert len(row([Cell("x" * 300)] * len(columns), columns, widths).plain) == width


def test_what_runs_beside_its_limit() -> None:
    assert used(3, 4, 4) == "███· 3/4"
    assert used(3, 0, 4) == "████ 3/0"
    assert (used(3, None, 4), used(0, None, 4)) == ("3", "")


def test_charts_show_the_newest_at_the_right_and_nothing_where_nobody_looked() -> None:
    assert chart([1, 2, 4], 5, 1) == ["  ▂▄█"]
    assert chart([None, 0, 0.001, 8], 4, 1) == ["  ▁█"]
    assert chart([4, 8], 2, 2) == [" █", "██"]
    assert chart(range(100), 3, 1) == ["███"]
    assert chart([], 3, 2) == ["   ", "   "]


def test_the_chart_tells_its_last_stretch() -> None:
    kept = Kept()
    kept.reported(report(history=past(2, 12, seconds=120)), 0.0)
    assert charts(kept, 80, 1).plain.startswith("out 6/min ")


def test_the_panel_with_the_cursor_gets_what_it_wants_first() -> None:
    least, wanted = [3, 3, 3, 2], [8, 20, 4, 2]
    assert heights(19, wanted, least, 0) == [8, 6, 3, 2]
    assert heights(19, wanted, least, 1) == [3, 11, 3, 2]
    assert heights(40, wanted, least, 0) == [8, 20, 4, 8]
    assert heights(5, wanted, least, 0) == least


# --------------------------------------------------------------------------- panels


def lane(name: str, **more: Any) -> dict[str, Any]:
    counts = [
        *("ready", "scheduled", "running", "held", "failed_last_hour"),
        *("per_minute_in", "per_minute_out"),
    ]
    nothing = [
        *("limit", "paused_by", "pause_reason", "broken_until", "broken_why", "slow_until"),
        *("oldest_wait_s", "wait_p50_ms", "wait_p95_ms", "run_p50_ms", "run_p95_ms"),
    ]
    exact = [f"{count}_estimated" for count in ("ready", "scheduled", "held")]
    plain = {"lane": name, "source": "jobs", "paused": False, "spend_cents_today": "0"}
    plain |= dict.fromkeys(exact, False)
    return {**plain, **dict.fromkeys(counts, 0), **dict.fromkeys(nothing), **more}


def test_lanes_with_trouble_come_first_then_those_with_work() -> None:
    every = [
        lane("quiet"),
        lane("busy", running=1),
        lane("asleep", paused=True),
        lane("stuck", paused=True, ready=1),
        lane("asks", held=1),
    ]
    found = panels.lanes({"lanes": every}, "", panels.LANE_SORTS[0])
    assert [row["lane"] for row in found] == ["asks", "stuck", "busy", "asleep", "quiet"]
    found = panels.lanes({"lanes": every}, "STUCK", panels.LANE_SORTS[0])
    assert [row["lane"] for row in found] == ["stuck"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"paused": True, "pause_reason": "dear\x1b[m"}, "paused: dear␛[m"),
        ({"paused": True, "paused_by": "ann@host"}, "paused by ann@host"),
        ({"broken_until": "2030-01-01T00:00:00", "broken_why": "503"}, "breaker: 503"),
        ({"slow_until": "2030-01-01T10:20:30+00:00"}, "rate, until 10:20:30Z"),
        ({"limit": 2, "running": 2, "ready": 1}, "full"),
        ({"limit": 2, "running": 2}, ""),
    ],
)
def test_why_a_lane_is_closed(more: dict[str, Any], said: str) -> None:
    assert panels.lane_state(lane("x", **more)).text == said


def job(key: str, percent: float | None, seconds: float) -> dict[str, Any]:
    more = {"lane": "openai", "kind": None, "worker": None, "try": 1, "tenant": None}
    since = (NOON - timedelta(seconds=seconds)).isoformat()
    return {"source": "jobs", "key": key, "percent": percent, "since": since, **more} | {
        "running_s": seconds
    }


def test_running_jobs_are_sorted_and_found() -> None:
    rows = [job("a", 10, 5), job("b", None, 50), job("c", 80, 20)]

    def keys(sort: int, text: str = "") -> list[str]:
        return [row["key"] for row in panels.running(rows, text, panels.RUNNING_SORTS[sort])]

    assert [keys(n) for n in range(3)] == [["b", "c", "a"], ["a", "c", "b"], ["c", "a", "b"]]
    assert keys(0, "jobs/c") == ["c"]
    assert keys(0, "nothing") == []
    assert panels.running_line(rows[1]).cells[0].text == "running"
    assert panels.running_line(rows[2]).cells[0].text == "████████··  80%"


def test_what_was_not_counted_is_marked() -> None:
    cells = panels.lane_line(lane("x", ready=123_456, ready_estimated=True)).cells
    assert cells[3].text == "~123k"


def test_workers_with_their_age_and_state() -> None:
    worker = {"id": "1", "name": "a", "host": "h", "version": "1", "slots": 4, "running": 1}
    worker |= {"alive": True, "state": "working", "lanes": ["openai"], "heartbeat_age_s": 1.0}
    worker |= {"started_at": (NOON - timedelta(hours=3)).isoformat()}
    silent = worker | {"id": "2", "alive": False, "state": "silent", "lanes": ["replicate"]}
    answer = report(workers=[worker, silent, worker | {"id": "3", "state": "draining"}])

    def shown(text: str) -> list[tuple[str, str]]:
        rows = panels.workers(answer, text, panels.WORKER_SORTS[0])
        lines = map(panels.worker_line, rows)
        return [(line.key, line.cells[6].text) for line in lines]

    assert shown("") == [("1", ""), ("2", "silent"), ("3", "draining")]
    assert shown("replic") == [("2", "silent")]
    line = panels.worker_line(panels.workers(answer, "", panels.WORKER_SORTS[0])[0])
    assert [cell.text for cell in line.cells[3:6]] == ["█▌···· 1/4", "1s", "3.0h"]


def test_providers_with_their_budgets_and_budgets_of_what_is_none() -> None:
    provider: dict[str, Any] = {"provider": "openai", "lane": "openai", "state": "ok", "why": None}
    provider |= {"spend_cents_today": "12.5", "open_calls": 2, "failed_last_hour": 0}
    refused = provider | {"provider": "runway", "lane": "runway", "state": "broken"}
    refused |= {"why": "auth: no such\x1b[2J key"}

    def budget(lane: str, used: str, waiting: int = 0, period: str = "day") -> dict[str, Any]:
        told = {"lane": lane, "period": period, "limit_cents": "500", "used_cents": used}
        return told | {"waiting": waiting}

    budgets = [budget("openai", "12.5"), budget("openai", "99", 3, "month"), budget("*", "500")]
    answer = report(providers=[provider, refused], budgets=budgets)
    assert panels.providers_title(answer) == "Providers: 1 broken, 1 ok; 3 budgets"
    assert panels.providers_title(report()) == "Providers: none; 0 budgets"
    lines = panels.provider_lines(answer)
    assert [[cell.text for cell in line.cells] for line in lines] == [
        ["openai", "ok", "$0.12", "2", "", "$0.125 of $5.00 a day, $0.99 of $5.00 a month", ""],
        ["runway", "broken", "$0.12", "2", "", "", "auth: no such␛[2J key"],
        ["everything", "", "", "", "", "$5.00 of $5.00 a day", ""],
    ]
    assert [line.cells[5].style for line in lines] == ["red", "", "red"], "one has jobs waiting"
    assert {len(line.cells) for line in lines} == {len(panels.PROVIDERS)}


def test_what_needs_a_person_comes_with_its_commands() -> None:
    item = {"kind": "held", "subject": "jobs/1", "message": "look", "commands": ["rowmill job"]}
    lines = panels.needs_lines(report(needs_person=[item], notices=[item]))
    assert [line.cells[0].text for line in lines] == ["jobs/1: look", "    rowmill job"] * 2
    assert len({line.key for line in lines}) == 4
    assert panels.needs_lines(report())[0].cells[0].text == "Nothing needs a person."


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0, ""), (99_999, "99999"), (123_456, "123k"), (12_345_678, "12M")],
)
def test_large_numbers_are_short(value: int | None, text: str) -> None:
    assert panels.number(value) == text


def test_where_there_is_no_terminal_it_says_so() -> None:
    said = missing({"TERM": "xterm"})
    assert said is not None
    assert "rowmill status --json" in said


@pytest.mark.parametrize(("running", "limit"), [(5, 10), (10, 500), (1000, 2000), (12345, 99999)])
def test_numbers_of_a_bar_are_never_cut(running: int, limit: int) -> None:
    text = panels.lane_line(lane("x", running=running, limit=limit)).cells[2].text
    assert text.endswith(f"{running}/{limit}")
    assert len(text) <= max(10, len(f"{running}/{limit}"))
