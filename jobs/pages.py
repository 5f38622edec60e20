"""One answer of somebody's web server, whole: capped, unpacked, in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

from jobs.contract import Failed, Failure, FailureKind, Fetched, JobEnds, RetryLater
from jobs.network import HostPolicy, HostRefused, decoded, fetch

SECONDS = 30.0
"""For the whole answer: a server that sends a byte now and then would hold a slot for ever."""


async def get(
    client: httpx.AsyncClient,
    policy: HostPolicy,
    url: str,
    headers: Mapping[str, str],
    max_bytes: int,
    *,
    seconds: float = SECONDS,
) -> Fetched:
    """Raises `JobEnds` where there is no answer that can be used."""
    asked = {"accept-encoding": "gzip"} | {k.lower(): v for k, v in headers.items()}
    try:
        async with (
            asyncio.timeout(seconds),
            fetch(client, policy, url, asked) as response,
        ):
            return Fetched(
                status=response.status_code,
                url=response.extensions["final_url"],
                content_type=response.headers.get("content-type", ""),
                body=await _body(response, max_bytes),
                headers=dict(response.headers),
            )
    except HostRefused as error:
        raise JobEnds(_failed(str(error), "host_refused")) from error
    except TimeoutError as error:
        raise JobEnds(_later(f"{url} didn't answer within {seconds:g} s", "timeout")) from error
    except httpx.HTTPError as error:
        message = f"fetching {url} failed: {str(error) or type(error).__name__}"
        raise JobEnds(_later(message, "network")) from error


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    body = bytearray()
    async for piece in decoded(response):
        body += piece
        if len(body) > max_bytes:
            raise JobEnds(_failed(f"the page is larger than {max_bytes:,} bytes", "too_large"))
    return bytes(body)


def _failed(message: str, code: str) -> Failed:
    return Failed(Failure(FailureKind.INVALID, message, code))


def _later(message: str, code: str) -> RetryLater:
    return RetryLater(Failure(FailureKind.TRANSIENT, message, code))
