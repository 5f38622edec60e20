"""EcomVideo's products, read from shops' pages."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from jobs.contract import Failed, Succeeded
from tests.database.shop import (
    add_job,
    add_video,
    film,
    hire,
    shopper,
    video_row,
)
from tests.database.support import Connect, OpenStore, add, failure

CHAIR = "https://shop.example.com/products/chair"
PAGE: dict[str, Any] = {
    "name": "Chair",
    "description": "A chair.",
    "price": "1249.90",
    "currency": "eur",
    "original_price": 1500,
    "discount_percent": 17,
    "brand": "Nordlys",
    "sku": "C-1",
    "product_id": "77",
    "availability": "InStock",
    "rating": 4.456,
    "review_count": 12,
    "main_image_url": "https://shop.example.com/1.jpg",
    "platform": "Shopify",
    "domain": "shop.example.com",
    "metadata": {"seo": {"title": "Chair"}},
    "images": [
        {"url": "https://shop.example.com/1.jpg", "alt_text": "front", "is_primary": True},
        {"url": "https://shop.example.com/2.jpg", "alt_text": None, "is_primary": False},
    ],
}


def page(**changes: Any) -> Succeeded:
    return Succeeded(data={"product": PAGE | changes})


async def product(connection: Any, key: str) -> Any:
    return await connection.fetchrow("SELECT * FROM public.product_data WHERE id = $1", key)


async def images(connection: Any, key: str) -> list[str]:
    rows = await connection.fetch(
        "SELECT url FROM public.product_images WHERE product_data_id = $1 ORDER BY sort_order", key
    )
    return [row["url"].rpartition("/")[2] for row in rows]


async def test_a_page_fills_its_product_and_replaces_its_pictures(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    key = "f4000000-0000-4000-8000-000000000002"
    await add(connection, "public.product_images", product_data_id=key, url="https://old/0.jpg")
    await add_job(connection, {"ProductDataId": key}, kind="ScrapeProduct")
    (work,) = await hand.take()
    assert work.started.input["product"]["original_url"] == CHAIR
    assert work.started.input["rule"]["domain"] == "shop.example.com"
    assert await hand.settle([work], lambda _: page()) == {work.key: "settled"}
    row = await product(connection, key)
    assert (row["name"], row["price"], row["currency"]) == ("Chair", Decimal("1249.90"), "EUR")
    assert (row["rating"], row["review_count"], row["product_id"]) == (Decimal("4.46"), 12, "77")
    assert (row["scraping_status"], row["updated_by"]) == ("Success", "rowmill")
    assert json.loads(row["metadata"]) == {"seo": {"title": "Chair"}}
    assert await images(connection, key) == ["1.jpg", "2.jpg"]


async def test_a_page_with_only_a_user_gets_a_product_once(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    named = {"url": "https://shop.example.com/new", "userId": shopper(1)}
    for _ in range(2):
        await add_job(connection, named, kind="scrape_product")
    assert set((await hand.settle(await hand.take(5), lambda _: page())).values()) == {"settled"}
    await add_job(connection, named, kind="scrape_product")
    await hand.settle(await hand.take(5), lambda _: page(name="Stool"))
    rows = await connection.fetch(
        "SELECT id::text, name FROM public.product_data WHERE user_id = $1", shopper(1)
    )
    assert [row["name"] for row in rows] == ["Stool"]
    assert await images(connection, rows[0]["id"]) == ["1.jpg", "2.jpg"]


async def test_what_does_not_fit_is_clipped_or_left_out(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    key = "f4000000-0000-4000-8000-000000000002"
    await add_job(connection, {"product_data_id": key}, kind="scrape_product")
    (work,) = await hand.take()
    long = "https://shop.example.com/" + "x" * 500
    odd = page(
        name="n" * 900,
        price="1e400",
        currency="dollars",
        rating="much",
        review_count=10**12,
        discount_percent=-5,
        brand="b" * 900,
        main_image_url=long,
        metadata=[1],
        images=[{"url": long}, {"url": "https://shop.example.com/3.jpg", "alt_text": "a" * 900}],
    )
    assert await hand.settle([work], lambda _: odd) == {work.key: "settled"}
    row = await product(connection, key)
    assert (len(row["name"]), len(row["brand"])) == (500, 200)
    assert (row["price"], row["rating"], row["review_count"]) == (None, None, 0)
    assert row["main_image_url"] == "https://shop.example.com/3.jpg"
    assert await images(connection, key) == ["3.jpg"]


async def test_a_page_that_could_not_be_read_says_so_on_its_product(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    key = "f4000000-0000-4000-8000-000000000002"
    await add_job(connection, {"productDataId": key}, kind="ScrapeProduct")
    (work,) = await hand.take()
    await hand.settle([work], lambda _: Failed(failure("no " * 2000)))
    row = await product(connection, key)
    assert (row["scraping_status"], len(row["error_message"])) == ("Failed", 1000)


async def test_a_video_of_a_page_gets_its_product(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video = await add_video(connection, 3, input_type="Url")
    await add_job(connection, {"videoId": video, "productUrl": "https://shop.example.com/new"})
    (work,) = await hand.take()
    assert work.started.input["rule"]["domain"] == "shop.example.com"
    made = film(work)
    data = {**made.data, "product": PAGE}
    assert await hand.settle([work], lambda w: film(w, data=data)) == {work.key: "settled"}
    row = await video_row(connection, video)
    assert row["status"] == "Completed"
    read = await product(connection, str(row["product_data_id"]))
    assert (read["name"], str(read["user_id"])) == ("Chair", shopper(3))
    assert read["original_url"] == "https://shop.example.com/new"


async def test_a_user_who_went_meanwhile_leaves_no_product(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    (owner,) = await add(connection, "public.users", email="gone@example.com", password_hash="-")
    named = {"url": "https://shop.example.com/new", "user_id": owner}
    await add_job(connection, named, kind="scrape_product")
    (work,) = await hand.take()
    await connection.execute("DELETE FROM public.users WHERE id = $1", owner)
    assert await hand.settle([work], lambda _: page()) == {work.key: "settled"}
    assert await connection.fetchval("SELECT count(*) FROM public.product_data") == 2
