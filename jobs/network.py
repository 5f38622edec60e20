"""Which hosts we may talk to when somebody else chose the URL.

Providers tell us where their files are, customers where their webhooks go. Either could name a
machine inside our own network. So a name is resolved once, every address is checked, and the
request goes to one of the *checked* addresses: the URL is rewritten to the address, while the Host
header and the TLS name (httpx's `sni_hostname` extension) keep the name. A second DNS answer that
differs from the first (rebinding) is never asked for.

    policy.targets(url) ──> Target, Target, …     one per address, in the resolver's order
    fetch(...)                                    GET, follows up to 5 redirects, each checked anew
    decoded(response)                             its body unpacked, in small pieces
    post(...)                                     POST, follows none
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

MAX_REDIRECTS = 5
ANYBODYS = ("accept", "accept-encoding", "accept-language", "user-agent")
PIECE = 1 << 16
GZIP_OR_ZLIB = zlib.MAX_WBITS | 32

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""Where the IPv4 address stands in it is each network's own affair."""


class HostRefused(Exception):
    """The policy forbids this URL: trying again cannot help."""


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, in the order the system prefers them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect (a checked address), and under which name."""

    url: httpx.URL
    headers: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)


class HostPolicy:
    """Public addresses only, except what the operator allows.

    `allow_private_hosts` holds names (`minio.internal`), addresses (`127.0.0.1`) or networks
    (`10.1.0.0/16`). A name in it may resolve to anything.
    """

    def __init__(
        self,
        allow_private_hosts: Sequence[str] = (),
        *,
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._names: set[str] = set()
        self._networks: list[Network] = []
        for entry in allow_private_hosts:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                self._names.add(entry.lower().rstrip("."))
        self._resolve = resolve

    async def targets(self, url: str | httpx.URL) -> tuple[Target, ...]:
        """The checked places to connect to. One forbidden address forbids the whole name."""
        parsed = _parse(url)
        host = parsed.raw_host.decode("ascii")
        addresses = await self._addresses(parsed, host)
        if host.lower().rstrip(".") not in self._names:
            for address in addresses:
                self._check(host, address)
        if _proxied(parsed.scheme, host):
            # The operator's proxy connects and resolves, not we, so there is nothing to pin.
            return (Target(parsed),)
        return tuple(_pin(parsed, host, address) for address in addresses)

    async def _addresses(self, url: httpx.URL, host: str) -> list[Address]:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            return [ipaddress.ip_address(text) for text in await self._resolve(host, port)]
        except UnicodeError as error:  # a part of it is longer than names may be
            raise HostRefused(f"not the name of a host: {host[:300]!r}") from error
        except OSError as error:
            if _proxied(url.scheme, host):
                return []  # behind a proxy, public names need not resolve here
            raise httpx.ConnectError(f"cannot resolve host {host!r}: {error}") from error

    def _check(self, host: str, address: Address) -> None:
        if any(address in network for network in self._networks):
            return
        if not _is_public(address):
            raise HostRefused(
                f"host {host!r} is at {address}, which is not a public address; "
                "name it in ROWMILL_ALLOW_PRIVATE_HOSTS if it is meant to be reached"
            )


def _parse(url: str | httpx.URL) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise HostRefused(f"not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise HostRefused(f"only http and https URLs are fetched, not {parsed.scheme!r}")
    return parsed


def _pin(url: httpx.URL, host: str, address: Address) -> Target:
    return Target(
        url.copy_with(host=str(address)),
        {"Host": url.netloc.decode("ascii")},
        {"sni_hostname": host} if url.scheme == "https" else {},
    )


def _is_public(address: Address) -> bool:
    """Global unicast, looking through the IPv6 forms that carry an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
        if address.teredo or address.is_site_local or address.is_reserved or address in LOCAL_NAT64:
            return False  # old tunnels and compatibility forms; nobody serves files there
    return address.is_global and not address.is_multicast


def _proxied(scheme: str, host: str) -> bool:
    return scheme in getproxies() and not proxy_bypass(host)


# --------------------------------------------------------------------------- requests


async def _send(
    client: httpx.AsyncClient,
    policy: HostPolicy,
    method: str,
    url: httpx.URL,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
) -> httpx.Response:
    """Send to the first checked address that accepts a connection; the body is left unread."""
    error: httpx.TransportError = httpx.ConnectError(f"no address for {url.host!r}")
    for target in await policy.targets(url):
        request = client.build_request(
            method,
            target.url,
            headers={**headers, **target.headers},
            content=content,
            extensions=dict(target.extensions),
        )
        try:
            return await client.send(request, stream=True, follow_redirects=False)
        except (httpx.ConnectError, httpx.ConnectTimeout) as refused:
            error = refused
    raise error


@asynccontextmanager
async def fetch(
    client: httpx.AsyncClient,
    policy: HostPolicy,
    url: str,
    headers: Mapping[str, str],
) -> AsyncIterator[httpx.Response]:
    """GET as a stream. Raises `HostRefused` or `httpx.HTTPError`.

    Its extension "final_url" tells where redirects ended, under its own name.
    """
    here, sent = _parse(url), dict(headers)
    for _ in range(MAX_REDIRECTS + 1):
        response = await _send(client, policy, "GET", here, headers=sent)
        location = response.headers.get("location") if response.is_redirect else None
        if location is None:
            response.extensions["final_url"] = str(here)
            try:
                yield response
            finally:
                await response.aclose()
            return
        await response.aclose()
        there = _join(here, location)
        if _origin(there) != _origin(here):
            # The others may hold the provider's key, which is nobody else's business.
            sent = {name: value for name, value in sent.items() if name.lower() in ANYBODYS}
        here = there
    raise httpx.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects from {url}")


async def post(
    client: httpx.AsyncClient,
    policy: HostPolicy,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
) -> int:
    """POST and return the status. The answer's body is not read: it could be endless."""
    response = await _send(client, policy, "POST", _parse(url), headers=headers, content=body)
    await response.aclose()
    return response.status_code


async def decoded(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body, a small piece at a time however well it is compressed.

    Some servers compress unasked. httpx would unpack whatever comes whole: a bomb in one piece.
    Raises `httpx.DecodingError`.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        async for chunk in response.aiter_raw():
            yield chunk
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise httpx.DecodingError(f"it comes encoded as {encoding!r}, which nobody asked for")
    decoder = zlib.decompressobj(GZIP_OR_ZLIB)
    try:
        async for chunk in response.aiter_raw():
            packed = chunk
            while packed and not decoder.eof:
                yield decoder.decompress(packed, PIECE)
                packed = decoder.unconsumed_tail
    except zlib.error as error:
        raise httpx.DecodingError(f"unpacking it failed: {error}") from error
    if not decoder.eof:
        raise httpx.DecodingError("what was packed ends too early")


def _join(here: httpx.URL, location: str) -> httpx.URL:
    try:
        return _parse(here.join(location))
    except httpx.InvalidURL as error:
        raise HostRefused(f"redirected to something that is not a URL: {error}") from error


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
