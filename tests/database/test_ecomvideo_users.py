"""EcomVideo's users: their credits, who may not, what they cancel; and products read from pages."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import Cancelled, Failed, Succeeded
from jobs.providers.journal import NotAllowed, Submission
from tests.database.settling import POLICY, Desk, settlement, until
from tests.database.shop import (
    SOURCE,
    add_job,
    add_video,
    begin,
    film,
    follow_ups,
    hire,
    job_row,
    may_pay,
    pay,
    set_credits,
    shopper,
    status_of,
    tick,
    used,
    video_row,
)
from tests.database.support import Connect, OpenStore, Work, add, failure, queued
from worker.ledger import ClaimJournal, Lease, Ledger
from worker.transitions import settle

# --------------------------------------------------------------------------- credits


async def test_a_video_takes_what_its_row_says_of_those_that_expire_first(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 3, 2, 9, 4, days=(None, 10, -1, 20))
    video, work = await begin(connection, hand, generation_cost_credits=5)
    assert await may_pay(store, hand, work)
    # By expiry: one that has expired, 2 of 10 days, 4 of 20 days, 3 for ever.
    assert await used(connection, 2) == [0, 2, 3, 0]
    await pay(store, hand, work, "video")  # the second call of the run is paid for
    assert await used(connection, 2) == [0, 2, 3, 0]
    await hand.settle([work], film)
    assert await used(connection, 2) == [0, 2, 3, 0]
    assert (await video_row(connection, video))["generation_cost_credits"] == 5
    plain, work = await begin(connection, hand)
    assert await may_pay(store, hand, work)
    await hand.settle([work], film)
    assert await used(connection, 2) == [0, 2, 4, 0]
    assert (await video_row(connection, plain))["generation_cost_credits"] == 1


@pytest.mark.parametrize(
    "columns", [{"credit_type": "PremiumFeature"}, {"is_active": False}, {"used_amount": 10}]
)
async def test_credits_that_do_not_count(
    columns: dict[str, Any], ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 10, **columns)
    _, work = await begin(connection, hand)
    with pytest.raises(NotAllowed, match="not enough video credits: 1 needed, 0 left"):
        await pay(store, hand, work)


@pytest.mark.parametrize("end", ["fail", "cancel", "expired", "deleted"])
async def test_what_came_to_nothing_is_given_back_to_where_it_came_from(
    end: str, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 2, 4)
    _, work = await begin(connection, hand, generation_cost_credits=5)
    assert await may_pay(store, hand, work)
    assert await used(connection, 2) == [2, 3]
    if end == "expired":
        await connection.execute(
            "UPDATE public.usage_credits SET expires_at = '2020-01-01' WHERE amount = 2"
        )
    if end == "deleted":
        await connection.execute("DELETE FROM public.background_jobs WHERE id = $1", work.key)
        assert await store.reclaim(SOURCE) == 1
    else:
        outcome = Cancelled() if end == "cancel" else Failed(failure())
        assert await hand.settle([work], lambda _: outcome) == {work.key: "settled"}
    assert await used(connection, 2) == [0, 0]


async def test_one_that_needs_too_much_is_in_nobodys_way(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 3)
    works = [(await begin(connection, hand, generation_cost_credits=n))[1] for n in (2, 5, 1, 1)]
    ledger = Ledger(store, Lease(30))
    made = await asyncio.gather(
        *[_intend(ledger, hand.id, w) for w in works], return_exceptions=True
    )
    assert [type(m) for m in made] == [Submission, NotAllowed, Submission, NotAllowed]
    assert await used(connection, 2) == [3]


async def test_never_below_zero_however_many_ask_at_once(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    """Four workers, real connections, two users; jobs name videos, never users."""
    connection = await connect(ecomvideo)
    stores = [await open_store(ecomvideo) for _ in range(4)]
    hand = await hire(stores[0])
    await set_credits(connection, 2, 3, 2, 4)
    await set_credits(connection, 3, 30)
    works = []
    for n in range(30):
        video = await add_video(connection, 2 + n % 2)
        await add_job(connection, {"videoId": video})
    works = await hand.take(40)
    ledgers = [Ledger(store, Lease(30)) for store in stores]
    made = await asyncio.gather(
        *[_intend(ledgers[n % 4], hand.id, w) for n, w in enumerate(works)], return_exceptions=True
    )
    assert [type(m).__name__ for m in made].count("Submission") == 9 + 15
    assert [type(m).__name__ for m in made].count("NotAllowed") == 6
    assert await used(connection, 2) == [3, 2, 4]
    assert await used(connection, 3) == [15]


async def _intend(ledger: Ledger, worker: int, work: Work) -> Submission:
    journal = ClaimJournal(ledger, queue_id=work.queue_id, token=work.token, worker=worker)
    return await journal.intend(
        "image",
        provider="freepik",
        account="acct",
        model="m",
        estimate_cents=Decimal(1),
        fingerprint="f",
    )


async def test_whose_job_it_is_stays_known_while_it_runs(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    """A change of its priority comes by the trigger, which knows no owner."""
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    _, work = await begin(connection, hand, 3)
    await connection.execute(
        "UPDATE public.background_jobs SET priority = 7 WHERE id = $1", work.key
    )
    row = (await queued(connection))[work.key]
    assert (row["rank"], row["tenant"]) == (17, shopper(3))


async def test_a_job_of_nobody_is_not_paid_for(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await add_job(connection, {})
    (work,) = await hand.take()
    with pytest.raises(NotAllowed, match="nobody can be charged"):
        await pay(store, hand, work)


# --------------------------------------------------------------------------- who may not


UNWANTED = {
    "generate_video": ({"video_id": "f6000000-0000-4000-8000-000000000004"}, "is not active"),
    "SendNotification": ({"UserId": shopper(4)}, "is not active"),
    "scrape_product": ({"userId": shopper(9)}, "there is no user"),
    "GenerateThumbnail": ({"VideoId": "f6000000-0000-4000-8000-000000000004"}, "is not active"),
}


@pytest.mark.parametrize("kind", UNWANTED)
async def test_jobs_of_inactive_or_deleted_users_do_not_begin(
    kind: str, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    payload, says = UNWANTED[kind]
    key = await add_job(connection, payload, kind=kind)
    started = (await hand.verdicts(await hand.claim(5)))[key]
    assert started.verdict == "refuse"
    assert says in started.input["message"]
    assert (await job_row(connection, key))["attempts"] == 0


async def test_a_failed_video_of_an_inactive_user_tells_nobody(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    await connection.execute("UPDATE public.users SET is_active = false WHERE id = $1", shopper(2))
    await hand.fail([work])
    assert await status_of(connection, video) == "Failed"
    assert await follow_ups(connection, but=[work.key]) == []


async def test_a_job_that_never_began_undoes_no_finished_video(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    await hand.settle([work], film)
    await connection.execute("UPDATE public.users SET is_active = false WHERE id = $1", shopper(2))
    double = await add_job(connection, {"videoId": video})
    claims = await hand.claim(5)
    said = await hand.verdicts(claims)
    assert said[double].verdict == "refuse"
    await hand.fail([Work(SOURCE, claim, said[double]) for claim in claims if claim.key == double])
    assert await status_of(connection, video) == "Completed"


async def test_a_cancelled_video_cancels_its_waiting_job(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video = await add_video(connection)
    key = await add_job(connection, {"VideoId": video})
    other = await add_job(connection, {"VideoId": video}, kind="send_notification")
    await connection.execute("UPDATE public.videos SET status = 'Cancelled' WHERE id = $1", video)
    said = await hand.verdicts(await hand.claim(5))
    assert {k: s.verdict for k, s in said.items()} == {key: "cancel", other: "run"}
    assert await status_of(connection, video) == "Cancelled"


async def test_a_cancelled_video_cancels_its_running_job_and_gives_its_credits_back(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 3)
    video, work = await begin(connection, hand)
    _, goes_on = await begin(connection, hand)
    assert await may_pay(store, hand, work)
    await connection.execute("UPDATE public.videos SET status = 'Cancelled' WHERE id = $1", video)
    entries = [{"queue_id": w.queue_id, "key": w.key} for w in (work, goes_on)]
    assert await store.stops(SOURCE, entries) == {work.queue_id: "its video was cancelled"}
    await tick(store, work, goes_on)
    assert await status_of(connection, video) == "Cancelled"
    await hand.settle([work], lambda _: Cancelled("its video was cancelled"))
    job = await job_row(connection, work.key)
    assert (job["status"], job["error_message"]) == ("Failed", "its video was cancelled")
    assert await status_of(connection, video) == "Cancelled"
    assert await used(connection, 2) == [0]
    assert await follow_ups(connection, but=[work.key, goes_on.key]) == []


async def test_a_cancel_that_came_too_late_stands_beside_what_was_made(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    await connection.execute("UPDATE public.videos SET status = 'Cancelled' WHERE id = $1", video)
    await hand.settle([work], film)
    row = await video_row(connection, video)
    assert (row["status"], row["video_url"] is None) == ("Cancelled", False)


async def test_an_operator_cancels_a_video_by_its_job(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    await store.value(f"SELECT rowmill.cancel_{SOURCE}($1)", work.key)
    row = await video_row(connection, video)
    assert (row["status"], row["error_message"]) == ("Cancelled", "its job was cancelled")


@pytest.mark.parametrize("paid", [True, False])
async def test_an_operator_who_cancels_one_job_of_a_video_leaves_the_one_that_is_paid_for(
    paid: bool, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    if paid:
        await pay(store, hand, work, "video")
        await tick(store, work)
    double = await add_job(connection, {"videoId": video})
    assert await store.value(f"SELECT rowmill.cancel_{SOURCE}($1)", double) == "cancelled"
    assert await status_of(connection, video) == ("GeneratingVideo" if paid else "Cancelled")
    entries = [{"queue_id": work.queue_id, "key": work.key}]
    assert bool(await store.stops(SOURCE, entries)) != paid


async def test_an_operators_cancel_waits_for_a_video_that_the_application_holds(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    """Nothing comes after it that could write it."""
    connection, holder = await connect(ecomvideo), await connect(ecomvideo)
    store = await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("UPDATE public.videos SET view_count = 1 WHERE id = $1", video)
    cancel = asyncio.create_task(store.value(f"SELECT rowmill.cancel_{SOURCE}($1)", work.key))
    await until(connection, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')")
    await transaction.commit()
    assert await cancel == "cancelled"
    assert await status_of(connection, video) == "Cancelled"


async def test_an_operators_cancel_gives_credits_back_and_a_retry_takes_them_again(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 4)
    video, work = await begin(connection, hand, generation_cost_credits=3)
    assert await may_pay(store, hand, work)
    # Its price changes meanwhile: what it took counts.
    await connection.execute("UPDATE public.videos SET generation_cost_credits = 4")
    assert await store.value(f"SELECT rowmill.cancel_{SOURCE}($1)", work.key) == "cancelled"
    assert await store.reclaim(SOURCE) == 1
    assert await used(connection, 2) == [0]
    await connection.execute("UPDATE public.videos SET status = 'Pending' WHERE id = $1", video)
    assert await store.value(f"SELECT rowmill.retry_{SOURCE}($1)", work.key) == "requeued"
    (again,) = await hand.take()
    assert await may_pay(store, hand, again)
    await connection.execute("UPDATE public.videos SET generation_cost_credits = 9")
    assert await used(connection, 2) == [4]
    await hand.settle([again], film)
    assert await used(connection, 2) == [4]
    assert (await video_row(connection, video))["generation_cost_credits"] == 4


async def test_what_the_application_makes_pending_again_is_charged_once_for_each_run(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 9)
    video, work = await begin(connection, hand, generation_cost_credits=2)
    again = "UPDATE public.background_jobs SET status = 'Pending' WHERE id = $1"
    assert await may_pay(store, hand, work)
    await connection.execute(again, work.key)  # while it runs: the same run goes on
    (work,) = await hand.take()
    assert await may_pay(store, hand, work)
    assert await used(connection, 2) == [2]
    await hand.fail([work])
    assert await used(connection, 2) == [0]
    await connection.execute(
        "UPDATE rowmill.submissions SET state = 'failed', cost_cents = 0, ended_at = now()"
    )
    await connection.execute(again, work.key)
    (work,) = await hand.take()
    assert await may_pay(store, hand, work)
    await hand.settle([work], film)
    assert await used(connection, 2) == [2]
    assert await status_of(connection, video) == "Completed"
    kinds = [
        (kind, payload.get("type")) for kind, payload in await follow_ups(connection, but=[work.key])
    ]
    assert kinds == [
        ("generate_thumbnail", None),
        ("send_notification", "VideoFailed"),
        ("send_notification", "VideoCompleted"),
    ]
    row = await job_row(connection, work.key)
    assert row["attempts"] <= row["max_attempts"]


async def test_a_video_that_is_deleted_stops_its_running_job(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 3)
    video, work = await begin(connection, hand)
    assert await may_pay(store, hand, work)
    await connection.execute("DELETE FROM public.videos WHERE id = $1", video)
    entries = [{"queue_id": work.queue_id, "key": work.key}]
    assert await store.stops(SOURCE, entries) == {work.queue_id: "its video was deleted"}
    await hand.settle([work], lambda _: Cancelled("its video was deleted"))
    assert await used(connection, 2) == [0]


async def test_credits_that_are_switched_off_just_now_are_not_taken(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    """Whoever locks a row sees it as it is by then, not as it was when it was looked up."""
    connection, holder = await connect(ecomvideo), await connect(ecomvideo)
    store = await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 3)
    _, work = await begin(connection, hand)
    # The statement has its snapshot when it waits here; the row changes; then it goes on.
    await connection.execute(
        """
        CREATE FUNCTION public.slow(p_id uuid) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
        BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN true; END $$;
        """
    )
    rule = await connection.fetchval(
        "SELECT pg_get_functiondef('rowmill.reserve_video_jobs(bigint[])'::regprocedure)"
    )
    await connection.execute(
        rule.replace("locked AS MATERIALIZED", "halt AS MATERIALIZED (SELECT id, public.slow(id) AS ok"
                     " FROM usable), locked AS MATERIALIZED")
        .replace("SELECT usable.id FROM usable)", "SELECT halt.id FROM halt WHERE halt.ok)", 1)
    )
    await holder.execute("SELECT pg_advisory_lock(4711)")
    asked = asyncio.create_task(may_pay(store, hand, work))
    await until(
        connection,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'advisory')",
    )
    await holder.execute("UPDATE public.usage_credits SET is_active = false")
    await holder.execute("SELECT pg_advisory_unlock(4711)")
    assert await asked is False
    assert await used(connection, 2) == [0]


async def test_a_video_that_the_application_holds_delays_nobody(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, holder = await connect(ecomvideo), await connect(ecomvideo)
    store = await open_store(ecomvideo)
    hand = await hire(store)
    video = await add_video(connection)
    await add_job(connection, {"video_id": video})
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("UPDATE public.videos SET view_count = 1 WHERE id = $1", video)
    (work,) = await hand.take()
    await tick(store, work)
    await transaction.rollback()
    assert await status_of(connection, video) == "Pending"
    await tick(store, work)
    assert await status_of(connection, video) == "Processing"


# --------------------------------------------------------------------------- products

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


@pytest.mark.parametrize("table", ["videos", "usage_credits", "video_templates"])
async def test_rows_that_the_application_holds_delay_only_their_own_video(
    table: str, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, holder = await connect(ecomvideo), await connect(ecomvideo)
    store = await open_store(ecomvideo)
    hand, desk = await hire(store), Desk(store)
    template = "f5000000-0000-4000-8000-000000000001"
    waits, bad = await begin(connection, hand, 2, template_id=template)
    goes, good = await begin(connection, hand, 3)
    assert await may_pay(store, hand, bad)
    columns = {"videos": "view_count", "usage_credits": "source", "video_templates": "name"}
    whose = {"videos": f"id = '{waits}'", "usage_credits": f"user_id = '{shopper(2)}'"}
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute(
        f"UPDATE public.{table} SET {columns[table]} = {columns[table]}"
        f" WHERE {whose.get(table, 'true')}"
    )
    ends = Failed(failure()) if table == "usage_credits" else film(bad)
    made = settle(ends, bad.as_try(), policy=POLICY, max_yields=50, chance=0.0)
    desk.put(made, settlement(good, film(good)))
    emptied = asyncio.create_task(desk.until_empty())
    await until(connection, f"SELECT status = 'Completed' FROM public.videos WHERE id = '{goes}'")
    assert await status_of(connection, waits) == "Processing"
    await transaction.commit()
    async with asyncio.timeout(30):
        await emptied
    assert desk.said == {bad.key: "settled", good.key: "settled"}
    assert await status_of(connection, waits) in ("Completed", "Failed")
