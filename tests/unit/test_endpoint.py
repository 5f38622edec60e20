"""The endpoint's HTTP, against clients as they are: real sockets, also slow, many and rude ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from worker import endpoint as endpoints
from worker.endpoint import Endpoint, PortTaken


class Served:
    def __init__(self) -> None:
        self.ready = True
        self.rendered = 0
        self.endpoint = Endpoint(
            healthy=lambda: (True, {"status": "ok"}), ready=self._ready, metrics=self._metrics
        )
        self.port = 0

    def _ready(self) -> tuple[bool, Mapping[str, Any]]:
        return self.ready, {"status": "ready" if self.ready else "not ready"}

    def _metrics(self) -> bytes:
        self.rendered += 1
        return b"rowmill_slots 1.0\n"

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as client:
            return await client.request(method, path, timeout=5, **more)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    served.port = await served.endpoint.open("127.0.0.1", 0)
    yield served
    await served.endpoint.close()


async def cut(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection, without a word."""
    try:
        async with asyncio.timeout(5):
            return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_three_pages(served: Served) -> None:
    health = await served.ask("GET", "/healthz")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert health.headers["content-type"].startswith("application/json")
    assert health.headers["connection"] == "close"
    metrics = await served.ask("GET", "/metrics?x=1")
    assert metrics.text == "rowmill_slots 1.0\n"
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    served.ready = False
    ready = await served.ask("GET", "/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "not ready"})


async def test_head_says_how_long_and_nothing_more(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Content-Length: %d" % len(json.dumps({"status": "ready"})) in head
    assert body == b""
    writer.close()


async def test_other_paths_and_methods(served: Served) -> None:
    missing = await served.ask("GET", "/")
    assert missing.status_code == 404
    assert "/healthz" in missing.text
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        refused = await served.ask(method, "/healthz", content=b"x" * 10_000)
        assert refused.status_code == 405
        assert refused.headers["allow"] == "GET, HEAD"


async def test_what_is_no_http_is_refused(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    long = b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n"
    many = b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 10_000 + b"\r\n"
    odd = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"
    for rude in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", long, many, odd):
        reader, writer = await served.connect()
        writer.write(rude)
        try:
            async with asyncio.timeout(5):
                answer = await reader.read()
        except ConnectionResetError:
            answer = b""
        assert answer == b"" or answer.split()[1] == b"400", answer[:200]
        writer.close()
    assert (await served.ask("GET", "/healthz")).status_code == 200
    assert caplog.records == [], "anyone could fill the log"


async def test_a_page_that_breaks_is_logged(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bytes:
        raise KeyError("a bug")

    monkeypatch.setattr(served.endpoint, "_metrics", broken)
    assert (await served.ask("GET", "/metrics")).status_code == 500
    assert "a bug" in caplog.text


async def test_slow_clients_are_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "PATIENCE", 0.2)
    for beginning in (b"", b"GET /healthz HTTP/1.1\r\nHost: ", b"POST / HTTP/1.1\r\nContent-Le"):
        reader, writer = await served.connect()
        writer.write(beginning)
        assert await cut(reader)
        writer.close()


async def test_a_flood_of_slow_clients_keeps_no_probe_out(served: Served) -> None:
    slow = [await served.connect() for _ in range(3 * endpoints.CONNECTIONS)]
    for _, writer in slow:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: ")
    assert (await served.ask("GET", "/healthz")).status_code == 200
    assert await cut(slow[0][0]), "the oldest had to go"
    assert not slow[-1][0].at_eof()
    for _, writer in slow:
        writer.close()


async def test_metrics_are_rendered_once_for_many(served: Served) -> None:
    await asyncio.gather(*(served.ask("GET", "/metrics") for _ in range(20)))
    assert served.rendered == 1


async def test_a_port_that_is_taken(served: Served) -> None:
    with pytest.raises(PortTaken, match=rf"127.0.0.1:{served.port}: .*ROWMILL_HTTP_PORT"):
        await Served().endpoint.open("127.0.0.1", served.port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "[::1]", "192.0.2.1", "x" * 300])
async def test_a_host_that_is_none_of_ours(host: str) -> None:
    endpoint = Endpoint(healthy=lambda: (True, {}), ready=lambda: (True, {}), metrics=lambda: b"")
    with pytest.raises(PortTaken, match="Set ROWMILL_HTTP_HOST"):
        await endpoint.open(host, 0)
