"""Tasks of submissions that the ledger forgot: after a failover that lost commits.

Whoever sent them may have committed everything, and it is gone. So before a fresh submission is
sent, the provider's list is asked for what was made in that time and has no submission: a task
like ours is taken over instead. Where there is no list nobody can tell, and it is sent: see
docs/decisions/0009.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from jobs.providers.adapter import Listed
from jobs.providers.journal import Gap, Journal, Submission
from jobs.providers.reconcile import CLOCK_SKEW, tasks_since, unsettled
from jobs.providers.registry import Provider
from jobs.providers.wire import Wire

log = structlog.get_logger(__name__)

Key = tuple[str, datetime]


class Strays:
    def __init__(self, wire: Wire, lease: float) -> None:
        self._wire = wire
        self._lease = lease
        self._found: dict[Key, tuple[Listed, ...]] = {}
        self._asking: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def like(
        self, journal: Journal, provider: Provider, fresh: Submission, fingerprint: str
    ) -> Sequence[Listed]:
        """Raises `ProviderError` (transient) as long as it can't be said."""
        gap = fresh.gap
        if gap is None or provider.adapter.find(provider.account) is None:
            return ()
        left = self._longest(provider) - gap.age_seconds
        if left > 0:
            why = "a failover may have lost it, and whoever sent it may still be heard"
            raise unsettled(provider, why, left)
        found = await self._all(journal, provider, gap)
        account = provider.account
        return [t for t in found if t.runs(fresh.model) and t.answers(fingerprint, account)]

    def _longest(self, provider: Provider) -> float:
        """After the gap: until then what was journaled in it may still arrive, and nothing else."""
        return self._lease + provider.request_timeout

    async def _all(self, journal: Journal, provider: Provider, gap: Gap) -> tuple[Listed, ...]:
        """Asked once; the tasks that others take over meanwhile, the ledger refuses."""
        key = (provider.name, gap.until)
        async with self._asking[key]:
            if key not in self._found:
                self._found[key] = await self._ask(journal, provider, gap)
        return self._found[key]

    async def _ask(self, journal: Journal, provider: Provider, gap: Gap) -> tuple[Listed, ...]:
        listing = await tasks_since(self._wire, provider, gap.since - CLOCK_SKEW)
        until = gap.until + timedelta(seconds=self._longest(provider))
        tasks = [task for task in listing.tasks if task.created < until]
        ids = [task.external_id for task in tasks]
        owned = await journal.known(provider.name, provider.account.name, ids) if ids else set()
        found = tuple(task for task in tasks if task.external_id not in owned)
        log.warning(
            "strays.found",
            provider=provider.name,
            since=gap.since.isoformat(),
            tasks=len(found),
            complete=listing.complete,
        )
        return found
