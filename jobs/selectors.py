"""The little language of scraping rules: which part of a page says what.

    {"name": "h1",                                  the element's text
     "price": ".price::text",                       the same, said aloud
     "sku": "meta[itemprop=sku]@content",           an attribute
     "brand": [".brand", "a.vendor@title"],         the first that finds something
     "images": ".gallery img@src"}                  every element; its alt is kept

A name that is no field of a product goes to its metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from selectolax.lexbor import LexborHTMLParser, LexborNode

from jobs.product import LENGTHS, MAX_IMAGES, Found, Image

FIELDS = (
    *LENGTHS,
    "price",
    "original_price",
    "currency",
    "discount_percent",
    "rating",
    "review_count",
)
ALIASES = {
    "title": "name",
    "old_price": "original_price",
    "list_price": "original_price",
    "discount": "discount_percent",
    "reviews": "review_count",
    "reviews_count": "review_count",
    "image": "images",
    "main_image": "images",
    "main_image_url": "images",
}
SELECTOR = re.compile(r"(?P<css>.*?)(?:::(?P<text>text)|@(?P<attribute>[\w:.-]+))?", re.DOTALL)
LAZY = ("data-src", "data-original", "data-lazy-src", "src", "href", "content")
"""Where the address of a picture stands, if the rule doesn't say; `src` is often a blank."""
MAX_SELECTORS = 100
MAX_LENGTH = 500


class BadRule(ValueError):
    pass


@dataclass(frozen=True, slots=True)
class Selector:
    css: str
    attribute: str | None

    @classmethod
    def parse(cls, text: str) -> Selector:
        found = SELECTOR.fullmatch(text.strip())
        css = found["css"].strip() if found else ""
        if not css or len(css) > MAX_LENGTH:
            raise BadRule(f"{text[:60]!r} is not a selector")
        return cls(css, found["attribute"] if found else None)


Rules = Mapping[str, tuple[Selector, ...]]


def parse(selectors: Mapping[str, Any]) -> Rules:
    """Raises `BadRule` with the name of the field."""
    rules: dict[str, tuple[Selector, ...]] = {}
    for name, given in selectors.items():
        texts = given if isinstance(given, list) else [given]
        if len(texts) > MAX_SELECTORS or not all(isinstance(text, str) for text in texts):
            raise BadRule(f"{name}: give a selector or a list of selectors")
        field = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        try:
            parsed = tuple(Selector.parse(text) for text in texts if text.strip())
        except BadRule as error:
            raise BadRule(f"{name}: {error}") from error
        main, field = field.startswith("main_"), ALIASES.get(field, field)
        known = rules.get(field, ())  # of two names for one field, the main one comes first
        rules[field] = parsed + known if main else known + parsed
    return rules


def read(page: LexborHTMLParser, rules: Rules) -> Found:
    found = Found()
    for name, choices in rules.items():
        if name == "images":
            found.images = list(_images(page, choices))
            continue
        text = next((t for choice in choices for t in _texts(page, name, choice) if t), "")
        if text:
            (found.texts if name in FIELDS else found.other)[name] = text
    return found


def _nodes(page: LexborHTMLParser, name: str, selector: Selector) -> list[LexborNode]:
    try:
        return page.css(selector.css)
    except Exception as error:
        raise BadRule(f"{name}: {selector.css!r} is not a CSS selector") from error


def _texts(page: LexborHTMLParser, name: str, selector: Selector) -> Iterator[str]:
    for node in _nodes(page, name, selector):
        if selector.attribute:
            yield (node.attributes.get(selector.attribute) or "").strip()
        else:
            yield node.text(deep=True, separator=" ", strip=True)


def _images(page: LexborHTMLParser, choices: tuple[Selector, ...]) -> Iterator[Image]:
    for selector in choices:
        for node in _nodes(page, "images", selector)[:MAX_IMAGES]:
            names = (selector.attribute,) if selector.attribute else LAZY
            url = next((u for n in names if (u := node.attributes.get(n))), None)
            if url and not url.startswith("data:"):
                yield Image(url, node.attributes.get("alt"))
