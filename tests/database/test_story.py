"""The whole story of one job, by whatever its reader knows of it."""

from __future__ import annotations

from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from jobs.contract import Failed, FailureKind
from tests.commandline import Rowmill
from tests.database.journaling import intend, journal_of
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_texts,
    add_videos,
    failure,
    new_keys,
)
from worker.coordination import Coordination
from worker.inbox import Inbox
from worker.store import Store, acts, finding, story
from worker.store.finding import Found, UnknownName
from worker.text.job import print_job

JOBS = "generation_jobs"
TASK = "task-of-the-second-run"
MADE = {
    "role": "main",
    "key": "generated/a.mp4",
    "url": "https://files.example.com/generated/a.mp4",
    "mime_type": "video/mp4",
    "size": 2_400_000,
    "width": 1280,
    "height": 720,
    "duration_seconds": 5.0,
}


@pytest.fixture
async def db(both: str, connect: Connect) -> Any:
    return await connect(both)


@pytest.fixture
async def store(both: str, open_store: OpenStore) -> Store:
    return await open_store(both)


async def eventful(db: Any, store: Store) -> str:
    """A job that failed after a paid call, was let run again, and made a film."""
    (key,) = await add_videos(db)
    hand = await Hand.hire(store)
    (work,) = await hand.take()
    journal = journal_of(store, work, hand)
    call = await intend(journal)
    await journal.accepted(call.id, ref={"id": "task-1"}, external_id="task-1")
    await journal.failed(call.id, failure("no [bold]luck\x1b[2J"), cost_cents=Decimal("0.5"))
    gone = failure("no [bold]luck\x1b[2J", FailureKind.INVALID)
    await hand.settle([work], lambda _: Failed(gone))
    assert await acts.retry(store, JOBS, key, "ann@ops") == "requeued"
    (work,) = await hand.take()
    journal = journal_of(store, work, hand)
    call = await intend(journal)
    await journal.accepted(call.id, ref={"id": TASK}, external_id=TASK)
    await journal.finished(call.id, result={"outputs": [MADE]}, cost_cents=Decimal(13))
    await hand.succeed([work])
    return key


async def test_the_whole_story_in_order_of_time(
    both: str, db: Any, store: Store, rowmill: Rowmill
) -> None:
    key = await eventful(db, store)
    said = await rowmill(both, "job", "show", TASK, "--json")
    told = said.json
    assert (told["source"], told["key"], told["status"], told["progress"]) == (
        JOBS,
        key,
        "completed",
        100,
    )
    assert told["explanation"]["reason"] == "over"
    assert told["queue"] is None
    assert [(r["run"], r["calls"], r["failed_tries"], r["cost_cents"]) for r in told["runs"]] == [
        (1, 1, 1, "0.5"),
        (2, 1, 0, "13"),
    ]
    assert told["spent_cents"] == "13.5"
    assert [call["external_id"] for call in told["submissions"]] == ["task-1", TASK]
    assert all(call["took_s"] >= 0 for call in told["submissions"])
    assert told["outputs"] == [MADE]
    assert told["delivered"] == {"output_file_id": told["row"]["output_file_id"]}
    times = told["timings"]
    assert times["started_at"] < times["ended_at"]
    assert times["ran_s"] > 0

    text = (await rowmill(both, "job", "show", key)).out
    happened = ("0.5 ¢", "failed, for good", "ann@ops: retry", "started", "cost 13 ¢", "ended as")
    places = [text.index(what) for what in happened]
    assert places == sorted(places)
    assert "no [bold]luck␛[2J" in text
    assert "\x1b" not in text
    assert f"task {TASK}" in text
    assert (
        "  main            https://files.example.com/generated/a.mp4 (video/mp4, 2.4 MB, " in text
    )


async def test_a_terminal_of_80_columns_shows_all_of_it(db: Any, store: Store) -> None:
    key = await eventful(db, store)
    await db.execute("UPDATE generation_jobs SET error_message = $2 WHERE id = $1", key, "é漢" * 90)
    told = await story.job(store, JOBS, key)
    out = StringIO()
    print_job(told, Console(file=out, width=80, force_terminal=True, markup=False, no_color=True))
    lines = [Text.from_ansi(line) for line in out.getvalue().splitlines()]
    assert max(line.cell_len for line in lines) <= 80
    assert "\x1b[2J" not in out.getvalue()
    assert str(MADE["url"]) in "".join(line.plain.strip() for line in lines)


async def test_a_job_that_runs(db: Any, store: Store) -> None:
    (key,) = await add_videos(db)
    hand = await Hand.hire(store)
    (work,) = await hand.take()
    await intend(journal_of(store, work, hand))
    entry = {"queue_id": work.queue_id, "token": work.token, "key": key, "progress": 40}
    await store.progress(JOBS, [{**entry, "external_id": None}])
    told = await story.job(store, JOBS, key)
    assert (told["explanation"]["reason"], told["progress"]) == ("running", 40)
    assert told["queue"]["worker"] == "hand"
    assert told["queue"]["heartbeat_age_s"] >= 0
    assert told["timings"]["ran_s"] >= 0
    assert told["timings"]["waited_s"] >= 0
    assert told["runs"][0]["ended_at"] is None
    out = StringIO()
    print_job(told, Console(file=out, width=80))
    text = out.getvalue()
    assert "  progress  40%\n" in text
    assert "m of replicate (acct), intent; about 12.5 ¢" in " ".join(text.split())
    assert "0 ¢ for 1 paid call, about 12.5 ¢ still open" in text
    assert text.rstrip().endswith(f"rowmill cancel {JOBS}/{key}")


# --------------------------------------------------------------------------- finding


async def test_a_job_is_found_by_its_task_and_by_how_its_key_begins(db: Any, store: Store) -> None:
    key = await eventful(db, store)
    for reference in ("task-1", TASK, f"{JOBS}/{TASK}", key[:8], key[:14], f"{JOBS}/{key[:6]}"):
        assert await finding.find_one(store, reference) == Found(JOBS, key), reference
    for reference in (f"ai_generations/{TASK}", f"ai_generations/{key[:8]}", key[:5], "task-"):
        with pytest.raises(UnknownName, match="no job"):
            await finding.find_one(store, reference)


async def test_a_beginning_of_several_keys_names_them(db: Any, store: Store) -> None:
    (key,) = new_keys(1)
    (video,), (text,) = await add_videos(db), await add_texts(db)
    await db.execute("UPDATE generation_jobs SET id = $2 WHERE id = $1", video, key)
    twin = key[:-2] + ("00" if key[-2:] != "00" else "11")
    await db.execute("UPDATE ai_processing.ai_generations SET id = $2 WHERE id = $1", text, twin)
    with pytest.raises(UnknownName, match=f"{JOBS}/{key}, ai_generations/{twin}"):
        await finding.find_one(store, key[:20])
    assert await finding.find_one(store, key) == Found(JOBS, key)


async def test_a_task_at_two_accounts_names_both_jobs(db: Any, store: Store) -> None:
    key = await eventful(db, store)
    (other,) = await add_videos(db)
    await db.execute(
        "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
        " account, model, state, external_id, estimate_cents)"
        " VALUES ($1, $2, 1, 'main', 'runway', 1, 'runway', 'a', 'm', 'accepted', $3, 1)",
        JOBS,
        other,
        TASK,
    )
    with pytest.raises(UnknownName, match="names more than one job") as refused:
        await finding.find_one(store, TASK)
    assert key in str(refused.value)
    assert other in str(refused.value)


@pytest.mark.parametrize("message", ["get", "cancel", "retry"])
async def test_messages_name_jobs_in_full(db: Any, store: Store, message: str) -> None:
    """A program that sends half a key has a fault, and mustn't cancel what begins like it."""
    (key,) = await add_videos(db)
    answer = await Inbox(store, Coordination()).answer(message, (), {"id": key[:12]})
    assert (answer["ok"], answer["error"].startswith("no job")) == (False, True)
    assert await db.fetchval("SELECT status FROM generation_jobs WHERE id = $1", key) == "queued"
