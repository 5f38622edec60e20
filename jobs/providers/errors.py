"""How a paid call can end without a result.

Exception
├── ProviderError        the call failed; `.failure.kind` says what that means for the job:
│     rate_limit · transient      later, without spending a try: not the job's fault
│     quota · auth                nobody's call can work: the lane needs an operator
│     invalid · policy            this call can never work: the job fails at once
│     gone · cancelled · unknown  this task is lost: another try may work
├── HeldForPerson        money may have been spent and no program can find out
├── Garbled              an answer of 2xx that is not what the protocol promises (internal)
├── LostClaim            (jobs.providers.journal) the job is no longer ours
├── NotNow, NotAllowed   (the same) nothing may be spent now; not for this customer
└── asyncio.CancelledError   the worker stops the job: a task already accepted stays accepted,
                         and the worker either resumes it later or calls `Runner.abandon`
"""

from __future__ import annotations

from jobs.contract import Failure, FailureKind


class ProviderError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class HeldForPerson(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Garbled(Exception):
    pass


def invalid(provider: str, message: str, code: str = "invalid_task") -> ProviderError:
    """For what can't work, found before anything was paid."""
    return ProviderError(Failure(FailureKind.INVALID, message, code, provider))
