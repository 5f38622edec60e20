"""EcomVideo's users: who may not, what they cancel, and rows that they hold."""

from __future__ import annotations

import asyncio

import pytest

from jobs.contract import Cancelled, Failed
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
from tests.database.support import Connect, OpenStore, Work, failure
from worker.store.errors import LockTimeout
from worker.transitions import settle

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


async def test_an_operator_cannot_cancel_while_the_application_holds_the_video(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    """Nothing comes after a cancel that could write the video: both are written, or neither."""
    connection, holder = await connect(ecomvideo), await connect(ecomvideo)
    store = await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("UPDATE public.videos SET view_count = 1 WHERE id = $1", video)
    with pytest.raises(LockTimeout):
        await store.value(f"SELECT rowmill.cancel_{SOURCE}($1)", work.key)
    assert (await job_row(connection, work.key))["status"] == "Running"
    await transaction.commit()
    assert await store.value(f"SELECT rowmill.cancel_{SOURCE}($1)", work.key) == "cancelled"
    assert await status_of(connection, video) == "Cancelled"


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
