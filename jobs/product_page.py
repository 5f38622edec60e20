"""From a page's bytes to a product: by a rule's selectors, then by what shops say to machines.

    rule's selectors  >  JSON-LD Product  >  microdata Product  >  Open Graph

Pages are anything: whatever can't be read counts as not said.
"""

from __future__ import annotations

import html
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

from jobs import selectors
from jobs.product import MAX_IMAGES, Found, Image, Product, assemble

MAX_NODES = 5_000
ENCODING = re.compile(r"charset\s*=\s*[\"']?\s*([\w-]{3,20})", re.IGNORECASE)
ENCODINGS = re.compile(
    r"utf-?8|us-ascii|latin-?1|iso-8859-\d{1,2}|windows-125\d|cp125\d|shift_jis|euc-(jp|kr)"
    r"|gb(k|2312|18030)|big5|koi8-[ru]",
    re.IGNORECASE,
)
SIGNS = (  # of shop software, in a page's text
    ("cdn.shopify.com", "Shopify"),
    ("Shopify.theme", "Shopify"),
    ("woocommerce", "WooCommerce"),
    ("Magento_", "Magento"),
    ("bigcommerce.com", "BigCommerce"),
    ("prestashop", "PrestaShop"),
    ("squarespace.com", "Squarespace"),
    ("wixstatic.com", "Wix"),
)
HOSTS = (("amazon.", "Amazon"), ("etsy.", "Etsy"), ("ebay.", "eBay"), ("aliexpress.", "AliExpress"))


def read_page(
    body: bytes, content_type: str, url: str, rule: Mapping[str, Any] | None, platform: str | None
) -> Product | None:
    """`rule` is a scraping rule's selectors. Raises `BadRule`. None: no product on this page."""
    rules = selectors.parse(rule or {})
    text = decode(body, content_type)
    page = LexborHTMLParser(text)
    chosen = selectors.read(page, rules)
    told = [json_ld(page), microdata(page)]
    graph = open_graph(page)
    if chosen or any(told) or "price" in graph.texts or is_product(page):
        told.append(graph)
    return assemble(
        [chosen, *told],
        page=url,
        platform=platform or guess_platform(url, text),
        how="selectors" if chosen else "generic",
    )


def decode(body: bytes, content_type: str) -> str:
    head = body[:2048].decode("latin-1")
    for place in (content_type, head):
        found = ENCODING.search(place)
        if found and ENCODINGS.fullmatch(found.group(1)):
            return body.decode(found.group(1), "replace")
    return body.decode("utf-8-sig", "replace")


def guess_platform(url: str, text: str) -> str:
    host = f".{urlsplit(url).hostname or ''}"
    for part, name in HOSTS:
        if f".{part}" in host:
            return name
    return next((name for sign, name in SIGNS if sign in text), "Other")


# --------------------------------------------------------------------------- JSON-LD


def json_ld(page: LexborHTMLParser) -> Found:
    for script in page.css('script[type="application/ld+json"]')[:50]:
        try:
            value = json.loads(script.text(deep=True).strip().removesuffix(";"), strict=False)
        except (ValueError, RecursionError):
            continue
        for node in objects(value):
            if "Product" in types(node) or "ProductGroup" in types(node):
                return product_node(node)
    return Found()


def objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in it, outer ones first."""
    waiting = deque([value])
    for _ in range(MAX_NODES):
        if not waiting:
            return
        here = waiting.popleft()
        if isinstance(here, dict):
            yield here
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here


def types(node: Mapping[str, Any]) -> list[str]:
    given = node.get("@type")
    names = given if isinstance(given, list) else [given]
    return [name.rpartition("/")[2] for name in names if isinstance(name, str)]


def product_node(node: Mapping[str, Any]) -> Found:
    variants = [node, *(v for v in _list(node.get("hasVariant")) if isinstance(v, dict))]
    offers = [o for n in variants for o in _list(n.get("offers")) if isinstance(o, dict)]
    offer: Mapping[str, Any] = offers[0] if offers else {}
    rating = node.get("aggregateRating")
    rating = rating if isinstance(rating, dict) else {}
    specifications = [s for s in _list(offer.get("priceSpecification")) if isinstance(s, dict)]
    asked = specifications[0] if specifications else {}
    texts = {
        "name": node.get("name"),
        "description": node.get("description"),
        "brand": node.get("brand"),
        "sku": node.get("sku") or offer.get("sku"),
        "product_id": node.get("productID") or node.get("gtin13") or node.get("mpn"),
        "price": offer.get("price") or offer.get("lowPrice") or asked.get("price"),
        "original_price": offer.get("highPrice") if "price" in offer else None,
        "currency": offer.get("priceCurrency") or asked.get("priceCurrency"),
        "availability": offer.get("availability"),
        "rating": rating.get("ratingValue"),
        "best_rating": rating.get("bestRating"),
        "review_count": rating.get("reviewCount") or rating.get("ratingCount"),
    }
    pictures = [i for i in _list(node.get("image")) if isinstance(i, str | dict)]
    images = [Image(url) for item in pictures if (url := _text(item, "url"))]
    return Found(
        {name: text for name, value in texts.items() if (text := _text(value, "name"))},
        images[:MAX_IMAGES],
        machine=True,
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any, name: str) -> str:
    """A string or a number; of an object or a list, what stands for it."""
    match value:
        case str():
            return html.unescape(value)
        case bool():
            return ""
        case int() | float():
            return f"{value}"
        case [first, *_]:
            return _text(first, name) if not isinstance(first, list) else ""
        case {"@value": str(text)}:
            return text
        case dict():
            inner = value.get(name) or value.get("contentUrl") or value.get("@id")
            return html.unescape(inner) if isinstance(inner, str) else ""
    return ""


# --------------------------------------------------------------------------- microdata

ITEM_PROPERTIES = {
    "name": "name",
    "description": "description",
    "brand": "brand",
    "sku": "sku",
    "productID": "product_id",
    "price": "price",
    "lowPrice": "price",
    "priceCurrency": "currency",
    "availability": "availability",
    "ratingValue": "rating",
    "bestRating": "best_rating",
    "reviewCount": "review_count",
    "ratingCount": "review_count",
}


def microdata(page: LexborHTMLParser) -> Found:
    found, item = Found(machine=True), page.css_first('[itemtype*="schema.org/Product"]')
    for node in item.css("[itemprop]")[:MAX_NODES] if item is not None else ():
        for name in (node.attributes.get("itemprop") or "").split():
            value = _value(node)
            if name == "image" and value:
                found.images.append(Image(value, node.attributes.get("alt")))
            elif name in ITEM_PROPERTIES and value:
                found.texts.setdefault(ITEM_PROPERTIES[name], value)
    return found


def _value(node: LexborNode) -> str:
    for name in ("content", "src", "href"):
        told = node.attributes.get(name)
        if told:
            return told
    return node.text(deep=True, separator=" ", strip=True)


# --------------------------------------------------------------------------- Open Graph

GRAPH = {
    "og:title": "name",
    "og:description": "description",
    "product:brand": "brand",
    "og:brand": "brand",
    "product:retailer_item_id": "product_id",
    "product:price:amount": "price",
    "og:price:amount": "price",
    "product:price:currency": "currency",
    "og:price:currency": "currency",
    "product:original_price:amount": "original_price",
    "product:availability": "availability",
    "og:availability": "availability",
}
PICTURES = ("og:image", "og:image:url", "og:image:secure_url", "twitter:image")


def open_graph(page: LexborHTMLParser) -> Found:
    found = Found(machine=True)
    for node in page.css("meta[content]")[:MAX_NODES]:
        name = node.attributes.get("property") or node.attributes.get("name") or ""
        content = node.attributes.get("content") or ""
        if name in GRAPH and content:
            found.texts.setdefault(GRAPH[name], content)
        elif name in PICTURES and content:
            found.images.append(Image(content))
    return found


def is_product(page: LexborHTMLParser) -> bool:
    node = page.css_first('meta[property="og:type"]')
    return node is not None and "product" in (node.attributes.get("content") or "")
