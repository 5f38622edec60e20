"""What a provider's adapter is: its protocol as pure functions.

An adapter builds requests and reads responses. It does no I/O, keeps no state and reads no clock
(a `Response` carries the time it was received), so each of its rules can be tested on plain values.
The runner does everything else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol

from jobs.contract import Failure, Task, Usage
from jobs.providers.errors import Garbled
from jobs.providers.prices import PriceTable

Ref = Mapping[str, Any]
Op = Literal["submit", "poll", "cancel", "find"]
Phase = Literal["queued", "running", "succeeded", "failed", "cancelled", "unknown"]

SECRET_HEADER = re.compile("auth|key|token|secret|password", re.IGNORECASE)
SECRET_LENGTH = 8
"""No vendor's key is shorter; a shorter word may well be a part of an honest answer."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where and as whom we talk to a provider."""

    name: str
    base_url: str
    """Includes the version path (`…/v1`), as the vendors' own SDKs have it."""
    api_key: str = field(default="", repr=False)
    models: Mapping[str, str] = field(default_factory=dict)
    """The default model per medium, for tasks that name none."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request: versions, projects."""

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What an answer must not repeat: the key, and what headers of our own may hold as well."""
        given = [value for name, value in self.headers.items() if SECRET_HEADER.search(name)]
        words = set(" ".join([self.api_key, *given]).split())  # `Bearer` apart
        words |= {word.replace("/", "\\/") for word in words}  # as some write JSON
        return tuple(word.encode() for word in words if len(word) >= SECRET_LENGTH)

    def over(self, headers: Mapping[str, str]) -> dict[str, str]:
        """`headers` with the account's own over them, in whatever case either is written."""
        own = {name.lower() for name in self.headers}
        return {k: v for k, v in headers.items() if k.lower() not in own} | dict(self.headers)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Any = None
    form: Mapping[str, str | bytes] | None = None
    """Sent as multipart/form-data instead of JSON; bytes become a file."""

    def fingerprint(self, account: Account) -> str:
        """What is asked for, wherever the provider is reached and with whatever key."""
        form = {name: _digest(value) for name, value in (self.form or {}).items()}
        asked = [self.method, self.url.removeprefix(account.base_url), _same(self.json), form]
        text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _same(value: Any) -> Any:
    """A provider that repeats our JSON may write 2 where we wrote 2.0."""
    if isinstance(value, dict):
        return {name: _same(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_same(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digest(value: str | bytes) -> str:
    return value if isinstance(value, str) else hashlib.sha256(value).hexdigest()


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """Case-insensitive when it comes from the runner."""
    body: bytes
    received: datetime
    asked: str = ""
    """The path that was asked for, below the account's base URL."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Garbled(f"the body is not JSON: {error}") from error

    def object(self) -> Mapping[str, Any]:
        value = self.json()
        if not isinstance(value, dict):
            raise Garbled(f"the body is a JSON {type(value).__name__}, not an object")
        return value


@dataclass(frozen=True, slots=True)
class RemoteOutput:
    """A file that is still at the provider, or came inside the answer."""

    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What a response says about the task."""

    phase: Phase
    """`unknown`: a status we have never heard of; polling goes on."""
    ref: Ref | None = None
    """Set by asynchronous providers: what `poll` and `cancel` need."""
    external_id: str | None = None
    progress: float | None = None
    """Per cent."""
    outputs: tuple[RemoteOutput, ...] = ()
    text: str | None = None
    vectors: Sequence[Sequence[float]] = ()
    usage: Usage = field(default_factory=Usage)
    failure: Failure | None = None
    poll_after: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.phase in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Listed:
    """A task in a provider's list, whoever ordered it."""

    external_id: str
    ref: Ref
    created: datetime
    models: tuple[str, ...]
    """What it may have been ordered as: a model, or the version that stands behind its colon."""
    requests: tuple[Request, ...]
    """Each as `submit` would have made it; empty where the provider has dropped what would tell."""
    state: State
    """`unknown` where that can't be read."""

    def runs(self, model: str) -> bool:
        return model.rpartition(":")[2] in self.models

    def answers(self, fingerprint: str, account: Account) -> bool:
        return any(request.fingerprint(account) == fingerprint for request in self.requests)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a provider's list: what was made since the time that was asked for."""

    tasks: tuple[Listed, ...] = ()
    next: Request | None = None


class Adapter(Protocol):
    """All arguments go by position, so that an adapter may name the unused ones `_…`."""

    @property
    def name(self) -> str: ...

    @property
    def base_url(self) -> str:
        """The vendor's own; the configuration may name another."""
        ...

    @property
    def models(self) -> Mapping[str, str]:
        """The default model per medium."""
        ...

    @property
    def poll_seconds(self) -> float:
        """The pause between two looks at a task that the vendor asks for."""
        ...

    def model(self, task: Task, account: Account, /) -> str:
        """The model this task will run on. Raises `ProviderError` when there is none."""
        ...

    def check(self, task: Task, account: Account, prices: PriceTable, /) -> None:
        """Raise `ProviderError` (invalid) for what the provider cannot make: before paying."""
        ...

    def estimate(self, task: Task, model: str, prices: PriceTable, /) -> Decimal: ...

    def cost(self, model: str, state: State, prices: PriceTable, task: Task | None, /) -> Decimal:
        """What the provider bills for a task that ended. Without `task`: from the state alone."""
        ...

    def submit(self, task: Task, account: Account, /) -> Request: ...

    def ref(self, external_id: str, model: str, /) -> Ref | None:
        """What `poll` needs, from what a person tells us; None where nothing can be polled."""
        ...

    def poll(self, ref: Ref, account: Account, /) -> Request | None: ...

    def cancel(self, ref: Ref, account: Account, /) -> Request | None: ...

    def find(self, account: Account, /) -> Request | None:
        """The newest page of the account's tasks, or None where the provider can't be asked."""
        ...

    def listed(self, since: datetime, response: Response, account: Account, /) -> Page:
        """Read an answer to `find`, or to a page's `next`. Raises `Garbled`."""
        ...

    def parse(self, op: Op, response: Response, /) -> State:
        """Read a 2xx. Raises `Garbled`."""
        ...

    def classify(self, op: Op, response: Response, /) -> Failure:
        """Read anything but a 2xx: by the body's code, then the headers, then the status."""
        ...
