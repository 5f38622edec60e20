"""What is taken of an answer: not more than fits, and none of our secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import SecretStr

from jobs.providers import wire
from jobs.providers.adapter import Request, Response
from jobs.providers.errors import ProviderError
from jobs.providers.registry import Provider, ProviderSettings, build_providers
from jobs.providers.transport import Client
from jobs.providers.wire import Wire

KEY = "sk-0123/456789abcdef"
TOKEN = "gateway-0123456789"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[Provider]:
    app = web.Application()
    app.router.add_post("/v1", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    given = ProviderSettings(
        base_url=f"http://127.0.0.1:{runner.addresses[0][1]}/v1",
        api_key=SecretStr(KEY),
        headers={"Helicone-Auth": f"Bearer {TOKEN}", "X-Version": "2026-01-01"},
    )
    try:
        yield build_providers({"openai": given})["openai"]
    finally:
        await runner.cleanup()


async def asked(answer: Answer) -> Response:
    async with served(answer) as provider, Client(limit=1) as client:
        request = Request("POST", provider.account.base_url, provider.account.headers)
        return await Wire(client).ask(provider, request, "submit")


@pytest.mark.parametrize("packed", [True, False])
async def test_an_answer_that_is_too_large_is_given_up(
    monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER", 100_000)

    async def large(_request: web.Request) -> web.Response:
        response = web.Response(body=bytes(100_001))
        if packed:
            response.enable_compression(web.ContentCoding.gzip)
        return response

    with pytest.raises(ProviderError, match="larger than 100,000 bytes") as caught:
        await asked(large)
    assert caught.value.failure.accepted == "unknown"  # it may have been made and billed


async def test_an_answer_is_read_without_our_secrets() -> None:
    async def gossip(request: web.Request) -> web.Response:
        said = f"{KEY} {KEY.replace('/', chr(92) + '/')} {request.headers['Helicone-Auth']} "
        return web.Response(text=f"{said}{request.headers['X-Version']}", headers={"X-You": KEY})

    answer = await asked(gossip)
    assert answer.body == b"*** *** Bearer *** 2026-01-01"
    assert answer.headers["x-you"] == "***"
