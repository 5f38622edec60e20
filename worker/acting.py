"""What operators do to jobs, one or many: what is foretold of it, and how it is carried out.

One transaction for each job: its functions lock row, queue row and parents in everyone's order,
which several jobs in one transaction would break. Whoever is stopped or killed in the middle leaves
every job either as it was or wholly done and recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.store import LockTimeout, Store, StoreError, acts
from worker.store.acts import Did, Seen
from worker.store.aims import UNFINISHED, Aim

AT_A_TIME = 4
"""Jobs that are acted on at a time: enough to hide the way there and back, few for the database."""


@dataclass(frozen=True, slots=True)
class Act:
    name: str
    """retry | requeue | cancel | priority | resolve"""
    states: tuple[str, ...]
    """Those a filter looks in where it names none; where these are none, it must name them."""
    reach: tuple[str, ...]
    """Those it may name."""
    done: Mapping[str, str]
    """Verdict → what it means, said of the job."""
    given: Mapping[str, Any] = field(default_factory=dict)
    buys: bool = False
    """Whether the jobs will run for it, and perhaps pay."""

    @property
    def anew(self) -> bool:
        return self.name == "requeue"

    @property
    def resubmits(self) -> bool:
        return self.given.get("how") == "resubmit"

    def meant(self, aim: Aim, named: Sequence[str]) -> bool:
        """Whether a filter means it: one that waits for a time of its own only if it says so."""
        if self.name == "retry" and aim.state == "scheduled" and "scheduled" not in named:
            return aim.began
        if self.name == "resolve":
            return bool(aim.calls.doubts)
        return True

    def refusal(self, aim: Aim) -> str | None:
        """The verdict by which it would be refused, as things are; None if it would be done."""
        if aim.state == "missing" and self.name != "resolve":
            return "missing"
        match self.name:
            case "retry":
                allowed = ("ready", "scheduled", "held", "failed", "cancelled")
                return None if aim.state in allowed else _as_told(aim)
            case "cancel":
                return None if aim.state in UNFINISHED else _as_told(aim)
            case "priority":
                return None if aim.state in UNFINISHED else _as_told(aim)
            case "requeue":
                return self._refused_requeue(aim)
        return _refused_resolve(aim, self.given.get("step"))

    def _refused_requeue(self, aim: Aim) -> str | None:
        calls = aim.calls
        if aim.state in UNFINISHED:
            return "waiting" if aim.state in ("ready", "scheduled") else _as_told(aim)
        if calls.in_doubt:
            return "in_doubt"
        if calls.open:
            return "open"
        return "undelivered" if calls.undelivered and not self.given.get("anew") else None

    async def upon(self, store: Store, aim: Aim, who: str, seen: Seen | None) -> Did:
        job = aim.job
        if self.name == "resolve":
            # Of a row that is gone there is only the ledger to look at.
            seen = None if aim.state == "missing" else seen
            return Did(await acts.resolve(store, job, who=who, seen=seen, **self.given))
        return await acts.act(
            store, self.name, job, who, given=self._given_to(job.source), seen=seen
        )

    def _given_to(self, source: str) -> dict[str, Any] | None:
        """A priority is written as each table has it."""
        if self.name == "priority":
            return {"to": self.given[source]}
        return dict(self.given) or None


def _as_told(aim: Aim) -> str:
    return "running" if aim.state == "running" else aim.status or aim.state


def _refused_resolve(aim: Aim, step: str | None) -> str | None:
    if aim.state == "running":
        return "running"
    if not aim.calls.doubts or (step is not None and step not in aim.calls.doubt_steps):
        return "none"
    return "several" if len(aim.calls.doubts) > 1 and step is None else None


QUEUED = ("running", "ready", "scheduled", "held")
FINISHED = ("failed", "completed", "cancelled")
_GOES_ON = {
    "requeued": "is queued again, with no tries spent",
    "released": "goes on: it is ready again",
    "hastened": "was waiting already; it is ready now",
}
ERROR = "error"
"""The verdict of what the database refused, or gave no answer to."""


def retrying() -> Act:
    """Who cancelled a job may have meant it: a filter must name those."""
    states = ("scheduled", "held", "failed")
    return Act("retry", states, ("ready", *states, "cancelled"), _GOES_ON, buys=True)


def requeueing(*, anew: bool) -> Act:
    return Act(
        "requeue",
        (),
        FINISHED,
        {"requeued": "is queued again, for new work"},
        given={"anew": anew},
        buys=True,
    )


def cancelling() -> Act:
    return Act("cancel", QUEUED, QUEUED, {"cancelled": "is cancelled"})


def prioritising(values: Mapping[str, str]) -> Act:
    """`values`: by source; see acts.priority_value."""
    done = {
        "moved": "has its new place",
        "noted": "runs: its new priority is for when it comes back",
    }
    return Act("priority", QUEUED, QUEUED, done, given=values)


def resolving(how: str, *, external_id: str | None, step: str | None) -> Act:
    done = {
        **_GOES_ON,
        "failed": "has failed",
        "recorded": "is over; the ledger knows now",
    }
    given = {"how": how, "external_id": external_id, "step": step}
    reach = ("ready", "scheduled", "held", *FINISHED)
    return Act("resolve", ("held",), reach, done, given=given, buys=how != "fail")


# --------------------------------------------------------------------------- carrying it out


@dataclass(frozen=True, slots=True)
class Result:
    aim: Aim
    verdict: str | None
    """None of what is only foretold, or wasn't come to."""
    done: bool
    did: Did | None = None
    error: StoreError | None = None

    @property
    def unsure(self) -> bool:
        """The database gave no answer: it may be done all the same."""
        return _no_answer(self.error)


@dataclass(slots=True)
class Stopping:
    """Set by Ctrl-C: what is under way is finished, nothing more is begun."""

    asked: bool = False


async def carry_out(
    store: Store,
    act: Act,
    aims: Sequence[Aim],
    who: str,
    *,
    seen: Callable[[Aim], Seen | None],
    stopping: Stopping,
    told: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """In the order of `aims`; what one job answers is nothing to the others."""
    results: dict[int, Result] = {}
    numbered = enumerate(aims)

    async def one_after_the_other() -> None:
        for number, aim in _until(stopping, numbered):
            results[number] = await _upon(store, act, aim, who, seen(aim))
            if results[number].unsure:  # the others would fare alike
                stopping.asked = True
            told(results[number])

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_A_TIME)))
    return [results.get(number, Result(aim, None, done=False)) for number, aim in enumerate(aims)]


def _until(stopping: Stopping, numbered: Iterator[tuple[int, Aim]]) -> Iterator[tuple[int, Aim]]:
    while not stopping.asked:
        try:
            yield next(numbered)
        except StopIteration:
            return


async def _upon(store: Store, act: Act, aim: Aim, who: str, seen: Seen | None) -> Result:
    try:
        did = await act.upon(store, aim, who, seen)
    except StoreError as error:
        return Result(aim, ERROR, done=False, error=error)
    return Result(aim, did.verdict, did.verdict in act.done, did)


def _no_answer(error: StoreError | None) -> bool:
    return error is not None and not error.sqlstate and not isinstance(error, LockTimeout)
