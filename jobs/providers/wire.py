"""Requests of adapters, carried out: the only place where providers are spoken to.

pay     a POST that costs money: sent again only when nobody can have had it
ask     anything else: one answer, or a `ProviderError`
follow  polls until the task has ended, whatever goes wrong in between
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
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

from jobs.contract import Accepted, Failure, FailureKind
from jobs.providers.adapter import Op, Ref, Request, Response, State
from jobs.providers.errors import Garbled, ProviderError
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
NEVER_AGAIN = (FailureKind.GONE, FailureKind.POLICY)
"""Answers to a poll after which the task's output can't be had any more."""
MISSING_POLLS = 3
"""In a row: a new task may not have reached the replica that is asked first."""

_parsed = lru_cache(maxsize=1000)(httpx.URL)
"""The same few URLs take every paid request."""
_backoff = wait_random_exponential(multiplier=0.5, max=PATIENCE)


class Wire:
    def __init__(self, client: httpx.AsyncClient, *, sleep: Sleep = asyncio.sleep) -> None:
        self._client = client
        self.sleep = sleep

    async def pay(
        self, provider: Provider, request: Request, before_each: Callable[[], None]
    ) -> State:
        """Raises `ProviderError`; its failure says whether the provider may have accepted."""

        async def once() -> State:
            before_each()
            response = await self.ask(provider, request, "submit")
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
        return await retrying(once)

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
                log.warning("unknown status", provider=provider.name, **state.metadata)
            if state.progress is not None:
                progress(state.progress)
            if state.done:
                return state
            pause = state.poll_after or provider.poll_seconds

    async def ask(self, provider: Provider, request: Request, op: Op) -> Response:
        try:
            response = await self._send(provider, request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderError(_network_failure(provider, error)) from error
        if not response.ok:
            raise ProviderError(provider.adapter.classify(op, response))
        return response

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
