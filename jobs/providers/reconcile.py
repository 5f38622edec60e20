"""Look for submissions we lost sight of in a provider's own list of tasks.

A listed task is told by its request, as the ledger's fingerprints are: what was sent is enough to
find it, and nobody has to make the same request again. Identical requests are interchangeable.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.contract import Failure, FailureKind
from jobs.providers.adapter import Listed, Page, Request
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.journal import Journal, Submission
from jobs.providers.registry import Provider
from jobs.providers.wire import Wire

CLOCK_SKEW = timedelta(seconds=5)
"""Between the database, which dates the intent, and the provider, which dates its task."""
MAX_PAGES = 200


@dataclass(frozen=True, slots=True)
class Listing:
    """What a provider has made for an account since some time."""

    provider: Provider
    tasks: tuple[Listed, ...]
    complete: bool

    def look_for(self, lost: Submission, fingerprint: str, owned: AbstractSet[str]) -> Found:
        """`owned`: ids of tasks that submissions have."""
        since, account = lost.intended_at - CLOCK_SKEW, self.provider.account
        free = [
            task
            for task in self.tasks
            if task.created >= since and task.runs(lost.model) and task.external_id not in owned
        ]
        return Found(
            candidates=tuple(task for task in free if task.answers(fingerprint, account)),
            doubtful=not self.complete or any(not task.requests for task in free),
        )


@dataclass(frozen=True, slots=True)
class Found:
    candidates: tuple[Listed, ...]
    """Tasks like ours that no submission owns: any will do."""
    doubtful: bool
    """Something might be ours and can't be told any more, so "not found" proves nothing."""


async def search(
    wire: Wire, journal: Journal, provider: Provider, fingerprint: str, lost: Submission
) -> Found:
    """Raises `ProviderError` (transient) when the provider can't be asked now."""
    listing = await tasks_since(wire, provider, lost.intended_at - CLOCK_SKEW)
    ids = [task.external_id for task in listing.tasks if task.runs(lost.model)]
    owned = await journal.known(provider.name, provider.account.name, ids) if ids else set()
    return listing.look_for(lost, fingerprint, owned)


async def tasks_since(wire: Wire, provider: Provider, since: datetime) -> Listing:
    """Raises `ProviderError` (transient) when the provider can't be asked now."""
    tasks: list[Listed] = []
    request = provider.adapter.find(provider.account)
    for _ in range(MAX_PAGES):
        if request is None:
            break
        page = await _page(wire, provider, since, request)
        tasks += page.tasks
        request = page.next
    return Listing(provider, tuple(tasks), complete=request is None)


def chance_left(lease: float, provider: Provider, lost: Submission) -> float:
    """Seconds in which whoever sent it may still get its answer: "not there" proves nothing yet."""
    return lease + provider.request_timeout - lost.age_seconds


async def _page(wire: Wire, provider: Provider, since: datetime, request: Request) -> Page:
    try:
        response = await wire.ask(provider, request, "find")
        return provider.adapter.listed(since, response, provider.account)
    except ProviderError as error:
        raise unsettled(provider, str(error), error.failure.retry_after) from error
    except Garbled as error:
        raise unsettled(provider, str(error), None) from error


def unsettled(provider: Provider, why: str, after: float | None) -> ProviderError:
    """It isn't known yet whether an earlier request was accepted: come back later."""
    return ProviderError(
        Failure(
            FailureKind.TRANSIENT,
            f"an earlier request to {provider.name} is not settled: {why}",
            "unsettled",
            provider.name,
            after,
            accepted="unknown",
        )
    )
