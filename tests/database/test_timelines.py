"""After a failover that lost commits, what was paid for then is taken over and not bought again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from jobs.contract import CallResult, Job, MediaTask, TextTask
from jobs.network import HostPolicy
from jobs.outputs import OutputStore
from jobs.providers.errors import ProviderError
from jobs.providers.registry import ProviderSettings, build_providers
from jobs.providers.runner import Runner
from jobs.providers.transport import AiohttpTransport
from jobs.storage import open_storage
from tests.database.journaling import journal_of, ledger_rows
from tests.database.support import Connect, Hand, OpenStore, Producer, Work, add_videos
from tests.unit.vendor import Vendor, vendor_running
from worker.store import Store

BOAT = MediaTask("image", "A boat", model="black-forest-labs/flux-1.1-pro")
TEXT = TextTask("gpt-4o-mini", "Once")
LEASE, TIMEOUT = 30.0, 3.0
LONG_AGO = timedelta(minutes=10)


@dataclass
class Fleet:
    connection: Any
    store: Store
    hand: Hand
    vendor: Vendor
    client: httpx.AsyncClient
    folder: Path

    def worker(self) -> Runner:
        """One that has just been started."""
        at = ProviderSettings(
            base_url=f"{self.vendor.url}/v1", api_key=SecretStr("k"), request_timeout=TIMEOUT
        )
        storage = open_storage(f"file://{self.folder}")

        async def no_pause(_: float) -> None:
            await asyncio.sleep(0)

        return Runner(
            build_providers({"replicate": at, "openai": at}),
            self.client,
            OutputStore(storage, self.client, HostPolicy(("127.0.0.1",))),
            lease_seconds=LEASE,
            sleep=no_pause,
        )

    async def take(self, count: int = 1) -> list[Work]:
        await add_videos(self.connection, count)
        return await self.hand.take(count)

    async def call(
        self, runner: Runner, work: Work, task: MediaTask | TextTask = BOAT
    ) -> CallResult:
        job = Job(
            source=work.source,
            key=work.key,
            kind="any",
            lane=work.claimed.lane,
            run=work.claimed.run,
            tries=0,
            max_retries=3,
            tenant=None,
            input={},
        )
        provider = "openai" if isinstance(task, TextTask) else "replicate"
        journal = journal_of(self.store, work, self.hand, lease=LEASE)
        return await runner.call(journal, job, "main", provider, task, progress=lambda _: None)

    async def waits(self, runner: Runner, work: Work) -> float:
        with pytest.raises(ProviderError) as caught:
            await self.call(runner, work)
        assert caught.value.failure.code == "unsettled"
        return caught.value.failure.retry_after or 0.0

    async def fails_over(self) -> None:
        """What was journaled since the last mark is gone, and the server writes a new timeline."""
        await self.connection.execute(
            "DELETE FROM rowmill.submissions u USING rowmill.timelines t"
            " WHERE u.intended_at > t.last_seen"
        )
        await self.connection.execute("UPDATE rowmill.timelines SET id = id + 1")

    async def ages(self, by: timedelta = LONG_AGO) -> None:
        """All that happened so far happened that much earlier."""
        await self.connection.execute(
            "UPDATE rowmill.timelines SET first_seen = first_seen - $1::interval,"
            " last_seen = last_seen - $1::interval, lost_since = lost_since - $1::interval",
            by,
        )
        await self.connection.execute(
            "UPDATE rowmill.submissions SET intended_at = intended_at - $1::interval", by
        )
        for item in self.vendor.accepted:
            item["created_at"] = (datetime.fromisoformat(item["created_at"]) - by).isoformat()

    async def lists(self) -> int:
        return self.vendor.requests.count("GET /v1/predictions")

    async def states(self) -> list[str]:
        return [row["state"] for row in await ledger_rows(self.connection)]

    async def timelines(self) -> int:
        return int(await self.connection.fetchval("SELECT count(*) FROM rowmill.timelines"))


@pytest.fixture
async def fleet(
    photomemory: str, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> AsyncIterator[Fleet]:
    connection, store = await connect(photomemory), await open_store(photomemory)
    async with (
        vendor_running() as vendor,
        httpx.AsyncClient(transport=AiohttpTransport(limit=5)) as client,
    ):
        hand = await Hand.hire(store, lease=LEASE)
        await store.mark_timeline()
        yield Fleet(connection, store, hand, vendor, client, tmp_path)


async def test_what_the_lost_commits_paid_for_is_taken_over(fleet: Fleet) -> None:
    (work,) = await fleet.take()
    assert (await fleet.call(fleet.worker(), work)).external_id == "p1"
    await fleet.fails_over()
    runner = fleet.worker()
    assert LEASE < await fleet.waits(runner, work) <= LEASE + TIMEOUT
    await fleet.ages(timedelta(seconds=LEASE))
    assert 0 < await fleet.waits(fleet.worker(), work) <= TIMEOUT
    await fleet.ages(timedelta(seconds=TIMEOUT))
    assert (await fleet.call(runner, work)).external_id == "p1"
    assert (fleet.vendor.sent, len(fleet.vendor.accepted)) == (1, 1), "paid once"
    assert await fleet.states() == ["written_off", "written_off", "finished"]
    costs = [row["cost_cents"] for row in await ledger_rows(fleet.connection)]
    assert costs == [0, 0, 4]
    assert await fleet.timelines() == 2


async def test_two_want_it_and_one_gets_it(fleet: Fleet) -> None:
    first, second = await fleet.take(2)
    await fleet.call(fleet.worker(), first)
    await fleet.fails_over()
    await fleet.store.mark_timeline()
    await fleet.ages()
    results = await asyncio.gather(*(fleet.call(fleet.worker(), work) for work in (first, second)))
    assert {result.external_id for result in results} == {"p1", "p2"}
    assert len(fleet.vendor.accepted) == 2


async def test_each_worker_asks_once(fleet: Fleet) -> None:
    works = await fleet.take(3)
    await fleet.fails_over()
    await fleet.store.mark_timeline()
    await fleet.ages()
    runner = fleet.worker()
    for work in works:
        await fleet.call(runner, work)
    assert (fleet.vendor.sent, await fleet.lists()) == (3, 1)


async def test_a_list_that_cannot_be_read_decides_nothing(fleet: Fleet) -> None:
    (work,) = await fleet.take()
    await fleet.call(fleet.worker(), work)
    await fleet.fails_over()
    await fleet.store.mark_timeline()
    await fleet.ages()
    fleet.vendor.lists.append("503")
    runner = fleet.worker()
    await fleet.waits(runner, work)
    assert (await fleet.call(runner, work)).external_id == "p1"
    assert fleet.vendor.sent == 1


async def test_what_is_younger_or_other_or_owned_is_not_taken_over(fleet: Fleet) -> None:
    (kept, work) = await fleet.take(2)
    await fleet.call(fleet.worker(), kept)
    await fleet.connection.execute("UPDATE rowmill.timelines SET last_seen = clock_timestamp()")
    fleet.vendor.add({"prompt": "A ship"})
    await fleet.fails_over()
    await fleet.store.mark_timeline()
    await fleet.ages()
    fleet.vendor.add({"prompt": "A boat"})  # long after the failover: someone else's
    assert (await fleet.call(fleet.worker(), work)).external_id == "p4"
    assert await fleet.states() == ["finished", "finished"]


async def test_where_there_is_no_list_it_is_sent(fleet: Fleet) -> None:
    (work,) = await fleet.take()
    await fleet.fails_over()
    assert (await fleet.call(fleet.worker(), work, replace(TEXT))).text == "Once."
    assert fleet.vendor.sent == 1


async def test_without_a_failover_nobody_is_asked(fleet: Fleet) -> None:
    works = await fleet.take(3)
    await fleet.call(fleet.worker(), works[0])
    await fleet.connection.execute("UPDATE rowmill.timelines SET id = id + 1")
    await fleet.store.mark_timeline()
    await fleet.ages(timedelta(days=1))
    await fleet.call(fleet.worker(), works[1])
    await fleet.connection.execute("DELETE FROM rowmill.timelines")  # never met one
    await fleet.call(fleet.worker(), works[2])
    assert (await fleet.lists(), await fleet.timelines()) == (0, 1)


async def test_it_is_marked_and_written_down_once(
    fleet: Fleet, photomemory: str, connect: Connect
) -> None:
    look = "SELECT first_seen, last_seen, lost_since FROM rowmill.timelines ORDER BY first_seen"
    await fleet.ages(timedelta(seconds=1))
    (before,) = await fleet.connection.fetch(look)
    await fleet.store.mark_timeline()
    assert await fleet.connection.fetch(look) == [before], "not more often than it is worth"
    await fleet.ages(timedelta(seconds=1))
    await fleet.store.mark_timeline()
    (marked,) = await fleet.connection.fetch(look)
    assert marked["last_seen"] > before["last_seen"]
    await fleet.connection.execute("UPDATE rowmill.timelines SET id = id + 1")
    one, other = await connect(photomemory), await connect(photomemory)
    async with one.transaction():
        assert (await one.fetchrow("SELECT * FROM rowmill.gap(false)"))["gap_since"]
        # Another's intents neither wait for that, nor miss it.
        gap = await other.fetchrow("SELECT * FROM rowmill.gap(true)")
        assert gap["gap_since"] == marked["last_seen"]
        assert gap["gap_age"] < 1
    await fleet.store.mark_timeline()
    first, second = await fleet.connection.fetch(look)
    assert second["lost_since"] == first["last_seen"] == marked["last_seen"]


async def test_a_clock_that_is_behind_and_a_timeline_of_old(fleet: Fleet) -> None:
    """Whatever the new server says, it is told once, and then it is known."""
    await fleet.ages(timedelta(days=-3650))
    await fleet.connection.execute("UPDATE rowmill.timelines SET id = id + 1")
    for _ in range(3):
        await fleet.store.mark_timeline()
    assert await fleet.timelines() == 2
    gap = await fleet.connection.fetchrow("SELECT * FROM rowmill.gap(false)")
    assert gap["gap_age"] == 0


async def test_any_role_may_ask(
    fleet: Fleet, photomemory: str, connect: Connect, producer: Producer
) -> None:
    await fleet.connection.execute(f"GRANT USAGE ON SCHEMA rowmill TO {producer.name}")
    plain = await connect(photomemory, producer)
    assert await plain.fetchval("SELECT rowmill.timeline()") >= 1
