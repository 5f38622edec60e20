"""Operators' acts in PhotoMemory's audit_logs; its demo, and the verdict on it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.database.platform_samples import (
    sql_file,
)
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_videos,
    queued,
)
from worker.store import acts, gates

JOBS = "generation_jobs"
WHO = "ann@desk"


# --------------------------------------------------------------------------- audit


async def logged(connection: Any) -> list[dict[str, Any]]:
    rows = await connection.fetch("SELECT * FROM audit_logs ORDER BY created_at")
    return [
        {
            **dict(row),
            "changes": json.loads(row["changes"]),
            "metadata": json.loads(row["metadata"]),
        }
        for row in rows
    ]


async def test_operators_acts_are_audited(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (key,) = await add_videos(connection)
    hand = await Hand.hire(store)
    await hand.fail(await hand.take())
    assert await acts.retry(store, JOBS, key, WHO) == "requeued"
    assert await acts.cancel(store, JOBS, key, WHO) == "cancelled"
    assert await acts.cancel(store, JOBS, key, WHO) == "cancelled"
    retry, cancel, again = await logged(connection)
    for line in (retry, cancel, again):
        assert (line["user_id"], line["resource_type"]) == (None, "generation_job")
        assert (str(line["resource_id"]), line["metadata"]["who"]) == (key, WHO)
    assert (retry["action"], cancel["action"]) == ("retry", "cancel")
    assert retry["changes"]["before"]["status"] == "failed"
    assert retry["changes"]["before"]["error_message"] == "it broke"
    assert retry["changes"]["after"]["status"] == "queued"
    assert cancel["changes"]["before"]["status"] == "queued"
    assert cancel["changes"]["after"]["status"] == "cancelled"
    assert (retry["success"], retry["error_message"]) == (True, None)
    assert again["changes"]["before"] == again["changes"]["after"]


async def test_new_work_and_another_priority_are_audited(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (key,) = await add_videos(connection, priority=5)
    hand = await Hand.hire(store)
    await acts.prioritise(store, JOBS, key, "9", WHO)
    assert await acts.requeue(store, JOBS, key, WHO) == "waiting"
    await hand.succeed(await hand.take())
    assert await acts.requeue(store, JOBS, key, WHO, anew=True) == "requeued"
    priority, refused, requeue = await logged(connection)
    assert [line["action"] for line in (priority, refused, requeue)] == [
        "priority",
        "requeue",
        "requeue",
    ]
    assert (priority["success"], priority["metadata"]["given"]) == (True, {"to": "9"})
    assert priority["changes"]["before"]["priority"] == 5
    assert priority["changes"]["after"]["priority"] == 9
    assert (refused["success"], refused["error_message"]) == (False, "nothing was done: waiting")
    assert (requeue["success"], requeue["metadata"]["given"]) == (True, {"anew": True})
    assert requeue["changes"]["before"]["status"] == "completed"
    assert requeue["changes"]["after"]["status"] == "queued"
    assert str(requeue["resource_id"]) == key


async def test_acts_that_did_nothing_and_acts_on_lanes(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (key,) = await add_videos(connection)
    hand = await Hand.hire(store)
    await hand.succeed(await hand.take())
    assert await acts.retry(store, JOBS, key, WHO) == "completed"
    await gates.pause(store, source=JOBS, who=WHO, reason="too dear")
    await gates.limit(store, {"max_running": 2}, lane="replicate", who=WHO)
    retry, pause, limit = await logged(connection)
    assert (retry["success"], retry["error_message"]) == (False, "nothing was done: completed")
    assert (pause["action"], pause["resource_type"], pause["resource_id"]) == (
        "pause",
        "generation_queue",
        None,
    )
    assert pause["metadata"]["reason"] == "too dear"
    assert (limit["resource_type"], limit["changes"]["after"]) == (
        "generation_lane",
        {"set": {"max_running": 2}},
    )


async def test_an_act_in_a_month_without_a_partition_is_done_all_the_same(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (key,) = await add_videos(connection)
    for row in await connection.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'public.audit_logs'::regclass"
    ):
        await connection.execute(f"DROP TABLE {row[0]}")
    assert await acts.cancel(store, JOBS, key, WHO) == "cancelled"
    detail = await connection.fetchval("SELECT detail FROM rowmill.actions")
    assert "no partition" in json.loads(detail)["audit_failed"]["photomemory"]


# --------------------------------------------------------------------------- the demo


async def verdicts(connection: Any) -> list[Any]:
    return list(await connection.fetch(sql_file("photomemory", "verdict.sql").rstrip().rstrip(";")))


async def test_the_demo_inserts_jobs_that_the_verdict_judges(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, hand = await connect(photomemory), await Hand.hire(await open_store(photomemory))
    script = sql_file("photomemory", "demo.sql").replace(":jobs", "20")
    await (await connect(photomemory, producer)).execute(script)
    rows = await verdicts(connection)
    assert len(rows) == len(await queued(connection)) == 20
    assert {
        (r["source"], r["finished"], r["metered"], r["usage"], r["consistent"]) for r in rows
    } == {(JOBS, None, False, 0, True)}
    prompts = await connection.fetch(
        "SELECT j.id::text, j.job_type, p.ai_prompt FROM generation_jobs j"
        " JOIN video_projects p ON p.id = j.project_id"
    )
    assert {row["job_type"] for row in prompts} == {"video", "thumbnail", "preview", "audio"}
    assert all(f"[job:{JOBS}/{row['id']}]" in row["ai_prompt"] for row in prompts)
    await hand.succeed(await hand.take(12))
    await hand.fail(await hand.take(4))
    await hand.cancel(await hand.take(2))
    rows = await verdicts(connection)
    assert [r for r in rows if not r["consistent"]] == []
    ends = [r["finished"] for r in rows]
    assert [ends.count(e) for e in ("completed", "failed", "cancelled", None)] == [12, 4, 2, 2]
    assert {(r["metered"], r["usage"], r["url"] is not None) for r in rows} == {
        (True, 1, True),
        (False, 0, False),
    }


@pytest.mark.parametrize(
    "breaking",
    [
        "UPDATE video_projects SET status = 'processing'",
        "UPDATE media_files SET content_hash = NULL",
        "UPDATE generation_jobs SET error_message = 'left over'",
        "UPDATE generation_jobs SET started_at = completed_at + interval '1 second'",
    ],
)
async def test_the_verdict_sees_what_is_not_whole(
    breaking: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, hand = await connect(photomemory), await Hand.hire(await open_store(photomemory))
    await add_videos(connection)
    await hand.succeed(await hand.take())
    assert [row["consistent"] for row in await verdicts(connection)] == [True]
    await connection.execute(breaking)
    assert [bool(row["consistent"]) for row in await verdicts(connection)] == [False]
