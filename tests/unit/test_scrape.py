"""Scraping over real HTTP: the sandbox's shop, and servers that misbehave."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from jobs.contract import Failed, FailureKind, JobEnds, Outcome, RetryLater, Succeeded, Yield
from jobs.providers.transport import Client
from jobs.sandbox import Sandbox
from tests.unit.web import Web, run

KIND = "background:scrape_product"
RULE: dict[str, Any] = {
    "domain": "127.0.0.1",
    "platform": "Sandbox",
    "delay_ms": 1500,
    "is_active": True,
    "headers": {"X-Shop": "yes", "Host": "evil.example", "content-length": "9"},
    "selectors": {
        "title": ["h1.nothing", "h1.title"],
        "price": ".price::text",
        "oldPrice": ".was",
        "brand": ".vendor",
        "sku": ".sku",
        "rating": ".rating@title",
        "review_count": ".nothing",
        "availability": ".stock",
        "images": ".gallery img@src",
        "colour": ".title",
    },
}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def ctx() -> AsyncIterator[Web]:
    client = Client(limit=10)
    yield Web(client)
    await client.aclose()


@pytest.fixture
async def shop() -> AsyncIterator[str]:
    async with Sandbox() as sandbox:
        yield f"{sandbox.url}/shop"


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/product"
    finally:
        await runner.cleanup()


def answering(**answer: Any) -> Answer:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(**answer)

    return handle


async def product(ctx: Web, url: str, rule: Any = None) -> dict[str, Any]:
    outcome = await run(ctx, KIND, {"payload": {"Url": url}, "rule": rule})
    assert isinstance(outcome, Succeeded), outcome
    found: dict[str, Any] = outcome.data["product"]
    return found


async def test_a_page_is_read_without_a_rule(ctx: Web, shop: str) -> None:
    found = await product(ctx, f"{shop}/products/1001")
    assert found["name"] == "Teapot in amber, no. 1001"
    assert (found["price"], found["currency"]) == ("25.00", "EUR")
    assert (found["brand"], found["sku"]) == ("Studio Zwölf", "SB-01001")
    assert (found["product_id"], found["availability"]) == ("1001", "InStock")
    assert (found["rating"], found["review_count"]) == ("3.10", 7)
    assert [image["url"] for image in found["images"]] == [
        f"{shop}/images/1001-{n}.png" for n in (1, 2, 3)
    ]
    assert [image["is_primary"] for image in found["images"]] == [True, False, False]
    assert found["main_image_url"] == f"{shop}/images/1001-1.png"
    assert (found["platform"], found["domain"]) == ("Other", "127.0.0.1")
    assert ctx.turns == [("scrape:127.0.0.1", 1.0)]


async def test_a_rule_says_where_everything_stands(ctx: Web, shop: str) -> None:
    found = await product(ctx, f"{shop}/products/1001", RULE)
    assert found["name"] == "Teapot in amber, no. 1001"
    assert (found["price"], found["original_price"], found["currency"]) == ("25.00", "30.00", "EUR")
    assert found["discount_percent"] == 17
    assert (found["rating"], found["availability"]) == ("3.10", "InStock")
    assert found["review_count"] == 7  # what the rule doesn't find, the page tells machines
    assert found["platform"] == "Sandbox"
    assert found["metadata"] == {"extraction": "selectors", "colour": found["name"]}
    assert found["images"][1] == {
        "url": f"{shop}/images/1001-2.png",
        "alt_text": f"{found['name']}, picture 2",
        "is_primary": False,
        "sort_order": 1,
    }
    assert ctx.turns == [("scrape:127.0.0.1", 1.5)]


async def test_the_pictures_are_real(ctx: Web, shop: str) -> None:
    answer = await ctx.fetch(f"{shop}/images/3-2.png")
    assert (answer.status, answer.content_type) == (200, "image/png")
    assert answer.body.startswith(b"\x89PNG")


async def test_a_rules_headers_are_sent_but_for_those_that_are_ours(ctx: Web) -> None:
    heard: dict[str, str] = {}

    async def listen(request: web.Request) -> web.Response:
        heard.update({name.lower(): value for name, value in request.headers.items()})
        return web.Response(text="<h1 class=title>Lamp</h1>", content_type="text/html")

    async with server(listen) as url:
        await product(ctx, url, {**RULE, "headers": {**RULE["headers"], "user-agent": "Shopper"}})
    assert (heard["x-shop"], heard["user-agent"]) == ("yes", "Shopper")
    assert heard["host"].startswith("127.0.0.1:")
    assert "content-length" not in heard


async def test_a_redirect_elsewhere_takes_only_what_is_anybodys(ctx: Web) -> None:
    heard: dict[str, str] = {}

    async def listen(request: web.Request) -> web.Response:
        heard.update({name.lower(): value for name, value in request.headers.items()})
        return web.Response(text="<h1 class=title>Lamp</h1>", content_type="text/html")

    async with server(listen) as there:
        moved = answering(status=301, headers={"Location": f"{there}?new"})
        async with server(moved) as url:
            await product(ctx, url, {**RULE, "headers": {"Authorization": "key", "X-Shop": "yes"}})
    assert not {"authorization", "x-shop", "cookie"} & heard.keys()
    assert heard["accept-encoding"] == "gzip"
    assert "Rowmill" in heard["user-agent"]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({**RULE, "is_active": False}, "not active"),
        ({**RULE, "selectors": {"price": "p[["}}, "price: 'p[[' is not a CSS selector"),
        ({**RULE, "selectors": {"price": {"a": 1}}}, "price: give a selector"),
        ({**RULE, "selectors": {"price": "@content"}}, "is not a selector"),
        ({**RULE, "headers": {"A B": "c"}}, "rule.headers"),
        ({**RULE, "headers": {"A": "c\r\nHost: x"}}, "rule.headers"),
        ({**RULE, "delay_ms": -1}, "rule.delay_ms"),
    ],
)
async def test_a_rule_that_cant_be_followed_is_refused(
    ctx: Web, shop: str, rule: Any, says: str
) -> None:
    outcome = await run(ctx, KIND, {"payload": {"url": f"{shop}/products/1"}, "rule": rule})
    assert isinstance(outcome, Failed), outcome
    assert outcome.failure.code == "rule"
    assert says in outcome.failure.message


async def test_no_delay_is_no_turn(ctx: Web, shop: str) -> None:
    await product(ctx, f"{shop}/products/1", {**RULE, "delay_ms": 0})
    assert ctx.turns == []


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        ({"status": 404}, Failed, "gone"),
        ({"status": 410}, Failed, "gone"),
        ({"status": 403}, RetryLater, "403"),
        ({"status": 429}, RetryLater, "429"),
        ({"status": 500}, RetryLater, "500"),
        ({"status": 429, "headers": {"Retry-After": "7"}}, Yield, "429"),
        (
            {"status": 503, "headers": {"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}},
            Yield,
            "503",
        ),
        ({"status": 503, "headers": {"Retry-After": "soon"}}, RetryLater, "503"),
        ({"status": 418}, Failed, "418"),
        ({"status": 204}, Failed, "204"),
        ({"text": "{}", "content_type": "application/json"}, Failed, "not a page"),
        ({"text": "<p>Hello", "content_type": "text/html"}, Failed, "needs a scraping rule"),
        ({"body": b"x" * 6_000_000, "content_type": "text/html"}, Failed, "larger than"),
        (
            {
                "body": gzip.compress(b"\0" * 200_000_000),
                "content_type": "text/html",
                "headers": {"Content-Encoding": "gzip"},
            },
            Failed,
            "larger than",
        ),
        (
            {
                "body": b"not packed",
                "content_type": "text/html",
                "headers": {"Content-Encoding": "gzip"},
            },
            RetryLater,
            "unpacking",
        ),
        ({"status": 302, "headers": {"Location": "http://10.0.0.1/admin"}}, Failed, "10.0.0.1"),
        ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, Failed, "only http"),
    ],
)
async def test_what_an_answer_means_for_the_job(
    ctx: Web, answer: dict[str, Any], kind: type[Outcome], says: str
) -> None:
    async with server(answering(**answer)) as url:
        outcome = await run(ctx, KIND, {"payload": {"url": url}})
    assert isinstance(outcome, kind), outcome
    assert says in str(JobEnds(outcome))


async def test_a_server_is_left_alone_as_long_as_it_asks(ctx: Web) -> None:
    async with server(answering(status=429, headers={"Retry-After": "7"})) as url:
        outcome = await run(ctx, KIND, {"payload": {"url": url}})
    assert isinstance(outcome, Yield)
    assert outcome.after == 7
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.RATE_LIMIT


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://localhost:1/"])
async def test_private_hosts_are_refused(ctx: Web, url: str) -> None:
    ctx.allowed = ()
    outcome = await run(ctx, KIND, {"payload": {"url": url}})
    assert isinstance(outcome, Failed), outcome
    assert outcome.failure.code == "host_refused"


@pytest.mark.parametrize(
    "payload", [{}, {"url": ""}, {"url": "no"}, {"url": "ftp://x/y"}, {"url": "http://[::1"}]
)
async def test_what_is_no_address_is_refused(ctx: Web, payload: dict[str, Any]) -> None:
    outcome = await run(ctx, KIND, {"payload": payload})
    assert isinstance(outcome, Failed), outcome
    assert ctx.turns == []


async def test_a_server_that_doesnt_listen_is_asked_again_later(ctx: Web) -> None:
    outcome = await run(ctx, KIND, {"payload": {"url": "http://127.0.0.1:1/"}})
    assert isinstance(outcome, RetryLater), outcome


async def test_the_row_names_the_page_where_the_payload_doesnt(ctx: Web, shop: str) -> None:
    row = {"original_url": f"{shop}/products/2"}
    outcome = await run(ctx, KIND, {"payload": {}, "product": row})
    assert isinstance(outcome, Succeeded), outcome
