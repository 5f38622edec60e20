"""What is read off pages: a table of shops' habits, and of odd pages that must break nothing."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs import money
from jobs.product import Product, absolute, availability
from jobs.product_page import read_page
from jobs.selectors import BadRule

URL = "https://www.shop.example/p/7?x=1"


def read(text: str | bytes, rule: Any = None, content_type: str = "text/html") -> Product | None:
    body = text.encode() if isinstance(text, str) else text
    return read_page(body, content_type, URL, rule, None)


def found(text: str | bytes, rule: Any = None, content_type: str = "text/html") -> Product:
    product = read(text, rule, content_type)
    assert product is not None
    return product


def ld(value: Any) -> str:
    return f'<script type="application/ld+json">{json.dumps(value)}</script>'


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("1.299,00 €", "1299.00", "EUR"),
        ("$1,299.00", "1299.00", "USD"),
        ("USD 12", "12.00", "USD"),
        ("US$ 12.5", "12.50", "USD"),
        ("C$12", "12.00", "CAD"),
        ("£0.99", "0.99", "GBP"),
        ("CHF 1'299.–", "1299.00", "CHF"),
        ("1 299,90 zł", "1299.90", "PLN"),
        ("1\u202f299\u00a0€", "1299.00", "EUR"),
        ("Rs. 1,29,999", "129999.00", None),
        ("¥12,000", "12000.00", "JPY"),
        ("1.299", "1299.00", None),
        ("1.29", "1.29", None),
        ("0.299", "0.30", None),
        ("from 12,- EUR", "12.00", "EUR"),
        ("R$ 1.299,5", "1299.50", "BRL"),
        ("Now $12.00 was $15.00", "12.00", "USD"),
        ("free", None, None),
        ("", None, None),
        ("99999999999", None, None),
        ("9" * 5000, None, None),
        ("1,2,3.4.5", "12345.00", None),
    ],
)
def test_prices_as_people_write_them(text: str, amount: str | None, currency: str | None) -> None:
    expected = None if amount is None else Decimal(amount)
    if text == "1,2,3.4.5":  # nobody's way to write a number: any answer, no error
        money.price(money.amount(text))
        return
    assert money.price(money.amount(text)) == expected
    assert money.currency(text) == currency


@pytest.mark.parametrize(
    ("text", "rating"),
    [("4.5 out of 5", "4.50"), ("4,5/5", "4.50"), ("9/10", "4.50"), ("4.7 (12)", "4.70")],
)
def test_ratings_are_of_five(text: str, rating: str) -> None:
    assert money.rating(text) == Decimal(rating)


@pytest.mark.parametrize("text", ["", "great", "9", "7/0"])
def test_what_is_no_rating_is_left_out(text: str) -> None:
    assert money.rating(text) is None


@pytest.mark.parametrize(
    ("text", "count"),
    [("1,234 reviews", 1234), ("(1.2k)", 1200), ("2K", 2000), ("none", None), ("9" * 12, None)],
)
def test_counts(text: str, count: int | None) -> None:
    assert money.count(text) == count


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("https://schema.org/InStock", "InStock"),
        ("http://schema.org/OutOfStock", "OutOfStock"),
        ("In stock, ready to ship", "InStock"),
        ("Sold out!", "SoldOut"),
        ("out of stock", "OutOfStock"),
        ("Pre-order", "PreOrder"),
        ("Auf Lager", "Auf Lager"),
    ],
)
def test_availability(text: str, word: str) -> None:
    assert availability(text) == word


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("/a.png", "https://www.shop.example/a.png"),
        ("//cdn.example/a b.png", "https://cdn.example/a%20b.png"),
        ("b.png", "https://www.shop.example/p/b.png"),
        ("data:image/png;base64,AA", None),
        ("javascript:alert(1)", None),
        ("http://[::1", None),
        ("/" + "a" * 500, None),
    ],
)
def test_addresses_are_made_whole(url: str, there: str | None) -> None:
    assert absolute(url, URL) == there


def test_json_ld_in_a_graph_with_an_aggregate_offer() -> None:
    product = found(
        ld(
            {
                "@graph": [
                    {"@type": "WebSite", "name": "Shop"},
                    {
                        "@type": ["Thing", "http://schema.org/Product"],
                        "name": "Tea &amp; Pot",
                        "brand": {"name": "Okapi"},
                        "image": [{"url": "/1.png"}, "/2.png", 7, None],
                        "offers": {"lowPrice": "1299.000", "priceCurrency": "eur"},
                        "aggregateRating": {"ratingValue": 9, "bestRating": "10"},
                    },
                ]
            }
        )
    )
    assert (product.name, product.brand) == ("Tea & Pot", "Okapi")
    assert (product.price, product.rating) == (Decimal(1299), Decimal("4.5"))
    assert product.currency == "EUR"
    assert [image.url[-5:] for image in product.images] == ["1.png", "2.png"]
    assert product.domain == "shop.example"


def test_microdata() -> None:
    product = found(
        '<div itemscope itemtype="https://schema.org/Product"><span itemprop="name">Pot</span>'
        '<meta itemprop="price" content="12.50"><meta itemprop="priceCurrency" content="GBP">'
        '<img itemprop="image" src="/a.png" alt="A pot"></div>'
    )
    assert (product.name, product.price, product.currency) == ("Pot", Decimal("12.50"), "GBP")
    assert product.images[0].alt_text == "A pot"


def test_open_graph() -> None:
    product = found(
        '<meta property="og:type" content="og:product"><meta property="og:title" content="Pot">'
        '<meta property="og:image" content="https://cdn.shopify.com/a.png">'
        '<meta property="product:price:amount" content="1.299">'
    )
    assert (product.name, product.price, product.platform) == ("Pot", Decimal("1.30"), "Shopify")


def test_a_page_that_isnt_of_a_product_gives_none() -> None:
    assert read('<title>News</title><meta property="og:title" content="News">') is None


def test_lengths_are_those_of_the_platforms_columns() -> None:
    product = found(
        ld({"@type": "Product", "name": "n" * 900, "brand": "b" * 900, "sku": "s" * 900})
    )
    assert [len(product.name), len(product.brand or ""), len(product.sku or "")] == [500, 200, 100]


def test_the_main_image_comes_first_whatever_the_order_of_the_rule() -> None:
    page = '<h1>Pot</h1><img class="a" src="/1.png"><img class="main" src="/2.png">'
    rule = {"images": "img", "name": "h1", "main_image": "img.main@src"}
    assert [image.url[-5:] for image in found(page, rule).images] == ["2.png", "1.png"]


def test_pictures_that_are_loaded_late() -> None:
    page = '<h1>Pot</h1><img src="data:image/gif;base64,R0" data-src="/real.png">'
    assert [i.url[-8:] for i in found(page, {"name": "h1", "image": "img"}).images] == ["real.png"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<h1>Zwölf".encode("latin-1"), "text/html; charset=ISO-8859-1"),
        ("<h1>Zwölf".encode(), "text/html"),
        (b'<meta charset="windows-1252">' + "<h1>Zwölf".encode("cp1252"), "text/html"),
        ("<h1>Zwölf".encode(), "text/html; charset=unicode_escape"),
        ("\ufeff<h1>Zwölf".encode(), "text/html; charset=nonsense"),
    ],
)
def test_letters(body: bytes, content_type: str) -> None:
    assert found(body, {"name": "h1"}, content_type).name == "Zwölf"


ODD = [
    "",
    "\0",
    "<",
    "<!--",
    "<h1",
    "<script type='application/ld+json'>",
    "<script type='application/ld+json'>{</script>",
    ld([[[[{"@type": "Product"}]]]]),
    ld({"@type": "Product", "name": None, "offers": "free", "image": {"url": 3}}),
    ld({"@type": {"a": 1}, "name": "x"}),
    ld({"@type": "Product", "name": ["a", ["b"]], "offers": [[{"price": []}]]}),
    ld({"@type": "Product", "name": "\ud800\0 half", "aggregateRating": {"bestRating": 0}}),
    ld({"@type": "Product", "name": "x", "offers": {"price": float("inf")}}),
    ld({"@type": "Product", "name": "x", "offers": {"price": True, "highPrice": "NaN"}}),
    "<script type='application/ld+json'>" + "[" * 100_000 + "</script>",
    "<script type='application/ld+json'>" + '{"a":' * 3_000 + "1" + "}" * 3_000 + "</script>",
    "<div>" * 2_000 + "<h1>deep",
    '<meta property="og:type" content="product"><meta property="og:title" content=" ">',
    '<div itemtype="https://schema.org/Product"><i itemprop><i itemprop="name price"></div>',
    '<base href="http://[">' + '<img src="http://[">' * 100 + "<h1>x</h1>",
]
EVERYTHING = {"name": "h1", "price": "*", "images": "*", "rating": "[title]@title", "x": "*@href"}


@pytest.mark.parametrize("page", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("rule", [None, EVERYTHING], ids=["generic", "rule"])
def test_odd_pages_break_nothing(page: str, rule: Any) -> None:
    product = read(page.encode("utf-8", "surrogatepass"), rule)
    assert pickle.loads(pickle.dumps(product)) == product  # may be read in another process
    if product is not None:
        kept = json.dumps(product.as_json(), ensure_ascii=False).encode()  # as Postgres wants it
        assert b"\\u0000" not in kept


NAMES = (
    *("@type", "name", "offers", "price", "image", "url", "brand", "aggregateRating"),
    *("ratingValue", "bestRating", "reviewCount", "priceSpecification", "hasVariant"),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20) | st.sampled_from(["Product"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(ANY_JSON)
@example({"name": "x", "offers": {"price": "1e999"}})
def test_whatever_a_shop_says_to_machines(value: Any) -> None:
    node = value if isinstance(value, dict) else {"name": value}
    product = read(ld({**node, "@type": "Product"}))
    if product is not None:
        json.dumps(product.as_json(), ensure_ascii=False).encode()
        assert product.price is None or product.price < 10**8


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_whatever_a_rule_says(text: str) -> None:
    with suppress(BadRule):
        read("<h1 title=a>Pot</h1>", {"name": text, "images": [text]})


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.,' €$kK/of-\u00a0\u0661", max_size=40))
def test_whatever_stands_for_a_number(text: str) -> None:
    price, rating, count = money.price(money.amount(text)), money.rating(text), money.count(text)
    assert price is None or 0 <= price < 10**8
    assert rating is None or 0 <= rating <= 5
    assert count is None or 0 <= count < 2**31
