"""A small shop whose product pages can be scraped. Nothing here costs anything.

GET /shop/products/7         a page: JSON-LD, Open Graph and plain markup say the same
GET /shop/images/7-1.png     its pictures
GET /control/visits          when each path under /shop was asked for, by one steady clock
"""

from __future__ import annotations

import html
import json
import time
from collections import defaultdict
from decimal import Decimal

from aiohttp import web

from jobs.sandbox.media import Picture, label, render

LAST = 100_000
PICTURES = 3
SIDE = 320
THINGS = ("Teapot", "Lantern", "Notebook", "Backpack", "Headphones", "Desk lamp", "Scarf")
MAKERS = ("Northfield", "Okapi & Sons", "Studio Zwölf")
COLOURS = ("slate", "amber", "moss", "coral", "ivory")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name} | Sandbox Shop</title>
<meta property="og:type" content="product">
<meta property="og:title" content="{name}">
<meta property="og:description" content="{description}">
<meta property="og:image" content="{origin}/shop/images/{number}-1.png">
<meta property="product:price:amount" content="{price}">
<meta property="product:price:currency" content="EUR">
<script type="application/ld+json">{data}</script>
</head><body>
<nav><a href="/shop/products/{before}">before</a> <a href="/shop/products/{after}">after</a></nav>
<article class="product" data-id="{number}">
<h1 class="title">{name}</h1>
<p class="vendor">{brand}</p>
<p><del class="was">{was}</del> <strong class="price">{shown}</strong></p>
<p class="stock">In stock</p>
<p class="rating" title="{rating} out of 5">{rating} ({reviews} reviews)</p>
<div class="description"><p>{description}</p></div>
<p>Article <span class="sku">{sku}</span></p>
<div class="gallery">{gallery}</div>
</article></body></html>
"""


class Shop:
    def __init__(self) -> None:
        self._visits: dict[str, list[float]] = defaultdict(list)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(r"/shop/products/{number:\d{1,6}}", self.product),
            web.get(r"/shop/images/{number:\d{1,6}}-{picture:\d}.png", self.image),
            web.get("/control/visits", self.visits),
        ]

    async def product(self, request: web.Request) -> web.Response:
        number = self._visited(request)
        response = web.Response(text=page(number, str(request.url.origin())))
        response.content_type, response.charset = "text/html", "utf-8"
        response.enable_compression()
        return response

    async def image(self, request: web.Request) -> web.Response:
        number, picture = self._visited(request), int(request.match_info["picture"])
        if not 1 <= picture <= PICTURES:
            raise web.HTTPNotFound
        content = render(Picture("image", SIDE, SIDE, Decimal(0), number + picture))
        content = label("image", content, f"{number}-{picture}")
        return web.Response(body=content, content_type="image/png")

    async def visits(self, _: web.Request) -> web.Response:
        return web.json_response({"visits": self._visits})

    def _visited(self, request: web.Request) -> int:
        self._visits[request.path].append(time.monotonic())
        number = int(request.match_info["number"])
        if not 1 <= number <= LAST:
            raise web.HTTPNotFound
        return number


def page(number: int, origin: str) -> str:
    thing, colour = THINGS[number % len(THINGS)], COLOURS[number % len(COLOURS)]
    brand = MAKERS[number % len(MAKERS)]
    name = f"{thing} in {colour}, no. {number}"
    price, was = Decimal(1499 + number) / 100, Decimal(1999 + number) / 100
    description = f'The "{thing}" by {brand}: made to last, {colour} all over & through.'
    pictures = [f"{origin}/shop/images/{number}-{n}.png" for n in range(1, PICTURES + 1)]
    rating, reviews, sku = f"{3 + number % 20 / 10:.1f}", number * 7 % 500, f"SB-{number:05}"
    data = {
        "@context": "https://schema.org",
        "@graph": [
            {"@type": "BreadcrumbList", "itemListElement": []},
            {
                "@type": "Product",
                "name": name,
                "description": description,
                "sku": sku,
                "productID": str(number),
                "brand": {"@type": "Brand", "name": brand},
                "image": pictures,
                "offers": {
                    "@type": "Offer",
                    "price": str(price),
                    "priceCurrency": "EUR",
                    "availability": "https://schema.org/InStock",
                },
                "aggregateRating": {"ratingValue": rating, "reviewCount": reviews},
            },
        ],
    }
    gallery = "".join(
        f'<img src="/shop/images/{number}-{n}.png" alt="{name}, picture {n}">'
        for n in range(1, PICTURES + 1)
    )
    return PAGE.format(
        name=html.escape(name),
        brand=html.escape(brand),
        description=html.escape(description),
        data=json.dumps(data).replace("<", "\\u003c"),
        origin=origin,
        number=number,
        before=max(1, number - 1),
        after=number + 1,
        price=price,
        shown=euros(price),
        was=euros(was),
        rating=rating,
        reviews=reviews,
        sku=sku,
        gallery=gallery,
    )


def euros(price: Decimal) -> str:
    """As they are written there: `1.234,50 €`."""
    return f"{price:,.2f} €".translate(str.maketrans(",.", ".,"))
