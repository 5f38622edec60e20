"""Settling: a success has its effects exactly once, and only for the one who holds the claim."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from tests.database.platform_samples import project, user
from tests.database.settling import half_effects, like, media_of, settlement, usage_of, video
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_videos,
    queued,
    result_of,
)
from worker.store import to_json
from worker.transitions import media_id

THIS_MONTH = "SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date"


async def test_a_success_is_written_once_and_whole(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection, of=4, job_type="video")
    (work,) = await hand.take()
    assert await hand.succeed([work]) == {key: "settled"}

    job = await video(connection, key)
    (output,) = result_of(work).outputs
    assert (job["status"], job["output_file_id"]) == ("completed", media_id(output))
    assert (job["progress_percentage"], job["error_message"]) == (100, None)
    assert job["started_at"] <= job["completed_at"]
    assert (job["compute_cost_cents"], job["actual_duration_seconds"]) == (12, 2)
    assert (job["external_job_id"], job["retry_count"]) == (f"task-{key}", 0)

    (file,) = await media_of(connection, key)
    assert (file["id"], str(file["user_id"])) == (media_id(output), user(4))
    assert (file["file_key"], file["file_url"]) == (output.key, output.url)

    (charge,) = await usage_of(connection, key)
    assert str(charge["subscription_id"]) == "c0000000-0000-4000-8000-000000000004"
    assert charge["billing_period"] == await connection.fetchval(THIS_MONTH)
    assert (charge["quantity"], charge["cost_cents"]) == (Decimal(1), 12)

    parent = await connection.fetchrow(
        "SELECT status::text, progress_percentage FROM video_projects WHERE id = $1", project(4)
    )
    assert tuple(parent) == ("completed", 100)
    assert await queued(connection) == {}


async def test_a_repeated_batch_has_no_effect(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """The answer to a commit can be lost, so every batch may come twice."""
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    keys = await add_videos(connection, 3)
    works = await hand.take(3)
    assert await hand.succeed(works) == dict.fromkeys(keys, "settled")
    before = [tuple(await video(connection, key)) for key in keys]
    assert await hand.succeed(works) == dict.fromkeys(keys, "lost")
    assert await hand.fail(works) == dict.fromkeys(keys, "lost")
    assert [tuple(await video(connection, key)) for key in keys] == before
    assert await half_effects(connection) == []


async def test_a_stale_token_has_no_effect(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    slow, quick = await Hand.hire(store), await Hand.hire(store)
    (key,) = await add_videos(connection)
    old = await slow.take()
    await store.retire(slow.id)
    new = await quick.take()
    assert new[0].queue_id == old[0].queue_id
    for wrong in (slow.succeed, slow.fail, slow.retry, slow.cancel, slow.hold, slow.yield_):
        assert await wrong(old) == {key: "lost"}
    assert await slow.release(old) == {key: "lost"}
    assert (await video(connection, key))["status"] == "processing"
    assert (await queued(connection))[key]["token"] == new[0].token
    assert await quick.succeed(new) == {key: "settled"}
    assert await half_effects(connection) == []


async def test_old_and_new_token_in_one_batch(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """A worker can hold the results of both: its claim was reset, and it claimed the row again."""
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    (old,) = await hand.take()
    await connection.execute("UPDATE generation_jobs SET status = 'queued' WHERE id = $1", key)
    (new,) = await hand.take()
    stale = like(old, text="stale", external_id="stale")
    for batch in ([stale, settlement(new)], [settlement(new), stale]):
        await store.settle("generation_jobs", to_json([s.row() for s in batch]))
        job = await video(connection, key)
        assert (job["status"], job["external_job_id"]) == ("completed", f"task-{key}")
    assert await half_effects(connection) == []


# --------------------------------------------------------------------------- others were faster

OUTSIDE = {
    "finished": "UPDATE generation_jobs SET status = 'failed', error_message = 'theirs'",
    "cancelled": "UPDATE generation_jobs SET status = 'cancelled', error_message = 'theirs'",
    "deleted": "DELETE FROM generation_jobs",
}


async def _without_triggers(connection: Any, statement: str) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(statement)


async def test_what_an_outsider_did_unseen_stays(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    for statement in OUTSIDE.values():
        (key,) = await add_videos(connection)
        works = await hand.take()
        await _without_triggers(connection, f"{statement} WHERE id = '{key}'")
        before = await video(connection, key)
        assert await hand.succeed(works) == {key: "superseded"}
        assert await video(connection, key) == before
        assert await media_of(connection, key) == await usage_of(connection, key) == []
        assert await queued(connection) == {}


async def test_what_an_outsider_did_openly_stays(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    for statement in OUTSIDE.values():
        (key,) = await add_videos(connection)
        works = await hand.take()
        await connection.execute(f"{statement} WHERE id = '{key}'")
        before = await video(connection, key)
        assert await hand.succeed(works) == {key: "lost"}
        assert await video(connection, key) == before
        assert await media_of(connection, key) == await usage_of(connection, key) == []
        assert await queued(connection) == {}


async def test_a_row_someone_holds_is_busy_and_settles_later(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, holder = await connect(photomemory), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    held, free = await add_videos(connection, 2)
    works = await hand.take(2)
    async with holder.transaction():
        await holder.execute("UPDATE generation_jobs SET priority = 6 WHERE id = $1", held)
        assert await hand.succeed(works) == {held: "busy", free: "settled"}
        assert (await video(connection, held))["status"] == "processing"
        assert await media_of(connection, held) == await usage_of(connection, held) == []
    assert await hand.succeed(works) == {held: "settled", free: "lost"}
    assert await half_effects(connection) == []


async def test_a_cancel_that_is_not_committed_yet_wins(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, holder = await connect(photomemory), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    works = await hand.take()
    async with holder.transaction():
        await holder.execute("UPDATE generation_jobs SET status = 'cancelled' WHERE id = $1", key)
        assert await hand.succeed(works) == {key: "busy"}
    assert await hand.succeed(works) == {key: "lost"}
    assert (await video(connection, key))["status"] == "cancelled"
    assert await half_effects(connection) == []


async def test_a_held_parent_makes_its_jobs_wait_and_no_others(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, holder = await connect(photomemory), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (held,) = await add_videos(connection, of=4)
    (free,) = await add_videos(connection, of=5)
    works = await hand.take(2)
    batch = [settlement(work) for work in works]
    async with holder.transaction():
        await holder.execute("UPDATE video_projects SET metadata = '{}' WHERE id = $1", project(4))
        assert await hand.write(batch, wait=False) == {held: "busy", free: "settled"}
    assert (await hand.write(batch, wait=False))[held] == "settled"
    assert await half_effects(connection) == []


# --------------------------------------------------------------------------- runs


async def test_a_finished_row_that_is_re_enqueued_runs_anew(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    (work,) = await hand.take()
    await _pay(store, work, hand)
    await hand.succeed([work])
    first = await video(connection, key)

    await connection.execute("UPDATE generation_jobs SET status = 'queued' WHERE id = $1", key)
    (again,) = await hand.take()
    assert (work.claimed.run, again.claimed.run) == (1, 2)
    assert await hand.succeed([again]) == {key: "settled"}

    second = await video(connection, key)
    assert second["output_file_id"] != first["output_file_id"]
    assert second["started_at"] == first["started_at"]
    assert second["completed_at"] > first["completed_at"]
    assert len(await media_of(connection, key)) == 2, "an earlier video is never overwritten"
    runs = [json.loads(charge["metadata"])["run"] for charge in await usage_of(connection, key)]
    assert sorted(runs) == [1, 2]


async def _pay(store: Any, work: Any, hand: Hand) -> None:
    """One paid call of the job, finished."""
    intent = {"queue_id": work.queue_id, "token": work.token, "worker": hand.id, "step": "main"}
    about = {"provider": "replicate", "account": "a", "model": "m", "estimate_cents": 1}
    (row,) = await store.intend([intent | about])
    await store.journal([{"id": row["id"], "state": "finished", "result": {}, "cost_cents": 1}])


async def test_a_delivered_result_is_marked_in_the_ledger(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    keys = await add_videos(connection, 2)
    done, failed = await hand.take(2)
    for work in (done, failed):
        await _pay(store, work, hand)
    await hand.succeed([done])
    await hand.fail([failed])
    delivered = await connection.fetch(
        "SELECT row_key FROM rowmill.submissions WHERE delivered_at IS NOT NULL"
    )
    assert [row["row_key"] for row in delivered] == [done.key]
    assert {done.key, failed.key} == set(keys)
