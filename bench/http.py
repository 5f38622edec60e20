"""Requests per second of one process with 200 at once: our client beside aiohttp and httpx's own.

Each side POSTs the same JSON to the same server, which runs in a process of its own, and reads the
answer. `ours` is what a worker sends with: httpx over our transport, through the code that turns
an adapter's request into an answer. The sides take turns in short rounds, so all see one machine.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import aiohttp
import httpx
from pydantic import SecretStr

from jobs.providers.adapter import Request
from jobs.providers.registry import ProviderSettings, build_providers
from jobs.providers.transport import Client
from jobs.providers.wire import Wire

AT_ONCE = 200
SLOW_ROUNDS = 3
"""Of httpx's own pool, with fewer requests: it would take most of the time."""
BODY = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "A boat by the sea. " * 20}],
}
ANSWER = b'{"id": "c1", "choices": [], "text": "' + b"Once upon a time. " * 50 + b'"}'

Post = Callable[[], Awaitable[int]]


async def run(requests: int, rounds: int) -> dict[str, Any]:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.http", stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    url = (await server.stdout.readline()).decode().strip()
    try:
        async with AsyncExitStack() as stack:
            sides = {
                "ours": await _ours(stack, url),
                "aiohttp": await _aiohttp(stack, url),
                "httpcore": await _httpcore(stack, url),
            }
            rates: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(rounds + 1):
                for name, post in sides.items():
                    slow = name == "httpcore"
                    if slow and number > SLOW_ROUNDS:
                        continue
                    rate = await _rate(post, AT_ONCE if slow else requests)
                    if number:  # the first round opens the connections
                        rates[name].append(rate)
    finally:
        server.terminate()
        await server.wait()
    medians = {name: round(statistics.median(found), 1) for name, found in rates.items()}
    # Of each round by itself: a machine that is slow for a while is slow for both sides.
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["aiohttp"], strict=True)]
    return {"name": "http", **medians, "ratio": round(statistics.median(ratios), 3)}


async def _rate(post: Post, requests: int) -> float:
    left = iter(range(requests))

    async def client() -> None:
        for _ in left:
            if await post() != len(ANSWER):
                raise RuntimeError("the answer is not whole")

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return requests / (time.perf_counter() - began)


# --------------------------------------------------------------------------- the three sides


async def _ours(stack: AsyncExitStack, url: str) -> Post:
    client = Client(limit=AT_ONCE)
    wire = Wire(await stack.enter_async_context(client))
    settings = ProviderSettings(base_url=url, api_key=SecretStr("none"))
    provider = build_providers({"openai": settings})["openai"]
    request = Request("POST", f"{url}/chat/completions", {"Authorization": "Bearer none"}, BODY)

    async def post() -> int:
        return len((await wire.ask(provider, request, "submit")).body)

    return post


async def _aiohttp(stack: AsyncExitStack, url: str) -> Post:
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
    headers = {"Authorization": "Bearer none"}

    async def post() -> int:
        async with session.post(f"{url}/chat/completions", json=BODY, headers=headers) as answer:
            return len(await answer.read())

    return post


async def _httpcore(stack: AsyncExitStack, url: str) -> Post:
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    client = await stack.enter_async_context(httpx.AsyncClient(limits=limits, timeout=60))
    headers = {"Authorization": "Bearer none"}

    async def post() -> int:
        answer = await client.post(f"{url}/chat/completions", json=BODY, headers=headers)
        return len(answer.content)

    return post


# --------------------------------------------------------------------------- the other process


class Canned(asyncio.Protocol):
    """Answers every request with the same bytes: what is measured is the client."""

    _head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n"

    def __init__(self) -> None:
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
        if len(rest) >= int(length):
            self._got = rest[int(length) :]
            self._transport.write(self._head.encode() + ANSWER)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve())
