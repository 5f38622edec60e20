"""What operators do and what they are told: find, pause, resume, retry, cancel, why, status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.database.platform_samples import run
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_background,
    add_texts,
    add_videos,
    fell_silent,
    new_keys,
    queued,
)
from worker.store import Store, acts, finding, gates, reports, story
from worker.store.explaining import explain
from worker.store.finding import Found, UnknownName, column_type

WHO = "tester@here"
JOBS = "generation_jobs"


async def actions(connection: Any) -> list[tuple[str, str, str, dict[str, Any]]]:
    rows = await connection.fetch("SELECT * FROM rowmill.actions ORDER BY id")
    return [(r["who"], r["action"], r["subject"], json.loads(r["detail"])) for r in rows]


async def row_of(connection: Any, key: str) -> Any:
    return await connection.fetchrow("SELECT * FROM public.generation_jobs WHERE id = $1", key)


# --------------------------------------------------------------------------- finding


async def test_a_job_is_found_by_its_key_or_by_table_and_key(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    (video,) = await add_videos(connection)
    (text,) = await add_texts(connection)
    assert await finding.find(store, video) == [Found(JOBS, video)]
    assert await finding.find(store, video.upper()) == [Found(JOBS, video)]
    assert await finding.find(store, f"{JOBS}/{video}") == [Found(JOBS, video)]
    assert await finding.find(store, text) == [Found("ai_generations", text)]
    assert await finding.find(store, f"{JOBS}/{text}") == []


@pytest.mark.parametrize("reference", ["abc", "12", "a/b/c", "", "' OR true --", "no_table/1"])
async def test_what_is_no_key_of_any_table_is_just_not_found(
    both: str, open_store: OpenStore, reference: str
) -> None:
    store = await open_store(both)
    assert await finding.find(store, reference) == []
    with pytest.raises(UnknownName, match="generation_jobs"):
        await finding.find_one(store, reference)


async def test_a_deleted_row_is_found_by_what_was_recorded_of_it(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (key,) = await add_videos(connection)
    hand = await Hand.hire(store)
    await hand.fail(await hand.take())
    await connection.execute("DELETE FROM public.generation_jobs")
    assert await finding.find(store, key) == [Found(JOBS, key)]
    told = await story.job(store, JOBS, key)
    assert told["row"] is None
    assert [f["message"] for f in told["failures"]] == ["it broke"]
    assert "no such row" in told["why"]
    assert await acts.retry(store, JOBS, key, WHO) == "missing"


async def test_one_key_in_two_tables_has_to_be_told_apart(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    (key,) = await add_videos(connection)
    await add_texts(connection)
    await connection.execute("UPDATE ai_processing.ai_generations SET id = $1", key)
    with pytest.raises(UnknownName, match=f"ai_generations/{key}"):
        await finding.find_one(store, key)


# --------------------------------------------------------------------------- pausing


@pytest.mark.parametrize(
    ("at", "subject"),
    [
        (("replicate", "*"), "lane replicate"),
        (("*", JOBS), f"source {JOBS}"),
        (("*", "public.generation_jobs"), f"source {JOBS}"),
        (("replicate", JOBS), f"lane replicate of {JOBS}"),
        (("*", "*"), "everything"),
    ],
)
async def test_a_pause_holds_until_it_is_resumed_and_both_are_recorded(
    photomemory: str,
    connect: Connect,
    open_store: OpenStore,
    at: tuple[str, str],
    subject: str,
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (lane, source), (key,) = at, await add_videos(connection)
    hand = await Hand.hire(store)
    await gates.pause(store, lane=lane, source=source, who=WHO, reason="too hot")
    assert await hand.claim(10) == []
    assert (await explain(store, JOBS, key))["why"] == f"{subject} is paused by {WHO}: too hot"
    assert await gates.resume(store, lane=lane, source=source, who=WHO)
    assert not await gates.resume(store, lane=lane, source=source, who=WHO)
    assert [claim.key for claim in await hand.claim(10)] == [key]
    assert await connection.fetchval("SELECT names FROM rowmill.gates()") is None
    paused, resumed = await actions(connection)
    assert paused == (WHO, "pause", subject, {"before": None, "reason": "too hot"})
    assert resumed[:3] == (WHO, "resume", subject)
    assert resumed[3]["before"]["pause_reason"] == "too hot"


async def test_a_second_pause_without_a_reason_keeps_the_first_ones(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    reasons = []
    for reason in ("too hot", None, "too cold"):
        await gates.pause(store, who=WHO, reason=reason)
        reasons.append(await connection.fetchval("SELECT pause_reason FROM rowmill.lanes"))
    await gates.resume(store, who=WHO)
    await gates.pause(store, who=WHO)
    assert reasons == ["too hot", "too hot", "too cold"]
    assert await connection.fetchval("SELECT pause_reason FROM rowmill.lanes") is None


async def test_a_gate_keeps_its_limit_when_it_is_resumed(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await connection.execute(
        "INSERT INTO rowmill.lanes (source, platform_max_running) VALUES ($1, 3)", JOBS
    )
    await gates.pause(store, source=JOBS, who=WHO)
    assert await gates.resume(store, source=JOBS, who=WHO)
    (gate,) = await connection.fetch("SELECT * FROM rowmill.lanes")
    assert (gate["paused_at"], gate["paused_by"], gate["platform_max_running"]) == (None, None, 3)


async def test_a_misspelt_lane_or_table_is_an_error_that_names_the_known_ones(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    await add_videos(connection)
    await Hand.hire(store, ["openai"])
    with pytest.raises(UnknownName, match=r"openai, replicate; did you mean replicate\?$"):
        await gates.pause(store, lane="replicat", who=WHO)
    with pytest.raises(
        UnknownName, match="attached: ai_generations, background_jobs, generation_jobs"
    ):
        await gates.pause(store, source="jobs", who=WHO)
    assert await actions(connection) == []
    assert await connection.fetchval("SELECT count(*) FROM rowmill.lanes") == 0


async def test_a_key_is_compared_whole(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Cast to its own length, a longer text would name another job, and a char(n) none."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    await connection.execute("CREATE TABLE codes (fixed char(4), short varchar(4))")
    await connection.execute("INSERT INTO codes VALUES ('abcd', 'abcd')")
    for column in ("fixed", "short"):
        kind = await column_type(store, "codes", column)
        same = f"SELECT {column} = $1::text::{kind} FROM codes"
        assert [await connection.fetchval(same, key) for key in ("abcd", "abcde")] == [True, False]


# --------------------------------------------------------------------------- retry and cancel


async def pay(store: Store, hand: Hand, queue_id: int, token: int) -> None:
    """A call of this job that is paid and finished, but not delivered."""
    intent = {
        "queue_id": queue_id,
        "token": token,
        "step": "main",
        "worker": hand.id,
        "provider": "replicate",
        "account": "a",
        "model": "m",
        "estimate_cents": "12",
    }
    (made,) = await store.intend([intent])
    entry = {"id": made["id"], "state": "finished", "result": {}, "cost_cents": "12.5"}
    assert await store.journal([entry]) == {made["id"]}


async def test_a_failed_row_that_is_retried_starts_over_and_uses_what_was_paid(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (key,) = await add_videos(connection, max_retries=1)
    hand = await Hand.hire(store)
    (work,) = await hand.take()
    await pay(store, hand, work.queue_id, work.token)
    await hand.retry([work])
    assert await store.value("SELECT rowmill.promote()") == 1
    await hand.fail(await hand.take())
    before = await row_of(connection, key)
    assert (before["status"], before["retry_count"]) == ("failed", 1)
    assert before["error_message"]
    assert before["failed_at"]

    assert await acts.retry(store, JOBS, key, WHO) == "requeued"

    after = await row_of(connection, key)
    assert (after["status"], after["retry_count"]) == ("queued", 0)
    assert (after["error_message"], after["failed_at"]) == (None, None)
    row = (await queued(connection, key))[key]
    # Its paid step was never delivered: the same run reads it back. An UPDATE asks for new work.
    assert (row["state"], row["tries"], row["run"]) == ("ready", 0, 1)
    (record,) = await actions(connection)
    assert record[:3] == (WHO, "retry", f"{JOBS}/{key}")
    assert record[3]["verdict"] == "requeued"
    assert record[3]["row"]["error_message"] == "it broke"
    told = await story.job(store, JOBS, key)
    assert [(s["state"], s["cost_cents"]) for s in told["submissions"]] == [("finished", "12.5")]
    assert [f["final"] for f in told["failures"]] == [False, True]
    assert [a["action"] for a in told["actions"]] == ["retry"]
    assert json.loads(json.dumps(told)) == told


async def test_what_retry_says_of_rows_it_need_not_or_must_not_touch(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    keys = await add_videos(connection, 4)
    hand = await Hand.hire(store)
    running, done, held, later = await hand.take(4)
    await hand.succeed([done])
    await hand.hold([held])
    await hand.retry([later], after=3600)
    assert await acts.retry(store, JOBS, running.key, WHO) == "running"
    assert await acts.retry(store, JOBS, done.key, WHO) == "completed"
    assert await acts.retry(store, JOBS, held.key, WHO) == "released"
    assert await acts.retry(store, JOBS, later.key.upper(), WHO) == "hastened"
    assert await acts.retry(store, JOBS, new_keys(1)[0], WHO) == "missing"
    states = {key: row["state"] for key, row in (await queued(connection, *keys)).items()}
    assert states == {running.key: "claimed", held.key: "ready", later.key: "ready"}
    assert {claim.key for claim in await hand.claim(10)} == {held.key, later.key}


async def test_cancel_while_ready_running_held_and_done(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 3)
    running, held, done = await hand.take(3)
    await hand.hold([held])
    await hand.succeed([done])
    (ready,) = await add_videos(connection)
    for key in (ready, running.key, held.key):
        assert await acts.cancel(store, JOBS, key, WHO) == "cancelled"
        assert (await row_of(connection, key))["status"] == "cancelled"
    assert await acts.cancel(store, JOBS, done.key, WHO) == "completed"
    assert await queued(connection) == {}
    assert await hand.succeed([running]) == {running.key: "lost"}
    assert [a[1] for a in await actions(connection)] == ["cancel"] * 4


# --------------------------------------------------------------------------- why


async def test_why_a_job_waits(photomemory: str, connect: Connect, open_store: OpenStore) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    first, second = await add_videos(connection, 1, priority=9) + await add_videos(connection)

    async def why(key: str) -> str:
        return str((await explain(store, JOBS, key))["why"])

    assert await why(first) == "no worker is running"
    await Hand.hire(store, ["openai"])
    assert await why(first) == "no live worker serves lane replicate"
    hand = await Hand.hire(store)
    assert await why(first) == await why(second) == "ready: waits its turn"
    assert [(await explain(store, JOBS, key))["ahead"] for key in (first, second)] == [0, 1]
    assert (await story.job(store, JOBS, second))["ahead"] == 1

    await connection.execute(
        "INSERT INTO rowmill.lanes (lane, max_running) VALUES ('replicate', 1)"
    )
    (work,) = await hand.take(2)
    assert work.key == first
    assert await why(first) == "running on hand"
    assert await why(second) == "lane replicate is full: 1 of 1 run"
    await fell_silent(connection, hand)
    assert "is silent for longer than its lease" in await why(first)
    await store.retire(hand.id)
    assert await why(second) == "no live worker serves lane replicate"


async def test_why_a_job_is_held_or_comes_later_or_is_over(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 3)
    held, later, done = await hand.take(3)
    await hand.hold([held])
    await hand.retry([later], after=3600)
    await hand.succeed([done])
    said = [(await explain(store, JOBS, w.key))["why"] for w in (held, later, done)]
    assert said[0] == "held for a person: someone has to look"
    assert said[1].startswith("waits until 20")
    assert said[1].endswith(" UTC, after: it broke")
    assert said[2] == "not waiting: its status is completed"
    assert "no such row" in (await explain(store, JOBS, new_keys(1)[0]))["why"]


async def test_a_ready_row_without_its_trigger_is_called_not_queued_yet(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await connection.execute("ALTER TABLE public.generation_jobs DISABLE TRIGGER rowmill_enqueue")
    (key,) = await add_videos(connection)
    assert "not queued yet" in (await explain(store, JOBS, key))["why"]
    (item,) = (await reports.status(store))["needs_person"]
    assert (item["kind"], item["subject"]) == ("missing_triggers", JOBS)
    assert item["commands"] == ["rowmill attach photomemory"]
    assert "rowmill_enqueue" in item["message"]


async def test_why_is_found_once_per_lane_however_many_rows_wait(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection, 5000)
    await connection.execute("ANALYZE rowmill.queue")
    plan = await store.fetch("EXPLAIN SELECT why FROM rowmill.waiting")
    assert any("Memoize" in row[0] for row in plan)


# --------------------------------------------------------------------------- status


async def test_status_of_an_idle_and_of_a_busy_fleet(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    idle = await reports.status(store)
    assert (idle["lanes"], idle["workers"]) == ([], [])
    assert (idle["needs_person"], idle["notices"]) == ([], [])
    assert not idle["database"]["pooler"]

    await add_videos(connection, 3)
    hand = await Hand.hire(store)
    failed, paid, _running = await hand.take(3)
    await pay(store, hand, paid.queue_id, paid.token)
    await hand.fail([failed])
    await connection.execute(
        "INSERT INTO rowmill.lanes (source, platform_max_running) VALUES ($1, 7)", JOBS
    )
    report = await reports.status(store)
    assert json.loads(json.dumps(report)) == report
    (lane,) = report["lanes"]
    assert (lane["lane"], lane["source"], lane["running"]) == ("replicate", JOBS, 2)
    assert (lane["failed_last_hour"], lane["limit"]) == (1, 7)
    assert lane["spend_cents_today"] == "12.5"
    source = next(s for s in report["sources"] if s["source"] == JOBS)
    assert (source["running"], source["limit"], source["missing_triggers"]) == (2, 7, [])
    (worker,) = report["workers"]
    assert (worker["id"], worker["alive"]) == (str(hand.id), True)
    assert report["needs_person"] == []


async def test_percentiles_come_from_the_pulses_of_the_last_hour(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    waits, runs = [0] * 32, [0] * 32
    waits[0], waits[7] = 60, 40  # 0 ms, 64 to 128 ms
    runs[11] = 10  # 1.024 to 2.048 s
    counts = {"started": 100, "succeeded": 7, "failed": 3, "retried": 0, "yielded": 0}
    pulse = {"worker": 1, "source": JOBS, "lane": "replicate", "waits": waits, "runs": runs}
    await store.add_pulses([{**pulse, **counts}] * 2)
    (lane,) = (await reports.status(store))["lanes"]
    assert (lane["wait_p50_ms"], lane["wait_p95_ms"]) == (0, 120)
    assert (lane["run_p50_ms"], lane["run_p95_ms"]) == (1536, 1997)
    assert lane["per_minute_out"] == 20
    await connection.execute("UPDATE rowmill.pulses SET at = at - interval '2 hours'")
    assert (await reports.status(store))["lanes"] == []


async def test_what_needs_a_person(both: str, connect: Connect, open_store: OpenStore) -> None:
    connection, store = await connect(both), await open_store(both)
    await add_videos(connection, 8)

    async def needs() -> list[dict[str, Any]]:
        return list((await reports.status(store))["needs_person"])

    (item,) = await needs()
    assert (item["kind"], item["message"]) == ("no_workers", "8 jobs wait, and no worker runs")
    assert item["commands"] == ["rowmill run"]

    hand = await Hand.hire(store)
    assert await needs() == []
    await hand.hold(await hand.take(8))
    held = await needs()
    assert [i["kind"] for i in held] == ["held"] * 6
    assert held[5]["subject"] == "3 more"
    job = held[0]["subject"]
    assert held[0]["commands"] == [
        f"rowmill job show {job}",
        f"rowmill retry {job}",
        f"rowmill cancel {job}",
    ]
    await connection.execute("DELETE FROM public.generation_jobs")
    assert await needs() == []


async def test_a_lane_nobody_serves_is_named_with_its_reason_and_not_when_it_is_paused(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    await Hand.hire(store, ["replicate"])
    (key,) = await add_background(connection, kind="embed_content")
    await add_texts(connection, 2)
    await connection.execute(
        'UPDATE rowmill.sources SET unserved = \'{"background:embed_content": "no vectors"}\''
        " WHERE name = 'background_jobs'"
    )
    embed, text = (await reports.status(store))["needs_person"]
    assert (embed["kind"], embed["subject"]) == ("unserved", "lane background:embed_content")
    assert "no vectors" in embed["message"]
    assert (text["subject"], text["kind"]) == ("lane openai", "unserved")
    assert text["message"].startswith("2 jobs wait: no live worker serves this lane")
    assert "no vectors" in (await explain(store, "background_jobs", key))["why"]

    await gates.pause(store, lane="openai", who=WHO, reason="saving")
    report = await reports.status(store)
    assert [item["subject"] for item in report["needs_person"]] == ["lane background:embed_content"]
    (notice,) = report["notices"]
    assert notice["message"] == f"paused by {WHO}: saving; 2 jobs wait"
    assert notice["commands"] == ["rowmill resume openai"]


async def test_a_call_whose_fate_nobody_will_learn_needs_a_person(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 1)
    (work,) = await hand.take()
    await pay(store, hand, work.queue_id, work.token)
    await connection.execute("UPDATE rowmill.submissions SET state = 'unknown', ended_at = NULL")
    await acts.cancel(store, JOBS, work.key, WHO)
    assert (await reports.status(store))["needs_person"] == []  # within its worker's lease
    await connection.execute(
        "UPDATE rowmill.submissions SET intended_at = intended_at - interval '1 hour'"
    )
    (item,) = (await reports.status(store))["needs_person"]
    assert (item["kind"], item["subject"]) == ("unresolved_payment", f"{JOBS}/{work.key}")
    assert await acts.retry(store, JOBS, work.key, WHO) == "requeued"
    assert (await reports.status(store))["needs_person"] == []  # a job looks after it again


async def test_a_table_that_is_gone_is_reported(photomemory: str, open_store: OpenStore) -> None:
    store = await open_store(photomemory)
    await run(photomemory, "DROP TABLE public.generation_jobs CASCADE")
    (item,) = (await reports.status(store))["needs_person"]
    assert (item["kind"], item["commands"]) == ("missing_table", ["rowmill detach photomemory"])
    assert await finding.find(store, new_keys(1)[0]) == []


async def test_many_lanes_and_many_held_jobs_are_told_in_few_words(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection, 9)
    hand = await Hand.hire(store)
    for claim in await hand.take(8):
        note = f"{claim.key} asks for this: `rowmill retry {claim.key}`"
        await connection.execute(
            "UPDATE rowmill.queue SET state = 'held', token = NULL, worker = NULL, note = $2"
            " WHERE id = $1",
            claim.queue_id,
            note,
        )
    served = [f"background:kind_{number}" for number in range(30)]
    await store.set_lanes(hand.id, [*served, "replicat"])
    needs = (await reports.status(store))["needs_person"]
    (lane,) = (item["message"] for item in needs if item["kind"] == "unserved")
    assert "background:kind_12 and 26 more; did you mean replicat?)" in lane
    more = needs[-1]
    assert more["message"] == "3 more jobs are held, for: ID asks for this: `rowmill retry ID`"
