"""What the runner needs of the ledger: the journal of one job's paid calls.

The worker implements it over `rowmill.submissions`, bound to one claim. Every method returns once
its change is committed. A submission moves

    intent ──> accepted ──> finished
       │          ├───────> failed | cancelled
       ├──> unknown ──> accepted | written_off
       └──> finished | failed | written_off          (a synchronous call skips `accepted`)
    finished ──> failed                              (what it brought turned out to be of no use)

and a step has at most one submission that is not failed, cancelled or written off. A failure that
was billed counts as live until its job has settled: a crash in between doesn't buy it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from jobs.contract import Failure


class State(StrEnum):
    INTENT = "intent"
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WRITTEN_OFF = "written_off"


class LostClaim(Exception):
    """The job is no longer ours: stop at once, pay nothing more, write nothing."""


class NotNow(Exception):
    """Not now: a budget or a rate is used up, everything is paused, or others have their turn."""

    def __init__(self, reason: str, after: float, *, keeps_place: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after
        """Seconds until it may be otherwise."""
        self.keeps_place = keeps_place
        """Its lane is closed until then, so it needs no time of its own to come back."""


class NotAllowed(Exception):
    """The customer's plan, tokens or credits are used up: the job fails, and nothing was paid."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The ledger may have forgotten what it was told in this time: a failover lost commits."""

    since: datetime
    until: datetime
    age_seconds: float
    """Since `until`, by the database's clock."""


@dataclass(frozen=True, slots=True)
class Submission:
    id: int
    state: State
    provider: str
    account: str
    model: str
    estimate_cents: Decimal
    cost_cents: Decimal | None
    ref: Mapping[str, Any] | None
    """What the adapter needs to find its task again; opaque to everyone else."""
    result: Mapping[str, Any] | None
    external_id: str | None
    """Set without a `ref` where a person told us what the provider calls it."""
    fingerprint: str | None
    """Of the request it stands for; see `Request.fingerprint`."""
    age_seconds: float
    """Since the intent, by the database's clock."""
    intended_at: datetime
    fresh: bool
    """True only for the caller who must now send the request."""
    gap: Gap | None = None
    """In which an earlier submission of this may have been forgotten."""


class Journal(Protocol):
    async def intend(
        self,
        step: str,
        *,
        provider: str,
        account: str,
        model: str,
        estimate_cents: Decimal,
        fingerprint: str,
    ) -> Submission:
        """Record the intent to pay, or return the step's live submission (`fresh=False`).

        One in state `failed` comes with its failure as `result`: it was billed, and is told again.

        Raises `LostClaim` when the job's claim is gone, `NotNow` when nothing may be spent,
        `NotAllowed` when its customer may not.
        """
        ...

    async def begun(self, step: str) -> bool:
        """Whether `intend` would find something: a submission that lives, or must be told."""
        ...

    def may_pay(self) -> bool:
        """Whether our last acknowledged heartbeat is young enough to send money now."""
        ...

    async def accepted(self, submission: int, *, ref: Mapping[str, Any], external_id: str) -> bool:
        """Record the provider's task. False when another submission already owns that id."""
        ...

    async def unknown(self, submission: int, failure: Failure) -> None: ...

    async def finished(
        self, submission: int, *, result: Mapping[str, Any], cost_cents: Decimal
    ) -> None: ...

    async def failed(self, submission: int, failure: Failure, *, cost_cents: Decimal) -> None: ...

    async def cancelled(self, submission: int, *, cost_cents: Decimal) -> None: ...

    async def written_off(self, submission: int, reason: str, *, unpaid: bool) -> bool:
        """False when it was accepted or had ended by then.

        `unpaid`: it is certain that the provider never took it.
        """
        ...

    async def park(self, submission: int, contents: Sequence[bytes]) -> None:
        """Keep the files of an answer while the storage is down."""
        ...

    async def parked(self, submission: int) -> list[bytes]: ...

    async def kept(self, submission: int, *, result: Mapping[str, Any]) -> None:
        """Of one that finished: its outputs are in their place now, and nothing is parked."""
        ...

    async def spoiled(self, submission: int, failure: Failure, *, cost_cents: Decimal) -> None:
        """Of one that finished: what it brought is of no use. It was paid for all the same."""
        ...

    async def known(self, provider: str, account: str, external_ids: Sequence[str]) -> set[str]:
        """Which of these provider tasks some submission already owns."""
        ...
