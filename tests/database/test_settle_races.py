"""Four settlers on ten shared projects, while producers cancel, lock and change the same rows."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from jobs.contract import Failed, RetryLater
from tests.database.platform_samples import project
from tests.database.settling import POLICY, Desk, half_effects, settlement
from tests.database.support import Connect, Hand, OpenStore, Work, add_videos, failure
from worker.store import Claimed, LockTimeout, Store, Unavailable
from worker.transitions import Settlement, settle

JOBS_PER_PROJECT = 40
UNFINISHED = "status IN ('queued', 'processing')"


class Fleet:
    """Workers that go on until no job is left."""

    def __init__(self, stores: Sequence[Store], seed: int) -> None:
        self.stores = stores
        self.chance = random.Random(seed)
        self.verdicts: Counter[str] = Counter()

    async def work(self, store: Store) -> None:
        hand, desk = await Hand.hire(store), Desk(store, batch=25)
        while await store.value("SELECT EXISTS (SELECT FROM rowmill.queue)"):
            desk.said.clear()  # a retried job is acknowledged once per try
            desk.put(*[self.outcome(work) for work in await self.start(hand)])
            await self.settle(desk)
        assert desk.settler.pending == 0

    async def start(self, hand: Hand) -> list[Work]:
        claims = await hand.claim(25)
        works = await self._start(hand, claims)
        running = {work.queue_id for work in works}
        left = [claim for claim in claims if claim.queue_id not in running]
        await self._hand_back(hand, left)
        return works

    async def _hand_back(self, hand: Hand, left: Sequence[Claimed]) -> None:
        """What a worker's pulses do until it is done: who cancels may hold the row for a while."""
        ids, tokens = [c.queue_id for c in left], [c.token for c in left]
        while await hand.store.value(STILL_CLAIMED, ids, tokens):
            await hand.store.hand_back(ids, tokens)
            await asyncio.sleep(0)

    async def _start(self, hand: Hand, claims: Sequence[Claimed]) -> list[Work]:
        wait = True
        while True:
            try:
                return await hand.start(claims, wait=wait)
            except LockTimeout:
                wait = False

    async def settle(self, desk: Desk) -> None:
        while desk.settler.pending:
            try:
                await desk.until_empty()
            except Unavailable as error:
                self.verdicts[f"unavailable {error.sqlstate}"] += 1
        self.verdicts.update(desk.said.values())

    def outcome(self, work: Work) -> Settlement:
        dice = self.chance.random()
        if dice < 0.8:
            return settlement(work)
        outcome = RetryLater(failure()) if dice < 0.95 else Failed(failure())
        return settle(outcome, work.as_try(), policy=POLICY, max_yields=50, chance=0.0)


class Producers:
    """Each is one connection with its own list of things to do; errors are what they would see."""

    def __init__(self, connect: Connect, dsn: str, keys: Sequence[str], seed: int) -> None:
        self.connect = connect
        self.dsn = dsn
        self.keys = list(keys)
        self.chance = random.Random(seed)
        self.errors: list[BaseException] = []

    async def repeat(self, action: Any, times: int) -> None:
        connection = await self.connect(self.dsn)
        for _ in range(times):
            picked = sorted(self.chance.sample(self.keys, 3))
            try:
                async with connection.transaction():
                    await action(connection, picked)
            except asyncpg.PostgresError as error:
                self.errors.append(error)

    async def cancel_one(self, connection: Any, picked: Sequence[str]) -> None:
        await connection.execute(
            f"UPDATE generation_jobs SET status = 'cancelled' WHERE id = $1 AND {UNFINISHED}",
            picked[0],
        )

    async def cancel_some(self, connection: Any, picked: Sequence[str]) -> None:
        for key in picked:
            await self.cancel_one(connection, [key])

    async def project_then_job(self, connection: Any, picked: Sequence[str]) -> None:
        await connection.execute(
            "SELECT FROM video_projects WHERE id = (SELECT project_id FROM generation_jobs"
            " WHERE id = $1) FOR UPDATE",
            picked[0],
        )
        await connection.execute(
            "UPDATE generation_jobs SET priority = 1 + priority % 10"
            f" WHERE id = $1 AND {UNFINISHED}",
            picked[0],
        )

    async def change_project(self, connection: Any, picked: Sequence[str]) -> None:
        del picked
        await connection.execute(
            "UPDATE video_projects SET metadata = '{}', updated_at = now() WHERE id = $1",
            project(self.chance.randint(1, 10)),
        )


async def stand(connection: Any) -> Counter[str]:
    rows = await connection.fetch(
        "SELECT status::text, count(*) FROM generation_jobs GROUP BY status"
    )
    return Counter(dict(map(tuple, rows)))


STILL_CLAIMED = """
SELECT EXISTS (SELECT FROM rowmill.queue q JOIN unnest($1::bigint[], $2::bigint[]) AS c (id, token)
                    ON q.id = c.id AND q.token = c.token)
"""


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_deadlock_and_no_half_effect(
    seed: int, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    keys = [
        key
        for number in range(1, 11)
        for key in await add_videos(connection, JOBS_PER_PROJECT, of=number, job_type="video")
    ]
    fleet = Fleet([await open_store(photomemory) for _ in range(4)], seed)
    producers = Producers(connect, photomemory, keys, seed)
    async with asyncio.timeout(300):  # against a hang, not for a pace
        await asyncio.gather(
            *[fleet.work(store) for store in fleet.stores],
            producers.repeat(producers.cancel_one, 40),
            producers.repeat(producers.cancel_some, 20),
            producers.repeat(producers.project_then_job, 150),
            producers.repeat(producers.project_then_job, 150),
            producers.repeat(producers.change_project, 150),
        )

    assert producers.errors == []
    assert await half_effects(connection) == []
    counts = await stand(connection)
    assert sum(counts.values()) == len(keys)
    assert set(counts) == {"completed", "cancelled", "failed"}, "nothing is left unfinished"
    assert min(counts.values()) > 0
    assert fleet.verdicts["settled"] >= counts["completed"] + counts["failed"]
    assert await connection.fetchval("SELECT count(*) FROM rowmill.queue") == 0
    assert not {"unavailable 40P01", "unavailable 40001"} & set(fleet.verdicts)


async def test_the_same_claims_settled_by_four_at_once(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """One worker that is taken for four, as after a partition of the network."""
    connection = await connect(photomemory)
    stores = [await open_store(photomemory) for _ in range(4)]
    hand = await Hand.hire(stores[0])
    for number in range(1, 11):
        await add_videos(connection, 10, of=number)
    works = await hand.take(100)
    desks = [Desk(store, batch=30) for store in stores]
    chance = random.Random(3)
    for desk in desks:
        desk.put(*map(settlement, chance.sample(works, len(works))))

    async def finish(desk: Desk) -> None:
        while desk.settler.pending:
            try:
                await desk.until_empty()
            except LockTimeout:
                continue

    async with asyncio.timeout(300):
        await asyncio.gather(*[finish(desk) for desk in desks])
    said = Counter(verdict for desk in desks for verdict in desk.said.values())
    assert said == {"settled": 100, "lost": 300}
    assert await half_effects(connection) == []
