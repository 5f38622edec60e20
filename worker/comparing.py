"""A provider's list of tasks beside the ledger: what either doesn't know, or knows otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

from jobs.providers.adapter import Listed
from jobs.providers.charges import Charges
from jobs.providers.journal import State as Step
from jobs.providers.reconcile import CLOCK_SKEW, Listing
from worker.store.finding import Found

Row = dict[str, Any]
Books = Mapping[str, Mapping[str, Any]]
"""The submissions that have tasks of the list, by the tasks' ids."""

MOST = 100
"""How many of a kind are told; beside them stands how many there are."""
AS_THERE = {"succeeded": Step.FINISHED, "failed": Step.FAILED, "cancelled": Step.CANCELLED}


def strangers(
    listing: Listing, books: Books, in_doubt: AbstractSet[str], before: datetime
) -> list[Row]:
    """Tasks that no submission has, and that none in doubt (by fingerprint) may turn out to have.

    Those made since the ledger was read may be in it by now.
    """
    account = listing.provider.account
    return [
        {
            "external_id": task.external_id,
            "created_at": task.created.isoformat(),
            "models": list(task.models),
            "phase": task.state.phase,
        }
        for task in listing.tasks
        if task.external_id not in books
        and task.created < before - CLOCK_SKEW
        and not any(request.fingerprint(account) in in_doubt for request in task.requests)
    ]


def ended(listing: Listing, books: Books) -> list[Row]:
    """What is over there and not here: a worker's maintenance fetches or records it."""
    return [
        {**call_of(row), "external_id": task.external_id, "phase": task.state.phase}
        for task, row in _both(listing, books)
        if row["state"] == Step.ACCEPTED and task.state.done
    ]


def differences(listing: Listing, books: Books, charges: Charges) -> list[Row]:
    """Calls that ended here, and otherwise there."""
    return [
        d for task, row in _both(listing, books) for d in _compared(listing, task, row, charges)
    ]


def absent(row: Mapping[str, Any]) -> Row:
    return _difference(row, "task", row["external_id"], None)


def call_of(row: Mapping[str, Any]) -> Row:
    return {
        "submission": str(row["id"]),
        "job": Found(row["source"], row["row_key"]).subject,
        "step": row["step"],
    }


def _both(listing: Listing, books: Books) -> Iterable[tuple[Listed, Mapping[str, Any]]]:
    found = ((task, books.get(task.external_id)) for task in listing.tasks)
    return ((task, row) for task, row in found if row is not None)


def _compared(
    listing: Listing, task: Listed, row: Mapping[str, Any], charges: Charges
) -> Iterable[Row]:
    """A task whose request is forgotten no longer tells what it cost either."""
    ours, there = row["state"], AS_THERE.get(task.state.phase)
    if ours not in AS_THERE.values() or task.state.phase == "unknown":
        return
    if there != ours:
        yield _difference(row, "state", ours, task.state.phase)
    elif task.requests and row["cost_cents"] is not None:
        estimate = row["estimate_cents"]
        cost = charges.cost(listing.provider, row["model"], task.state, None, estimate)
        if cost != row["cost_cents"]:
            yield _difference(row, "cost_cents", f"{row['cost_cents']:f}", f"{cost:f}")


def _difference(row: Mapping[str, Any], what: str, ours: str, theirs: str | None) -> Row:
    told = {"external_id": row["external_id"], "what": what, "ours": ours, "theirs": theirs}
    return call_of(row) | told
