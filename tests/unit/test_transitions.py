"""The rules of a job's life, as a table: outcome × what the job has behind it → settlement."""

from __future__ import annotations

import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract import (
    Cancelled,
    Failed,
    Failure,
    FailureKind,
    Held,
    Outcome,
    Output,
    RetryLater,
    Succeeded,
    Yield,
)
from jobs.registry import RetryPolicy
from worker import transitions
from worker.transitions import Settlement, Try, Verb

POLICY = RetryPolicy(base=2.0, factor=2.0, cap=60.0, jitter=0.5)
CHANCE = st.floats(0, 1, exclude_max=True)
TRIES = st.integers(0, 30_000)


def attempt(**changes: Any) -> Try:
    given: dict[str, Any] = {
        "queue_id": 7,
        "token": 2**62,
        "source": "generation_jobs",
        "key": "k",
        "lane": "replicate",
        "kind": "media:video",
        "run": 2,
        "tries": 0,
        "max_retries": 3,
        "yields": 0,
    }
    return Try(**{**given, **changes})


def failure(kind: FailureKind = FailureKind.UNKNOWN, **changes: Any) -> Failure:
    return Failure(kind, "it broke", "E1", "replicate", **changes)


def settle(outcome: Outcome, job: Try | None = None, **changes: Any) -> Settlement:
    given: dict[str, Any] = {"policy": POLICY, "max_yields": 5, "chance": 0.0}
    return transitions.settle(outcome, job or attempt(), **{**given, **changes})


def output(role: Any = "main", key: str = "a/0.mp4") -> Output:
    return Output(role, key, f"https://m.example.com/{key}", "video/mp4", "video", 9, "ab", "0.mp4")


# --------------------------------------------------------------------------- verbs


@pytest.mark.parametrize(
    ("outcome", "job", "verb"),
    [
        (Succeeded(), {}, "succeed"),
        (RetryLater(failure()), {"tries": 0, "max_retries": 1}, "retry"),
        (RetryLater(failure()), {"tries": 2, "max_retries": 3}, "retry"),
        (RetryLater(failure()), {"tries": 3, "max_retries": 3}, "fail"),
        (RetryLater(failure()), {"tries": 4, "max_retries": 3}, "fail"),
        (RetryLater(failure()), {"tries": 0, "max_retries": 0}, "fail"),
        (Failed(failure()), {"tries": 0, "max_retries": 9}, "fail"),
        (Yield("busy"), {"yields": 0}, "yield"),
        (Yield("busy"), {"yields": 3}, "yield"),
        (Yield("busy"), {"yields": 4}, "hold"),
        (Yield("busy"), {"yields": 99}, "hold"),
        (Yield("busy"), {"tries": 3, "max_retries": 3}, "yield"),
        (Yield("over budget", counts=False), {"yields": 9999}, "wait"),
        (Cancelled(), {}, "cancel"),
        (Held("ask"), {}, "hold"),
    ],
)
def test_verb_of_an_outcome(outcome: Outcome, job: dict[str, int], verb: Verb) -> None:
    assert settle(outcome, attempt(**job)).verb == verb


@pytest.mark.parametrize(
    "outcome",
    [Succeeded(), RetryLater(failure()), Failed(failure()), Yield("y"), Cancelled(), Held("h")],
)
def test_every_settlement_carries_its_claim(outcome: Outcome) -> None:
    """Without the token a settlement could hit someone else's claim."""
    done = settle(outcome, attempt(tries=1))
    assert (done.queue_id, done.token, done.run, done.try_) == (7, 2**62, 2, 2)
    assert (done.source, done.key, done.lane) == ("generation_jobs", "k", "replicate")
    assert done.kind == "media:video"


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        (FailureKind.RATE_LIMIT, "yield"),
        (FailureKind.TRANSIENT, "yield"),
        (FailureKind.QUOTA, "yield"),
        (FailureKind.AUTH, "yield"),
        (FailureKind.INVALID, "fail"),
        (FailureKind.POLICY, "fail"),
        (FailureKind.GONE, "retry"),
        (FailureKind.CANCELLED, "retry"),
        (FailureKind.UNKNOWN, "retry"),
    ],
)
def test_what_a_providers_failure_means(kind: FailureKind, verb: Verb) -> None:
    assert settle(transitions.outcome_of(failure(kind))).verb == verb


def test_every_kind_of_failure_has_a_meaning() -> None:
    outcomes = {kind: transitions.outcome_of(failure(kind)) for kind in FailureKind}
    assert {type(o) for o in outcomes.values()} == {Yield, Failed, RetryLater}


# --------------------------------------------------------------------------- what is written


def test_a_failure_is_written_with_its_cause_and_what_it_cost() -> None:
    done = settle(Failed(failure(FailureKind.POLICY)), spent=Decimal("2.5"))
    assert (done.error, done.error_kind, done.error_code) == ("it broke", "policy", "E1")
    assert (done.provider, done.cost_cents) == ("replicate", Decimal("2.5"))


def test_a_success_is_written_whole() -> None:
    outcome = Succeeded(
        outputs=(output(), output("thumbnail", "a/0.jpg")),
        text="t",
        data={"d": 1},
        metadata={"m": 2},
        tokens=5,
        cost_cents=Decimal("1.25"),
        provider="replicate",
        model="m",
        external_id="x",
    )
    row = settle(outcome, duration_ms=40).row()
    assert row["media_id"] == str(uuid.uuid5(transitions.MEDIA_NAMESPACE, "a/0.mp4"))
    assert [o["role"] for o in row["outputs"]] == ["main", "thumbnail"]
    assert row["outputs"][0]["media_id"] == row["media_id"] != row["outputs"][1]["media_id"]
    assert (row["text"], row["data"], row["metadata"]) == ("t", {"d": 1}, {"m": 2})
    assert (row["tokens"], row["cost_cents"], row["duration_ms"]) == (5, Decimal("1.25"), 40)
    assert (row["provider"], row["model"], row["external_id"]) == ("replicate", "m", "x")
    assert row["error"] is None


def test_no_main_output_is_no_media_id() -> None:
    assert settle(Succeeded(outputs=(output("thumbnail"),))).row()["media_id"] is None


def test_the_same_key_names_the_same_file() -> None:
    assert transitions.media_id(output(key="x")) == transitions.media_id(output("thumbnail", "x"))
    assert transitions.media_id(output(key="x")) != transitions.media_id(output(key="y"))


def test_release_changes_nothing() -> None:
    row = transitions.release(attempt(tries=2)).row()
    assert row["verb"] == "release"
    assert (row["error"], row["delay"], row["cost_cents"]) == (None, None, None)


# --------------------------------------------------------------------------- delays


@pytest.mark.parametrize(
    ("tries", "asked", "delay"),
    [(0, None, 2), (1, None, 4), (4, None, 32), (5, None, 60), (9, None, 60), (0, 90, 90)],
)
def test_back_off_without_jitter(tries: int, asked: float | None, delay: float) -> None:
    assert transitions.back_off(POLICY, tries, 0.0, asked) == delay


@given(tries=TRIES, chance=CHANCE, asked=st.none() | st.floats(0, 3600))
def test_back_off_is_bounded(tries: int, chance: float, asked: float | None) -> None:
    """However many tries a job has behind it (no overflow), never earlier than the server asked."""
    delay = transitions.back_off(POLICY, tries, chance, asked)
    least = max(asked or 0.0, POLICY.base)
    assert least <= delay <= max(POLICY.cap, least) * (1 + POLICY.jitter)


@given(chance=CHANCE, job=st.builds(attempt, tries=TRIES, max_retries=TRIES, yields=TRIES))
def test_a_retry_is_only_for_tries_that_are_left(chance: float, job: Try) -> None:
    done = settle(RetryLater(failure()), job, chance=chance)
    assert (done.verb == "retry") == (job.tries < job.max_retries)
    assert (done.delay is not None) == (done.verb == "retry")
    assert done.try_ == job.tries + 1


@pytest.mark.parametrize(
    ("outcome", "delay"),
    [
        (Yield("drain"), 1.0),
        (Yield("asked", 7.0), 7.0),
        (Yield("at once", 0.0), 0.0),
        (transitions.outcome_of(failure(FailureKind.RATE_LIMIT)), 5.0),
        (transitions.outcome_of(failure(FailureKind.QUOTA)), 60.0),
        (transitions.outcome_of(failure(FailureKind.QUOTA, retry_after=3.0)), 3.0),
    ],
)
def test_how_long_a_yield_stays_away(outcome: Outcome, delay: float) -> None:
    assert settle(outcome).delay == delay
    late = settle(outcome, chance=0.999).delay
    assert late is not None
    assert delay <= late <= delay * 1.5


def test_a_held_job_says_how_often_it_came_back() -> None:
    done = settle(Yield("no capacity"), attempt(yields=4))
    assert done.error == "came back 5 times without spending a try: no capacity"


# --------------------------------------------------------------------------- refused


def paid(**changes: Any) -> Settlement:
    outcome = Succeeded(outputs=(output(),), text="t", data={"d": 1}, cost_cents=Decimal(3))
    return settle(outcome, **changes)


@pytest.mark.parametrize(
    ("settlement", "verb"),
    [
        (paid(), "hold"),
        (settle(Succeeded(cost_cents=Decimal("0.0001"))), "hold"),
        (settle(Succeeded(outputs=(output(),))), "hold"),
        (settle(Succeeded(text="free")), "fail"),
        (settle(Failed(failure())), "hold"),
        (settle(RetryLater(failure())), "hold"),
        (settle(Cancelled()), "hold"),
        (settle(Held("h")), "hold"),
    ],
)
def test_refused(settlement: Settlement, verb: Verb) -> None:
    again = transitions.refused(settlement, "value too long")
    assert again.verb == verb
    assert again.error == "the database refused the result: value too long"
    assert (again.error_kind, again.error_code) == ("invalid", "refused")
    assert (again.queue_id, again.token) == (settlement.queue_id, settlement.token)
    assert again.cost_cents == settlement.cost_cents


def test_refused_carries_nothing_that_could_be_refused_again() -> None:
    row = transitions.refused(paid(duration_ms=2**40), "no").row()
    assert (row["outputs"], row["media_id"], row["text"]) == ((), None, None)
    assert (row["data"], row["metadata"], row["tokens"], row["duration_ms"]) == ({}, {}, None, 0)


def test_refused_twice_is_held() -> None:
    """A failure that can't be written either is a person's to look at."""
    once = transitions.refused(settle(Succeeded(text="free")), "no")
    twice = transitions.refused(once, "no again")
    assert (once.verb, twice.verb) == ("fail", "hold")


# --------------------------------------------------------------------------- unfit text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a\x00b", "ab"),
        ("half \ud83d emoji", "half \ufffd emoji"),
        ("whole 😀", "whole 😀"),
        ({"k\x00": ["v\x00", {"n": "\udc00"}]}, {"k": ["v", {"n": "\ufffd"}]}),
        (("t\x00", 1, None, Decimal(2)), ["t", 1, None, Decimal(2)]),
        (None, None),
        ("", ""),
    ],
)
def test_clean(dirty: Any, clean: Any) -> None:
    assert transitions.clean(dirty) == clean


@given(st.text(st.characters(exclude_categories=())))
def test_clean_text_is_what_postgres_takes(text: str) -> None:
    cleaned = transitions.clean(text)
    assert "\x00" not in cleaned
    assert cleaned.encode().decode() == cleaned
    assert transitions.clean(cleaned) == cleaned
    assert json.loads(json.dumps(cleaned)) == cleaned


@pytest.mark.parametrize("kind", sorted(transitions.YIELD_SECONDS))
def test_a_billed_failure_costs_a_try_whoever_is_to_blame(kind: FailureKind) -> None:
    failure = Failure(kind, "took the money and fell over")
    assert isinstance(transitions.outcome_of(failure), Yield)
    assert transitions.outcome_of(failure, billed=True) == RetryLater(failure)


@pytest.mark.parametrize(
    ("after", "chance", "delay"), [(86_400, 0.0, 86_400), (86_400, 0.5, 86_415), (1.0, 0.5, 1.5)]
)
def test_who_waits_for_a_day_comes_back_on_time(after: float, chance: float, delay: float) -> None:
    outcome = Yield("over budget", after, counts=False)
    assert settle(outcome, chance=chance).delay == delay
