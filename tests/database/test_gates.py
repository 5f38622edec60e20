"""Pauses and limits: exact for any number of claimers, and free for everything behind other gates."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from typing import Any

import pytest

from tests.database.support import (
    LANES,
    Connect,
    Hand,
    OpenStore,
    Producer,
    Work,
    add_background,
    add_texts,
    add_videos,
    fell_silent,
    has_lived,
)
from worker import maps
from worker.store import Claimed, Store
from worker.store.upkeep import apply_limits


@dataclass(frozen=True, slots=True)
class Gate:
    lane: str = "*"
    source: str = "*"
    most: int | None = None
    paused: bool = False

    def admits(self, lane: str, source: str) -> bool:
        return self.lane in {"*", lane} and self.source in {"*", source}


async def put_up(connection: Any, *gates: Gate) -> None:
    for gate in gates:
        await connection.execute(
            "INSERT INTO rowmill.lanes (lane, source, max_running, paused_at)"
            " VALUES ($1, $2, $3, CASE WHEN $4 THEN now() END) ON CONFLICT (lane, source)"
            " DO UPDATE SET max_running = excluded.max_running, paused_at = excluded.paused_at",
            gate.lane,
            gate.source,
            gate.most,
            gate.paused,
        )


async def add_some(connection: Any, count: int) -> None:
    await add_videos(connection, count, service="replicate")
    await add_videos(connection, count, service="runway", of=5)
    await add_texts(connection, count)
    await add_background(connection, count)


async def running(connection: Any) -> dict[tuple[str, str], int]:
    rows = await connection.fetch(
        "SELECT q.lane, s.name, count(*) FROM rowmill.queue q"
        " JOIN rowmill.sources s ON s.id = q.source WHERE q.state = 'claimed' GROUP BY 1, 2"
    )
    return {(row["lane"], row["name"]): row["count"] for row in rows}


ALL = {
    "a lane": [Gate("replicate", most=5)],
    "a source": [Gate(source="generation_jobs", most=6)],
    "a lane of a source": [Gate("runway", "generation_jobs", most=2)],
    "all": [Gate(most=7)],
    "all kinds at once": [
        Gate("replicate", most=4),
        Gate("runway", "generation_jobs", most=3),
        Gate(source="generation_jobs", most=5),
        Gate("openai", most=1),
        Gate(most=8),
    ],
}


@dataclass(slots=True)
class Claimer:
    """Claims in a transaction of its own, so that what it counts there is what its claim left."""

    connection: Any
    hand: Hand
    mixed: random.Random
    gates: list[Gate]
    peak: dict[Gate, int]

    async def run(self) -> None:
        idle = 0
        works: list[Work] = []
        while idle < 3 or works:
            claims = await self.claim()
            works += await self.hand.start(claims)
            self.mixed.shuffle(works)
            done, works = works[: len(works) // 2 + 1], works[len(works) // 2 + 1 :]
            await self.settle(done)
            idle = 0 if claims else idle + 1

    async def claim(self) -> list[Claimed]:
        async with self.connection.transaction():
            rows = await self.connection.fetch(
                "SELECT queue_id FROM rowmill.claim($1, $2, $3, $4)",
                self.hand.id,
                self.mixed.getrandbits(62),
                list(LANES),
                self.mixed.randint(1, 6),
            )
            self.check(await running(self.connection))
        return await self.claimed([row["queue_id"] for row in rows])

    async def claimed(self, queue_ids: list[int]) -> list[Claimed]:
        rows = await self.connection.fetch(
            "SELECT id, token, source, row_key, lane, rank, run, yields, tenant, ready_at, 0"
            " FROM rowmill.queue WHERE id = ANY ($1)",
            queue_ids,
        )
        return [Claimed(*row) for row in rows]

    def check(self, now: dict[tuple[str, str], int]) -> None:
        for gate in self.gates:
            count = sum(n for place, n in now.items() if gate.admits(*place))
            assert gate.most is not None
            assert count <= gate.most
            self.peak[gate] = max(self.peak.get(gate, 0), count)

    async def settle(self, works: list[Work]) -> None:
        """Each way out of a claim frees its place."""
        for work in works:
            end = self.mixed.choice([self.hand.succeed, self.hand.fail, self.hand.retry])
            await end([work])


@pytest.mark.parametrize("gates", ALL.values(), ids=ALL.keys())
async def test_limits_are_reached_and_never_exceeded_by_four_claimers(
    both: str, connect: Connect, open_store: OpenStore, producer: Producer, gates: list[Gate]
) -> None:
    admin = await connect(both)
    await put_up(admin, *gates)
    await add_some(await connect(both, producer), 20)
    peak: dict[Gate, int] = {}
    claimers = [
        Claimer(
            await connect(both),
            await Hand.hire(await open_store(both, 1)),
            random.Random(n),
            gates,
            peak,
        )
        for n in range(4)
    ]
    await asyncio.gather(*(claimer.run() for claimer in claimers))
    assert peak == {gate: gate.most for gate in gates}
    assert await admin.fetchval("SELECT count(*) FROM rowmill.queue") == 0


@pytest.mark.parametrize("closed", [{"paused": True}, {"most": 0}])
@pytest.mark.parametrize("lane", ["*", "replicate"])
@pytest.mark.parametrize("source", ["*", "generation_jobs"])
async def test_a_closed_gate_admits_nothing_and_opens_again(  # noqa: PLR0917 - cases
    both: str,
    connect: Connect,
    open_store: OpenStore,
    producer: Producer,
    lane: str,
    source: str,
    closed: dict[str, Any],
) -> None:
    admin = await connect(both)
    hand = await Hand.hire(await open_store(both))
    await add_some(await connect(both, producer), 2)
    gate = Gate(lane, source, **closed)
    await put_up(admin, gate)
    claims = await hand.claim(100)
    places = {(c.lane, await hand.source_of(c)) for c in claims}
    assert not [place for place in places if gate.admits(*place)]
    await put_up(admin, Gate(lane, source))
    claims += await hand.claim(100)
    assert len(claims) == 8


async def test_a_pause_wins_over_a_limit_that_has_room(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    await put_up(await connect(photomemory), Gate("replicate", most=10, paused=True), Gate(most=20))
    hand = await Hand.hire(await open_store(photomemory))
    await add_videos(await connect(photomemory, producer), 3)
    assert await hand.claim(10) == []


async def test_the_tightest_of_all_gates_that_match_counts(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    await put_up(
        await connect(photomemory),
        Gate("replicate", "generation_jobs", most=9),
        Gate("replicate", most=4),
        Gate(source="generation_jobs", most=2),
        Gate(most=3),
    )
    hand = await Hand.hire(await open_store(photomemory))
    await add_videos(await connect(photomemory, producer), 10)
    assert len(await hand.claim(10)) == 2
    assert await hand.claim(10) == []


async def test_a_full_lane_lets_lower_ranks_of_other_lanes_pass(
    both: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection = await connect(both, producer)
    await put_up(await connect(both), Gate("replicate", most=1))
    hand = await Hand.hire(await open_store(both))
    first = await add_videos(connection, 3, priority=10)
    low = await add_background(connection, 2, priority=-5)
    assert [c.key for c in await hand.claim(10)] == [first[0], *low]


@pytest.mark.parametrize("end", ["succeed", "fail", "retry", "yield_", "cancel", "hold", "release"])
async def test_every_settlement_frees_its_place(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, end: str
) -> None:
    await put_up(await connect(photomemory), Gate("replicate", most=1))
    hand = await Hand.hire(await open_store(photomemory))
    keys = await add_videos(await connect(photomemory, producer), 2)
    works = await hand.take(5)
    assert [w.key for w in works] == keys[:1]
    assert await hand.claim() == []
    assert await getattr(hand, end)(works) == {keys[0]: "settled"}
    assert len(await hand.claim(5)) == 1


@pytest.mark.parametrize("how", ["rescue", "retire", "cancel", "delete"])
async def test_a_claim_that_ends_otherwise_frees_its_place(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, how: str
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    store = await open_store(photomemory)
    hand, other = await Hand.hire(store), await Hand.hire(store)
    await put_up(admin, Gate(source="generation_jobs", most=2))
    keys = await add_videos(connection, 4)
    assert len(await hand.take(5)) == 2
    assert await other.claim(5) == []
    if how == "rescue":
        await fell_silent(admin, hand)
        await has_lived(admin, other)
        assert await store.rescue(other.id) == 2
    elif how == "retire":
        assert await store.retire(hand.id) == 2
    else:
        change = {
            "cancel": "UPDATE public.generation_jobs SET status = 'cancelled' WHERE id = ANY ($1)",
            "delete": "DELETE FROM public.generation_jobs WHERE id = ANY ($1)",
        }
        await connection.execute(change[how], keys[:2])
    assert len(await other.claim(5)) == 2


async def test_a_lower_limit_takes_nothing_away_and_admits_nothing(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    admin = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    await add_videos(await connect(photomemory, producer), 6)
    works = await hand.take(4)
    await put_up(admin, Gate("replicate", most=2))
    assert await hand.claim(5) == []
    await hand.succeed(works[:2])
    assert await hand.claim(5) == []
    await hand.succeed(works[2:3])
    assert len(await hand.claim(5)) == 1


# --------------------------------------------------------------------------- the platform's own


async def set_limit(connection: Any, value: Any) -> None:
    await connection.execute(
        "UPDATE public.system_settings SET value = $1"
        " WHERE key = 'generation_queue_max_concurrent'",
        json.dumps(value),
    )


async def limited_to(store: Store, hand: Hand) -> int:
    """How many of the many that wait are admitted beside none."""
    await apply_limits(store, maps.load("photomemory"))
    works = await hand.take(50)
    await hand.release(works)
    return len(works)


async def test_the_platforms_setting_limits_its_table_and_is_read_again(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, store = await connect(photomemory, producer), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 10, service="replicate")
    await add_videos(connection, 10, service="runway")
    assert await limited_to(store, hand) == 5  # as the schema has it
    for value, admitted in ((3, 3), ("7", 7), (30, 20)):
        await set_limit(connection, value)
        assert await limited_to(store, hand) == admitted


@pytest.mark.parametrize("value", [0, -3, 2.5, "many", "", [4], {"max": 4}, True, 10**12])
async def test_a_setting_that_is_no_number_of_jobs_is_no_limit(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, value: Any
) -> None:
    connection, store = await connect(photomemory, producer), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 20)
    assert await limited_to(store, hand) == 5
    await set_limit(connection, value)
    assert await limited_to(store, hand) == 20


async def test_the_operators_limit_and_the_platforms_hold_both(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 20)
    await put_up(admin, Gate(source="generation_jobs", most=2))
    assert await limited_to(store, hand) == 2
    await put_up(admin, Gate(source="generation_jobs", most=8))
    assert await limited_to(store, hand) == 5
    await connection.execute("DELETE FROM public.system_settings")
    assert await limited_to(store, hand) == 8


# --------------------------------------------------------------------------- what it costs


async def test_a_paused_lane_full_of_urgent_rows_costs_a_claim_nothing(
    both: str, connect: Connect, producer: Producer, open_store: OpenStore
) -> None:
    """Counted in buffers, not in time: behind the gate there is nothing to read."""
    connection, admin = await connect(both, producer), await connect(both)
    hand = await Hand.hire(await open_store(both))
    await add_texts(connection, 2000)
    await put_up(admin, Gate("replicate", paused=True))
    await admin.execute("VACUUM ANALYZE rowmill.queue")
    alone = await buffers(admin, hand)
    await add_videos(connection, 100_000, priority=10)
    await admin.execute("VACUUM ANALYZE rowmill.queue")
    waiting = "SELECT count(*) FROM rowmill.queue WHERE lane = 'replicate'"
    assert await admin.fetchval(waiting) == 100_000
    beside = await buffers(admin, hand)
    assert beside < 1.2 * alone + 60  # the head of the lane, and a deeper index


async def buffers(connection: Any, hand: Hand) -> int:
    """Pages a claim of ten reads, the second time: the first also plans it."""
    for _ in range(2):
        transaction = connection.transaction()
        await transaction.start()
        explained = await connection.fetchval(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
            f" SELECT * FROM rowmill.claim({hand.id}, 1, '{{{','.join(LANES)}}}', 10)"
        )
        await transaction.rollback()
    plan = json.loads(explained)[0]["Plan"]
    assert plan["Actual Rows"] == 10
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
