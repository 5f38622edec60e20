"""Look for a submission we lost sight of in the provider's own list of tasks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from jobs.contract import Failure, FailureKind, Task
from jobs.providers.adapter import Match, Page, Request
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.journal import Journal, Submission
from jobs.providers.registry import Provider
from jobs.providers.wire import Wire

CLOCK_SKEW = timedelta(seconds=5)
"""Between the database, which dates the intent, and the provider, which dates its task."""
MAX_PAGES = 200


@dataclass(frozen=True, slots=True)
class Found:
    candidates: tuple[Match, ...]
    """Tasks like ours that no submission owns. They are interchangeable: any will do."""
    doubtful: bool
    """Something might be ours and can't be told any more, so "not found" proves nothing."""


async def search(
    wire: Wire, journal: Journal, provider: Provider, task: Task, lost: Submission
) -> Found:
    """Raises `ProviderError` (transient) when the provider can't be asked now."""
    candidates: list[Match] = []
    doubtful: list[str] = []
    request = provider.adapter.find(provider.account)
    for _ in range(MAX_PAGES):
        if request is None:
            break
        page = await _page(wire, provider, task, lost, request)
        candidates += page.matches
        doubtful += page.doubtful
        request = page.next
    ids = [*(match.external_id for match in candidates), *doubtful]
    owned = await journal.known(provider.name, provider.account.name, ids) if ids else set()
    return Found(
        candidates=tuple(match for match in candidates if match.external_id not in owned),
        doubtful=request is not None or any(name not in owned for name in doubtful),
    )


async def _page(
    wire: Wire, provider: Provider, task: Task, lost: Submission, request: Request
) -> Page:
    since = lost.intended_at - CLOCK_SKEW
    try:
        response = await wire.ask(provider, request, "find")
        return provider.adapter.match(task, lost.model, since, response, provider.account)
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
