"""Requests of adapters, carried out: the only place where providers are spoken to.

pay     a POST that costs money: sent again only when nobody can have had it
ask     anything else: one answer, or a `ProviderError`
follow  polls until the task has ended, whatever goes wrong in between

What an answer says about how fast we ask is told to the door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import httpx
import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from jobs import failpoints
from jobs.contract import Accepted, Failure, FailureKind
from jobs.providers.adapter import Op, Ref, Request, Response, State
from jobs.providers.door import Door, Open
from jobs.providers.errors import Garbled, ProviderError
from jobs.providers.pace import used_up
from jobs.providers.registry import Provider
from jobs.providers.transport import excludes_acceptance

log = structlog.get_logger(__name__)

Sleep = Callable[[float], Awaitable[None]]

CONNECT_SECONDS = 10.0
MAX_ANSWER = 256 * 1024**2
"""A file inside of an answer is held in memory, so it can't be as large as a download."""
PAID_ATTEMPTS = 3
PATIENCE = 5.0
"""The longest wait in place before a paid POST is repeated; for more the job goes back."""
LONGEST_PAUSE = 60.0
UNTOLD = 5.0
"""How long a provider is left alone that has had enough and doesn't say for how long."""
NEVER_AGAIN = (FailureKind.GONE, FailureKind.POLICY)
"""Answers to a poll after which the task's output can't be had any more."""
MISSING_POLLS = 3
"""In a row: a new task may not have reached the replica that is asked first."""

_parsed = lru_cache(maxsize=1000)(httpx.URL)
"""The same few URLs take every paid request."""
_backoff = wait_random_exponential(multiplier=0.5, max=PATIENCE)


async def _at_once() -> float:
    return 0.0


class Wire:
    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        sleep: Sleep = asyncio.sleep,
        door: Door | None = None,
    ) -> None:
        self._client = client
        self._door = door or Open()
        self.sleep = sleep

    async def pay(
        self,
        provider: Provider,
        request: Request,
        before_each: Callable[[], None],
        again: Callable[[], Awaitable[float]] = _at_once,
    ) -> State:
        """Raises `ProviderError`; its failure says whether the provider may have accepted.

        `again` is asked before a repetition: seconds to wait, or 0 when it may be sent.
        """
        refused: Failure | None = None

        async def once() -> State:
            nonlocal refused
            if refused is not None and (wait := await again()):
                raise ProviderError(replace(refused, retry_after=wait))
            before_each()
            failpoints.reached("post.due")
            try:
                response = await self.ask(provider, request, "submit")
            except ProviderError as error:
                refused = error.failure
                raise
            try:
                return provider.adapter.parse("submit", response)
            except Garbled as error:
                raise _unreadable(provider, error, "unknown") from error

        retrying = AsyncRetrying(
            retry=retry_if_exception(_may_repeat),
            stop=stop_after_attempt(PAID_ATTEMPTS),
            wait=_pause,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return await retrying(once)
        except ProviderError as error:
            failure = error.failure
            if failure.kind is FailureKind.RATE_LIMIT and failure.retry_after is None:
                self._door.told(provider.name, UNTOLD)
            raise

    async def poll(self, provider: Provider, ref: Ref) -> State:
        """One look at a task."""
        request = provider.adapter.poll(ref, provider.account)
        assert request is not None, "what has a reference can be polled"
        response = await self.ask(provider, request, "poll")
        try:
            return provider.adapter.parse("poll", response)
        except Garbled as error:
            raise _unreadable(provider, error, "no") from error

    async def follow(
        self, provider: Provider, ref: Ref, first_after: float, progress: Callable[[float], None]
    ) -> State:
        """Poll until the task has ended. The job's deadline is the worker's to keep."""
        pause, troubles, missing = first_after, 0, 0
        while True:
            await self.sleep(pause)
            failpoints.reached("poll.due")
            try:
                state = await self.poll(provider, ref)
            except ProviderError as error:
                troubles += 1
                missing = missing + 1 if error.failure.kind is FailureKind.GONE else 0
                refused = error.failure.kind is FailureKind.POLICY
                if missing == MISSING_POLLS or refused or _hopeless(error.failure):
                    raise
                pause = _pause_after(error.failure, provider.poll_seconds, troubles)
                log.warning("poll failed", provider=provider.name, error=str(error), again=pause)
                continue
            troubles = missing = 0
            if state.phase == "unknown":
                log.warning("unknown status", provider=provider.name, metadata=dict(state.metadata))
            if state.progress is not None:
                progress(state.progress)
            if state.done:
                failpoints.reached("poll.ended")
                return state
            pause = state.poll_after or provider.poll_seconds

    async def ask(self, provider: Provider, request: Request, op: Op) -> Response:
        try:
            response = await self._send(provider, request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderError(_network_failure(provider, error)) from error
        if response.ok:
            self._pace(provider, used_up(response))
            return response
        failure = provider.adapter.classify(op, response)
        if failure.kind is FailureKind.RATE_LIMIT:
            self._pace(provider, failure.retry_after)
        raise ProviderError(failure)

    def _pace(self, provider: Provider, wait: float | None) -> None:
        if wait:
            self._door.told(provider.name, wait)

    async def _send(self, provider: Provider, request: Request) -> Response:
        """The whole exchange within `request_timeout`: a server can't drip for ever."""
        limit = provider.request_timeout
        try:
            async with asyncio.timeout(limit):
                asked = self._client.build_request(
                    request.method,
                    _parsed(request.url),
                    headers=dict(request.headers),
                    json=request.json,
                    files=_parts(request.form),
                    timeout=httpx.Timeout(limit, connect=min(CONNECT_SECONDS, limit)),
                )
                answer = await self._client.send(asked, stream=True, follow_redirects=False)
                try:
                    content = await _whole(answer)
                finally:
                    await answer.aclose()
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"no complete answer in {limit:g} s") from error
        headers, body = _discreet(answer.headers, content, provider.account.secrets)
        return Response(
            answer.status_code,
            headers,
            body,
            received=datetime.now(UTC),
            asked=request.url.removeprefix(provider.account.base_url),
        )


async def _whole(answer: httpx.Response) -> bytes:
    """The answer unpacked, unless it is more than anybody would want to hold."""
    chunks, size = [], 0
    async for chunk in answer.aiter_bytes():
        size += len(chunk)
        if size > MAX_ANSWER:
            raise httpx.RemoteProtocolError(f"the answer is larger than {MAX_ANSWER:,} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _discreet(
    headers: httpx.Headers, body: bytes, secrets: Sequence[bytes]
) -> tuple[httpx.Headers, bytes]:
    """Without our secrets: some answers repeat the key, and much of what they say is kept.

    Here, before anybody has read or shortened it: half a key can't be recognized any more.
    """
    for secret in secrets:
        body = body.replace(secret, b"***")
        if any(secret in value for _, value in headers.raw):
            told = [(name, value.replace(secret, b"***")) for name, value in headers.raw]
            headers = httpx.Headers(told)
    return headers, body


def _parts(form: Mapping[str, str | bytes] | None) -> list[tuple[str, Any]] | None:
    """Text without a file name is a plain field; only `files` makes httpx send multipart."""
    if form is None:
        return None
    return [
        (name, (None, value) if isinstance(value, str) else (name, value))
        for name, value in form.items()
    ]


# --------------------------------------------------------------------------- failures


def _network_failure(provider: Provider, error: httpx.HTTPError | httpx.InvalidURL) -> Failure:
    if isinstance(error, httpx.InvalidURL):
        message = f"the URL of {provider.name} is not one: {error}"
        return Failure(FailureKind.INVALID, message, "bad_url", provider.name)
    name = type(error).__name__
    return Failure(
        FailureKind.TRANSIENT,
        f"{provider.name}: {str(error) or name}",
        name,
        provider.name,
        accepted="no" if excludes_acceptance(error) else "unknown",
    )


def _unreadable(provider: Provider, error: Garbled, accepted: Accepted) -> ProviderError:
    message = f"{provider.name} answered something unreadable: {error}"
    failure = Failure(FailureKind.TRANSIENT, message, "garbled", provider.name, accepted=accepted)
    return ProviderError(failure)


def _may_repeat(error: BaseException) -> bool:
    """Only what nobody can have accepted, and only when the server wants us back soon."""
    if not isinstance(error, ProviderError) or error.failure.accepted != "no":
        return False
    waits = error.failure.kind in (FailureKind.RATE_LIMIT, FailureKind.TRANSIENT)
    return waits and (error.failure.retry_after or 0) <= PATIENCE


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    told = error.failure.retry_after if isinstance(error, ProviderError) else None
    return _backoff(state) if told is None else told


def _hopeless(failure: Failure) -> bool:
    """Asking again won't help until an operator has acted."""
    return failure.kind in (FailureKind.AUTH, FailureKind.QUOTA)


def _pause_after(failure: Failure, usual: float, troubles: int) -> float:
    if failure.retry_after is not None:
        return max(usual, min(failure.retry_after, LONGEST_PAUSE))
    return min(usual * (1 << min(troubles, 10)), LONGEST_PAUSE)
