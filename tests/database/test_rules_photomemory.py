"""PhotoMemory's rules through the whole engine: CHECKs, the project's state, charges."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import RetryLater
from tests.database.platform_samples import project, subscribe, user
from tests.database.settling import (
    Desk,
    half_effects,
    like,
    media_of,
    settlement,
    usage_of,
    video,
)
from tests.database.support import Connect, Hand, OpenStore, Work, add_videos, failure, queued
from worker.store import Refused
from worker.transitions import Settlement

CHECKS = """
SELECT conname FROM pg_constraint
 WHERE contype = 'c' AND conrelid = ANY ($1::text[]::regclass[])
"""
WRITTEN = ["public.generation_jobs", "public.media_files", "public.usage_records"]


def with_file(work: Work, **changes: Any) -> Settlement:
    good = settlement(work)
    return like(work, outputs=({**good.outputs[0], **changes},))


SPOILED: dict[str, Callable[[Work], Settlement]] = {
    "status_consistency": lambda w: like(w, outputs=(), media_id=None),
    "valid_file_type": lambda w: with_file(w, file_type="hologram"),
    "positive_file_size": lambda w: with_file(w, size=0),
    "valid_dimensions": lambda w: with_file(w, height=0),
    "positive_cost": lambda w: like(w, cost_cents=Decimal(-2)),
}
PRODUCERS = {"valid_job_type", "valid_priority"}
"""What only a producer's own INSERT can break."""
CONSTANT = {"valid_processing_status", "positive_quantity", "valid_unit"}
"""What the rule files write as constants."""
BY_PROGRESS = {"valid_progress"}
BY_TRIES = {"valid_retry_count"}


async def test_every_check_of_the_written_tables_is_accounted_for(
    photomemory: str, connect: Connect
) -> None:
    rows = await (await connect(photomemory)).fetch(CHECKS, WRITTEN)
    known = set(SPOILED) | PRODUCERS | CONSTANT | BY_PROGRESS | BY_TRIES
    assert {row["conname"] for row in rows} == known


@pytest.mark.parametrize("check", SPOILED)
async def test_a_result_that_breaks_a_check_is_held(
    check: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand, desk = await Hand.hire(store), Desk(store)
    bad, good = await add_videos(connection, 2)
    works = {w.key: w for w in await hand.take(2)}
    await desk.step(SPOILED[check](works[bad]), settlement(works[good]))
    row = (await queued(connection))[bad]
    assert row["state"] == "held"
    assert f'violates check constraint "{check}"' in row["note"]
    assert (await video(connection, bad))["status"] == "processing"
    assert (await video(connection, good))["status"] == "completed"
    assert await half_effects(connection) == []


async def test_progress_beyond_its_check_is_refused(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    (work,) = await hand.take()
    entry = {"queue_id": work.queue_id, "token": work.token, "key": key, "progress": 101}
    with pytest.raises(Refused, match="valid_progress"):
        await store.progress("generation_jobs", [entry])
    assert (await video(connection, key))["progress_percentage"] == 0


async def test_a_row_with_all_its_tries_spent_can_not_break_its_check(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """A producer lowered max_retries' room while the job ran."""
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection, max_retries=3)
    works = await hand.take()
    await connection.execute(
        "UPDATE generation_jobs SET max_retries = 1, retry_count = 1 WHERE id = $1", key
    )
    assert await hand.settle(works, lambda _: RetryLater(failure())) == {key: "settled"}
    job = await video(connection, key)
    assert (job["retry_count"], job["max_retries"]) == (1, 1)


async def test_a_file_beyond_the_customers_plan_is_held(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand, desk = await Hand.hire(store), Desk(store)
    (key,) = await add_videos(connection, of=1)
    (work,) = await hand.take()
    await desk.step(with_file(work, size=2 * 1024**3))
    row = (await queued(connection))[key]
    assert row["state"] == "held"
    assert "Storage limit exceeded" in row["note"]
    assert await media_of(connection, key) == await usage_of(connection, key) == []


# --------------------------------------------------------------------------- the project


async def project_of(connection: Any, number: int) -> tuple[str, int]:
    row = await connection.fetchrow(
        "SELECT status::text, progress_percentage FROM video_projects WHERE id = $1",
        project(number),
    )
    return tuple(row)


def at(day: int) -> datetime:
    return datetime(2026, 6, day, tzinfo=UTC)


async def test_a_project_follows_its_latest_video(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (older,) = await add_videos(connection, queued_at=at(1), priority=10)
    (newer,) = await add_videos(connection, queued_at=at(2), priority=5)
    seen = []
    (old,) = await hand.take()
    assert old.key == older
    seen.append(await project_of(connection, 4))
    await hand.succeed([old])
    seen.append(await project_of(connection, 4))
    (new,) = await hand.take()
    assert new.key == newer
    seen.append(await project_of(connection, 4))
    await hand.fail([new])
    seen.append(await project_of(connection, 4))
    assert seen == [("draft", 0), ("draft", 0), ("processing", 0), ("failed", 0)]


async def test_other_work_never_moves_a_project(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    for kind in ("thumbnail", "preview", "audio"):
        await add_videos(connection, job_type=kind)
        works = await hand.take()
        assert await project_of(connection, 4) == ("draft", 0)
        await hand.succeed(works)
        assert await project_of(connection, 4) == ("draft", 0)


async def test_old_and_new_video_of_one_project_in_one_batch(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (older,) = await add_videos(connection, queued_at=at(1))
    (newer,) = await add_videos(connection, queued_at=at(2))
    works = await hand.take(2)
    said = await hand.write(
        [like(w, verb="fail", error="late") if w.key == older else settlement(w) for w in works]
    )
    assert said == {older: "settled", newer: "settled"}
    assert await project_of(connection, 4) == ("completed", 100)


async def test_a_project_through_retry_and_progress(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    (work,) = await hand.take()
    entry = {"queue_id": work.queue_id, "token": work.token, "key": key, "progress": 30}
    await store.progress("generation_jobs", [entry])
    assert await project_of(connection, 4) == ("processing", 30)
    await hand.retry([work])
    assert await project_of(connection, 4) == ("processing", 30)
    await hand.succeed(await hand.take())
    assert await project_of(connection, 4) == ("completed", 100)


async def test_a_deleted_project_stays_deleted(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    works = await hand.take()
    await connection.execute(
        "UPDATE video_projects SET status = 'deleted' WHERE id = $1", project(4)
    )
    assert await hand.succeed(works) == {key: "settled"}
    assert (await project_of(connection, 4))[0] == "deleted"


# --------------------------------------------------------------------------- charges


@pytest.mark.parametrize(
    ("cents", "whole"), [("0.5", 0), ("1.5", 2), ("2.5", 2), ("2.50001", 3), ("0", 0)]
)
async def test_money_is_rounded_half_even(
    cents: str, whole: int, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    (work,) = await hand.take()
    await hand.write([like(work, cost_cents=Decimal(cents))])
    assert (await video(connection, key))["compute_cost_cents"] == whole
    (charge,) = await usage_of(connection, key)
    assert charge["cost_cents"] == whole


async def test_a_charge_names_the_active_subscription_or_none(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    await subscribe(connection, user(6), "pro", until=datetime(2021, 1, 1, tzinfo=UTC))
    await connection.execute(
        "UPDATE user_subscriptions SET status = 'cancelled' WHERE user_id = $1", user(7)
    )
    keys = {n: (await add_videos(connection, of=n))[0] for n in (1, 5, 6, 7)}
    await hand.succeed(await hand.take(4))
    named = {n: (await usage_of(connection, key))[0]["subscription_id"] for n, key in keys.items()}
    assert {n: str(s)[-2:] if s else None for n, s in named.items()} == {
        1: None,
        5: "05",
        6: None,
        7: None,
    }


async def test_only_a_success_is_charged(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    await add_videos(connection, 6)
    works = await hand.take(6)
    verbs = (hand.fail, hand.retry, hand.yield_, hand.hold, hand.cancel, hand.release)
    for finish, work in zip(verbs, works, strict=True):
        assert await finish([work]) == {work.key: "settled"}
    assert await connection.fetchval("SELECT count(*) FROM usage_records") == 0
    assert (
        await connection.fetchval(
            "SELECT count(*) FROM media_files WHERE folder_path = '/generated'"
        )
        == 0
    )
