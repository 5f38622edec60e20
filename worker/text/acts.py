"""What acts upon jobs say: what is foretold, what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from worker.acting import ERROR, Act, Result
from worker.commands.problems import explain
from worker.forecast import Forecast, Purchase
from worker.store.aims import Aim
from worker.store.finding import Found
from worker.text.values import dollars, many, on_one_line

MOST = 20
"""Lines about single jobs; of more there are counts."""

WHY_NOT = {
    "missing": "its row is gone",
    "changed": "it has changed since it was looked at",
    "running": "it is running; `rowmill cancel` first, to start it over",
    "waiting": "it waits already; `rowmill retry` hastens one that waits for its next try",
    "held": "it is held: `rowmill retry` lets it go on, with what is paid for",
    "unqueued": "it isn't queued yet: the sweep finds it within a minute",
    "none": "none of its calls is in doubt",
    "several": "several of its calls are in doubt: name one with --step; see `rowmill job show`",
    "taken": "another job's call has that id at the provider",
    "in_doubt": "a call of it is in doubt, which this could pay twice: `rowmill retry` asks the "
    "provider once more, `rowmill resolve` says what became of it",
    "open": "its provider still works on a call: `rowmill retry` takes that up, for nothing more; "
    "where it isn't failed or cancelled, try again once the call has ended",
    "undelivered": "a paid result of it was never delivered: `rowmill retry` uses it, for nothing "
    "more; --drop-paid lets it go and pays again",
}


def why_not(verdict: str, act: Act | None = None) -> str:
    if verdict == "running" and act is not None and act.name == "resolve":
        return "it is running, and finds out itself"
    return WHY_NOT.get(verdict, f"its status is {on_one_line(verdict)}")


def message(act: Act, result: Result) -> str:
    """What became of a job, said of it."""
    if result.error is not None:
        problem = explain(result.error)
        return on_one_line(problem.message if problem else str(result.error))
    if result.verdict is None:
        return "it wasn't come to"
    if not result.done:
        return why_not(result.verdict, act)
    said = act.done[result.verdict]
    did = result.did
    if act.name == "priority" and did is not None and did.ranked is not None:
        was = "" if did.rank == did.ranked else f", before {did.rank}"
        return f"{said}: rank {did.ranked}{was}"
    return said


def as_json(
    act: Act, jobs: Sequence[Mapping[str, Any]], forecast: Forecast, *, dry_run: bool
) -> dict[str, Any]:
    return {
        "action": act.name,
        "dry_run": dry_run,
        "matched": len(jobs),
        "done": sum(job["done"] for job in jobs),
        "forecast": forecast.as_json(),
        "jobs": list(jobs),
    }


def job_json(aim: Aim, verdict: str | None, *, done: bool, said: str) -> dict[str, Any]:
    return {
        "source": aim.job.source,
        "key": aim.job.key,
        "verdict": verdict,
        "done": done,
        "message": said,
    }


# --------------------------------------------------------------------------- what is foretold


def would(act: Act, aim: Aim, refused: Mapping[Found, str]) -> str:
    if aim.job in refused:
        return why_not(refused[aim.job], act)
    return f"it is {aim.state}, in lane {on_one_line(aim.lane)}"


def foretold(act: Act, forecast: Forecast, *, refused: int, more: bool) -> list[str]:
    lanes = [
        f"{jobs} of {source}, lane {on_one_line(lane) or '?'}"
        for (source, lane), jobs in forecast.lanes.items()
    ]
    if len(lanes) > MOST:
        lanes = [*lanes[:MOST], f"and of {len(lanes) - MOST} other lanes"]
    lines = [
        f"{act.name}: {many(forecast.jobs, 'job')}" + (": " if lanes else "") + "; ".join(lanes)
    ]
    if more:
        lines.append("  more jobs match than --limit lets in")
    if refused:
        lines.append(f"  {many(refused, 'job')} more can't be: see --dry-run")
    return lines + [f"  {line}" for line in _money(act, forecast)]


def _money(act: Act, f: Forecast) -> list[str]:
    if not act.buys:
        return _given_up(act, f)
    lines = []
    if f.used and not act.anew:
        lines.append(f"uses {many(f.used, 'result')} paid for already ({dollars(f.used_cents)})")
    if f.used and act.anew:
        lines.append(
            f"lets go {many(f.used, 'result')} that were paid for ({dollars(f.used_cents)})"
        )
    if f.open:
        lines.append(
            f"takes up {many(f.open, 'call')} that providers work on "
            f"(about {dollars(f.open_cents)}, nothing more)"
        )
    if f.in_doubt and act.resubmits:
        lines.append(
            f"sends again {many(f.in_doubt, 'call')} in doubt, paid for twice if the provider had "
            f"them (about {dollars(f.in_doubt_cents)})"
        )
    elif f.in_doubt and act.name == "retry":
        lines.append(
            f"{many(f.in_doubt, 'call')} in doubt (about {dollars(f.in_doubt_cents)}): the "
            "provider is asked; where it can't tell, what is cheap is sent again, the rest held"
        )
    lines += [_purchase(p) for p in f.purchases]
    lines.append(_total(f))
    lines += [
        f"{_budget(b['lane'])}: the {b['period']} budget has "
        f"{dollars(Decimal(b['left_cents']))} left of {dollars(Decimal(b['limit_cents']))}"
        for b in f.budgets
    ]
    return lines


def _given_up(act: Act, f: Forecast) -> list[str]:
    lines = []
    if act.name == "cancel":
        if f.running:
            lines.append(f"{many(f.running, 'job')} of them running now")
        if f.used:
            lines.append(
                f"gives up {many(f.used, 'result')} paid for and not delivered "
                f"({dollars(f.used_cents)})"
            )
        if f.open + f.in_doubt:
            lines.append(
                f"{many(f.open + f.in_doubt, 'call')} may have to be paid all the same "
                f"(about {dollars(f.open_cents + f.in_doubt_cents)})"
            )
    return [*lines, "buys nothing"]


def _purchase(p: Purchase) -> str:
    source, lane, kind = (on_one_line(word) or "?" for word in p.group)
    what = f"{source}, lane {lane}, {kind}: {many(p.jobs, 'job')}"
    if p.cents is None or p.history is None:
        return f"{what}, cost unknown ({p.basis})"
    return f"{what}, {dollars(p.cents)} (one costs {dollars(p.history.mean)}: {p.basis})"


def _total(f: Forecast) -> str:
    known = any(p.cents is not None for p in f.purchases)
    if not f.purchases:
        return "expected cost: nothing more"
    said = f"expected cost: {dollars(f.cents)}" if known else "expected cost: unknown"
    return said + (f", and unknown of {many(f.unknown, 'job')}" if known and f.unknown else "")


def _budget(lane: str) -> str:
    return "all lanes" if lane == "*" else f"lane {on_one_line(lane)}"


# --------------------------------------------------------------------------- what became of it


def one(act: Act, result: Result) -> tuple[list[str], list[str]]:
    """Of one job: the same."""
    if result.done:
        return [f"{_subject(result)} {message(act, result)}"], []
    return [], [_not_done(act, result)]


def _not_done(act: Act, result: Result) -> str:
    became = "look whether it was done" if result.unsure else "nothing was changed"
    return f"rowmill: {_subject(result)}: {became}: {message(act, result)}"


def outcome(act: Act, results: Sequence[Result]) -> tuple[list[str], list[str]]:
    """Of many jobs: what goes to standard output, and what to standard error."""
    done = [r for r in results if r.done]
    left = [r for r in results if r.verdict is None]
    not_done = [r for r in results if not r.done and r.verdict is not None]
    out = [f"{_subject(r)} {message(act, r)}" for r in done] if len(results) <= MOST else []
    err = [_not_done(act, r) for r in not_done]
    if len(err) > MOST:
        err = [*err[:MOST], f"rowmill: and {len(err) - MOST} more, which --json would name"]
    counts = Counter(r.verdict for r in not_done)
    parts = [f"{len(done)} of {many(len(results), 'job')} done"]
    if counts["changed"]:
        parts.append(f"{counts.pop('changed')} changed meanwhile")
    if counts[ERROR]:
        parts.append(f"{counts.pop(ERROR)} failed")
    refused = sum(counts.values())
    if refused:
        parts.append(f"{refused} refused")
    if left:
        parts.append(f"{len(left)} not come to")
    return [*out, f"{act.name}: {', '.join(parts)}"], err


def _subject(result: Result) -> str:
    return on_one_line(result.aim.job.subject)
