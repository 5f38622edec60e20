"""The httpx API over aiohttp's connections.

httpx's own pool scans every connection at each request, which is 7 to 20 times slower at 200
requests at once. This transport lets aiohttp hold the connections and nothing else: redirects,
cookies, decoding and authentication stay with httpx.

What matters most here is which errors prove that the server never had the request, for only then
may a request that costs money be sent again. Those are the errors of connecting; everything that
happens on an open connection, even "closed without an answer", proves nothing.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

KEEPALIVE_SECONDS = 4.0
"""Shorter than the 5 s after which common servers hang up: a request that meets a closing
connection is lost without proof."""
FITS_IN_SOCKET = 64 * 1024
"""A body up to this size never waits for the peer while it is written."""
MAX_HEADER = 64 * 1024
SET_BY_HTTPX = ("accept", "accept-encoding", "content-type", "user-agent")

# The first row that fits counts.
ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (HttpProcessingError, httpx.RemoteProtocolError),
    (aiohttp.ClientError, httpx.ReadError),
    (OSError, httpx.ReadError),
    (ValueError, httpx.LocalProtocolError),
)
CAUGHT = tuple({kind for kind, _ in ERRORS})

BEFORE_CONNECTED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)


def excludes_acceptance(error: httpx.HTTPError) -> bool:
    """Whether this error proves that no server had the request."""
    return isinstance(error, BEFORE_CONNECTED)


class AiohttpTransport(httpx.AsyncBaseTransport):
    def __init__(
        self,
        *,
        limit: int,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._limit = limit
        self._keepalive = keepalive_seconds
        self._ssl = ssl_context
        # Ours, because aiohttp doesn't tell waiting for the pool from waiting for the peer.
        self._free = asyncio.Semaphore(limit)
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[tuple[str, str], URL | None] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions.get("timeout", {})
        try:
            async with asyncio.timeout(timeouts.get("pool")):
                await self._free.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout("all connections are in use", request=request) from error
        try:
            answer = await self._send(request, timeouts)
        except BaseException:
            self._free.release()
            raise
        reason = (answer.reason or "").encode("latin-1", "replace")
        return httpx.Response(
            answer.status,
            headers=list(answer.raw_headers),
            stream=_Body(answer, request, self._free.release),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": reason},
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _send(
        self, request: httpx.Request, timeouts: dict[str, float | None]
    ) -> aiohttp.ClientResponse:
        connect, write = timeouts.get("connect"), timeouts.get("write")
        # `connect` also covers the look-up of the name, `sock_connect` each of its addresses.
        limits = aiohttp.ClientTimeout(
            total=None, connect=connect, sock_connect=connect, sock_read=timeouts.get("read")
        )
        stalled = asyncio.timeout(None)
        headers = _headers(request)
        with _as_httpx(request):
            try:
                async with stalled:
                    return await self._open_session().request(
                        request.method,
                        _url(request.url),
                        headers=headers,
                        skip_auto_headers=_left_out(headers),
                        data=_body(request, stalled, write),
                        allow_redirects=False,
                        timeout=limits,
                        proxy=self._proxy(request.url),
                        server_hostname=request.extensions.get("sni_hostname"),
                    )
            except TimeoutError as error:
                if stalled.expired():
                    message = "the server stopped reading the request"
                    raise httpx.WriteTimeout(message, request=request) from error
                raise

    def _open_session(self) -> aiohttp.ClientSession:
        """Late, because aiohttp wants a running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._limit,
                    keepalive_timeout=self._keepalive,
                    ssl=self._ssl if self._ssl is not None else True,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                max_line_size=MAX_HEADER,
                max_field_size=MAX_HEADER,
            )
        return self._session

    def _proxy(self, url: httpx.URL) -> URL | None:
        """The environment's proxy for this URL.

        Not left to aiohttp's `trust_env`, which also reads ~/.netrc, fails when that disagrees
        with our Authorization header, and hands every request to threads twice.
        """
        key = (url.scheme, url.host)
        if key not in self._proxies:
            proxies = {} if proxy_bypass(url.host) else getproxies()
            found = proxies.get(url.scheme) or proxies.get("all")
            self._proxies[key] = URL(found) if found else None
        return self._proxies[key]


class Client(httpx.AsyncClient):
    """httpx over this transport, and without a cookie jar.

    What one job's answer sets is no business of another job's request; and httpx spends as long on
    looking for cookies as on reading the answer.
    """

    def __init__(self, *, limit: int) -> None:
        super().__init__(transport=AiohttpTransport(limit=limit))

    @property  # type: ignore[misc]  # httpx lets them be set; here nobody can
    def cookies(self) -> httpx.Cookies:
        return NO_COOKIES


class NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        pass


NO_COOKIES = NoCookies()


class _Body(httpx.AsyncByteStream):
    """The answer's body as it comes; closing it gives the connection back."""

    def __init__(
        self, answer: aiohttp.ClientResponse, request: httpx.Request, release: Callable[[], None]
    ) -> None:
        self._answer = answer
        self._request = request
        self._release: Callable[[], None] | None = release

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx(self._request):
            async for chunk in self._answer.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        self._answer.close()  # keeps the connection if the body was read to its end
        release, self._release = self._release, None
        if release is not None:
            release()


# --------------------------------------------------------------------------- errors


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except CAUGHT as error:
        kind = next(theirs for ours, theirs in ERRORS if isinstance(error, ours))
        raise kind(str(error) or type(error).__name__, request=request) from error


# --------------------------------------------------------------------------- requests


def _url(url: httpx.URL) -> URL:
    """Rebuilt from its encoded parts; credentials in it are already httpx's header."""
    path, _, query = url.raw_path.decode("ascii").partition("?")
    return URL.build(
        scheme=url.scheme,
        host=url.raw_host.decode("ascii"),
        port=url.port,
        path=path,
        query_string=query,
        encoded=True,
    )


def _headers(request: httpx.Request) -> list[tuple[str, str]]:
    """As given, but aiohttp itself says how a body of unknown length is sent."""
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in request.headers.raw
        if name.lower() != b"transfer-encoding"
    ]


def _left_out(headers: list[tuple[str, str]]) -> list[str] | None:
    """What httpx left out, aiohttp must not put in. A POST has them all, and costs nothing more."""
    given = {name.lower() for name, _ in headers}
    return [name for name in SET_BY_HTTPX if name not in given] or None


def _body(
    request: httpx.Request, stalled: asyncio.Timeout, seconds: float | None
) -> bytes | AsyncIterator[bytes] | None:
    try:
        content = request.content
    except httpx.RequestNotRead:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        return _timed(request.stream, stalled, seconds)
    if len(content) <= FITS_IN_SOCKET:
        return content or None
    return _timed(_slices(content), stalled, seconds)


async def _slices(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), FITS_IN_SOCKET):
        yield content[start : start + FITS_IN_SOCKET]


async def _timed(
    chunks: AsyncIterable[bytes], stalled: asyncio.Timeout, seconds: float | None
) -> AsyncIterator[bytes]:
    """Each chunk must be on its way within `seconds`; aiohttp has no time-out for writing."""
    loop = asyncio.get_running_loop()
    async for chunk in chunks:
        _restart(stalled, None if seconds is None else loop.time() + seconds)
        yield chunk
        _restart(stalled, None)


def _restart(stalled: asyncio.Timeout, when: float | None) -> None:
    # The server may answer before it has read everything; the time-out is over then.
    with suppress(RuntimeError):
        stalled.reschedule(when)
