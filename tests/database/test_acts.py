"""Requeue and priority: new work that drops nothing paid, and another place in the order."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.database.depot import built
from tests.database.platform_samples import NewDatabase
from tests.database.support import (
    SUPPORTED,
    Connect,
    Hand,
    OpenStore,
    add_background,
    add_texts,
    add_v1_videos,
    add_videos,
    queued,
    set_status,
)
from tests.database.test_requeue import submit
from worker.acting import retrying
from worker.store import Refused, Store, acts, aims
from worker.store.acts import Seen, WrongPriority, priority_value
from worker.store.finding import Found

WHO = "ann@desk"
JOBS = "generation_jobs"


async def recorded(connection: Any) -> list[dict[str, Any]]:
    rows = await connection.fetch(
        "SELECT action, subject, who, detail FROM rowmill.actions ORDER BY id"
    )
    return [{**dict(row), "detail": json.loads(row["detail"])} for row in rows]


# --------------------------------------------------------------------------- requeue


@pytest.mark.parametrize("finish", ["succeed", "fail", "cancel"])
async def test_a_finished_row_is_made_anew_in_a_new_run(
    finish: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    await getattr(hand, finish)(await hand.take())
    ended = await connection.fetchval(f"SELECT status::text FROM {JOBS}")
    await submit(connection, key, 1, "finished", delivered=True)

    assert await acts.requeue(store, JOBS, key, WHO) == "requeued"

    row = await connection.fetchrow(f"SELECT * FROM {JOBS}")
    assert (row["status"], row["retry_count"], row["progress_percentage"]) == ("queued", 0, 0)
    assert (row["completed_at"], row["failed_at"], row["error_message"]) == (None, None, None)
    assert (await queued(connection))[key]["run"] == 2
    (line,) = await recorded(connection)
    assert (line["action"], line["who"], line["subject"]) == ("requeue", WHO, f"{JOBS}/{key}")
    assert line["detail"]["row"]["status"] == ended
    assert (line["detail"]["verdict"], line["detail"]["before"]) == ("requeued", None)
    (work,) = await hand.take()
    assert await hand.succeed([work]) == {key: "settled"}
    assert await connection.fetchval(f"SELECT status::text FROM {JOBS}") == "completed"


async def test_tables_that_keep_results_in_the_row(
    photomemory_v1: str, ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    """The old result stays until the new one is there; the tables' own checks agree."""
    connection, store = await connect(photomemory_v1), await open_store(photomemory_v1)
    hand = await Hand.hire(store)
    (key,) = await add_v1_videos(connection)
    await hand.succeed(await hand.take())
    assert await acts.requeue(store, "generated_videos", key, WHO) == "requeued"
    row = await connection.fetchrow("SELECT * FROM public.generated_videos")
    assert (row["status"], row["completed_at"], row["file_url"] is None) == ("queued", None, False)
    assert await hand.succeed(await hand.take()) == {key: "settled"}

    connection, store = await connect(ebook), await open_store(ebook)
    hand = await Hand.hire(store)
    (key,) = await add_texts(connection)
    await hand.succeed(await hand.take())
    assert await acts.requeue(store, "ai_generations", key, WHO) == "requeued"
    assert await hand.succeed(await hand.take()) == {key: "settled"}


async def test_a_table_without_a_word_for_cancelled(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore
) -> None:
    dsn = await new_database()
    await built(dsn)
    connection, store = await connect(dsn), await open_store(dsn)
    key = str(await connection.fetchval("INSERT INTO depot.errands DEFAULT VALUES RETURNING id"))
    assert await acts.requeue(store, "errands", key, WHO) == "waiting"
    assert await acts.cancel(store, "errands", key, WHO) == "cancelled"
    assert await acts.requeue(store, "errands", key, WHO) == "requeued"
    assert [line["action"] for line in await recorded(connection)] == [
        "requeue",
        "cancel",
        "requeue",
    ]
    diary = await connection.fetch("SELECT action, errand FROM depot.diary")
    assert [tuple(d) for d in diary][-1] == ("requeue", int(key))


async def test_unfinished_jobs_are_left_as_they_are(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 3)
    running, held, later = await hand.take(3)
    await hand.hold([held])
    await hand.retry([later], after=3600)
    (ready,) = await add_videos(connection)
    before = [dict(row) for row in (await queued(connection)).values()]
    said = [
        await acts.requeue(store, JOBS, key, WHO)
        for key in (ready, running.key, held.key, later.key)
    ]
    assert said == ["waiting", "running", "held", "waiting"]
    assert [dict(row) for row in (await queued(connection)).values()] == before


@pytest.mark.parametrize(
    ("state", "delivered", "verdict"),
    [
        ("intent", False, "in_doubt"),
        ("unknown", False, "in_doubt"),
        ("accepted", False, "open"),
        ("finished", False, "undelivered"),
        ("finished", True, "requeued"),
        ("failed", False, "requeued"),
        ("cancelled", False, "requeued"),
        ("written_off", False, "requeued"),
    ],
)
async def test_what_is_paid_for_or_may_be_is_never_dropped_silently(  # noqa: PLR0917 - one case
    photomemory: str,
    connect: Connect,
    open_store: OpenStore,
    state: str,
    delivered: bool,
    verdict: str,
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    await hand.fail(await hand.take())
    await submit(connection, key, 1, state, delivered=delivered)
    assert await acts.requeue(store, JOBS, key, WHO) == verdict
    if verdict == "requeued":
        return
    assert await queued(connection) == {}
    assert (await recorded(connection))[0]["detail"]["verdict"] == verdict
    anew = await acts.requeue(store, JOBS, key, WHO, anew=True)
    assert anew == ("requeued" if verdict == "undelivered" else verdict)
    assert await acts.retry(store, JOBS, key, WHO) in ("requeued", "hastened")


async def test_a_result_of_an_earlier_run_was_given_up_before(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    await submit(connection, key, 1, "finished", delivered=False)
    await set_status(connection, key, "failed")
    await submit(connection, key, 2, "finished", delivered=True)
    assert await acts.requeue(store, JOBS, key, WHO) == "requeued"
    assert (await hand.take())[0].claimed.run == 3


# --------------------------------------------------------------------------- priority


async def test_a_column_is_written_and_its_trigger_ranks(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    first, second = await add_videos(connection, 2, priority=5)
    did = await acts.prioritise(store, JOBS, second, "9", WHO)
    assert (did.verdict, did.rank, did.ranked) == ("moved", 10 + SUPPORTED, 18 + SUPPORTED)
    assert await connection.fetchval(f"SELECT priority FROM {JOBS} WHERE id = $1", second) == 9
    (line,) = await recorded(connection)
    assert (line["action"], line["detail"]["given"]) == ("priority", {"to": "9"})
    assert (line["detail"]["row"]["priority"], line["detail"]["rank"]) == (5, 18 + SUPPORTED)
    hand = await Hand.hire(store)
    assert [claim.key for claim in await hand.claim(2)] == [second, first]


async def test_while_it_runs_it_is_for_when_it_comes_back(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection, priority=5)
    works = await hand.take()
    assert (await acts.prioritise(store, JOBS, key, "1", WHO)).verdict == "noted"
    row = (await queued(connection))[key]
    assert (row["state"], row["token"], row["rank"]) == ("claimed", works[0].token, 2 + SUPPORTED)
    assert await hand.release(works) == {key: "settled"}
    assert (await queued(connection))[key]["rank"] == 2 + SUPPORTED
    await hand.succeed(await hand.take())
    assert (await acts.prioritise(store, JOBS, key, "9", WHO)).verdict == "completed"
    assert await connection.fetchval(f"SELECT priority FROM {JOBS}") == 1


async def test_where_there_is_no_column_the_rank_is_set(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    hand = await Hand.hire(store)
    first, second = await add_texts(connection, 2)
    did = await acts.prioritise(store, "ai_generations", second, "20", WHO)
    assert (did.verdict, did.rank, did.ranked) == ("moved", 10, 20)
    (work,) = await hand.take()
    assert work.key == second
    assert (await acts.prioritise(store, "ai_generations", second, "3", WHO)).verdict == "noted"
    await hand.release([work])
    assert [claim.key for claim in await hand.claim(2)] == [first, second]


async def test_priorities_are_those_of_the_maps(both: str, open_store: OpenStore) -> None:
    infos = {info.name: info for info in await (await open_store(both)).sources()}
    assert priority_value(infos[JOBS], "10") == "10"
    assert priority_value(infos["background_jobs"], "-7") == "-7"
    assert priority_value(infos["ai_generations"], "20") == "20"
    for name, wrong in (
        (JOBS, "11"),
        (JOBS, "0"),
        (JOBS, "high"),
        ("ai_generations", "21"),
        ("background_jobs", "9999999999"),
        ("background_jobs", "٣"),
        ("background_jobs", "1.5"),
    ):
        with pytest.raises(WrongPriority, match=name):
            priority_value(infos[name], wrong)


async def test_what_the_table_refuses_leaves_no_trace(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (key,) = await add_videos(connection)
    with pytest.raises(Refused, match="priority"):
        await acts.prioritise(store, JOBS, key, "99", WHO)
    assert await recorded(connection) == []


async def test_a_scheduled_job_keeps_its_time(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    hand = await Hand.hire(store)
    await add_background(connection)
    works = await hand.take()
    await hand.retry(works, after=3600)
    before = (await queued(connection))[works[0].key]
    await acts.prioritise(store, "background_jobs", works[0].key, "7", WHO)
    after = (await queued(connection))[works[0].key]
    assert (after["ready_at"], after["state"]) == (before["ready_at"], "scheduled")
    assert after["rank"] == 17


# --------------------------------------------------------------------------- what was shown


async def test_what_changed_since_it_was_shown_is_not_touched(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    await hand.fail(await hand.take())
    seen = Seen(("failed",), await version(store, key))
    await connection.execute(f"UPDATE {JOBS} SET error_message = 'looked at'")
    assert await acts.retry(store, JOBS, key, WHO, seen) == "changed"
    assert await acts.requeue(store, JOBS, key, WHO, seen=seen) == "changed"
    assert await acts.cancel(store, JOBS, key, WHO, Seen(("ready", "held"))) == "changed"
    assert await recorded(connection) == []
    assert await queued(connection) == {}
    now = Seen(("failed",), await version(store, key))
    assert await acts.retry(store, JOBS, key, WHO, now) == "requeued"


async def version(store: Store, key: str) -> str:
    return str(await store.value(f"SELECT version FROM rowmill.about_{JOBS}(ARRAY[$1])", key))


async def test_a_filter_for_retries_leaves_those_that_wait_for_their_own_time(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    hand = await Hand.hire(store)
    (tried,) = await add_background(connection)
    await hand.retry(await hand.take(), after=3600)
    (planned,) = await add_background(
        connection, scheduled_at=datetime.now(UTC) + timedelta(days=1)
    )
    found = await aims.aims(store, [Found("background_jobs", key) for key in (tried, planned)])
    assert [aim.state for aim in found] == ["scheduled", "scheduled"]
    assert [retrying().meant(aim, ()) for aim in found] == [True, False]
    assert [retrying().meant(aim, ("scheduled",)) for aim in found] == [True, True]
