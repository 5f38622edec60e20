"""Every verb but success: retry, yield, release, hold, fail, cancel; tries, errors and progress."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.contract import Failed, Held, RetryLater, Yield
from tests.database.platform_samples import project
from tests.database.settling import half_effects, media_of, usage_of, video
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    Work,
    add_videos,
    failure,
    queued,
    result_of,
)


async def test_a_retry_spends_a_try_and_waits(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    assert await hand.retry(await hand.take(), after=600) == {key: "settled"}
    job, waiting = await video(connection, key), (await queued(connection))[key]
    assert (job["status"], job["retry_count"], job["error_message"]) == ("queued", 1, "it broke")
    assert (waiting["state"], waiting["tries"], waiting["note"]) == ("scheduled", 1, "it broke")
    assert (waiting["token"], waiting["worker"], waiting["yields"]) == (None, None, 0)
    delay = await connection.fetchval(
        "SELECT extract(epoch FROM ready_at - clock_timestamp()) FROM rowmill.queue"
    )
    assert 540 < delay <= 600
    (row,) = await connection.fetch("SELECT * FROM rowmill.failures")
    assert (row["row_key"], row["run"], row["try"], row["final"]) == (key, 1, 1, False)
    assert (row["kind"], row["provider"], row["message"]) == ("unknown", "replicate", "it broke")


@pytest.mark.parametrize("verb", ["yield_", "release", "hold"])
async def test_no_try_is_spent(
    verb: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    works = await hand.take()
    assert await getattr(hand, verb)(works) == {key: "settled"}
    job, row = await video(connection, key), (await queued(connection))[key]
    state = {"yield_": "scheduled", "release": "ready", "hold": "held"}[verb]
    status = {"yield_": "queued", "release": "queued", "hold": "processing"}[verb]
    assert (job["status"], job["retry_count"], job["error_message"]) == (status, 0, None)
    assert (row["state"], row["tries"], row["yields"]) == (state, 0, int(verb == "yield_"))
    assert (row["token"], row["worker"], row["claimed_at"]) == (None, None, None)
    assert await connection.fetchval("SELECT count(*) FROM rowmill.failures") == 0


async def test_a_release_keeps_its_place(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    first, second = [(await add_videos(connection))[0] for _ in range(2)]
    before = await queued(connection)
    await hand.release(await hand.take())
    assert (await queued(connection))[first]["ready_at"] == before[first]["ready_at"]
    assert [c.key for c in await hand.claim(2)] == [first, second]


async def test_a_held_job_says_why_and_is_not_claimed(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    await hand.settle(await hand.take(), lambda _: Held("the bill is unclear"))
    assert (await queued(connection))[key]["note"] == "the bill is unclear"
    assert await hand.claim() == []
    assert await store.value("SELECT rowmill.retry_generation_jobs($1)", key) == "released"
    assert await hand.succeed(await hand.take()) == {key: "settled"}
    assert await half_effects(connection) == []


async def test_a_failure_ends_the_job(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    url = "https://files.example.com/" + "u" * 3000
    works = await hand.take()
    assert await hand.settle(works, lambda _: Failed(failure(url))) == {key: "settled"}
    job = await video(connection, key)
    assert (job["status"], job["error_message"], job["retry_count"]) == ("failed", url, 0)
    assert job["failed_at"] is not None
    assert (job["completed_at"], job["output_file_id"]) == (None, None)
    assert await media_of(connection, key) == await usage_of(connection, key) == []
    assert await queued(connection) == {}
    assert await connection.fetchval("SELECT final FROM rowmill.failures") is True


async def test_a_cancel_ends_the_job(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    assert await hand.cancel(await hand.take()) == {key: "settled"}
    job = await video(connection, key)
    assert (job["status"], job["failed_at"]) == ("cancelled", None)
    assert await queued(connection) == {}
    assert await half_effects(connection) == []


async def test_all_verbs_in_one_batch(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    keys = await add_videos(connection, 5)
    works = await hand.take(5)
    outcomes = dict(
        zip(
            [w.key for w in works],
            [Failed(failure()), RetryLater(failure()), Yield("y", 0), Held("h"), None],
            strict=True,
        )
    )
    said = await hand.settle(works, lambda w: outcomes[w.key] or result_of(w))
    assert said == dict.fromkeys(keys, "settled")
    statuses = {w.key: (await video(connection, w.key))["status"] for w in works}
    assert list(statuses.values()) == ["failed", "queued", "queued", "processing", "completed"]
    assert await half_effects(connection) == []


# --------------------------------------------------------------------------- progress


def entry(work: Work, percent: float, external_id: str | None = None) -> dict[str, Any]:
    return {
        "queue_id": work.queue_id,
        "token": work.token,
        "key": work.key,
        "progress": percent,
        "external_id": external_id,
    }


async def test_progress_never_goes_back(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection, of=4)
    (work,) = await hand.take()
    seen = []
    for percent in (0, 40, 30, 99, 0):
        await store.progress("generation_jobs", [entry(work, percent, "t1")])
        seen.append((await video(connection, key))["progress_percentage"])
    assert seen == [0, 40, 40, 99, 99]
    await store.progress("generation_jobs", [entry(work, 0, None)])
    assert (await video(connection, key))["external_job_id"] == "t1"
    percent = await connection.fetchval(
        "SELECT progress_percentage FROM video_projects WHERE id = $1", project(4)
    )
    assert percent == 99
    await hand.retry([work])
    (again,) = await hand.take()
    await store.progress("generation_jobs", [entry(again, 5)])
    assert (await video(connection, key))["progress_percentage"] == 99


async def test_progress_needs_the_token_and_a_running_row(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    old, new = await Hand.hire(store), await Hand.hire(store)
    keys = await add_videos(connection, 3)
    stale = await old.take(3)
    await store.retire(old.id)
    lost, done, busy = await new.take(3)
    await new.cancel([done])
    await store.progress("generation_jobs", [entry(work, 50) for work in [*stale, done]])
    holder = await connect(photomemory)
    async with holder.transaction():
        await holder.execute("SELECT FROM generation_jobs WHERE id = $1 FOR UPDATE", busy.key)
        await store.progress("generation_jobs", [entry(lost, 20), entry(busy, 20)])
    percents = {key: (await video(connection, key))["progress_percentage"] for key in keys}
    assert percents == {lost.key: 20, done.key: 0, busy.key: 0}


async def test_started_once_and_the_duration_of_the_successful_try(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    started = []
    for finish in (hand.retry, hand.yield_, hand.succeed):
        works = await hand.take()
        started.append((await video(connection, key))["started_at"])
        await finish(works)
    job = await video(connection, key)
    assert len(set(started)) == 1
    assert started[0] is not None
    assert (job["actual_duration_seconds"], job["error_message"]) == (2, None)
