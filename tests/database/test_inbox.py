"""Messages: submit, cancel, retry and get, each once however often it is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.database.platform_samples import project, user
from tests.database.redis_servers import FakeRedis
from tests.database.support import (
    SUPPORTED,
    Connect,
    Hand,
    OpenStore,
    add_texts,
    add_videos,
    new_keys,
    queued,
)
from worker.coordination import Coordination
from worker.inbox import (
    MESSAGES,
    Answer,
    Inbox,
)
from worker.store import Unavailable, gates

NOBODY = "e2000000-0000-4000-8000-000000000001"


@pytest.fixture
async def inbox(both: str, open_store: OpenStore) -> Inbox:
    return Inbox(await open_store(both), Coordination())


@pytest.fixture
async def db(both: str, connect: Connect) -> Any:
    return await connect(both)


def video(key: str, **more: Any) -> dict[str, Any]:
    row = {"id": key, "project_id": project(4), "user_id": user(4)}
    return {**row, "generation_service": "replicate", **more}


def background(key: str, **more: Any) -> dict[str, Any]:
    return {"id": key, "job_type": "content_statistics", "payload": {}, **more}


async def submit(inbox: Inbox, source: str, row: Mapping[str, Any]) -> Answer:
    return await inbox.answer("submit", (), {"source": source, "row": row})


# --------------------------------------------------------------------------- submit


async def test_a_submitted_row_is_a_job_once(inbox: Inbox, db: Any) -> None:
    (key,) = new_keys(1)
    expected = {"ok": True, "source": "generation_jobs", "id": key}
    first = await submit(inbox, "generation_jobs", video(key, priority=8))
    assert first == {**expected, "created": True}
    again = await submit(inbox, "generation_jobs", video(key.upper(), priority=2))
    assert again == {**expected, "created": False}
    (job,) = (await queued(db)).values()
    assert (job["row_key"], job["lane"], job["rank"]) == (key, "replicate", 16 + SUPPORTED)


async def test_a_finished_job_is_not_started_again_by_a_late_repeat(inbox: Inbox, db: Any) -> None:
    (key,) = new_keys(1)
    await submit(inbox, "generation_jobs", video(key))
    hand = await Hand.hire(inbox.store)
    await hand.succeed(await hand.take())
    assert (await submit(inbox, "generation_jobs", video(key)))["created"] is False
    assert await queued(db) == {}


async def test_many_senders_of_one_row(both: str, open_store: OpenStore, db: Any) -> None:
    inbox = Inbox(await open_store(both, 8), Coordination())
    (key,) = new_keys(1)
    answers = await asyncio.gather(
        *(submit(inbox, "background_jobs", background(key)) for _ in range(16))
    )
    assert [answer["ok"] for answer in answers] == [True] * 16
    assert [answer["created"] for answer in answers].count(True) == 1
    assert len(await queued(db)) == 1


async def test_postgres_reads_the_values_and_fills_in_the_rest(inbox: Inbox, db: Any) -> None:
    (key,) = new_keys(1)
    payload = {"content": ["ü", {"deep": 1.5}], "none": None}
    row = background(key, payload=payload, scheduled_at="2031-02-03T04:05:06+02:00", max_retries=0)
    assert (await submit(inbox, "background_jobs", row))["created"]
    kept = await db.fetchrow("SELECT * FROM system.background_jobs WHERE id = $1", key)
    assert json.loads(kept["payload"]) == payload
    assert kept["scheduled_at"].isoformat() == "2031-02-03T02:05:06+00:00"
    assert (kept["status"], kept["max_retries"], kept["retry_count"]) == ("pending", 0, 0)
    assert kept["created_at"] is not None
    assert (await queued(db))[key]["state"] == "scheduled"


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "no key": ("background_jobs", {"id": None}, "row.id is missing"),
    "no uuid": ("background_jobs", {"id": "seven"}, "uuid"),
    "no such column": ("background_jobs", {"prio": 3}, "no column prio; it has id, job_type"),
    "a column's name is no SQL": ("background_jobs", {'x") --': 1}, 'no column x") --'),
    "a status of its own": ("background_jobs", {"status": "completed"}, "must be pending"),
    "a status of nothing": ("background_jobs", {"status": None}, "must be pending"),
    "a table of nobody": ("users", {}, "no attached table 'users'; attached: "),
    "a broken CHECK": ("generation_jobs", {"priority": 11}, "valid_priority"),
    "a parent that isn't": ("generation_jobs", {"project_id": NOBODY}, "foreign key"),
    "a NUL": ("background_jobs", {"job_type": "a\0b"}, "the database refuses it"),
}


@pytest.mark.parametrize(("source", "change", "says"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_row_is_refused_with_the_reason(
    inbox: Inbox, db: Any, source: str, change: dict[str, Any], says: str
) -> None:
    (key,) = new_keys(1)
    row = (background if source == "background_jobs" else video)(key)
    answer = await submit(inbox, source, {**row, **change})
    assert answer["ok"] is False
    assert says in answer["error"]
    assert await queued(db) == {}


@pytest.mark.parametrize("status", ["pending", "queued"])
async def test_a_ready_word_may_be_given(inbox: Inbox, status: str) -> None:
    (key,) = new_keys(1)
    source, row = (
        ("background_jobs", background(key))
        if status == "pending"
        else ("generation_jobs", video(key))
    )
    assert (await submit(inbox, source, {**row, "status": status}))["created"]


async def test_a_row_that_a_trigger_swallows_is_not_called_a_job(inbox: Inbox, db: Any) -> None:
    await db.execute(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER swallow BEFORE INSERT ON system.background_jobs FOR EACH ROW"
        " EXECUTE FUNCTION swallow()"
    )
    answer = await submit(inbox, "background_jobs", background(*new_keys(1)))
    assert answer["ok"] is False
    assert "triggers" in answer["error"]


@pytest.mark.parametrize("name", MESSAGES)
async def test_what_is_not_understood_is_named(inbox: Inbox, name: str) -> None:
    assert (await inbox.answer(name, (), {"id": "1", "when": "now"}))["ok"] is False
    assert "when" in (await inbox.answer(name, (), {"id": "1", "when": "now"}))["error"]
    assert "by name" in (await inbox.answer(name, ("1",), {}))["error"]


@pytest.mark.parametrize("name", MESSAGES)
async def test_an_outage_of_postgres_is_no_answer(inbox: Inbox, name: str) -> None:
    fields = {"source": "background_jobs"}
    more: dict[str, Any] = {"row": background(*new_keys(1))} if name == "submit" else {"id": "1"}
    more |= {"to": "1"} if name == "priority" else {}
    await inbox.store.close()
    with pytest.raises(Unavailable):
        await inbox.answer(name, (), {**fields, **more})


# --------------------------------------------------------------------------- cancel and retry


async def test_cancel_and_retry_may_be_repeated(inbox: Inbox, db: Any) -> None:
    (key,) = await add_videos(db)
    job = {"ok": True, "source": "generation_jobs", "id": key}
    for _ in range(2):
        assert await inbox.answer("cancel", (), {"id": key}) == {**job, "result": "cancelled"}
        assert await queued(db) == {}
    assert (await inbox.answer("retry", (), {"id": key}))["result"] == "requeued"
    assert (await inbox.answer("retry", (), {"id": key}))["result"] == "hastened"
    assert list(await queued(db)) == [key]
    done = await db.fetch("SELECT who, action, subject FROM rowmill.actions ORDER BY id")
    assert [(r["who"], r["action"]) for r in done] == [("arq", "cancel")] * 2 + [
        ("arq", "retry")
    ] * 2
    assert {r["subject"] for r in done} == {f"generation_jobs/{key}"}


async def test_a_priority_may_be_repeated(inbox: Inbox, db: Any) -> None:
    (video_key,) = await add_videos(db, priority=5)
    (text_key,) = await add_texts(db)
    for _ in range(2):
        said = await inbox.answer("priority", (), {"id": video_key, "to": 9})
        assert (said["ok"], said["result"]) == (True, "moved")
        assert (await inbox.answer("priority", (), {"id": text_key, "to": "20"}))["ok"]
    ranks = {key: row["rank"] for key, row in (await queued(db)).items()}
    assert ranks == {video_key: 18 + SUPPORTED, text_key: 20}
    said = await inbox.answer("priority", (), {"id": video_key, "to": 11})
    assert (said["ok"], "it takes 1 to 10" in said["error"]) == (False, True)
    assert not (await inbox.answer("priority", (), {"id": video_key}))["ok"]


async def test_what_is_over_or_running_is_left_alone(inbox: Inbox, db: Any) -> None:
    (key,) = await add_videos(db)
    hand = await Hand.hire(inbox.store)
    work = await hand.take()
    answer = await inbox.answer("retry", (), {"id": key, "source": "generation_jobs"})
    assert (answer["ok"], answer["result"]) == (False, "running")
    await hand.succeed(work)
    for name in ("cancel", "retry"):
        answer = await inbox.answer(name, (), {"id": key})
        assert answer["ok"] is False
        assert answer["error"] == f"generation_jobs/{key}: it is completed"


async def test_a_job_that_is_nowhere_or_in_two_tables(inbox: Inbox, db: Any) -> None:
    (key,) = await add_videos(db)
    (other,) = new_keys(1)
    assert (await inbox.answer("get", (), {"id": other}))["error"].startswith(f"no job '{other}'")
    assert (await inbox.answer("get", (), {"id": "seven"}))["ok"] is False
    await submit(inbox, "background_jobs", background(key))
    answer = await inbox.answer("get", (), {"id": key})
    assert (
        f"generation_jobs/{key}, " in answer["error"]
        or f"background_jobs/{key}, " in answer["error"]
    )
    assert (await inbox.answer("get", (), {"id": key, "source": "background_jobs"}))["ok"]


# --------------------------------------------------------------------------- get


async def get(inbox: Inbox, key: str) -> Answer:
    answer = await inbox.answer("get", (), {"id": key})
    assert answer["ok"] is True
    assert answer["id"] == answer["row"]["id"] == key
    return answer


async def test_get_says_why_a_job_waits(inbox: Inbox, db: Any) -> None:
    await Hand.hire(inbox.store)
    (key,) = await add_videos(db)
    answer = await get(inbox, key)
    assert (answer["status"], answer["progress"], answer["error"]) == ("queued", 0, None)
    assert "ready" in answer["why"]
    await gates.pause(inbox.store, lane="replicate", who="tests", reason="we look around")
    assert "we look around" in (await get(inbox, key))["why"]


async def test_get_shows_the_finest_progress_there_is(inbox: Inbox, db: Any) -> None:
    server = FakeRedis()
    coordination = Coordination(server.pool())
    finer = Inbox(inbox.store, coordination)
    (key,) = await add_videos(db)
    (work,) = await (await Hand.hire(inbox.store)).take()
    entry = {"queue_id": work.queue_id, "token": work.token, "key": key, "progress": 40}
    await inbox.store.progress("generation_jobs", [{**entry, "external_id": None}])
    await coordination.publish([("generation_jobs", key, 44.5)])
    assert (await get(finer, key))["progress"] == 44.5
    assert (await get(inbox, key))["progress"] == 40
    await server.kill()
    assert (await get(finer, key))["progress"] == 40
    await server.start()
    await coordination.publish([("generation_jobs", key, 12.0)])
    assert (await get(finer, key))["progress"] == 40, "never goes back"


async def test_get_has_the_outputs_of_a_finished_job(inbox: Inbox, db: Any) -> None:
    (key,) = await add_videos(db)
    hand = await Hand.hire(inbox.store)
    (work,) = await hand.take()
    made = {"url": "https://files.example.com/a.mp4", "role": "main"}
    intent = {"queue_id": work.queue_id, "token": work.token, "worker": hand.id, "step": "main"}
    paid = {"provider": "replicate", "account": "a", "model": "m", "estimate_cents": 1}
    (submission,) = await inbox.store.intend([{**intent, **paid}])
    result = {"id": submission["id"], "state": "finished", "result": {"outputs": [made]}}
    await inbox.store.journal([{**result, "cost_cents": "1"}])
    await hand.succeed([work])
    answer = await get(inbox, key)
    assert (answer["status"], answer["progress"], answer["why"]) == ("completed", 100, None)
    assert answer["outputs"] == [made]


async def test_get_has_the_error_of_a_failed_job(inbox: Inbox, db: Any) -> None:
    (key,) = await add_texts(db)
    hand = await Hand.hire(inbox.store)
    await hand.fail(await hand.take())
    answer = await get(inbox, key)
    assert (answer["status"], answer["why"]) == ("failed", None)
    assert "it broke" in answer["error"]
    assert "outputs" not in answer
