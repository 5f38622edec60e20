"""Small pictures, estimates, hostile names, tables that fit."""

from __future__ import annotations

import io
import re

import pytest
from rich.text import Text

from worker.text import values
from worker.text.values import Column, SafeConsole, bar, count, cut, fitted, spark, visible


@pytest.mark.parametrize(
    ("told", "width", "drawn"),
    [
        ([0, 0, 0], None, "▁▁▁"),
        ([0, 1, 7], None, "▁▂█"),
        ([0, 1, 1_000_000], None, "▁▂█"),
        ([7, None, 0], None, "█ ▁"),
        ([None, None], None, "  "),
        ([5, 5, 5], None, "███"),
        ([0, 7, 0, 0, 1, 0], 3, "█▁▂"),
        ([7, 0, 0, 0, 1], 3, "█▁▂"),  # the oldest part is the short one
        ([1, 2], 10, "▅█"),
    ],
)
def test_sparklines(told: list[int | None], width: int | None, drawn: str) -> None:
    assert spark(told, width) == drawn


@pytest.mark.parametrize(
    ("used", "of", "drawn"),
    [
        (0, 8, "····"),
        (1, 1000, "▏···"),
        (4, 8, "██··"),
        (3, 16, "▊···"),
        (999, 1000, "███▉"),
        (8, 8, "████"),
        (9, 8, "████"),
        (0, 0, "████"),
    ],
)
def test_bars(used: int, of: int, drawn: str) -> None:
    assert bar(used, of, 4) == drawn


def test_counts_say_when_they_are_estimates() -> None:
    assert [count(n) for n in (0, 9_999, 1_000_000)] == ["0", "9999", "1000000"]
    about = [count(n, about=True) for n in (950, 2_345, 19_109, 664_644, 1_049_000, 12_345_678)]
    assert about == ["~950", "~2.3k", "~19k", "~665k", "~1.0M", "~12M"]


HOSTILE = "a\x1b[2J\x1b]0;title\x07b\rc\x9b31md\u202ee\x7f\x08[red]:boom:"


def printed(console_width: int, what: object, *, terminal: bool = True) -> str:
    file = io.StringIO()
    console = SafeConsole(
        file=file,
        force_terminal=terminal,
        width=console_width,
        markup=False,
        emoji=False,
        highlight=False,
        color_system=None,
    )
    console.print(what)
    return file.getvalue()


@pytest.mark.parametrize(
    "what",
    [
        HOSTILE,
        values.table("Lanes", ("lane",), [(HOSTILE,)]),
        values.styled(HOSTILE),
        values.table("Lanes", ("lane",), [(HOSTILE + "x" * 300,)]),
    ],
)
def test_nothing_from_a_row_reaches_the_terminal_as_a_command(what: object) -> None:
    said = printed(200, what)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)
    assert "a␛[2J␛]0;title␇b␍c\\x9b31md\\u202ee␡␈[red]:boom:" in said


def test_what_people_write_stays_as_it_is() -> None:
    for text in ("Straße — 東京 👩\u200d🔬", "می\u200cخواهم", "two\nlines"):
        assert visible(text) == text
    assert visible("a\u00a0b\ud800\u2028\U000e0041") == "a b\\ud800\\u2028\\U000e0041"


def test_a_name_fakes_no_line() -> None:
    assert visible("a\nNothing needs a person.", one_line=True) == "a␊Nothing needs a person."
    assert cut("one\ntwo three", 8) == "one␊two…"


def test_the_lightest_columns_are_left_out_first() -> None:
    columns = [
        Column("lane", ["background:embed_content"], 9),
        Column("ready", ["~1.0M"], 8, right=True),
        Column("today", ["$12.50"], 1),
        Column("empty", [Text()], 7),
        Column("oldest", ["1.0d"], 5),
    ]

    def names(width: int, *, terminal: bool = True) -> list[str]:
        console = SafeConsole(file=io.StringIO(), force_terminal=terminal, width=width)
        return [str(column.header) for column in fitted(console, "Lanes", columns).columns]

    assert names(80) == ["lane", "ready", "today", "oldest"]
    assert names(40) == ["lane", "ready", "oldest"]
    assert names(34) == ["lane", "ready"]
    assert names(10) == ["lane"]
    assert names(10, terminal=False) == ["lane", "ready", "today", "empty", "oldest"]
