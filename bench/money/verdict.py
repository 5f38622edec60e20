"""The verdict of the money proof: bill and injected faults on one side, ledger and rows on the other.

Acceptance of a call can't be known where the provider can't be asked about it and its answer never
got into the ledger. That is so exactly when

    a fault took the answer away         the sandbox says which faults were met, and by which job
    its worker died before it was told   the sandbox says when each answer was told, if at all
    its worker died between the intent and the journal of the answer     failpoints say so themselves

A worker that dies at any other moment may have journaled the answer that it was just told, or not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from bench.money.crew import LEASE, Death
from bench.money.work import ASKED, IN_DOUBT, Job
from worker.demo import verdict as demo
from worker.store import Store

BLIND = ("intent.committed", "post.due", "post.answered", "answer.away")
"""Whoever dies here knows alone what became of its call."""
OPEN = ("intent", "accepted", "unknown")
JUST_NOW = timedelta(seconds=LEASE)
"""An answer that was told longer before a death has been journaled."""


@dataclass(frozen=True, slots=True)
class Charge:
    marker: str
    operation: str
    cents: Decimal
    """What is left of it after refunds: what failed costs nothing."""
    external_id: str
    at: datetime
    told_at: datetime | None


@dataclass(frozen=True, slots=True)
class Call:
    """A row of the ledger."""

    marker: str
    step: str
    provider: str
    state: str
    estimate: Decimal
    cost: Decimal | None
    external_id: str | None
    worker: str
    delivered: bool

    @property
    def risked(self) -> bool:
        """Sent again without knowing what became of it."""
        return self.state == "written_off" and self.cost is None


@dataclass(frozen=True, slots=True)
class Row:
    marker: str
    status: str
    held: bool
    sound: bool
    """All that belongs to its status is there."""


@dataclass(frozen=True, slots=True)
class Evidence:
    jobs: Sequence[Job]
    charges: Sequence[Charge]
    calls: Sequence[Call]
    rows: Sequence[Row]
    met: Mapping[str, Sequence[str]]
    """Marker → the faults that the sandbox made."""
    deaths: Sequence[Death]
    resubmit_up_to: Decimal


@dataclass(slots=True)
class Verdict:
    evidence: Evidence
    problems: list[str] = field(default_factory=list)
    """In words, what shouldn't be; each beside the number it is counted in."""
    duplicates: int = 0
    resent: list[Call] = field(default_factory=list)
    unresolved: list[Call] = field(default_factory=list)
    ledger_cents: Decimal = Decimal(0)
    bill_cents: Decimal = Decimal(0)
    undelivered: int = 0
    lost: int = 0

    @property
    def sound(self) -> bool:
        return not self.problems

    def row(self) -> dict[str, Any]:
        given = self.evidence
        return {
            "name": "money",
            "jobs": len(given.rows),
            "kills": len(given.deaths),
            "faults": sum(len(faults) for faults in given.met.values()),
            "charges": len(given.charges),
            "duplicate_charges": self.duplicates,
            "allowed_resubmissions": len(self.resent),
            "unresolved": len(self.unresolved),
            "unresolved_cents": plain(sum((c.estimate for c in self.unresolved), Decimal(0))),
            "ledger_cents": plain(self.ledger_cents),
            "bill_cents": plain(self.bill_cents),
            "undelivered": self.undelivered,
            "lost": self.lost,
        }


def plain(cents: Decimal) -> str:
    text = f"{cents:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def judge(evidence: Evidence) -> Verdict:
    verdict = Verdict(evidence)
    calls, charges = _by_marker(evidence.calls), _by_marker(evidence.charges)
    for marker in sorted(calls.keys() | charges.keys()):
        _judge_money(verdict, marker, calls[marker], charges[marker])
    for row in evidence.rows:
        _judge_row(verdict, row, calls[row.marker])
    if len(evidence.rows) != len(evidence.jobs):
        verdict.problems.append(f"{len(evidence.jobs)} jobs became {len(evidence.rows)} rows")
    if verdict.ledger_cents != verdict.bill_cents:
        verdict.problems.append(
            f"the ledger has {plain(verdict.ledger_cents)} cents, "
            f"the bill {plain(verdict.bill_cents)}"
        )
    return verdict


# ------------------------------------------------------------------------------ money


def _judge_money(
    verdict: Verdict, marker: str, calls: Sequence[Call], charges: Sequence[Charge]
) -> None:
    given = verdict.evidence
    verdict.unresolved += [call for call in calls if call.state in OPEN]
    verdict.resent += [call for call in calls if call.risked]
    _judge_doubts(verdict, marker, calls, charges)
    for call in calls:
        if call.risked and call.estimate > given.resubmit_up_to:
            verdict.problems.append(f"{marker}: a call of {call.estimate:f} cents was sent again")
    repeated = _repeated(charges)
    excused = min(repeated, sum(call.risked for call in calls))
    if repeated > excused:
        verdict.duplicates += repeated - excused
        verdict.problems.append(f"{marker}: paid {repeated - excused} times more than once")
    ours = sum((call.cost or Decimal(0) for call in calls if call.state not in OPEN), Decimal(0))
    theirs = sum((charge.cents for charge in _resolved(calls, charges)), Decimal(0))
    verdict.ledger_cents += ours
    verdict.bill_cents += theirs
    if ours != theirs:
        verdict.problems.append(f"{marker}: {ours:f} cents in the ledger, {theirs:f} on the bill")


def _repeated(charges: Iterable[Charge]) -> int:
    """Charges of a step beyond its first; of an operation there is one step in each job."""
    paid: dict[str, int] = defaultdict(int)
    for charge in charges:
        paid[charge.operation] += charge.cents > 0
    return sum(times - 1 for times in paid.values() if times > 1)


def _resolved(calls: Sequence[Call], charges: Sequence[Charge]) -> Sequence[Charge]:
    """Without those of calls whose fate nobody learnt: of these, the last are the known ones."""
    if all(call.provider == ASKED for call in calls):
        return charges
    ordered = sorted(charges, key=lambda charge: charge.at)
    known = {call.external_id for call in calls if call.external_id and call.state not in OPEN}
    if known:
        return [charge for charge in ordered if charge.external_id in known]
    paid = sum(bool(call.cost) for call in calls)  # these have no name but their job's
    return ordered[len(ordered) - paid :]


def _judge_doubts(
    verdict: Verdict, marker: str, calls: Sequence[Call], charges: Sequence[Charge]
) -> None:
    """Unresolved are exactly the calls that can't be known, as far as they aren't sent again."""
    given = verdict.evidence
    for call in calls:
        if call.state in OPEN and (call.provider == ASKED or call.state == "accepted"):
            verdict.problems.append(
                f"{marker}: {call.state} at {call.provider}, which can be asked"
            )
    mute = [call for call in calls if call.provider != ASKED]
    doubted = [call for call in mute if call.state in OPEN or call.risked]
    sure = _unknowable(given, marker, charges)
    if sure and mute and not doubted:
        verdict.problems.append(f"{marker}: {sure}, and yet its call is {mute[-1].state}")
    for call in doubted:
        if not sure and not _died_with(given, call, charges):
            verdict.problems.append(f"{marker}: {call.state}, and nothing took its answer away")
        if call.state in OPEN and call.estimate <= given.resubmit_up_to:
            verdict.problems.append(f"{marker}: {call.state}, though it may be sent again")


def _unknowable(given: Evidence, marker: str, charges: Sequence[Charge]) -> str:
    """Why nobody can know about a call of this job; "" where nothing says so for certain."""
    met = [fault for fault in given.met.get(marker, ()) if fault in IN_DOUBT]
    if met:
        return f"it met {met[0]}"
    if any(charge.told_at is None for charge in charges):
        return "its answer was told to nobody"
    died = [d.point for d in given.deaths if d.marker == marker and d.point in BLIND]
    return f"its worker died at {died[0]}" if died else ""


def _died_with(given: Evidence, call: Call, charges: Sequence[Charge]) -> bool:
    death = next((death for death in given.deaths if death.worker == call.worker), None)
    if death is None:
        return False
    told = [charge.told_at for charge in charges if charge.told_at is not None]
    return not told or max(told) > death.seen_at - JUST_NOW


# ------------------------------------------------------------------------------ rows


def _judge_row(verdict: Verdict, row: Row, calls: Sequence[Call]) -> None:
    ends = {job.marker: job.ends for job in verdict.evidence.jobs}[row.marker]
    in_doubt = any(call.state in OPEN for call in calls)
    if row.held != in_doubt or (not row.held and row.status != ends):
        verdict.lost += 1
        state = "held" if row.held else row.status
        verdict.problems.append(f"{row.marker}: it should have {ends}, and is {state}")
    kept = [call for call in calls if call.state == "finished" and not call.delivered]
    if kept or not row.sound:
        verdict.undelivered += 1
        verdict.problems.append(f"{row.marker}: paid for and not delivered")


# ------------------------------------------------------------------------------ reading

_CALLS = """
SELECT u.source || '/' || u.row_key AS marker, u.step, u.provider, u.state::text AS state,
       u.estimate_cents AS estimate, u.cost_cents AS cost,
       coalesce(u.external_id, u.result ->> 'external_id') AS external_id,
       coalesce(w.name, '') AS worker, u.delivered_at IS NOT NULL AS delivered
  FROM rowmill.submissions u LEFT JOIN rowmill.workers w ON w.id = u.worker ORDER BY u.id
"""


async def gather(
    store: Store,
    bill: Mapping[str, Any],
    met: Iterable[Mapping[str, Any]],
    *,
    jobs: Sequence[Job],
    deaths: Sequence[Death],
    resubmit_up_to: Decimal,
) -> Evidence:
    faults: dict[str, list[str]] = defaultdict(list)
    for one in met:
        faults[one["whose"]] += [one["fault"]] * one["times"]
    return Evidence(
        jobs=jobs,
        charges=[_charge(line) for line in bill["charges"]],
        calls=[Call(**dict(row)) for row in await store.fetch(_CALLS)],
        rows=[_row(row) for row in await demo.rows_of(store)],
        met=faults,
        deaths=deaths,
        resubmit_up_to=resubmit_up_to,
    )


def _charge(line: Mapping[str, Any]) -> Charge:
    told = line["told_at"]
    return Charge(
        marker=line["marker"],
        operation=line["operation"],
        cents=Decimal(line["cents"]) - Decimal(line["refunded"]),
        external_id=line["external_id"],
        at=datetime.fromisoformat(line["at"]),
        told_at=datetime.fromisoformat(told) if told else None,
    )


def _row(row: demo.Row) -> Row:
    return Row(row.marker, row.status, row.held, row.delivered)


T = TypeVar("T", Call, Charge)


def _by_marker(items: Iterable[T]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = defaultdict(list)
    for item in items:
        groups[item.marker].append(item)
    return groups
