"""Rates: lanes that are slow, and the door in front of every paid POST."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from limits import RateLimitItem

from jobs.contract import Job
from jobs.providers.journal import NotNow
from jobs.providers.registry import Provider, ProviderSettings, build_providers
from tests.database.journaling import at_work, intend, journal_of
from tests.database.redis_servers import FakeRedis, RealRedis, real_redis
from tests.database.support import SUPPORTED, Connect, Hand, OpenStore, add_texts, add_videos
from worker.coordination import Coordination
from worker.rates import MINUTE, WINDOWS, Rates, window_of
from worker.store import Store, finding, gates, reports
from worker.store.explaining import explain

LANE = "replicate"
JOB = Job("generation_jobs", "row-1", "media:video", LANE, 1, 0, 3, None, {})
EMBEDDING = Job("background_jobs", "row-2", "embed", "background:embed_content", 1, 0, 3, None, {})


async def lane_of(connection: Any, lane: str = LANE, source: str = "*") -> Any:
    return await connection.fetchrow(
        "SELECT *, extract(epoch FROM slow_until - clock_timestamp())::float8 AS seconds"
        " FROM rowmill.lanes WHERE lane = $1 AND source = $2",
        lane,
        source,
    )


async def its_time_is_over(connection: Any) -> None:
    await connection.execute("UPDATE rowmill.lanes SET slow_until = clock_timestamp()")


# --------------------------------------------------------------------------- slow lanes


async def test_nothing_is_claimed_from_a_slow_lane_and_order_is_kept(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    await add_videos(connection, 2, priority=5)
    await add_videos(connection, 2, priority=9)
    await add_texts(connection, 1)
    hand = await Hand.hire(store)
    first = await hand.take(2)
    before = [(w.claimed.ready_at, w.claimed.rank) for w in first]
    await store.slow(LANE, "*", 30, 1)
    await hand.release(first)
    (text,) = await hand.claim(10)
    assert text.lane == "openai"
    assert await hand.claim(10) == []

    await its_time_is_over(connection)
    again = [(await hand.claim(10)) for _ in range(4)]
    assert [len(claims) for claims in again] == [1, 1, 1, 1], "one at a time, as it was told"
    ranks = [rank + SUPPORTED for rank in (18, 18, 10, 10)]
    assert [c.rank for claims in again for c in claims] == ranks
    assert [(c.ready_at, c.rank) for claims in again[:2] for c in claims] == before
    assert all(c.yields == 0 for claims in again for c in claims)


async def test_a_slow_gate_of_one_table_leaves_the_others_alone(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    await add_videos(connection, 2)
    await add_videos(connection, 1, service="runway", of=5)
    await add_texts(connection, 1)
    hand = await Hand.hire(store)
    await store.slow("*", "generation_jobs", 30, None)
    assert [claim.lane for claim in await hand.claim(10)] == ["openai"]
    await its_time_is_over(connection)
    assert len(await hand.claim(10)) == 3


async def test_it_is_only_ever_extended_and_not_for_hours(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await connection.execute(
        "INSERT INTO rowmill.lanes (lane, max_running, requests_per_minute) VALUES ($1, 7, 60)",
        LANE,
    )
    await store.slow(LANE, "*", 30, 4)
    told = await lane_of(connection)
    await store.slow(LANE, "*", 5, 9)
    assert await connection.fetchval("SELECT slow_until FROM rowmill.lanes") == told["slow_until"]
    await store.slow(LANE, "*", 60, None)
    longer = await lane_of(connection)
    assert longer["slow_until"] > told["slow_until"]
    assert (longer["slow_admits"], longer["max_running"], longer["requests_per_minute"]) == (
        *(4, 7, 60),
    )
    await store.slow(LANE, "*", 86400, None)
    assert 590 < (await lane_of(connection))["seconds"] <= 600


async def test_a_running_limit_and_what_is_let_through_hold_together(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection, 9)
    await connection.execute("INSERT INTO rowmill.lanes (lane, max_running) VALUES ($1, 5)", LANE)
    await store.slow(LANE, "*", 1, 3)
    await its_time_is_over(connection)
    hand = await Hand.hire(store)
    assert [len(await hand.claim(10)) for _ in range(3)] == [3, 2, 0]
    await connection.execute(
        "UPDATE rowmill.lanes SET max_running = NULL, slow_until = now() - interval '61 seconds'"
    )
    assert len(await hand.claim(10)) == 4, "a minute later nobody remembers"


async def test_an_operator_sees_it_and_opens_it(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (key,) = await add_videos(connection)
    hand = await Hand.hire(store)
    await store.slow(LANE, "*", 300, 2)
    told = await explain(store, "generation_jobs", key)
    assert told["why"].startswith("lane replicate has used up its rate until")
    assert (told["reason"], told["commands"][0]) == ("rate", "rowmill resume replicate")
    (lane,) = (await reports.status(store))["lanes"]
    assert lane["slow_until"] == (await lane_of(connection))["slow_until"].isoformat()
    assert await gates.resume(store, lane=LANE, who="me")
    row = await lane_of(connection)
    assert (row["slow_until"], row["slow_admits"]) == (None, None)
    assert len(await hand.claim(5)) == 1


async def test_operators_limit_lanes_and_tables(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection)
    await store.slow(LANE, "*", 300, 2)
    now = await gates.limit(store, {"requests_per_minute": 60}, lane=LANE, who="me")
    assert now == {"max_running": None, "requests_per_minute": 60, "tokens_per_minute": None}
    assert (await lane_of(connection))["slow_until"] is None, "a new rate is measured anew"
    now = await gates.limit(
        store, {"max_running": 3, "tokens_per_minute": 900}, lane=LANE, who="me"
    )
    assert now == {"max_running": 3, "requests_per_minute": 60, "tokens_per_minute": 900}
    assert await gates.limit(store, dict.fromkeys(gates.LIMITS), lane=LANE, who="me") == (
        dict.fromkeys(gates.LIMITS)
    )
    acts = await connection.fetch("SELECT action, subject, detail FROM rowmill.actions ORDER BY id")
    assert {(act["action"], act["subject"]) for act in acts} == {("limit", "lane replicate")}
    last = json.loads(acts[-1]["detail"])
    assert last["before"]["requests_per_minute"] == 60
    assert last["set"] == dict.fromkeys(gates.LIMITS)
    with pytest.raises(finding.UnknownName):
        await gates.limit(store, {"max_running": 3}, lane="nowhere", who="me")


# --------------------------------------------------------------------------- windows


@pytest.mark.parametrize("a_minute", [1, 2, 6, 7, 10, 59, 60, 61, 120, 500, 599, 601, 9999, 10**6])
@pytest.mark.parametrize("among", [1, 2, 3, 7, 100])
def test_shares_never_add_up_to_more_than_the_limit(a_minute: int, among: int) -> None:
    def in_a_minute(window: RateLimitItem) -> float:
        return window.amount * MINUTE / window.get_expiry()

    whole, share = window_of(a_minute), window_of(a_minute, among)
    assert 0.99 * a_minute <= in_a_minute(whole) <= a_minute
    assert in_a_minute(share) * among <= a_minute
    assert whole.get_expiry() in WINDOWS


# --------------------------------------------------------------------------- the door


def paid_by(**settings: Any) -> dict[str, Provider]:
    return build_providers({LANE: ProviderSettings(**settings)})


async def enters(rates: Rates, job: Job = JOB, tokens: int = 0, provider: str = LANE) -> bool:
    try:
        await rates.enter(provider, job, tokens)
    except NotNow as refused:
        return not refused.keeps_place
    return True


async def how_many_enter(*doors: Rates, tokens: int = 0, of: int = 40) -> list[int]:
    counts = []
    for rates in doors:
        came = await asyncio.gather(*(enters(rates, tokens=tokens) for _ in range(of)))
        counts.append(sum(came))
    return counts


@pytest.fixture
async def store(both: str, open_store: OpenStore) -> Store:
    return await open_store(both)


async def test_nothing_is_limited_unless_someone_limits_it(store: Store) -> None:
    rates = Rates(store, paid_by())
    await rates.refresh()
    assert not rates.guards(LANE, JOB)
    await rates.enter(LANE, JOB, 10**9)


async def test_the_strictest_limit_holds_and_closes_what_it_is_of(
    both: str, connect: Connect, store: Store
) -> None:
    """A limit of 6 a minute is one in ten seconds."""
    connection = await connect(both)
    await connection.execute(
        "INSERT INTO rowmill.lanes"
        " (lane, source, requests_per_minute, platform_requests_per_minute)"
        " VALUES ($1, '*', 60, 36), ('*', 'generation_jobs', 18, NULL), ('*', '*', NULL, 300)",
        LANE,
    )
    rates = Rates(store, paid_by(requests_per_minute=120))
    await rates.refresh()
    assert await how_many_enter(rates) == [3]
    closed = await lane_of(connection, "*", "generation_jobs")
    assert 1 <= closed["seconds"] <= 10
    assert await lane_of(connection, "*") is not None
    assert (await lane_of(connection, "*"))["slow_until"] is None
    assert await rates.again(LANE, JOB, 0) > 2
    assert await rates.again("runway", EMBEDDING, 0) == 0


async def test_tokens_are_counted_and_the_largest_call_passes_alone(
    both: str, connect: Connect, store: Store
) -> None:
    await (await connect(both)).execute(
        "INSERT INTO rowmill.lanes (lane, tokens_per_minute) VALUES ($1, 90000)", LANE
    )
    first, second, third = (Rates(store, paid_by()) for _ in range(3))
    for rates in (first, second, third):
        await rates.refresh()
    assert await how_many_enter(first, tokens=30_000) == [3]
    assert await how_many_enter(second, tokens=10**6) == [1], "or it would wait for ever"
    assert await how_many_enter(third, tokens=0) == [40], "media have none"


async def test_a_call_for_another_lane_closes_that_lane_too(
    both: str, connect: Connect, store: Store
) -> None:
    connection = await connect(both)
    rates = Rates(store, paid_by(requests_per_minute=6))
    await rates.refresh()
    assert await enters(rates, EMBEDDING)
    assert not await enters(rates, EMBEDDING)
    for lane in (LANE, EMBEDDING.lane):
        assert (await lane_of(connection, lane))["seconds"] > 1
    assert await lane_of(connection, "openai") is None


async def test_short_waits_are_waited_for_in_place(store: Store) -> None:
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        rates._told.clear()

    rates = Rates(store, paid_by(), sleep=sleep)
    rates.told(LANE, 0.7)
    assert await enters(rates)
    assert naps == [pytest.approx(0.7, abs=0.1)]
    assert rates._telling == {}, "nobody else has to know"


async def test_what_a_provider_says_closes_its_lane_for_the_fleet(
    both: str, connect: Connect, store: Store
) -> None:
    connection = await connect(both)
    here, there = Rates(store, paid_by()), Rates(store, paid_by())
    here.told(LANE, 86400)
    assert here.guards(LANE, JOB)
    assert not await enters(here)
    await there.refresh()
    assert not await enters(there)
    assert 500 < (await lane_of(connection))["seconds"] <= 600
    await gates.resume(store, lane=LANE, who="me")
    for rates in (here, there):
        await rates.refresh()
        assert await enters(rates)


async def test_what_is_told_while_the_fleet_is_heard_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before knows nothing of it."""
    rates, alive = Rates(store, paid_by()), store.alive_by_lane

    async def meanwhile() -> dict[str, int]:
        rates.told(LANE, 30)
        await everyone_knows(rates)
        return await alive()

    monkeypatch.setattr(store, "alive_by_lane", meanwhile)
    await rates.refresh()
    assert not await enters(rates)


async def test_what_the_fleet_could_not_be_told_is_kept(
    both: str, connect: Connect, store: Store
) -> None:
    await (await connect(both)).execute(
        "CREATE FUNCTION full_up() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE ''no room''; END';"
        " CREATE TRIGGER full_up BEFORE INSERT ON rowmill.lanes EXECUTE FUNCTION full_up()"
    )
    rates = Rates(store, paid_by())
    rates.told(LANE, 30)
    await everyone_knows(rates)
    await rates.refresh()
    with pytest.raises(NotNow):
        await rates.enter(LANE, JOB, 0)


async def everyone_knows(rates: Rates) -> None:
    await asyncio.gather(*(telling.task for telling in rates._telling.values()))


async def test_a_database_that_is_away_sends_jobs_back_for_a_time(store: Store) -> None:
    """It couldn't be told, so the lane isn't closed: the job would come straight back."""
    rates = Rates(store, paid_by(requests_per_minute=6))
    assert await enters(rates)
    await store.close()
    with pytest.raises(NotNow) as refused:
        await rates.enter(LANE, JOB, 0)
    assert not refused.value.keeps_place
    assert refused.value.after > 2


async def test_what_is_there_already_is_known_before_the_intent(
    both: str, connect: Connect, store: Store
) -> None:
    hand, works = await at_work(await connect(both), store, 1)
    journal = journal_of(store, works[0], hand)
    assert not await journal.begun("main")
    await intend(journal)
    assert await journal.begun("main")
    assert not await journal.begun("thumbnail")


# --------------------------------------------------------------------------- with and without Redis


@asynccontextmanager
async def fleet_of(count: int, store: Store, server: RealRedis | FakeRedis) -> AsyncIterator[Any]:
    """Doors of several workers; each limits the lane to 18 requests a minute, 3 in 10 s."""
    shared = [Coordination(server.pool()) for _ in range(count)]
    doors = [Rates(store, paid_by(requests_per_minute=18), c.counters()) for c in shared]
    for _ in doors:
        await Hand.hire(store)
    for door in doors:
        await door.refresh()
    yield doors
    for coordination in shared:
        await coordination.close()


@pytest.mark.redis
async def test_a_fleet_shares_one_limit(store: Store) -> None:
    async with real_redis() as server, fleet_of(3, store, server) as doors:
        first, second, third = doors
        assert [await enters(door) for door in (first, second, first)] == [True] * 3
        assert [await enters(door) for door in (third, second, first)] == [False] * 3


@pytest.mark.redis
async def test_a_fleet_without_redis_takes_shares(store: Store) -> None:
    async with real_redis(started=False) as server, fleet_of(3, store, server) as doors:
        assert await how_many_enter(*doors) == [1, 1, 1]


@pytest.mark.redis
async def test_a_share_that_is_used_up_closes_the_lane_for_its_worker_alone(
    both: str, connect: Connect, store: Store
) -> None:
    connection = await connect(both)
    await add_videos(connection, 5)
    async with real_redis(started=False) as server, fleet_of(3, store, server) as doors:
        first, second, _ = doors
        assert await how_many_enter(first) == [1]
        assert [door.closed(LANE) for door in doors] == [True, False, False]
        assert not first.closed("runway")
        await second.refresh()
        assert await enters(second)
        hand = await Hand.hire(store)
        assert len(await hand.claim(10)) == 1, "one share at a time"


async def test_a_redis_without_scripts_is_as_good_as_none(store: Store) -> None:
    async with fleet_of(3, store, FakeRedis()) as doors:
        assert await how_many_enter(*doors) == [1, 1, 1]


@pytest.mark.redis
async def test_whoever_had_its_share_of_redis_has_it_when_that_is_gone(store: Store) -> None:
    async with real_redis() as server, fleet_of(3, store, server) as doors:
        first, second, third = doors
        assert [await enters(first), await enters(first)] == [True, True]
        await server.kill()
        assert await how_many_enter(first, second, third) == [0, 1, 1]


@pytest.mark.redis
async def test_a_redis_that_forgot_doesnt_give_everything_again(store: Store) -> None:
    async with real_redis() as server, fleet_of(3, store, server) as doors:
        assert [await enters(door) for door in doors] == [True] * 3
        await server.kill()
        assert [await enters(door) for door in doors] == [False] * 3
        await server.start()
        for door in doors:
            await door.refresh()
            door._full.clear()
        assert [await enters(door) for door in doors] == [False] * 3
