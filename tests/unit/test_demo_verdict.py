"""What the demo's last word looks at: each of these alone makes it fail."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from worker.demo.order import Order
from worker.demo.verdict import Count, Row, Verdict, oddities

ROW = Row(
    platform="shop",
    source="jobs",
    key="7",
    status="done",
    finished="completed",
    metered=True,
    usage=1,
    url=None,
    consistent=True,
    held=False,
)
CENTS = {"jobs/7": Decimal("1.5")}


def verdict(*rows: Row, odd: set[str] | None = None, **changes: Any) -> Verdict:
    order = Order(claims=1, platforms=1, inversions=0, compared=1)
    given: dict[str, Any] = {"charges": 1, "duplicate_charges": 0, "order": order}
    total = Count.of(rows, odd or ())
    return Verdict(total, {"shop": total}, kills=1, seconds=1.0, **(given | changes))


def test_what_is_as_it_should_be() -> None:
    assert oddities([ROW], CENTS, dict(CENTS)) == set()
    assert verdict(ROW).sound


@pytest.mark.parametrize(
    "changes",
    [
        {"consistent": False},
        {"usage": 0},
        {"usage": 2},
        {"metered": False},
        {"url": "file:///nowhere/at/all.mp4"},
        {"finished": None},  # and not held
    ],
)
def test_a_row_that_is_not_delivered_is_odd(changes: dict[str, Any]) -> None:
    assert oddities([replace(ROW, **changes)], CENTS, dict(CENTS)) == {"jobs/7"}


def test_a_held_row_owes_nothing_yet() -> None:
    held = replace(ROW, finished=None, held=True, metered=False, usage=0, consistent=False)
    assert oddities([held], {}, {}) == set()
    assert verdict(held).sound


def test_an_output_must_be_there(tmp_path: Path) -> None:
    made = tmp_path / "a film.mp4"
    made.write_bytes(b"film")
    assert oddities([replace(ROW, url=made.as_uri())], CENTS, dict(CENTS)) == set()


@pytest.mark.parametrize(
    ("ledger", "billed", "odd"),
    [
        ({}, {"jobs/7": "1.5"}, {"jobs/7"}),
        ({"jobs/7": "1.5"}, {}, {"jobs/7"}),
        ({"jobs/7": "1.5"}, {"jobs/7": "3"}, {"jobs/7"}),
        ({"jobs/7": "1.50"}, {"jobs/7": "1.5"}, set()),
        ({}, {"jobs/8": "1"}, {"jobs/8"}),  # no job at all
        ({"jobs/7": "0"}, {}, set()),
    ],
)
def test_ledger_and_bill_agree_job_by_job(
    ledger: dict[str, str], billed: dict[str, str], odd: set[str]
) -> None:
    cents = [{key: Decimal(value) for key, value in side.items()} for side in (ledger, billed)]
    assert oddities([ROW], cents[0], cents[1]) == odd


def test_each_of_them_alone_is_unsound() -> None:
    wrong_order = Order(claims=9, platforms=2, inversions=1, compared=8)
    assert not verdict(ROW, order=wrong_order).sound
    assert not verdict(ROW, duplicate_charges=1).sound
    assert not verdict(ROW, odd={"jobs/8"}).sound
    assert not verdict(replace(ROW, usage=0)).sound
    assert not verdict(replace(ROW, finished=None)).sound
    assert verdict(replace(ROW, finished="cancelled")).sound
