"""A product as a shop's page tells it, in the lengths the platform's columns hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urljoin, urlsplit

from jobs import money

MAX_URL = 500
MAX_IMAGES = 20
MAX_DESCRIPTION = 20_000
LENGTHS = {
    "name": 500,
    "description": MAX_DESCRIPTION,
    "brand": 200,
    "sku": 100,
    "product_id": 255,
    "availability": 50,
}
AVAILABILITY = re.compile(r"(in|out\s*of|sold|back|pre)[\s_-]*(stock|out|order)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Image:
    url: str
    alt_text: str | None = None


@dataclass(slots=True)
class Found:
    """What one way of reading a page found: texts as they stand there."""

    texts: dict[str, str] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)
    other: dict[str, str] = field(default_factory=dict)
    machine: bool = False
    """Numbers are written by a program, not for people."""

    def __bool__(self) -> bool:
        return bool(self.texts or self.images)


@dataclass(frozen=True, slots=True)
class Product:
    name: str
    platform: str
    domain: str
    description: str | None = None
    price: Decimal | None = None
    currency: str | None = None
    original_price: Decimal | None = None
    discount_percent: int | None = None
    brand: str | None = None
    sku: str | None = None
    product_id: str | None = None
    availability: str | None = None
    rating: Decimal | None = None
    review_count: int | None = None
    images: tuple[Image, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The form that the platform's `finish.sql` reads."""
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("images", "price", "original_price", "rating")
        }
        for name in ("price", "original_price", "rating"):
            value = getattr(self, name)
            plain[name] = None if value is None else str(value)
        return {
            **plain,
            "main_image_url": self.images[0].url if self.images else None,
            "images": [
                {
                    "url": image.url,
                    "alt_text": image.alt_text,
                    "is_primary": number == 0,
                    "sort_order": number,
                }
                for number, image in enumerate(self.images)
            ],
        }


def assemble(ways: Iterable[Found], *, page: str, platform: str, how: str) -> Product | None:
    """The first way that found a field counts. None where nobody found a name."""
    told = [way for way in ways if way]
    first: dict[str, tuple[str, bool]] = {}
    for way in told:
        for name, text in way.texts.items():
            if tidy(text):
                first.setdefault(name, (tidy(text), way.machine))
    words = {name: text[: LENGTHS[name]] for name, (text, _) in first.items() if name in LENGTHS}
    if "name" not in words:
        return None
    price, original = (_price(first.get(name)) for name in ("price", "original_price"))
    if original is not None and price is not None and original <= price:
        original = None
    if "availability" in words:
        words["availability"] = availability(words["availability"])
    return Product(
        **words,
        platform=tidy(platform)[:50] or "Other",
        domain=domain_of(page),
        price=price,
        original_price=original,
        discount_percent=_discount(price, original, first.get("discount_percent")),
        currency=_currency(first),
        rating=_rating(first),
        review_count=money.count(first["review_count"][0]) if "review_count" in first else None,
        images=_images((image for way in told for image in way.images), page),
        metadata={
            "extraction": how,
            **{k: tidy(v)[:500] for way in told for k, v in way.other.items()},
        },
    )


def tidy(text: str) -> str:
    """One line, and nothing that no database takes."""
    return " ".join(text.replace("\0", "").encode("utf-8", "ignore").decode().split())


def domain_of(url: str) -> str:
    return (urlsplit(url).hostname or "").removeprefix("www.")[:100]


def availability(text: str) -> str:
    """schema.org's word, with or without its address; `In stock` is InStock, too."""
    word = text.rstrip("/").rpartition("/")[2] if "schema.org" in text else text
    found = AVAILABILITY.search(word)
    if found is None:
        return word[:50]
    first, second = (part.lower() for part in found.groups())
    return f"{'OutOf' if first.startswith('out') else first.capitalize()}{second.capitalize()}"


def absolute(url: str, page: str) -> str | None:
    """None for what is no http address or too long for the platform."""
    if not url.strip():
        return None
    try:
        joined = urljoin(page, tidy(url).replace(" ", "%20"))
        parts = urlsplit(joined)
    except ValueError:
        return None
    fits = parts.scheme in ("http", "https") and parts.hostname and len(joined) <= MAX_URL
    return joined if fits else None


def _images(images: Iterable[Image], page: str) -> tuple[Image, ...]:
    kept: dict[str, Image] = {}
    for image in images:
        url = absolute(image.url, page)
        if url is not None:
            alt = tidy(image.alt_text or "")[:500] or None
            kept.setdefault(url, Image(url, alt))
    return tuple(kept.values())[:MAX_IMAGES]


def _price(told: tuple[str, bool] | None) -> Decimal | None:
    if told is None:
        return None
    text, machine = told
    return money.price(money.plain(text) if machine else money.amount(text))


def _discount(
    price: Decimal | None, original: Decimal | None, told: tuple[str, bool] | None
) -> int | None:
    if price is not None and original is not None:
        return round(100 * (original - price) / original)
    percent = money.amount(told[0]) if told else None
    return round(percent) if percent is not None and percent <= 100 else None


def _currency(first: Mapping[str, tuple[str, bool]]) -> str | None:
    if "currency" in first and re.fullmatch(r"[A-Za-z]{3}", first["currency"][0]):
        return first["currency"][0].upper()
    texts = (first[name][0] for name in ("currency", "price", "original_price") if name in first)
    return next((code for text in texts if (code := money.currency(text))), None)


def _rating(first: Mapping[str, tuple[str, bool]]) -> Decimal | None:
    if "rating" not in first:
        return None
    best = money.plain(first["best_rating"][0]) if "best_rating" in first else None
    return money.rating(first["rating"][0], best)
