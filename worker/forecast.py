"""What an act may cost: what is paid already is used, the rest costs what such jobs cost lately.

Nothing is guessed: where the ledger has no job of the same table, lane and kind that was delivered,
the cost is unknown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from worker.store.aims import Aim

Group = tuple[str, str, str]
"""Source, lane, kind: what makes jobs alike."""
PLACES = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class History:
    """What jobs of one group cost that were delivered lately."""

    jobs: int
    steps: Mapping[str, Decimal]
    """The mean of each step's cost, over all the jobs."""

    @property
    def mean(self) -> Decimal:
        return sum(self.steps.values(), Decimal(0))


@dataclass(frozen=True, slots=True)
class Purchase:
    """What jobs of one group still have to buy."""

    group: Group
    jobs: int
    cents: Decimal | None
    """None where there is no history."""
    history: History | None

    @property
    def basis(self) -> str:
        if self.history is None:
            return "no such job was paid for and delivered lately"
        many = self.history.jobs
        return f"the mean of the last {many} that were delivered" if many > 1 else "the last one"


@dataclass(frozen=True, slots=True)
class Forecast:
    jobs: int
    lanes: Mapping[tuple[str, str], int]
    """By source and lane."""
    running: int
    used: int
    """Results that are paid for and were never delivered."""
    used_cents: Decimal
    open: int
    open_cents: Decimal
    in_doubt: int
    in_doubt_cents: Decimal
    purchases: Sequence[Purchase] = ()
    budgets: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    @property
    def cents(self) -> Decimal:
        return sum((p.cents for p in self.purchases if p.cents is not None), Decimal(0))

    @property
    def unknown(self) -> int:
        """Jobs of which nobody knows what they cost."""
        return sum(p.jobs for p in self.purchases if p.cents is None)

    def as_json(self) -> dict[str, Any]:
        return {
            "jobs": self.jobs,
            "running": self.running,
            "lanes": [
                {"source": source, "lane": lane, "jobs": jobs}
                for (source, lane), jobs in self.lanes.items()
            ],
            "used": {"results": self.used, "cents": told(self.used_cents)},
            "open": {"calls": self.open, "cents": told(self.open_cents)},
            "in_doubt": {"calls": self.in_doubt, "cents": told(self.in_doubt_cents)},
            "buys": [
                {
                    "source": p.group[0],
                    "lane": p.group[1],
                    "kind": p.group[2],
                    "jobs": p.jobs,
                    "cents": None if p.cents is None else told(p.cents),
                    "mean_cents": None if p.history is None else told(p.history.mean),
                    "basis": p.basis,
                }
                for p in self.purchases
            ],
            "cents": told(self.cents),
            "unknown": self.unknown,
            "budgets": list(self.budgets),
        }


def told(cents: Decimal) -> str:
    """As short as it can be told."""
    rounded = cents.quantize(PLACES).normalize()
    return f"{rounded:f}"


def history_of(jobs: Iterable[Mapping[str, Decimal]]) -> History | None:
    """Each job is what its steps cost."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    count = 0
    for steps in jobs:
        count += 1
        for step, cents in steps.items():
            sums[step] += cents
    if not count:
        return None
    return History(count, {step: cents / count for step, cents in sums.items()})


def forecast(
    aims: Sequence[Aim],
    histories: Mapping[Group, History | None],
    *,
    buys: bool,
    anew: bool = False,
    resubmits: bool = False,
    budgets: Sequence[Mapping[str, Any]] = (),
) -> Forecast:
    """Of jobs that will run, if the act `buys`.

    With `anew` they use nothing of what they have; with `resubmits` what is in doubt is sent again.
    """
    purchases: dict[Group, list[Decimal | None]] = defaultdict(list)
    for aim in aims if buys else ():
        history = histories.get(group_of(aim))
        held = frozenset[str]() if anew else aim.calls.steps
        if resubmits:
            held -= aim.calls.doubt_steps
        rest = _rest(history, held)
        if rest is None or rest > 0:
            purchases[group_of(aim)].append(rest)
    calls = [aim.calls for aim in aims]
    return Forecast(
        jobs=len(aims),
        lanes=dict(sorted(Counter((a.job.source, a.lane) for a in aims).items())),
        running=sum(aim.state == "running" for aim in aims),
        used=sum(c.undelivered for c in calls),
        used_cents=sum((c.undelivered_cents for c in calls), Decimal(0)),
        open=sum(c.open for c in calls),
        open_cents=sum((c.open_cents for c in calls), Decimal(0)),
        in_doubt=sum(len(c.doubts) if resubmits else c.in_doubt for c in calls),
        in_doubt_cents=sum(
            (c.doubt_cents if resubmits else c.in_doubt_cents for c in calls), Decimal(0)
        ),
        purchases=[
            Purchase(
                group,
                len(rests),
                None if None in rests else sum((r for r in rests if r is not None), Decimal(0)),
                histories.get(group),
            )
            for group, rests in sorted(purchases.items())
        ],
        budgets=budgets,
    )


def _rest(history: History | None, held: frozenset[str]) -> Decimal | None:
    """What is left to buy. Without a history, a job that has something bought may need more."""
    if history is None:
        return None
    return sum((c for step, c in history.steps.items() if step not in held), Decimal(0))


def group_of(aim: Aim) -> Group:
    return aim.job.source, aim.lane, aim.kind
