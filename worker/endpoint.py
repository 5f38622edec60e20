"""A worker's HTTP endpoint, for machines: `/healthz`, `/readyz`, `/metrics`.

One request per connection. Whoever is slow to ask or to listen is cut off after `PATIENCE` seconds,
and where there are too many the oldest goes first, so that a probe always gets through. No answer
waits for anything: all is known already.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError

log = structlog.get_logger()

PATIENCE = 10.0
CONNECTIONS = 32
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METRICS_SECONDS = 1.0
"""How long a rendering is good for, however often it is asked for."""

Report = Callable[[], tuple[bool, Mapping[str, Any]]]
"""Whether all is well, and what is told either way."""


class PortTaken(Exception):
    def __init__(self, host: str, port: int, error: OSError | ValueError) -> None:
        said = getattr(error, "strerror", None) or error
        nowhere = isinstance(error, ValueError | socket.gaierror)
        advice = (
            "Set ROWMILL_HTTP_HOST to an address of this machine, such as 0.0.0.0 or ::"
            if nowhere or getattr(error, "errno", None) == errno.EADDRNOTAVAIL
            else "Set ROWMILL_HTTP_PORT to a free port (0 takes any), or unset it"
        )
        super().__init__(f"the worker can't listen on {host}:{port}: {said}. {advice}")


def _is_ours(record: logging.LogRecord) -> bool:
    """What is no HTTP is its sender's matter: it is answered, and fills no log."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


_aiohttp_log = logging.getLogger("rowmill.endpoint")
_aiohttp_log.addFilter(_is_ours)


class _Server(web.Server):
    """aiohttp's, which by itself waits for ever for a request's head and counts nobody."""

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        theirs = [h.transport for h in self.connections if h.transport is not None]
        alive = [each for each in theirs if not each.is_closing()]  # the oldest first
        for excess in alive[:-CONNECTIONS]:
            excess.abort()
        asyncio.get_running_loop().call_later(PATIENCE, _cut, handler)


def _cut(handler: web.RequestHandler) -> None:
    if handler.transport is not None:
        handler.transport.abort()


@dataclass(slots=True)
class _Rendered:
    body: bytes
    at: float


class Endpoint:
    def __init__(self, *, healthy: Report, ready: Report, metrics: Callable[[], bytes]) -> None:
        self._metrics = metrics
        self._rendered: _Rendered | None = None
        self._pages: dict[str, Callable[[], web.Response]] = {
            "/healthz": lambda: _report(healthy),
            "/readyz": lambda: _report(ready),
            "/metrics": self._page_of_metrics,
        }
        self._server: asyncio.Server | None = None
        self._http: _Server | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises `PortTaken`."""
        loop = asyncio.get_running_loop()
        self._http = _Server(
            self._answer,
            access_log=None,
            logger=_aiohttp_log,
            keepalive_timeout=0,
            lingering_time=0,
            max_line_size=2048,
            max_field_size=4096,
            max_headers=64,
        )
        try:
            self._server = await loop.create_server(self._http, host, port, backlog=CONNECTIONS)
        except (OSError, ValueError) as error:  # a name can be none at all
            raise PortTaken(host, port, error) from error
        taken: int = self._server.sockets[0].getsockname()[1]
        log.info("endpoint.listening", host=host, port=taken)
        return taken

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._http is not None:
            await self._http.shutdown(1.0)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        page = self._pages.get(request.path)
        if page is None:
            response = _plain(404, f"there are {', '.join(self._pages)}")
        elif request.method not in {"GET", "HEAD"}:
            response = _plain(405, "GET and HEAD only")
            response.headers["Allow"] = "GET, HEAD"
        else:
            response = page()
        response.headers["Cache-Control"] = "no-store"
        if request.version >= HttpVersion11:
            response.headers["Connection"] = "close"
        response.force_close()
        return response

    def _page_of_metrics(self) -> web.Response:
        now = time.monotonic()
        if self._rendered is None or now - self._rendered.at > METRICS_SECONDS:
            self._rendered = _Rendered(self._metrics(), now)
        return web.Response(
            body=self._rendered.body, headers={"Content-Type": METRICS_TYPE}, status=200
        )


def _report(report: Report) -> web.Response:
    well, told = report()
    body = json.dumps(told).encode()
    return web.Response(body=body, content_type="application/json", status=200 if well else 503)


def _plain(status: int, text: str) -> web.Response:
    return web.Response(text=text + "\n", status=status)
