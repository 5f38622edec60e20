"""PhotoMemory's live settings, job types, plans' support, and analytics."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from jobs.contract import Succeeded
from tests.database.allowing import asked, passed
from tests.database.platform_samples import (
    project,
    user,
)
from tests.database.settling import media_of, usage_of, video
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    Work,
    add_videos,
    queued,
    result_of,
)
from worker import maps
from worker.maps import Platform
from worker.scheduled import Scheduled
from worker.store import limits

JOBS = "generation_jobs"


def photomemory_map() -> Platform:
    return maps.load("photomemory")


# --------------------------------------------------------------------------- settings


async def set_setting(connection: Any, key: str, value: Any) -> None:
    await connection.execute(
        "UPDATE public.system_settings SET value = $2 WHERE key = $1", key, json.dumps(value)
    )


@pytest.mark.parametrize(
    ("case", "room"),
    [
        ((1, {"videos_per_month": 2}), 2),  # no subscription
        ((3, {"videos_per_month": 2}), 2),  # a free one
        ((4, {"videos_per_month": 2}), 8),  # pro: its plan's row
        ((1, {"videos_per_month": -1}), 8),
        ((1, {"videos_per_month": 0}), 0),
        ((1, {"videos_per_month": "2"}), 5),  # no number: the plan's row
        ((1, {"projects": 2}), 5),
        ((1, [2]), 5),
    ],
)
async def test_the_free_plans_limit_is_the_settings(
    case: tuple[int, Any], room: int, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    (owner, setting), connection = case, await connect(photomemory)
    store = await open_store(photomemory)
    await set_setting(connection, "free_plan_limits", setting)
    hand = await Hand.hire(store)
    await add_videos(connection, 8, of=owner)
    made = await asked(store, hand, await hand.take(8))
    assert passed(made) == [n < room for n in range(8)]
    check = "SELECT public.check_user_limit($1, 'videos_per_month', $2)"
    assert await connection.fetchval(check, user(owner), room) is True
    if room < 8:
        assert str(made[-1]).startswith(
            f"the plan's limit is reached: Free Plan, {room} videos a month; 0 made"
        )
        assert await connection.fetchval(check, user(owner), room + 1) is False


async def test_the_free_plans_limit_is_read_for_each_payment(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 3, of=1)
    works = await hand.take(3)
    await set_setting(connection, "free_plan_limits", {"videos_per_month": 1})
    assert passed(await asked(store, hand, works[:2])) == [True, False]
    await set_setting(connection, "free_plan_limits", {"videos_per_month": 2})
    assert passed(await asked(store, hand, works[1:])) == [True, False]


async def test_the_concurrency_limit_is_the_tables_over_all_lanes(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await set_setting(connection, "generation_queue_max_concurrent", 3)
    await limits.apply(store, photomemory_map())
    hand = await Hand.hire(store)
    for service in ("replicate", "runway"):
        await add_videos(connection, 4, service=service)
    works = await hand.take(8)
    assert len(works) == 3
    assert await hand.take(8) == []
    await hand.succeed(works[:1])
    assert len(await hand.take(8)) == 1


async def test_supported_formats_are_read_at_each_start(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    await add_videos(connection, 2)
    (first,) = await hand.take()
    await set_setting(connection, "supported_video_formats", ["webm"])
    (second,) = await hand.take()
    assert first.started.input["formats"] == ["mp4", "mov", "avi"]
    assert second.started.input["formats"] == ["webm"]


# --------------------------------------------------------------------------- jobs of all types


@pytest.mark.parametrize("job_type", ["video", "thumbnail", "preview", "audio"])
async def test_every_type_of_job_is_whole(
    job_type: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Its kind, its file, its metadata beside what was there, its usage; only a video moves."""
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection, job_type=job_type, output_metadata='{"asked": "by app"}')
    (work,) = await hand.take()
    assert work.started.kind == f"media:{job_type}"
    assert work.started.input["job_type"] == job_type

    def made(given: Work) -> Succeeded:
        return replace(result_of(given), metadata={"fps": 24})

    await hand.settle([work], made)
    job = await video(connection, key)
    (file,), (usage,) = await media_of(connection, key), await usage_of(connection, key)
    assert (job["status"], job["output_file_id"]) == ("completed", file["id"])
    assert json.loads(job["output_metadata"]) == {"asked": "by app", "fps": 24}
    assert usage["resource_subtype"] == f"video_generation.{job_type}"
    moved = await connection.fetchval(
        "SELECT status::text FROM video_projects WHERE id = $1", project(4)
    )
    assert moved == ("completed" if job_type == "video" else "draft")


# --------------------------------------------------------------------------- priority support


async def bonuses(connection: Any, keys: list[str]) -> dict[str, int]:
    sql = photomemory_map().rules[f"{JOBS}.rank"].strip().rstrip(";")
    sql = sql.replace("rowmill_keys", "$1::uuid[]")
    await connection.execute("SET search_path = pg_catalog")
    rows = await connection.fetch(sql, keys)
    await connection.execute("RESET search_path")
    return {str(row["key"]): row["bonus"] for row in rows}


async def test_support_is_the_active_plans(photomemory: str, connect: Connect) -> None:
    connection = await connect(photomemory)
    keys = {owner: (await add_videos(connection, of=owner))[0] for owner in (1, 3, 4, 5, 8)}
    await connection.execute(
        "UPDATE user_subscriptions SET current_period_start = '2020-01-01',"
        " current_period_end = '2021-01-01' WHERE user_id = $1",
        user(5),
    )
    found = await bonuses(connection, list(keys.values()))
    assert found == {keys[4]: 1, keys[8]: 1}  # 1: none, 3: free, 5: run out
    await connection.execute(
        """UPDATE subscription_plans SET features = '["priority_support"]' WHERE id = 'free'"""
    )
    assert set((await bonuses(connection, list(keys.values()))).values()) == {1}
    assert len(await bonuses(connection, list(keys.values()))) == 5


async def test_support_comes_before_equals_and_never_before_the_next_priority(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    order = [
        (await add_videos(connection, of=owner, priority=priority))[0]
        for owner, priority in ((1, 5), (4, 5), (1, 6), (8, 4), (1, 10), (4, 10))
    ]
    hand = await Hand.hire(await open_store(photomemory))
    claimed = [order.index(claim.key) for claim in await hand.claim(10)]
    assert claimed == [4, 5, 2, 1, 0, 3]  # at 10 there is no higher rank
    ranks = {row["row_key"]: row["rank"] for row in (await queued(connection)).values()}
    assert [ranks[key] for key in order] == [10, 11, 12, 9, 20, 20]


# --------------------------------------------------------------------------- views


async def test_both_views_are_refreshed_daily_and_concurrently(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 2)
    await hand.succeed(await hand.take(2))
    made = "SELECT successful_generations FROM user_analytics_summary WHERE user_id = $1"
    seen = "SELECT coalesce(sum(successful_jobs), 0) FROM generation_performance_metrics"
    assert [await connection.fetchval(made, user(4)), await connection.fetchval(seen)] == [None, 0]
    worker = Scheduled(store, lambda: [photomemory_map()])
    # A reader who stays would stop a refresh that isn't concurrent.
    other = await connect(photomemory)
    async with other.transaction():
        await other.fetch(made, user(4))
        await other.fetch(seen)
        await worker.refreshes()
    assert [await connection.fetchval(made, user(4)), await connection.fetchval(seen)] == [2, 2]
    schedules = await connection.fetch("SELECT * FROM rowmill.schedules ORDER BY subject")
    assert [(row["chore"], row["error"]) for row in schedules] == [("refresh", None)] * 2
    assert {view.every for view in photomemory_map().map.refreshes} == {"1 day"}
