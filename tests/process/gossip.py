"""A provider that can't keep a secret: it tells every header it gets in all the ways there are.

refused    401, and the headers as the reason     broken   500, and the same
garbled    200, a text instead of JSON            odd      200, an id nobody can use
dropped    the connection is closed               moved    sent on to another host
elsewhere  a prediction of Replicate that is done, with its output at another host
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler

from tests.unit.vendor import png

WAYS = ("refused", "broken", "garbled", "odd", "dropped", "moved")
ELSEWHERE = "elsewhere"
SAID = "you sent"


@dataclass(frozen=True, slots=True)
class Heard:
    way: str
    lane: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Gossip:
    """Base URLs are /WAY/LANE; `other` is what reached the other host."""

    url: str = ""
    other_url: str = ""
    heard: list[Heard] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        way, lane = request.path.split("/")[1:3]
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.heard.append(Heard(way, lane, request.path_qs, headers))
        text = f"{SAID} {json.dumps(headers)}"
        match way:
            case "refused" | "broken":
                # What each vendor calls its message; every adapter finds its own.
                body = {"error": text, "detail": text, "message": text, "errors": [text]}
                return web.json_response(body, status=401 if way == "refused" else 500)
            case "odd":
                # A header's value is text as well, and some adapters keep it.
                names = {"x-request-id": text, "request-id": text}
                odd = json.dumps({"id": text, "status": text, "data": text})
                return web.json_response(text=odd.replace("/", "\\/"), headers=names)
            case "garbled":
                return web.Response(text=text)
            case "moved":
                return web.Response(status=307, headers={"Location": f"{self.other_url}/moved"})
            case "elsewhere":
                output = f"{self.other_url}/out.png"
                made = {"id": "p1", "status": "succeeded", "output": output, "metrics": {}}
                return web.json_response(made, status=201)
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def answer_elsewhere(self, request: web.Request) -> web.StreamResponse:
        self.other.append(f"{request.method} {request.path_qs} {dict(request.headers)}")
        return web.Response(body=png(), content_type="image/png")


@asynccontextmanager
async def gossip() -> AsyncIterator[Gossip]:
    server = Gossip()
    async with (
        _serving(server.answer, "127.0.0.1") as server.url,
        _serving(server.answer_elsewhere, "127.0.0.2") as server.other_url,
    ):
        yield server


@asynccontextmanager
async def _serving(answer: Handler, host: str) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    try:
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
