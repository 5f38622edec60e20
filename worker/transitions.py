"""The one place where the rules of a job's life stand: what an outcome means for its row.

Pure: knows no clock, no SQL, no randomness of its own.

    Succeeded   → succeed   the row is completed, its effects are written
    RetryLater  → retry     while tries are left: back to the queue after a back-off, one try spent
                → fail      none left
    Yield       → yield     back to the queue, no try spent
                → wait      the same, where nothing is wrong and it doesn't count
                → release   the same, and its lane is closed: it keeps its place
                → hold      after max_yields of them: something is wrong that waiting doesn't mend
    Failed      → fail
    Cancelled   → cancel
    Held        → hold      a person decides
    (drain)     → release   handed back untouched

A result the database refuses becomes a hold where money was spent on it, else a failure.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

from jobs.contract import (
    Cancelled,
    Failed,
    Failure,
    FailureKind,
    Held,
    Outcome,
    Output,
    RetryLater,
    Succeeded,
    Yield,
)
from jobs.registry import RetryPolicy

Verb = Literal["succeed", "fail", "retry", "yield", "wait", "release", "cancel", "hold"]

YIELD_SECONDS = {
    FailureKind.RATE_LIMIT: 5.0,
    FailureKind.TRANSIENT: 5.0,
    FailureKind.QUOTA: 60.0,
    FailureKind.AUTH: 60.0,
}
"""Failures that aren't the job's fault, and how long to stay away if the server doesn't say."""

WAVE = 30.0
"""Seconds over which jobs that wait for the same moment come back."""

HOPELESS = {FailureKind.INVALID, FailureKind.POLICY, FailureKind.ALLOWANCE}

MEDIA_NAMESPACE = uuid.UUID("5d1f9a52-6a6e-4d0e-9d2b-0f1f6f3f6f0e")
"""Output ids are derived from storage keys, so a repeat of the same work names the same file."""


@dataclass(frozen=True, slots=True)
class Try:
    """What the rules need to know of one run of one job."""

    queue_id: int
    token: int
    source: str
    key: str
    lane: str
    kind: str
    run: int
    tries: int
    max_retries: int
    yields: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is written for one job; fields as in the composite type rowmill.result."""

    queue_id: int
    token: int
    source: str
    key: str
    lane: str
    kind: str
    run: int
    verb: Verb
    try_: int = 0
    delay: float | None = None
    error: str | None = None
    error_kind: str | None = None
    error_code: str | None = None
    media_id: uuid.UUID | None = None
    outputs: tuple[Mapping[str, Any], ...] = ()
    text: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tokens: int | None = None
    cost_cents: Decimal | None = None
    provider: str | None = None
    model: str | None = None
    external_id: str | None = None
    duration_ms: int = 0

    def row(self) -> dict[str, Any]:
        """As one element of settle_<source>()'s batch."""
        return {
            "queue_id": self.queue_id,
            "token": self.token,
            "key": self.key,
            "lane": self.lane,
            "kind": self.kind,
            "run": self.run,
            "verb": self.verb,
            "try": self.try_,
            "delay": self.delay,
            "error": self.error,
            "error_kind": self.error_kind,
            "error_code": self.error_code,
            "media_id": self.media_id and str(self.media_id),
            "outputs": self.outputs,
            "text": self.text,
            "data": self.data,
            "metadata": self.metadata,
            "tokens": self.tokens,
            "cost_cents": self.cost_cents,
            "provider": self.provider,
            "model": self.model,
            "external_id": self.external_id,
            "duration_ms": self.duration_ms,
        }


def clean(value: Any) -> Any:
    """A JSON value without NUL and halves of surrogate pairs, which Postgres can't hold.

    Nothing a provider says should cost a paid result.
    """
    match value:
        case str():
            paired = value.replace("\x00", "").encode("utf-16-le", "surrogatepass")
            return paired.decode("utf-16-le", "replace")
        case Mapping():
            return {clean(key): clean(item) for key, item in value.items()}
        case list() | tuple():
            return [clean(item) for item in value]
    return value


def outcome_of(failure: Failure, *, billed: bool = False) -> Outcome:
    """What a provider's failure means for the job.

    One that was billed costs a try, whoever is to blame: `max_retries` bounds what is paid in vain.
    """
    if failure.kind in YIELD_SECONDS and not billed:
        return Yield(failure.message, failure.retry_after, failure)
    if failure.kind in HOPELESS:
        return Failed(failure)
    return RetryLater(failure)


def settle(
    outcome: Outcome,
    job: Try,
    *,
    policy: RetryPolicy,
    max_yields: int,
    chance: float,
    duration_ms: int = 0,
    spent: Decimal = Decimal(0),
) -> Settlement:
    """`chance` in [0, 1) is the caller's random number, for jitter; `spent` what the job paid."""
    match outcome:
        case Succeeded():
            return _succeed(outcome, job, duration_ms)
        case RetryLater(failure) if job.tries < job.max_retries:
            delay = back_off(policy, job.tries, chance, failure.retry_after)
            return _with(job, "retry", failure, spent, delay=delay)
        case RetryLater(failure) | Failed(failure):
            return _with(job, "fail", failure, spent)
        case Yield(keeps_place=True):
            return release(job)
        case Yield(reason, after, counts=False):
            # It may be for a day: the spread is only to keep all of them from coming at once.
            base = after or 1.0
            return _plain(job, "wait", reason, delay=base + min(base, WAVE) * chance)
        case Yield() if job.yields + 1 >= max_yields:
            reason = f"came back {job.yields + 1} times without spending a try: {outcome.reason}"
            return _plain(job, "hold", reason)
        case Yield(reason, after, failure):
            base = after if after is not None else _stay_away(failure)
            return _plain(job, "yield", reason, delay=jittered(base, policy.jitter, chance))
        case Cancelled(reason):
            return _plain(job, "cancel", reason)
        case Held(reason):
            return _plain(job, "hold", reason)


def release(job: Try) -> Settlement:
    """Handed back as it was: its worker leaves, or its lane's rate is used up."""
    return _plain(job, "release", None)


def refused(settlement: Settlement, message: str) -> Settlement:
    """The database refused this row's result. What was paid for is kept for a person to decide."""
    text = f"the database refused the result: {message}"
    paid = bool(settlement.cost_cents) or bool(settlement.outputs)
    if settlement.verb == "succeed" and not paid:
        verb: Verb = "fail"
    else:
        verb = "hold"
    return replace(
        settlement,
        verb=verb,
        error=text,
        error_kind=FailureKind.INVALID.value,
        error_code="refused",
        outputs=(),
        media_id=None,
        text=None,
        data={},
        metadata={},
        tokens=None,
        duration_ms=0,
    )


def back_off(policy: RetryPolicy, tries: int, chance: float, asked: float | None) -> float:
    # Tries are as many as a row's max_retries allows; a power of thousands overflows.
    delay = min(policy.cap, policy.base * policy.factor ** min(tries, 64))
    return jittered(max(delay, asked or 0.0), policy.jitter, chance)


def jittered(seconds: float, share: float, chance: float) -> float:
    """Never earlier than asked: the spread only adds."""
    return seconds * (1 + share * chance)


def _stay_away(failure: Failure | None) -> float:
    return YIELD_SECONDS.get(failure.kind, 5.0) if failure else 1.0


def _succeed(outcome: Succeeded, job: Try, duration_ms: int) -> Settlement:
    main = next((o for o in outcome.outputs if o.role == "main"), None)
    return replace(
        _plain(job, "succeed", None),
        media_id=media_id(main) if main else None,
        outputs=tuple(_output(o) for o in outcome.outputs),
        text=outcome.text,
        data=outcome.data,
        metadata=outcome.metadata,
        tokens=outcome.tokens,
        cost_cents=outcome.cost_cents,
        provider=outcome.provider,
        model=outcome.model,
        external_id=outcome.external_id,
        duration_ms=duration_ms,
    )


def media_id(output: Output) -> uuid.UUID:
    return uuid.uuid5(MEDIA_NAMESPACE, output.key)


def _output(output: Output) -> dict[str, Any]:
    return {
        "role": output.role,
        "media_id": str(media_id(output)),
        "key": output.key,
        "url": output.url,
        "mime_type": output.mime_type,
        "file_type": output.file_type,
        "size": output.size,
        "sha256": output.sha256,
        "filename": output.filename,
        "width": output.width,
        "height": output.height,
        "duration_seconds": output.duration_seconds,
        "codec": output.codec,
        "frame_rate": output.frame_rate,
        "bit_rate": output.bit_rate,
    }


def _plain(job: Try, verb: Verb, error: str | None, *, delay: float | None = None) -> Settlement:
    return Settlement(
        queue_id=job.queue_id,
        token=job.token,
        source=job.source,
        key=job.key,
        lane=job.lane,
        kind=job.kind,
        run=job.run,
        verb=verb,
        try_=job.tries + 1,
        delay=delay,
        error=error,
    )


def _with(
    job: Try, verb: Verb, failure: Failure, spent: Decimal, *, delay: float | None = None
) -> Settlement:
    return replace(
        _plain(job, verb, failure.message, delay=delay),
        error_kind=failure.kind.value,
        error_code=failure.code,
        provider=failure.provider,
        cost_cents=spent,
    )
