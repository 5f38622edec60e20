"""Pauses and limits: exact for any number of claimers, and nothing to what isn't behind them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import pytest

from tests.database.gate import Gate, put_up
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
from worker.store import Claimed


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
        Gate("replicate", most=2),
        Gate("runway", "generation_jobs", most=3),
        Gate(source="generation_jobs", most=5),
        Gate("openai", most=1),
        Gate(most=8),
    ],
}


DUE_NOW = "UPDATE rowmill.queue SET ready_at = clock_timestamp() WHERE state = 'scheduled'"


@dataclass(slots=True)
class Claimer:
    """Claims in a transaction of its own, so that what it counts there is what its claim left."""

    connection: Any
    hand: Hand
    mixed: random.Random
    gates: list[Gate]
    peak: dict[Gate, int]

    async def fill(self) -> list[Claimed]:
        """As much as it gets while nobody settles."""
        claims: list[Claimed] = []
        while new := await self.claim():
            claims += new
        return claims

    async def work(self, claims: list[Claimed]) -> None:
        """Settle some in any order, claim others, until nothing is left."""
        works, idle = await self.hand.start(claims), 0
        while idle < 3 or works:
            self.mixed.shuffle(works)
            half = len(works) // 2 + 1
            await self.settle(works[:half])
            claims = await self.claim()
            works = works[half:] + await self.hand.start(claims)
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
            "SELECT id, token, source, row_key, lane, rank, run, yields, tenant, ready_at, 0, 0"
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
    filled = await asyncio.gather(*(claimer.fill() for claimer in claimers))
    assert peak == {gate: gate.most for gate in gates}
    await asyncio.gather(*(c.work(mine) for c, mine in zip(claimers, filled, strict=True)))
    for _ in range(20):  # a row that came back busy is due a moment later
        await admin.execute(DUE_NOW)
        await claimers[0].work([])
    left = [dict(row) for row in await admin.fetch("SELECT * FROM rowmill.queue")]
    assert left == []


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
