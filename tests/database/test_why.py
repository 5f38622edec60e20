"""Why a job waits: each reason from what really makes it wait, told the same everywhere."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import Job
from jobs.providers.journal import NotNow
from jobs.providers.registry import ProviderSettings, build_providers
from tests.commandline import Rowmill
from tests.database.explained import BACKGROUND, TEXTS, VIDEOS, Explained, put_back
from tests.database.hand import AT_ONCE
from tests.database.journaling import intend, journal_of
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_background,
    add_texts,
    add_videos,
    fell_silent,
    result_of,
)
from tests.database.test_breaker import time_is_up, trip
from worker import maps
from worker.breaker import Breaker
from worker.rates import Rates
from worker.store import acts, finding, gates, limits
from worker.store.budgets import set_budget
from worker.store.explaining import MOST_AHEAD, explain
from worker.tallies import Statistics
from worker.transitions import settle
from worker.turns import Turns

DAY = timedelta(days=1)


@pytest.fixture
async def told(both: str, connect: Connect, open_store: OpenStore) -> Explained:
    return await Explained.of(both, connect, open_store)


def later(iso: str, by: timedelta = timedelta()) -> bool:
    return datetime.fromisoformat(iso) > datetime.now(UTC) + by


# --------------------------------------------------------------------------- gates


async def test_what_stops_a_lane_from_a_pause_to_the_turn(told: Explained) -> None:
    first, second = await add_videos(told.connection, 2)
    assert await told.reason(first) == ("no_worker", "fleet", ["rowmill run"])
    await Hand.hire(told.store, ["openai"])
    unserved = ("unserved", "lane replicate", ["rowmill run --lanes replicate"])
    assert await told.reason(first) == unserved
    hand = await Hand.hire(told.store)
    assert await told.reason(second) == (
        "turn",
        "lane replicate",
        [f"rowmill priority {VIDEOS}/{second} --to PRIORITY"],
    )
    assert (await told(second))["ahead"] == 1

    await gates.limit(told.store, {"max_running": 1}, lane="replicate", who="tests")
    assert len(await hand.claim(5)) == 1
    limit = ["rowmill limit replicate --running N"]
    assert await told.reason(second) == ("full", "lane replicate", limit)
    assert (await told(second))["may_start_at"] is None
    assert await told.reason(first) == ("running", "worker hand", [])

    await gates.pause(told.store, source=VIDEOS, who="tests", reason="look")
    resume = [f"rowmill resume --source {VIDEOS}"]
    assert await told.reason(second) == ("paused", f"source {VIDEOS}", resume)
    await fell_silent(told.connection, hand)
    assert (await told.reason(first))[0] == "worker_silent"
    await told.connection.execute("UPDATE rowmill.workers SET stopped_at = now()")
    assert (await told.reason(first))[0] == "worker_gone"
    assert (await told.reason(second))[0] == "paused", "which ends by nobody's coming"


async def test_a_full_lane_of_the_platforms_is_no_operators_to_open(told: Explained) -> None:
    (key,) = await add_videos(told.connection)
    await Hand.hire(told.store)
    await told.connection.execute(
        "INSERT INTO rowmill.lanes (lane, source, platform_max_running)"
        " VALUES ('replicate', $1, 0)",
        VIDEOS,
    )
    assert await told.reason(key) == ("full", f"lane replicate of {VIDEOS}", [])
    assert (await told(key))["why"].endswith("is full: 0 of 0 run")


async def test_a_lane_that_its_platform_closes(told: Explained) -> None:
    (key,) = await add_texts(told.connection)
    await Hand.hire(told.store)
    await told.connection.execute("UPDATE ai_processing.ai_providers SET status = 'inactive'")
    await limits.apply(told.store, maps.load("ebook"))
    assert await told.reason(key, TEXTS) == ("closed", f"lane openai of {TEXTS}", [])
    assert (await told(key, TEXTS))["may_start_at"] is None


async def test_a_kind_that_no_worker_may_run_on_this_database(told: Explained) -> None:
    (key,) = await add_background(told.connection, kind="embed_content")
    await Hand.hire(told.store)
    await told.connection.execute(
        'UPDATE rowmill.sources SET unserved = \'{"background:embed_content": "no vectors"}\''
        " WHERE name = 'background_jobs'"
    )
    subject = "lane background:embed_content"
    assert await told.reason(key, BACKGROUND) == ("unserved", subject, [])
    assert (await told(key, BACKGROUND))["why"].endswith("on this database: no vectors")


async def test_a_broken_lane_and_the_one_job_that_tries_it(told: Explained) -> None:
    _, second = await add_videos(told.connection, 2)
    hand = await Hand.hire(told.store)
    await trip(Breaker(told.store))
    broken = ("breaker", "lane replicate", ["rowmill resume replicate"])
    assert await told.reason(second) == broken
    assert later((await told(second))["may_start_at"])
    await time_is_up(told.connection)
    assert (await told.reason(second))[0] == "turn"
    assert len(await hand.claim(5)) == 1
    assert await told.reason(second) == broken
    assert "one job at a time: transient: their machines are down" in (await told(second))["why"]


async def test_a_used_up_rate(told: Explained) -> None:
    first, second = await add_videos(told.connection, 2)
    hand = await Hand.hire(told.store)
    providers = build_providers({"replicate": ProviderSettings(requests_per_minute=1)})
    rates = Rates(told.store, providers)
    await rates.refresh()
    one, two = await hand.take(2)
    job = Job(VIDEOS, first, "media:video", "replicate", 1, 0, 3, None, {})
    await rates.enter("replicate", job, 0)
    with pytest.raises(NotNow) as refused:
        await rates.enter("replicate", job, 0)
    await put_back(hand, two, refused.value)
    await rates.refresh()
    # Our own share: the lane stays open for others, and the job waits.
    assert not refused.value.keeps_place or later((await told(second))["may_start_at"])
    assert (await told.reason(second))[0] == "rate"

    await told.store.slow("replicate", "*", 40, 1)
    await hand.release([one])
    resume = ["rowmill resume replicate"]
    assert await told.reason(first) == ("rate", "lane replicate", resume)
    assert later((await told(first))["may_start_at"], timedelta(seconds=30))


# --------------------------------------------------------------------------- until a time


async def test_a_schedule_and_a_time_that_somebody_moves(told: Explained) -> None:
    tomorrow = datetime.now(UTC) + DAY
    (key,) = await add_background(told.connection, scheduled_at=tomorrow)
    hand = await Hand.hire(told.store)
    assert await told.reason(key, BACKGROUND) == (
        "scheduled",
        None,
        [f"rowmill retry {BACKGROUND}/{key}"],
    )
    assert datetime.fromisoformat((await told(key, BACKGROUND))["may_start_at"]) == tomorrow
    move = "UPDATE system.background_jobs SET scheduled_at = $2 WHERE id = $1"
    await told.connection.execute(move, key, datetime.now(UTC) - DAY)
    await hand.retry(await hand.take(), after=60)
    assert (await told.reason(key, BACKGROUND))[0] == "retry"
    assert (await told(key, BACKGROUND))["why"].endswith("UTC, after: it broke")
    await told.connection.execute(move, key, tomorrow)
    assert (await told.reason(key, BACKGROUND))[0] == "scheduled", "what broke isn't why any more"


async def test_what_comes_after_a_time_is_told_with_it(told: Explained) -> None:
    (key,) = await add_videos(told.connection)
    hand = await Hand.hire(told.store)
    await hand.retry(await hand.take(), after=60)
    due = (await told(key))["may_start_at"]
    await told.store.slow("replicate", "*", 30, 1)
    assert (await told(key))["may_start_at"] == due, "over by then"
    assert "then" not in (await told(key))["why"]
    await told.store.slow("replicate", "*", 300, 1)
    assert (await told(key))["may_start_at"] > due
    assert "; then: lane replicate has used up its rate" in (await told(key))["why"]
    await gates.pause(told.store, lane="replicate", who="tests")
    paused = await told(key)
    assert (paused["reason"], paused["may_start_at"]) == ("retry", None)
    assert paused["why"].endswith("; then: lane replicate is paused by tests")


async def test_a_used_up_budget(told: Explained) -> None:
    (key,) = await add_videos(told.connection)
    hand = await Hand.hire(told.store)
    await set_budget(told.store, "*", "month", Decimal(5000), "tests")
    await set_budget(told.store, "replicate", "day", Decimal(5), "tests")
    (work,) = await hand.take()
    with pytest.raises(NotNow) as refused:
        await intend(journal_of(told.store, work, hand))
    await put_back(hand, work, refused.value)
    row, it = await told.view(key), await told(key)
    assert (row["state"], row["gate_lane"], row["gate_source"]) == ("scheduled", "replicate", "*")
    assert (it["reason"], it["subject"]) == ("budget", "lane replicate")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    renewed = datetime.fromisoformat(it["may_start_at"])
    assert midnight <= renewed < midnight + timedelta(minutes=1)
    assert "over budget: the budget of lane replicate has used 0 of 5 cents a day" in it["why"]
    assert it["commands"][:-1] == ["rowmill budget set replicate --day CENTS"]
    await set_budget(told.store, "replicate", "day", Decimal(50), "tests")
    assert (await told.reason(key))[0] == "turn"


async def test_a_pause_of_everything_met_by_a_call(told: Explained) -> None:
    (key,) = await add_videos(told.connection)
    hand = await Hand.hire(told.store)
    (work,) = await hand.take()
    await gates.pause(told.store, who="tests")
    with pytest.raises(NotNow) as refused:
        await intend(journal_of(told.store, work, hand))
    await put_back(hand, work, refused.value)
    assert (await told.fetch(key))["state"] == "scheduled"
    assert (await told.reason(key))[:2] == ("paused", "everything")
    assert (await told.reason(key))[2][0] == "rowmill resume --all"


async def test_a_turn_at_a_shop_that_is_far_away(told: Explained) -> None:
    (key,) = await add_background(told.connection)
    hand = await Hand.hire(told.store)
    (work,) = await hand.take()
    turns = Turns(told.store)
    await turns.take("shop.example.com", 600)
    with pytest.raises(NotNow) as refused:
        await turns.take("shop.example.com", 600)
    await put_back(hand, work, refused.value)
    assert (await told.reason(key, BACKGROUND))[0] == "rate"
    assert later((await told(key, BACKGROUND))["may_start_at"], timedelta(seconds=1))


async def test_a_row_that_somebody_holds(told: Explained, both: str, connect: Connect) -> None:
    (key,) = await add_videos(told.connection)
    hand = await Hand.hire(told.store)
    producer = await connect(both)
    async with producer.transaction():
        await producer.execute("SELECT FROM generation_jobs WHERE id = $1 FOR UPDATE", key)
        assert await hand.take() == []
    assert (await told.reason(key))[:2] == ("locked", None)


async def test_what_is_held_and_whether_a_call_of_it_is_in_doubt(told: Explained) -> None:
    known, doubtful = await add_videos(told.connection, 2)
    hand = await Hand.hire(told.store)
    one, two = sorted(await hand.take(2), key=lambda work: work.key != known)
    await intend(journal_of(told.store, two, hand))
    await hand.hold([one, two])
    assert await told.reason(known) == ("held", None, [f"rowmill retry {VIDEOS}/{known}"])
    assert (await told.reason(doubtful))[2] == [
        f"rowmill resolve {VIDEOS}/{doubtful}",
        f"rowmill retry {VIDEOS}/{doubtful}",
    ]


# --------------------------------------------------------------------------- not in the queue


async def test_what_is_over_gone_or_in_no_queue(told: Explained) -> None:
    done, failed, gone, ours = await add_videos(told.connection, 4)
    hand = await Hand.hire(told.store)
    works = {work.key: work for work in await hand.take(4)}
    await hand.succeed([works[done]])
    await hand.fail([works[failed]])
    await told.connection.execute("DELETE FROM generation_jobs WHERE id = $1", gone)
    await told.connection.execute("DELETE FROM rowmill.queue WHERE row_key = $1", ours)
    said = [await explain(told.store, VIDEOS, key) for key in (done, failed, gone, ours)]
    assert [s["reason"] for s in said] == ["over", "over", "missing", "unqueued"]
    retry = [f"rowmill retry {VIDEOS}/{failed}"]
    assert [s["commands"] for s in said] == [[], retry, [], []]
    assert "is processing, but it is in no queue" in said[3]["why"]


async def test_a_job_that_comes_back_while_it_is_looked_at(
    told: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It isn't in the queue yet when that is read, and its row is ready when that is."""
    (key,) = await add_videos(told.connection)
    hand = await Hand.hire(told.store)
    await hand.fail(await hand.take())

    async def a_moment_later(*args: Any) -> Any:
        assert await acts.retry(told.store, VIDEOS, key, "tests") == "requeued"
        return await finding.platform_row(*args)

    monkeypatch.setattr("worker.store.explaining.platform_row", a_moment_later)
    assert (await explain(told.store, VIDEOS, key))["reason"] == "turn"


# --------------------------------------------------------------------------- the order


async def in_order(hand: Hand) -> list[str]:
    """The keys as they are really claimed, and put back where they were."""
    works = await hand.start(await hand.claim(100))
    works.sort(key=lambda w: (-w.claimed.rank, w.claimed.ready_at, w.claimed.queue_id))
    await hand.release(works)
    return [work.key for work in works]


async def places(told: Explained, lane: str) -> dict[str, int | None]:
    rows = await told.connection.fetch(
        "SELECT row_key, ahead FROM rowmill.waiting WHERE lane = $1", lane
    )
    return {row["row_key"]: row["ahead"] for row in rows}


async def test_the_place_is_the_one_that_claims_have_over_all_tables(told: Explained) -> None:
    mixed = random.Random(7)
    for _ in range(12):
        await add_videos(
            told.connection, service="openai", of=mixed.randint(1, 5), priority=mixed.randint(1, 9)
        )
        await add_texts(told.connection, of=mixed.randint(1, 4))
    await add_videos(told.connection, 3, priority=9)
    hand = await Hand.hire(told.store, ["openai"])
    order = await in_order(hand)
    assert len(order) == 24
    assert await places(told, "openai") == {key: n for n, key in enumerate(order)}

    # A table that nothing is claimed from is before nobody.
    await gates.pause(told.store, source=VIDEOS, who="tests")
    open_ = await in_order(hand)
    assert len(open_) == 12
    found = await places(told, "openai")
    assert {key: found[key] for key in open_} == {key: n for n, key in enumerate(open_)}
    await gates.pause(told.store, lane="openai", who="tests")
    assert await in_order(hand) == []
    assert await places(told, "openai") == found


@pytest.mark.parametrize("statistics", ["none", "fresh"])
async def test_a_place_is_counted_by_index_and_only_so_far(
    told: Explained, statistics: str
) -> None:
    await told.connection.execute(
        "INSERT INTO rowmill.queue (source, row_key, lane, rank, ready_at, state)"
        " SELECT s.id, n::text, 'replicate', 1 + n % 20, now() - interval '1 day', 'ready'"
        "   FROM rowmill.sources s, generate_series(1, 40000) n WHERE s.name = $1",
        VIDEOS,
    )
    first, last = (
        await add_videos(told.connection, 1, priority=10),
        await add_videos(told.connection),
    )
    if statistics == "fresh":
        await told.connection.execute("ANALYZE rowmill.queue")
    await Hand.hire(told.store)
    assert (await told(first[0]))["ahead"] == 2000
    assert (await told(last[0]))["ahead"] == MOST_AHEAD
    one = "SELECT why, reason, ahead FROM rowmill.waiting WHERE source = $1 AND row_key = $2"
    plan = await told.connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF) {one}", VIDEOS, last[0])
    lines = [row[0] for row in plan if " on queue " in row[0]]
    assert lines
    assert not any("Seq Scan" in line for line in lines)
    read = max(int(rows) for line in lines for rows in re.findall(r"rows=(\d+)", line))
    assert read <= MOST_AHEAD
    without = await told.connection.fetch(f"EXPLAIN {one.replace(', ahead', '')}", VIDEOS, last[0])
    assert not any("queue_order" in row[0] for row in without), "what isn't selected isn't counted"


async def test_a_start_is_estimated_from_what_the_lane_got_done(told: Explained) -> None:
    *_, last = await add_videos(told.connection, 31)
    hand = await Hand.hire(told.store)
    assert (await told(last))["estimated_start_at"] is None, "nothing was done yet"
    works = await hand.take(10)
    await hand.succeed(works)
    await pulse(told, works)
    await told.connection.execute("UPDATE rowmill.pulses SET at = now() - interval '5 minutes'")
    estimate = datetime.fromisoformat((await told(last))["estimated_start_at"])
    minutes = (estimate - datetime.now(UTC)).total_seconds() / 60
    assert 9.5 < minutes < 10.5, "20 before it, at 2 a minute"
    await gates.pause(told.store, lane="replicate", who="tests")
    assert (await told(last))["estimated_start_at"] is None, "nobody knows"


async def pulse(told: Explained, works: list[Any]) -> None:
    """As a worker tells of them with its heartbeat."""
    statistics = Statistics()
    for work in works:
        statistics.settled(
            settle(result_of(work), work.as_try(), policy=AT_ONCE, max_yields=50, chance=0)
        )
    await told.store.add_pulses(statistics.take(1))


# --------------------------------------------------------------------------- the real command


async def test_the_command_says_the_same_as_text_and_as_json(
    told: Explained, both: str, rowmill: Rowmill
) -> None:
    _, key = await add_videos(told.connection, 2)
    await gates.pause(told.store, lane="replicate", who="tests", reason="a [red]look\x1b[31m")
    it = await told(key)
    story = (await rowmill(both, "job", "show", key, "--json")).json
    assert story["explanation"] == it
    assert (story["why"], story["ahead"]) == (it["why"], 1)
    text = (await rowmill(both, "job", "show", key[:13])).out
    facts = [" ".join(line.split()) for line in text.splitlines()]
    assert "why lane replicate is paused by tests: a [red]look␛[31m" in facts
    assert "place 1 before it in lane replicate" in facts
    assert facts[-3:] == [
        "What you can do",
        "rowmill resume replicate",
        f"rowmill cancel {VIDEOS}/{key}",
    ]
    assert "\x1b" not in text
