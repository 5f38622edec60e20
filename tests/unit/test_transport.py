"""What each way of failing proves, over real sockets: httpx's error, and who had the request."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from aiohttp import web

from jobs.providers.transport import AiohttpTransport, Client, excludes_acceptance

BODY = {"prompt": "a paid request"}
PATIENT = httpx.Timeout(30.0)
QUICK = httpx.Timeout(30.0, connect=0.2, read=0.2, write=0.2)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = AiohttpTransport(limit=250)
    async with httpx.AsyncClient(transport=transport, timeout=PATIENT) as made:
        yield made


# --------------------------------------------------------------------------- a rude server


@dataclass
class Peer:
    """One connection, seen from a server that does as it likes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: RudeServer

    async def read_head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def read_request(self) -> bytes:
        head = await self.read_head()
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        body = await self.reader.readexactly(length)
        self.server.requests.append(body)
        if len(self.server.requests) == 2:
            self.server.second.set()
        return body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hang(self) -> None:
        await asyncio.Event().wait()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Manners = Callable[[Peer], Awaitable[None]]


@dataclass
class RudeServer:
    manners: Manners
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    second: asyncio.Event = field(default_factory=asyncio.Event)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self.serve(Peer(reader, writer, self)))
        self.tasks.add(task)

    async def serve(self, peer: Peer) -> None:
        try:
            await self.manners(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away, as it should after a time-out
        finally:
            peer.writer.close()


@asynccontextmanager
async def serving(manners: Manners) -> AsyncIterator[RudeServer]:
    rude = RudeServer(manners)
    server = await asyncio.start_server(rude.accept, "127.0.0.1", 0)
    rude.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/paid"
    try:
        yield rude
    finally:
        server.close()
        for task in rude.tasks:
            task.cancel()
        await asyncio.gather(*rude.tasks, return_exceptions=True)


# --------------------------------------------------------------------------- the table


async def close_at_once(_: Peer) -> None:
    pass


async def close_after_headers(peer: Peer) -> None:
    await peer.read_head()


async def close_after_request(peer: Peer) -> None:
    await peer.read_request()


async def reset_after_request(peer: Peer) -> None:
    await peer.read_request()
    peer.reset()


async def hang_after_request(peer: Peer) -> None:
    await peer.read_request()
    await peer.hang()


async def half_headers(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")


async def hang_in_headers(peer: Peer) -> None:
    await half_headers(peer)
    await peer.hang()


async def half_body(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


async def reset_in_body(peer: Peer) -> None:
    await half_body(peer)
    peer.reset()


async def slow_body(peer: Peer) -> None:
    await half_body(peer)
    await peer.hang()


async def garbage(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(b"\x00\x01 not HTTP at all\r\n\r\n")


async def bad_status(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(b"HTTP/1.1 OK two hundred\r\n\r\n")


async def bad_chunks(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n")


async def half_chunks(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{")


async def bad_gzip(peer: Peer) -> None:
    await peer.read_request()
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    await peer.send(head + b"oops")


BROKEN = (httpx.ReadError, httpx.RemoteProtocolError)
"""Which of the two depends on whether the kernel says FIN or RST, and on timing."""

AFTER_CONNECT: list[tuple[Manners, tuple[type[httpx.HTTPError], ...], bool]] = [
    (close_at_once, BROKEN, False),
    (close_after_headers, BROKEN, False),
    (close_after_request, (httpx.RemoteProtocolError,), True),
    (reset_after_request, (httpx.ReadError,), True),
    (hang_after_request, (httpx.ReadTimeout,), True),
    (half_headers, (httpx.RemoteProtocolError,), True),
    (hang_in_headers, (httpx.ReadTimeout,), True),
    (half_body, (httpx.RemoteProtocolError,), True),
    (reset_in_body, BROKEN, True),
    (slow_body, (httpx.ReadTimeout,), True),
    (garbage, (httpx.RemoteProtocolError,), True),
    (bad_status, (httpx.RemoteProtocolError,), True),
    (bad_chunks, (httpx.RemoteProtocolError,), True),
    (half_chunks, (httpx.RemoteProtocolError,), True),
    (bad_gzip, (httpx.DecodingError,), True),
]


@pytest.mark.parametrize(
    ("manners", "expected", "had_request"),
    AFTER_CONNECT,
    ids=[row[0].__name__ for row in AFTER_CONNECT],
)
async def test_failures_after_connecting_prove_nothing(
    client: httpx.AsyncClient,
    manners: Manners,
    expected: tuple[type[httpx.HTTPError], ...],
    had_request: bool,
) -> None:
    async with serving(manners) as server:
        quick = QUICK if httpx.ReadTimeout in expected else PATIENT
        with pytest.raises(httpx.HTTPError) as caught:
            await client.post(server.url, json=BODY, timeout=quick)
        assert type(caught.value) in expected
        assert bool(server.requests) is had_request
        assert not excludes_acceptance(caught.value)
        assert server.connections == 1, "a POST is never silently repeated"


async def test_reused_connection_that_closes_is_not_tried_again(client: httpx.AsyncClient) -> None:
    async def close_at_the_second(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK)
        await peer.read_request()

    async with serving(close_at_the_second) as server:
        assert (await client.post(server.url, json=BODY)).text == "ok"
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await client.post(server.url, json=BODY)
        assert not excludes_acceptance(caught.value)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_refused_connection_proves_that_nobody_had_it(client: httpx.AsyncClient) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, not listening
        with pytest.raises(httpx.ConnectError) as caught:
            await client.post(f"http://127.0.0.1:{sock.getsockname()[1]}/", json=BODY)
    assert excludes_acceptance(caught.value)


async def test_connection_that_is_never_taken_up_times_out(client: httpx.AsyncClient) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):  # fill the queue of connections to accept
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(httpx.ConnectTimeout) as caught:
            await client.post(
                f"http://127.0.0.1:{full.getsockname()[1]}/",
                json=BODY,
                timeout=QUICK,
            )
    assert excludes_acceptance(caught.value)


async def test_unknown_host(client: httpx.AsyncClient) -> None:
    with pytest.raises((httpx.ConnectError, httpx.ConnectTimeout)) as caught:
        await client.post("http://no-such-host.invalid/", json=BODY)
    assert excludes_acceptance(caught.value)


async def test_failed_tls_handshake(client: httpx.AsyncClient) -> None:
    async def no_tls(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(OK)

    async with serving(no_tls) as server:
        with pytest.raises(httpx.ConnectError) as caught:
            await client.post(server.url.replace("http:", "https:"), json=BODY)
        assert excludes_acceptance(caught.value)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http:///path"])
async def test_url_that_is_not_http(client: httpx.AsyncClient, url: str) -> None:
    with pytest.raises(httpx.UnsupportedProtocol) as caught:
        await client.post(url, json=BODY)
    assert excludes_acceptance(caught.value)


async def test_header_that_cannot_be_sent(client: httpx.AsyncClient) -> None:
    async with serving(hang_after_request) as server:
        with pytest.raises(httpx.LocalProtocolError):
            await client.post(server.url, json=BODY, headers={"X-Broken": "a\r\nb: c"})
        assert server.requests == []


@pytest.mark.parametrize("streamed", [False, True])
async def test_server_that_stops_reading_the_request(
    client: httpx.AsyncClient, streamed: bool
) -> None:
    async def stop_reading(peer: Peer) -> None:
        await peer.read_head()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await peer.hang()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    async with serving(stop_reading) as server:
        content = endless() if streamed else bytes(1 << 26)
        with pytest.raises(httpx.WriteTimeout) as caught:
            await client.post(server.url, content=content, timeout=QUICK)
        assert not excludes_acceptance(caught.value)


async def test_full_pool_times_out_and_recovers() -> None:
    async def hold(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await peer.hang()

    async with (
        serving(hold) as server,
        httpx.AsyncClient(transport=AiohttpTransport(limit=1)) as client,
    ):
        async with client.stream("POST", server.url, json=BODY):
            with pytest.raises(httpx.PoolTimeout) as caught:
                await client.post(server.url, json=BODY, timeout=httpx.Timeout(5, pool=0.05))
            assert excludes_acceptance(caught.value)
        async with client.stream("POST", server.url, json=BODY) as answer:
            assert answer.status_code == 200
        assert len(server.requests) == 2


async def test_errors_and_cancellation_give_their_place_back() -> None:
    async with (
        serving(hang_after_request) as server,
        httpx.AsyncClient(transport=AiohttpTransport(limit=1), timeout=QUICK) as client,
    ):
        with pytest.raises(httpx.ReadTimeout):
            await client.post(server.url, json=BODY)
        task = asyncio.create_task(client.post(server.url, json=BODY, timeout=None))
        await server.second.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(httpx.ReadTimeout):  # and not PoolTimeout
            await client.post(server.url, json=BODY)


# --------------------------------------------------------------------------- a good server


@dataclass
class Good:
    url: str
    connections: set[object]
    seen: list[web.Request]


@pytest.fixture
async def good() -> AsyncIterator[Good]:
    connections: set[object] = set()
    seen: list[web.Request] = []

    async def echo(request: web.Request) -> web.Response:
        connections.add(request.transport)
        seen.append(request)
        return web.Response(body=await request.read(), headers={"X-Twice": "a"})

    async def zipped(_: web.Request) -> web.Response:
        body = gzip.compress(b'{"a": 1}')
        return web.Response(body=body, headers={"Content-Encoding": "gzip", "X-MiXed": "Case"})

    async def moved(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/echo", "Set-Cookie": "a=b"})

    app = web.Application(client_max_size=1 << 28)
    app.router.add_route("*", "/echo{rest:.*}", echo)
    app.router.add_get("/zipped", zipped)
    app.router.add_get("/moved", moved)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield Good(f"http://127.0.0.1:{runner.addresses[0][1]}", connections, seen)
    await runner.cleanup()


async def test_connection_is_used_again(client: httpx.AsyncClient, good: Good) -> None:
    for number in range(5):
        answer = await client.post(f"{good.url}/echo", json={"n": number})
        assert answer.json() == {"n": number}
    assert len(good.connections) == 1


async def test_unread_body_closes_its_connection(client: httpx.AsyncClient, good: Good) -> None:
    big = bytes(1 << 22)
    for _ in range(2):
        async with client.stream("POST", f"{good.url}/echo", content=big) as answer:
            assert answer.status_code == 200
    assert len(good.connections) == 2


async def test_two_hundred_at_once(client: httpx.AsyncClient, good: Good) -> None:
    async def one(number: int) -> int:
        answer = await client.post(f"{good.url}/echo", json={"n": number})
        return int(answer.json()["n"])

    assert await asyncio.gather(*map(one, range(200))) == list(range(200))


async def test_httpx_decodes(client: httpx.AsyncClient, good: Good) -> None:
    answer = await client.get(f"{good.url}/zipped")
    assert answer.json() == {"a": 1}
    assert (b"X-MiXed", b"Case") in answer.headers.raw


async def test_redirects_and_cookies_are_httpx_s(client: httpx.AsyncClient, good: Good) -> None:
    answer = await client.get(f"{good.url}/moved")
    assert answer.status_code == 302
    client.cookies.clear()
    followed = await client.get(f"{good.url}/moved", follow_redirects=True)
    assert followed.status_code == 200
    assert [step.status_code for step in followed.history] == [302]
    client.cookies.clear()
    await client.get(f"{good.url}/echo")
    assert "Cookie" not in good.seen[-1].headers, "there is no second cookie jar"


async def test_uploads(client: httpx.AsyncClient, good: Good) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for letter in b"abc":
            yield bytes([letter]) * 100_000

    streamed = await client.post(f"{good.url}/echo", content=chunks())
    assert streamed.content == b"a" * 100_000 + b"b" * 100_000 + b"c" * 100_000
    assert good.seen[-1].headers["Transfer-Encoding"] == "chunked"
    big = json.dumps({"image": "x" * 3_000_000}).encode()
    assert (await client.post(f"{good.url}/echo", content=big)).content == big
    assert good.seen[-1].headers["Content-Length"] == str(len(big))
    files = {"image": ("a.png", b"\x89PNG", "image/png")}
    form = await client.post(f"{good.url}/echo", files=files, data={"prompt": "p"})
    assert b"\x89PNG" in form.content
    assert good.seen[-1].content_type == "multipart/form-data"


async def test_url_and_headers_pass_as_they_are(client: httpx.AsyncClient, good: Good) -> None:
    url = f"{good.url}/echo/a%2Fb%20c?q=%2B1&r=a+b#part".replace("http://", "http://me:secret@")
    await client.get(url, headers=[("X-Same", "1"), ("X-Same", "2")])
    assert good.seen[-1].raw_path == "/echo/a%2Fb%20c?q=%2B1&r=a+b"
    assert good.seen[-1].headers.getall("X-Same") == ["1", "2"]
    assert good.seen[-1].headers["Authorization"].startswith("Basic ")
    assert good.seen[-1].headers.getall("User-Agent") == [client.headers["User-Agent"]]


async def test_proxy_of_the_environment(good: Good, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", good.url)
    monkeypatch.setenv("no_proxy", "direct.invalid")
    async with httpx.AsyncClient(transport=AiohttpTransport(limit=1)) as client:
        answer = await client.post("http://provider.invalid/echo", content=b"through")
        assert answer.content == b"through"
        assert good.seen[-1].headers["Host"] == "provider.invalid"
        with pytest.raises((httpx.ConnectError, httpx.ConnectTimeout)):
            await client.post("http://direct.invalid/echo")


async def test_proxy_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{sock.getsockname()[1]}")
        async with httpx.AsyncClient(transport=AiohttpTransport(limit=1)) as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.post("http://provider.invalid/", json=BODY)
    assert excludes_acceptance(caught.value)


async def test_a_cookie_of_one_answer_is_not_sent_with_the_next_request() -> None:
    told: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        told.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "session=of-one-job; Path=/"})

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Client(limit=1) as client:
        for _ in range(2):
            await client.get(f"http://127.0.0.1:{runner.addresses[0][1]}/")
    await runner.cleanup()
    assert told == [None, None]
