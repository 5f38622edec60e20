"""Tasks nobody waits for any more: of cancelled jobs, and of jobs that went away meanwhile.

They cost money all the same, so each is ended if it can be, and its bill recorded.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from jobs.contract import CallResult, Failure, FailureKind
from jobs.providers import results
from jobs.providers.adapter import Ref, State
from jobs.providers.charges import Charges
from jobs.providers.errors import ProviderError
from jobs.providers.journal import Journal, Submission
from jobs.providers.journal import State as Step
from jobs.providers.registry import Provider
from jobs.providers.wire import MISSING_POLLS, NEVER_AGAIN, Wire

log = structlog.get_logger(__name__)

LOOKS = 5
"""How often a cancelled task is looked at before maintenance takes over."""


class Orphans:
    def __init__(self, providers: Mapping[str, Provider], wire: Wire, charges: Charges) -> None:
        self._providers = providers
        self._wire = wire
        self._charges = charges

    async def abandon(self, journal: Journal, submission: Submission) -> bool:
        """Whether it is settled now."""
        provider = self._provider(submission)
        ref = ref_of(provider, submission) if provider else None
        if provider is None or ref is None:
            return False
        request = provider.adapter.cancel(ref, provider.account)
        if request is not None:
            try:
                await self._wire.ask(provider, request, "cancel")
            except ProviderError as error:  # perhaps it has just ended; the polls will tell
                log.info("cancel failed", provider=provider.name, error=str(error))
        for _ in range(LOOKS):
            if await self.settle(journal, submission):
                return True
            await self._wire.sleep(provider.poll_seconds)
        return False

    async def settle(self, journal: Journal, submission: Submission) -> bool:
        """Whether it has ended. Without a reference there is nothing to look at."""
        provider = self._provider(submission)
        ref = ref_of(provider, submission) if provider else None
        if provider is None or ref is None:
            return False
        try:
            state = await self._look(provider, ref)
        except ProviderError as error:
            if error.failure.kind not in NEVER_AGAIN:
                log.info("poll failed", provider=provider.name, error=str(error))
                return False
            # Nobody can tell what it cost any more; it was most likely made.
            await journal.failed(submission.id, error.failure, cost_cents=submission.estimate_cents)
            return True
        if state.done:
            await self._record(journal, submission, provider, state)
        return state.done

    async def _look(self, provider: Provider, ref: Ref) -> State:
        """Lost as late as for a job that follows it: cancelled at once, it may be just as new."""
        for _ in range(MISSING_POLLS - 1):
            try:
                return await self._wire.poll(provider, ref)
            except ProviderError as error:
                if error.failure.kind is not FailureKind.GONE:
                    raise
            await self._wire.sleep(provider.poll_seconds)
        return await self._wire.poll(provider, ref)

    def _provider(self, submission: Submission) -> Provider | None:
        found = self._providers.get(submission.provider)
        open_ = submission.state in (Step.INTENT, Step.ACCEPTED, Step.UNKNOWN)
        same = found is not None and found.account.name == submission.account
        return found if open_ and same else None

    async def _record(
        self, journal: Journal, submission: Submission, provider: Provider, state: State
    ) -> None:
        estimate = submission.estimate_cents
        cost = self._charges.cost(provider, submission.model, state, None, estimate)
        if state.phase == "cancelled":
            await journal.cancelled(submission.id, cost_cents=cost)
        elif state.phase == "failed":
            failure = state.failure or Failure(FailureKind.UNKNOWN, "the task failed")
            await journal.failed(submission.id, failure, cost_cents=cost)
        else:
            # Not fetched, but paid for: should the job come back, `call` fetches it then.
            result = CallResult(
                provider=submission.provider,
                model=submission.model,
                external_id=state.external_id,
                cost_cents=cost,
                usage=state.usage,
                metadata=state.metadata,
            )
            value = results.to_json(result, kept=False)
            await journal.finished(submission.id, result=value, cost_cents=cost)


def ref_of(provider: Provider, submission: Submission) -> Ref | None:
    """By which the provider can be asked about it; also where only a person knew its name."""
    if submission.ref is None and submission.external_id is not None:
        return provider.adapter.ref(submission.external_id, submission.model)
    return submission.ref
