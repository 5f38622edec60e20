"""EcomVideo's rules through the whole engine: videos, what follows them, products, who may not."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import Failed, Succeeded
from tests.database.hand import video_file
from tests.database.journaling import journal_of
from tests.database.settling import Desk, settlement
from tests.database.shop import (
    add_job,
    add_video,
    begin,
    film,
    follow_ups,
    hire,
    job_row,
    pay,
    shopper,
    status_of,
    tick,
    video_row,
)
from tests.database.support import Connect, OpenStore, failure, new_keys, queued

# --------------------------------------------------------------------------- what a job is about

SPELLINGS = [
    ("generate_video", "video_id"),
    ("GenerateVideo", "videoId"),
    ("generateVideo", "VideoId"),
]


@pytest.mark.parametrize(("kind", "key"), SPELLINGS)
async def test_kinds_and_keys_in_any_spelling(
    kind: str, key: str, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video = await add_video(connection, 3)
    await add_job(connection, {key: video.upper()}, kind=kind)
    (work,) = await hand.take()
    assert work.started.kind == "background:generate_video"
    given = work.started.input
    assert given["video"]["id"] == video
    assert given["user"] == {
        "id": shopper(3),
        "email": "shop3@example.com",
        "first_name": "Shop 3",
        "is_active": True,
    }
    assert given["plan"]["ai_providers"] == ["Freepik", "RunwayML", "StabilityAI"]
    assert given["preferences"]["preferred_ai_provider"] == "RunwayML"
    assert (given["notifications"], given["product"], given["made_by"]) == ({}, None, {})
    assert (await queued(connection))[work.key]["tenant"] == shopper(3)


async def test_a_payload_that_says_nothing_breaks_nobody_elses_start(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video = await add_video(connection)
    odd: tuple[Any, ...] = (
        [1],
        "x",
        7,
        None,
        {},
        {"videoId": 7},
        {"videoId": {"a": 1}},
        {"video_id": "no"},
    )
    keys = [await add_job(connection, payload) for payload in odd]
    keys += [await add_job(connection, {"video_id": new_keys(1)[0]})]
    good = await add_job(connection, {"video_id": video})
    works = {work.key: work for work in await hand.take(20)}
    assert set(works) == {*keys, good}
    assert all(works[key].started.input["video"] is None for key in keys)
    assert works[good].started.input["video"]["id"] == video
    await hand.fail([works[key] for key in keys])
    assert (await job_row(connection, keys[0]))["status"] == "Failed"


async def test_a_scraping_rule_is_found_by_the_longest_domain(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await connection.execute(
        "INSERT INTO public.scraping_rules (domain, platform, selectors)"
        " VALUES ('example.com', 'Any', '{}')"
    )
    expected = {
        "https://shop.example.com/p": "shop.example.com",
        "https://WWW.Shop.Example.com:8443/p?x": "shop.example.com",
        "http://me@other.example.com": "example.com",
        "https://myexample.com/p": None,
        "nonsense": None,
        # A dot at the end names the same host; and no address is so long that it takes the fleet.
        "https://closed.example.com./p": "closed.example.com",
        f"https://{'a.' * 200_000}example.com/p": None,
    }
    keys = {await add_job(connection, {"Url": url}, kind="ScrapeProduct"): url for url in expected}
    works = await hand.take(20)
    rules = {keys[w.key]: (w.started.input["rule"] or {}).get("domain") for w in works}
    assert rules == expected


# --------------------------------------------------------------------------- a video's stages


async def test_a_video_shows_each_stage_and_its_tasks_as_they_are_accepted(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand, 2)
    journal = journal_of(store, work, hand)

    async def shown() -> tuple[Any, ...]:
        await tick(store, work)
        row = await video_row(connection, video)
        return row["status"], row["freepik_image_task_id"], row["freepik_task_id"]

    assert await shown() == ("Processing", None, None)
    still = await pay(store, hand, work, "image")
    assert await shown() == ("GeneratingImage", None, None)
    await journal.accepted(still.id, ref={}, external_id="task-still")
    assert await shown() == ("GeneratingImage", "task-still", None)
    await journal.finished(still.id, result={}, cost_cents=Decimal(10))
    moving = await pay(store, hand, work, "video")
    assert await shown() == ("GeneratingVideo", "task-still", None)
    await journal.accepted(moving.id, ref={}, external_id="task-film")
    assert await shown() == ("GeneratingVideo", "task-still", "task-film")
    # It comes back in the middle, and is resumed where it was.
    await hand.yield_([work])
    await connection.execute("UPDATE rowmill.queue SET state = 'ready'")
    (work,) = await hand.take()
    assert await shown() == ("GeneratingVideo", "task-still", "task-film")
    assert work.started.input["made_by"] == {"image": "freepik", "video": "freepik"}

    await hand.settle([work], lambda w: film(w, external_id="task-film"))
    row = await video_row(connection, video)
    assert (row["status"], row["error_message"], row["updated_by"]) == (
        "Completed",
        None,
        "rowmill",
    )
    assert row["video_url"] == f"https://files.example.com/generated/{work.key}-1.mp4"
    assert row["thumbnail_url"] == "https://files.example.com/t.jpg"
    assert row["image_url"] == "https://files.example.com/still.png"
    assert (row["file_size_bytes"], row["duration_seconds"]) == (120_000, 2)
    assert (row["freepik_image_task_id"], row["freepik_task_id"]) == ("task-still", "task-film")
    assert (row["ai_provider"], row["generation_cost_credits"]) == ("Freepik", 1)
    assert row["completed_at"] is not None
    assert row["updated_at"] is not None
    assert json.loads(row["metadata"]) == {
        "width": 1280,
        "height": 720,
        "frameRate": 30.0,
        "format": "mp4",
        "codec": "h264",
        "bitrate": 2000000,
        "duration": 2.0,
        "fileSize": 120000,
    }
    job = await job_row(connection, work.key)
    assert (job["status"], job["attempts"], job["error_message"]) == ("Completed", 1, None)
    utc = await connection.fetchval("SELECT now() AT TIME ZONE 'UTC'")
    assert abs((utc - row["completed_at"]).total_seconds()) < 60


async def test_tasks_of_other_providers_are_not_freepiks(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand, 3)
    made = await pay(store, hand, work, "video", provider="runway")
    await journal_of(store, work, hand).accepted(made.id, ref={}, external_id="run-1")
    await tick(store, work)
    row = await video_row(connection, video)
    assert (row["status"], row["freepik_task_id"]) == ("GeneratingVideo", None)
    await hand.settle([work], lambda w: film(w, provider="runway", external_id="run-1"))
    row = await video_row(connection, video)
    assert (row["status"], row["freepik_task_id"]) == ("Completed", None)


async def test_a_task_id_that_is_too_long_or_taken_stops_nothing(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    await add_video(connection, freepik_task_id="theirs")
    long = await pay(store, hand, work, "image")
    await journal_of(store, work, hand).accepted(long.id, ref={}, external_id="x" * 101)
    same = await pay(store, hand, work, "video")
    await journal_of(store, work, hand).accepted(same.id, ref={}, external_id="theirs")
    await tick(store, work)
    row = await video_row(connection, video)
    assert (row["status"], row["freepik_task_id"]) == ("GeneratingVideo", None)
    said = await hand.settle([work], lambda w: film(w, external_id="theirs"))
    assert said == {work.key: "settled"}


async def test_a_retry_keeps_its_video_in_work_and_the_last_failure_ends_it(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    for attempt in (1, 2, 3):
        assert (await job_row(connection, work.key))["attempts"] == attempt
        assert await status_of(connection, video) == "Processing"
        await hand.retry([work])
        if attempt < 3:
            assert await status_of(connection, video) == "Processing"
            (work,) = await hand.take()
    row = await video_row(connection, video)
    assert (row["status"], row["error_message"]) == ("Failed", "it broke")
    job = await job_row(connection, work.key)
    assert (job["status"], job["attempts"]) == ("Failed", 3)
    assert job["completed_at"] is not None


async def test_an_error_longer_than_its_columns_is_clipped(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    said = await hand.settle([work], lambda _: Failed(failure("no " * 2000)))
    assert said == {work.key: "settled"}
    assert len((await video_row(connection, video))["error_message"]) == 2000


async def test_an_address_that_does_not_fit_holds_its_job_with_what_it_made(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand, desk = await hire(store), Desk(store)
    (bad_video, bad), (good_video, good) = [await begin(connection, hand) for _ in range(2)]
    long = replace(video_file("x"), url=f"https://files.example.com/{'x' * 500}")
    await desk.step(settlement(bad, film(bad, outputs=(long,))), settlement(good, film(good)))
    assert await status_of(connection, good_video) == "Completed"
    assert await status_of(connection, bad_video) == "Processing"
    row = (await queued(connection))[bad.key]
    assert row["state"] == "held"
    assert "too long" in row["note"]


# --------------------------------------------------------------------------- jobs of one video


async def test_a_failing_job_does_not_undo_what_another_completed(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, first = await begin(connection, hand)
    await add_job(connection, {"VideoId": video})
    (second,) = await hand.take()
    await hand.settle([first], film)
    await hand.fail([second])
    row = await video_row(connection, video)
    assert (row["status"], row["error_message"]) == ("Completed", None)
    told = [payload.get("type") for _, payload in await follow_ups(connection, but=[first.key])]
    assert "VideoFailed" not in told


@pytest.mark.parametrize("paid", ["image", "video", "image, alone"])
async def test_nothing_more_is_bought_for_a_video_that_another_job_completed_meanwhile(
    paid: str, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    """A failed job runs again for what its provider finished late. A paid film is delivered."""
    step, alone = paid.split(",", maxsplit=1)[0], "alone" in paid
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    await pay(store, hand, work, step)
    await hand.fail([work])
    if not alone:
        await add_job(connection, {"video_id": video})
        (rival,) = [w for w in await hand.take(9) if w.started.kind == work.started.kind]
        await hand.settle([rival], film)
    await store.value("SELECT rowmill.retry_video_jobs($1)", work.key)
    (again,) = [w for w in await hand.take(9) if w.key == work.key]
    assert again.claimed.run == work.claimed.run
    assert again.started.input["overtaken"] is (paid == "image")
    await hand.fail([again])
    assert await status_of(connection, video) == ("Failed" if alone else "Completed")


async def test_both_jobs_of_a_video_in_one_batch(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, first = await begin(connection, hand)
    await add_job(connection, {"VideoId": video})
    (second,) = await hand.take()
    said = await hand.settle([first, second], film)
    assert set(said.values()) == {"settled"}
    assert await status_of(connection, video) == "Completed"


async def test_nobody_is_told_of_a_failure_of_what_they_cancelled(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    await connection.execute("UPDATE public.videos SET status = 'Cancelled' WHERE id = $1", video)
    await hand.fail([work])
    assert await status_of(connection, video) == "Cancelled"
    assert await follow_ups(connection, but=[work.key]) == []


@pytest.mark.parametrize("ends", [film, lambda _: Failed(failure())])
async def test_an_empty_webhook_is_none(
    ends: Any, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video = await add_video(connection)
    await add_job(connection, {"videoId": video, "webhookUrl": "", "webhookSecret": ""})
    (work,) = await hand.take()
    await hand.settle([work], ends)
    notice = (await follow_ups(connection, but=[work.key]))[-1][1]
    assert not {"webhook_url", "webhook_secret"} & set(notice)


async def test_a_new_job_takes_a_failed_video_up_again(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, first = await begin(connection, hand)
    await hand.fail([first])
    again = await add_job(connection, {"video_id": video})
    works = {work.key: work for work in await hand.take(5)}
    row = await video_row(connection, video)
    assert (row["status"], row["error_message"]) == ("Processing", None)
    await hand.settle([works[again]], film)
    assert await status_of(connection, video) == "Completed"


# --------------------------------------------------------------------------- what follows


@pytest.mark.parametrize(("of", "kinds"), [(2, ["generate_thumbnail", "send_notification"]),
                                           (1, ["generate_thumbnail", "send_notification"]),
                                           (5, [])])  # fmt: skip
async def test_what_follows_a_video_by_its_users_settings_exactly_once(
    of: int, kinds: list[str], ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video = await add_video(connection, of)
    key = await add_job(
        connection, {"videoId": video, "webhookUrl": "https://hook.example.com"}, priority=4
    )
    (work,) = await hand.take()
    assert await hand.settle([work], film) == {key: "settled"}
    assert await hand.settle([work], film) == {key: "lost"}
    found = await follow_ups(connection, but=[key])
    assert [kind for kind, _ in found] == kinds
    for kind, payload in found:
        assert (payload["video_id"], payload["user_id"]) == (video, shopper(of))
        if kind == "send_notification":
            assert payload["type"] == "VideoCompleted"
            assert payload["webhook_url"] == "https://hook.example.com"
    works = await hand.take(5)
    assert sorted(w.started.kind for w in works) == [f"background:{kind}" for kind in kinds]
    assert {row["rank"] for row in (await queued(connection)).values()} <= {14}
    assert ((await video_row(connection, video))["thumbnail_url"] is None) == (of == 5)


async def test_a_thumbnail_of_the_users_own_stays(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand, thumbnail_url="https://own.example.com/t.jpg")
    await hand.settle([work], film)
    assert (await video_row(connection, video))["thumbnail_url"] == "https://own.example.com/t.jpg"
    kinds = [kind for kind, _ in await follow_ups(connection, but=[work.key])]
    assert kinds == ["send_notification"]


async def test_a_made_thumbnail_replaces_the_small_one(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    video, work = await begin(connection, hand)
    await hand.settle([work], film)
    works = {w.started.kind: w for w in await hand.take(5)}
    made = works["background:generate_thumbnail"]
    assert made.started.input["video_url"].endswith(f"{work.key}-1.mp4")
    picture = replace(video_file("p"), url="https://files.example.com/p.jpg")
    await hand.settle([made], lambda _: Succeeded(outputs=(picture,)))
    row = await video_row(connection, video)
    assert (row["thumbnail_url"], row["status"]) == ("https://files.example.com/p.jpg", "Completed")
    assert len(await follow_ups(connection, but=[work.key])) == 2


@pytest.mark.parametrize(("of", "count"), [(2, 1), (1, 1), (5, 0)])
async def test_a_failure_is_told_once_to_whom_it_may_concern(
    of: int, count: int, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    _, work = await begin(connection, hand, of)
    await hand.fail([work])
    await hand.fail([work])
    found = await follow_ups(connection, but=[work.key])
    assert [(kind, p["type"], p["data"]["error"]) for kind, p in found] == [
        ("send_notification", "VideoFailed", "it broke")
    ] * count


async def test_templates_are_counted_once_for_each_video(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    template = "f5000000-0000-4000-8000-000000000001"
    works = [(await begin(connection, hand, template_id=template))[1] for _ in range(3)]
    assert works[0].started.input["template"]["name"] == "Turntable"
    await hand.fail(works[2:])
    await hand.settle(works[:2], film)
    await hand.settle(works[:2], film)
    count = "SELECT usage_count FROM public.video_templates WHERE id = $1"
    assert await connection.fetchval(count, template) == 2
