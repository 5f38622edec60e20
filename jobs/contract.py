"""The words handlers and the worker share.

A handler gets a `Job` and a `Context` and returns an `Outcome`. It knows nothing of rows, tries,
tokens or queues; the worker knows nothing of prompts or videos. All money is `Decimal` US cents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from email.message import EmailMessage
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

Json = Mapping[str, Any]
T = TypeVar("T")
MAX_PAGE = 5 * 1024**2


@dataclass(frozen=True, slots=True)
class Job:
    """One row of work as its handler sees it."""

    source: str
    key: str
    kind: str
    lane: str
    run: int
    """Goes up only when someone re-enqueues a finished row; a retry keeps it."""
    tries: int
    """Failed tries of this run so far."""
    max_retries: int
    tenant: str | None
    input: Json
    """What the platform's `input.sql` returned for the row."""


# --------------------------------------------------------------------------- failures


class FailureKind(StrEnum):
    """Why something went wrong, in the words that decide what happens next."""

    RATE_LIMIT = "rate_limit"  # told to slow down
    TRANSIENT = "transient"  # their trouble: 5xx, time-outs, overload
    QUOTA = "quota"  # our money or plan at the provider is used up
    AUTH = "auth"  # our key is refused
    INVALID = "invalid"  # the request can never work
    POLICY = "policy"  # refused for its content
    ALLOWANCE = "allowance"  # the customer's own plan or credits are used up
    GONE = "gone"  # a task or file the provider no longer has
    CANCELLED = "cancelled"  # the provider's task was cancelled, not by us
    UNKNOWN = "unknown"  # none of these


Accepted = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Failure:
    kind: FailureKind
    message: str
    code: str = ""
    provider: str | None = None
    retry_after: float | None = None
    """Seconds the server asked us to wait."""
    accepted: Accepted = "no"
    """Whether the provider may have taken (and billed) the request that failed."""


# --------------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class Output:
    """A file that is already in our storage."""

    role: Literal["main", "thumbnail"]
    key: str
    url: str
    mime_type: str
    file_type: Literal["image", "video", "audio", "document"]
    size: int
    sha256: str
    filename: str
    width: int | None = None
    height: int | None = None
    duration_seconds: float | None = None
    codec: str | None = None
    """Of the pictures of a video, or of sound: `h264`, `aac`."""
    frame_rate: float | None = None
    bit_rate: int | None = None
    """Bits a second, of the whole file."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a provider counted."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    seconds: Decimal | None = None
    characters: int = 0
    items: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class CallResult:
    """What one paid call brought, journaled before the handler sees it."""

    provider: str
    model: str
    external_id: str | None
    cost_cents: Decimal
    usage: Usage = field(default_factory=Usage)
    text: str | None = None
    vectors: Sequence[Sequence[float]] = ()
    outputs: tuple[Output, ...] = ()
    metadata: Json = field(default_factory=dict)


# --------------------------------------------------------------------------- outcomes


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The work is done. `data` is for the platform's `finish.sql`."""

    outputs: tuple[Output, ...] = ()
    text: str | None = None
    data: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    tokens: int | None = None
    cost_cents: Decimal = Decimal(0)
    provider: str | None = None
    model: str | None = None
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The job's own failure: costs a try."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Yield:
    """Not the job's fault (outage, rate limit, drain): goes back without spending a try."""

    reason: str
    after: float | None = None
    failure: Failure | None = None
    counts: bool = True
    """False where nothing is wrong: it may wait like this as often as it takes."""
    keeps_place: bool = False
    """Its lane is closed: it stays ready, where it was in the order."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It can never work."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Cancelled:
    reason: str = "cancelled"


@dataclass(frozen=True, slots=True)
class Held:
    """Only a person can decide; the job waits for `rowmill retry` or `rowmill cancel`."""

    reason: str


Outcome = Succeeded | RetryLater | Yield | Failed | Cancelled | Held


class JobEnds(Exception):
    """Raised anywhere inside a handler: unless it is caught, the job ends with this outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(_why(outcome))
        self.outcome = outcome


def _why(outcome: Outcome) -> str:
    match outcome:
        case Failed(failure) | RetryLater(failure):
            return failure.message
        case Yield(reason=reason) | Held(reason=reason) | Cancelled(reason=reason):
            return reason
    return "done"


# --------------------------------------------------------------------------- the web


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer from somebody's web server, whatever its status; its body is unpacked."""

    status: int
    url: str
    """Where redirects ended."""
    content_type: str
    body: bytes
    headers: Json = field(default_factory=dict)
    """Names in lower case."""


# --------------------------------------------------------------------------- paid calls


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """US cents per single token."""

    input: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class TextTask:
    model: str
    prompt: str
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    price: TokenPrice | None = None
    """The platform's own price (its `ai_models` row), before the price table's."""


@dataclass(frozen=True, slots=True)
class EmbedTask:
    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    price: TokenPrice | None = None


@dataclass(frozen=True, slots=True)
class MediaTask:
    medium: Literal["video", "image", "audio"]
    prompt: str
    model: str | None = None
    images: tuple[str, ...] = ()
    duration_seconds: int | None = None
    aspect_ratio: str | None = None
    resolution: str | None = None
    options: Json = field(default_factory=dict)


Task = TextTask | EmbedTask | MediaTask


class Context(Protocol):
    """What a handler may ask of the worker that runs it."""

    async def call(self, step: str, provider: str, task: Task) -> CallResult:
        """Make a paid call, or read back what this step already brought.

        `step` names the call within the job; a step that finished once is never paid for again.
        Raises `ProviderError` (see `jobs.providers.errors`); let it pass, the worker knows what
        each kind means for the job.
        """
        ...

    def check(self, provider: str, task: Task) -> None:
        """Raise what `call` would for a task that this provider can't make; nothing is sent.

        For a job of several calls: what the last would refuse is known before the first is paid.
        """
        ...

    def progress(self, percent: float) -> None:
        """Report how far the job is. Cheap: written for all jobs at once every two seconds."""
        ...

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """POST to a customer's URL under the host policy; returns the HTTP status."""
        ...

    async def fetch(
        self, url: str, headers: Mapping[str, str] | None = None, *, max_bytes: int = MAX_PAGE
    ) -> Fetched:
        """GET somebody's URL, under the same host policy; redirects are followed, each checked.

        Raises `JobEnds`: failed, where the URL is refused or its body larger than `max_bytes`;
        to be tried again, where there was no answer. Every status is an answer.
        """
        ...

    async def turn(self, name: str, gap_seconds: float) -> None:
        """Wait for this job's turn at `name`; turns are at least so far apart in the whole fleet.

        Where that would take long the job gives its slot back, at no cost of a try, and begins
        anew later: ask for a turn before anything that must not happen twice.
        """
        ...

    async def mail(self, message: EmailMessage) -> None:
        """Send through the configured mail server; it fills in From, Date and Message-ID.

        Raises `JobEnds`: held, where no server is configured or it doesn't let us in; failed,
        where it refuses the recipient or the message for good; else to be tried again.
        """
        ...

    async def offload(self, work: Callable[..., T], *args: Any) -> T:
        """Run short CPU-bound `work(*args)` in a thread."""
        ...

    async def compute(
        self,
        work: Callable[..., T],
        *args: Any,
        timeout: float = 600,  # noqa: ASYNC109 - kept by the pool, from the work's start
    ) -> T:
        """Run long CPU-bound `work(*args)` in a process of its own.

        A function of a module, with arguments, result and exceptions that can be pickled. It is
        killed after `timeout` seconds of work, or when the job ends early; it may be run again.
        """
        ...

    def file(self, reference: str) -> AbstractAsyncContextManager[Path]:
        """A copy of a file: of a key of our storage, or of an http(s) URL under the host policy.

        It is gone when the block ends. Raises `jobs.outputs.OutputError`; let it pass.
        """
        ...

    def link(self, reference: str) -> str | None:
        """The URL readers get for a key of our storage; an http(s) URL is its own."""
        ...

    async def keep(self, path: Path, name: str) -> Output:
        """Store a media file as `<source>/<row key>/<name>`: a repeat overwrites itself.

        Raises `jobs.outputs.OutputError`; let it pass.
        """
        ...
