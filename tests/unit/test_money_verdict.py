"""The verdict of bench money: it sees what it is there to see."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from bench.money.crew import LEASE, Death
from bench.money.verdict import BLIND, Call, Charge, Evidence, Row, judge
from bench.money.work import KINDS, Job

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
TEXT = next(kind for kind in KINDS if kind.lane == "openai")
VIDEO = next(kind for kind in KINDS if kind.lane == "replicate")


def seen(
    kind: str = "text", *, fault: str = "", risk: int = 0, cents: str = "0.02", **call: object
) -> Evidence:
    """One job whose call was answered, billed and delivered."""
    job = Job("1", TEXT if kind == "text" else VIDEO, fault)
    provider, cost = job.kind.lane, Decimal(cents)
    made = Call(job.marker, "main", provider, "finished", cost, cost, "x1", "worker-1", True)
    return Evidence(
        jobs=[job],
        charges=[Charge(job.marker, "work", cost, "x1", NOW, NOW)],
        calls=[replace(made, **call)],  # type: ignore[arg-type]
        rows=[Row(job.marker, "completed", False, True)],
        met={},
        deaths=[],
        resubmit_up_to=Decimal(risk),
    )


def in_doubt(given: Evidence, **call: object) -> Evidence:
    """Its answer never came, and it waits for a person."""
    lost = replace(given.calls[0], state="unknown", cost=None, external_id=None, delivered=False)
    row = replace(given.rows[0], status="processing", held=True)
    return replace(given, calls=[replace(lost, **call)], rows=[row])  # type: ignore[arg-type]


def sent_again(given: Evidence) -> Evidence:
    """The first was written off without knowing, and both were billed."""
    first, charge = given.calls[0], given.charges[0]
    written_off = replace(first, state="written_off", cost=None, external_id=None, delivered=False)
    earlier = replace(charge, external_id="x0", at=NOW - timedelta(seconds=9), told_at=None)
    return replace(given, calls=[written_off, first], charges=[earlier, charge])


def numbers(given: Evidence) -> tuple[int, int, int, int]:
    row = judge(given).row()
    return tuple(
        row[name] for name in ("duplicate_charges", "allowed_resubmissions", "undelivered", "lost")
    )


@pytest.mark.parametrize("kind", ["text", "video"])
def test_what_was_paid_once_and_delivered_is_sound(kind: str) -> None:
    verdict = judge(seen(kind))
    assert verdict.problems == []
    assert verdict.row()["ledger_cents"] == verdict.row()["bill_cents"] == "0.02"


@pytest.mark.parametrize("kind", ["text", "video"])
def test_a_second_charge_is_a_duplicate(kind: str) -> None:
    given = seen(kind)
    twice = [*given.charges, replace(given.charges[0], external_id="x2")]
    verdict = judge(replace(given, charges=twice))
    assert not verdict.sound
    assert numbers(replace(given, charges=twice)) == (1, 0, 0, 0)


def test_a_charge_that_was_taken_back_is_none() -> None:
    given = seen("video")
    failed = replace(given.charges[0], external_id="x0", cents=Decimal(0))
    call = replace(given.calls[0], state="failed", cost=Decimal(0), external_id="x0")
    both = replace(given, charges=[failed, *given.charges], calls=[call, *given.calls])
    assert judge(both).problems == []


def test_another_step_is_no_duplicate() -> None:
    given = seen("video")
    sound = replace(given.charges[0], external_id="x2", operation="sound")
    call = replace(given.calls[0], step="soundtrack", external_id="x2")
    both = replace(given, charges=[*given.charges, sound], calls=[*given.calls, call])
    assert judge(both).problems == []


def test_a_cheap_call_may_be_sent_again() -> None:
    assert judge(sent_again(seen(risk=1))).problems == []
    assert numbers(sent_again(seen(risk=1))) == (0, 1, 0, 0)


@pytest.mark.parametrize("given", [seen(), seen(risk=1, cents="1.5")])
def test_a_dear_call_may_not(given: Evidence) -> None:
    assert any("was sent again" in problem for problem in judge(sent_again(given)).problems)


def test_nor_a_call_whose_answer_was_told() -> None:
    given = sent_again(seen(risk=1))
    told = [replace(charge, told_at=NOW) for charge in given.charges]
    assert any("took its answer" in p for p in judge(replace(given, charges=told)).problems)


def test_an_excuse_counts_once() -> None:
    given = sent_again(seen(risk=1))
    third = replace(given.charges[1], external_id="x2")
    assert numbers(replace(given, charges=[*given.charges, third]))[0] == 1


@pytest.mark.parametrize(
    "row",
    [
        {"status": "processing"},
        {"status": "failed"},
        {"status": "processing", "held": True},  # and yet its call is settled
    ],
)
def test_a_job_that_didnt_end_as_it_must_is_lost(row: dict[str, object]) -> None:
    given = seen()
    assert numbers(replace(given, rows=[replace(given.rows[0], **row)]))[3] == 1  # type: ignore[arg-type]


def test_a_row_that_is_gone_is_noticed() -> None:
    assert not judge(replace(seen(), rows=[])).sound


def test_a_paid_result_that_nobody_got_is_undelivered() -> None:
    assert numbers(seen(delivered=False)) == (0, 0, 1, 0)
    given = seen()
    assert numbers(replace(given, rows=[replace(given.rows[0], sound=False)])) == (0, 0, 1, 0)


@pytest.mark.parametrize("cost", [Decimal("0.03"), Decimal(0), None])
def test_another_sum_than_the_bills_is_noticed(cost: Decimal | None) -> None:
    assert not judge(seen("video", cost=cost)).sound


# ------------------------------------------------------------------------------ doubts


def explained(given: Evidence) -> list[Evidence]:
    """Each for a reason of its own."""
    marker = given.jobs[0].marker
    untold = [replace(charge, told_at=None) for charge in given.charges]
    late = Death("worker-1", NOW + timedelta(seconds=LEASE / 2))
    return [
        replace(given, met={marker: ["disconnect-after"]}),
        replace(given, charges=untold),
        *(replace(given, deaths=[replace(late, point=p, marker=marker)]) for p in BLIND),
        replace(given, deaths=[late]),
        replace(given, charges=[], deaths=[late]),
    ]


@pytest.mark.parametrize("given", explained(in_doubt(seen())))
def test_what_took_its_answer_away_explains_a_doubt(given: Evidence) -> None:
    verdict = judge(given)
    assert verdict.problems == []
    assert len(verdict.unresolved) == 1
    assert verdict.row()["unresolved_cents"] == "0.02"
    assert verdict.row()["ledger_cents"] == verdict.row()["bill_cents"] == "0"


@pytest.mark.parametrize(
    "given",
    [
        in_doubt(seen()),
        replace(in_doubt(seen()), met={"ai_generations/1": ["slow=0.5"]}),
        replace(in_doubt(seen()), deaths=[Death("worker-2", NOW)]),
        # Told long before: it was in the ledger by then.
        replace(in_doubt(seen()), deaths=[Death("worker-1", NOW + timedelta(seconds=3 * LEASE))]),
    ],
)
def test_a_doubt_without_a_reason_is_a_problem(given: Evidence) -> None:
    assert any("took its answer" in problem for problem in judge(given).problems)


def test_a_reason_without_a_doubt_is_a_problem() -> None:
    sure = [given for given in explained(seen()) if not given.deaths or given.deaths[0].marker]
    assert len(sure) == 2 + len(BLIND)
    assert all(any("and yet" in p for p in judge(given).problems) for given in sure)


def test_who_can_be_asked_leaves_no_doubt() -> None:
    given = replace(in_doubt(seen("video")), met={"generation_jobs/1": ["disconnect-after"]})
    assert any("can be asked" in problem for problem in judge(given).problems)


def test_what_may_be_sent_again_leaves_no_doubt() -> None:
    given = replace(in_doubt(seen(risk=1)), met={"ai_generations/1": ["disconnect-after"]})
    assert any("may be sent again" in problem for problem in judge(given).problems)
