"""Postgres restarted, crashed, frozen and cutting connections while jobs run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import pytest

from tests.process.fleet import Fleet, Sandbox, Worker, paid_twice, until, until_sql
from tests.process.postgres import cut_connections, frozen, own_postgres
from tests.process.rows import (
    add_media,
    add_texts,
    all_done,
    exactly_once,
    in_state,
    ledger_equals_bill,
)
from worker.embedded import EmbeddedPostgres, StopMode

pytestmark = pytest.mark.process

DONE = """
SELECT (SELECT count(*) FROM public.generation_jobs WHERE status = 'completed')
     + (SELECT count(*) FROM ai_processing.ai_generations WHERE status = 'completed') >= $1
"""
NOBODY_WAS_RESCUED = """
SELECT count(*) = $1 AND bool_and(stopped_at IS NULL) FROM rowmill.workers
"""
# Two leases after an outage; after the first of them workers may judge each other again.
ALL_MAY_JUDGE = "SELECT bool_and(heartbeat_at > $1::timestamptz + 2 * lease) FROM rowmill.workers"
CLAIMS = """
SELECT row_key, token, worker, yields, tries FROM rowmill.queue
 WHERE state = 'claimed' ORDER BY row_key
"""
TRIES = "SELECT count(*) FROM public.generation_jobs WHERE retry_count > 0"


# --------------------------------------------------------------------------- a server to hurt


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with own_postgres(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.fixture(scope="module")
def server(postgres: EmbeddedPostgres) -> str:
    """In place of the session's: the databases of these tests are on their own server."""
    return postgres.dsn()


@pytest.fixture(scope="module")
def templates() -> dict[str, str]:
    return {}


@contextmanager
def away(server: EmbeddedPostgres, mode: StopMode) -> Iterator[None]:
    server.stop(mode)
    try:
        yield
    finally:
        server.start()


def crashed(server: EmbeddedPostgres) -> AbstractContextManager[None]:
    return away(server, "immediate")


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    """A connection for as long as the server stays."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        connection.terminate()


async def enqueue(dsn: str, media: int, texts: int) -> None:
    async with connected(dsn) as db:
        await add_media(db, media)
        await add_texts(db, texts)


async def completed(dsn: str, count: int) -> None:
    async with connected(dsn) as db:
        await until_sql(db, DONE, count)


async def all_went_well(dsn: str, sandbox: Sandbox, workers: list[Worker]) -> None:
    """Every job ended once and is paid once, and none lost a try by our trouble."""
    async with connected(dsn) as db:
        await all_done(db, within=30)
        assert all(worker.alive for worker in workers)
        await exactly_once(db)
        assert await db.fetchval(TRIES) == 0
        assert await db.fetchval("SELECT count(*) FROM rowmill.failures") == 0
        assert not paid_twice(await sandbox.bill())
        await ledger_equals_bill(db, sandbox)


# --------------------------------------------------------------------------- short outages


async def test_restarted_and_crashed_under_load(
    postgres: EmbeddedPostgres, both: str, fleet: Fleet, sandbox: Sandbox
) -> None:
    await enqueue(both, 60, 40)
    workers = [await fleet.hire(name, slots=10) for name in ("a", "b")]
    modes: tuple[StopMode, ...] = ("immediate", "fast", "immediate", "fast")
    for number, mode in enumerate(modes, start=1):
        await completed(both, 15 * number)
        with away(postgres, mode):
            pass
    await all_went_well(both, sandbox, workers)


async def test_connections_cut_again_and_again(both: str, fleet: Fleet, sandbox: Sandbox) -> None:
    await enqueue(both, 80, 80)
    workers = [await fleet.hire(name, slots=10) for name in ("a", "b")]
    for number in range(1, 31):
        await completed(both, 5 * number)
        await until(lambda: cut_connections(both))  # perhaps they are just coming back
    await all_went_well(both, sandbox, workers)


# --------------------------------------------------------------------------- long outages


Outage = Callable[[EmbeddedPostgres], AbstractContextManager[None]]
SHORT_LEASE = 2.0


@pytest.mark.parametrize("outage", [frozen, crashed])
async def test_after_more_than_a_lease_nobody_rescues_the_living(
    postgres: EmbeddedPostgres, both: str, fleet: Fleet, sandbox: Sandbox, outage: Outage
) -> None:
    await enqueue(both, 12, 0)
    await sandbox.fault("poll-hang")  # until it is cleared, no job ends
    fleet.lease = SHORT_LEASE
    workers = [await fleet.hire(name, slots=6) for name in ("a", "b")]
    async with connected(both) as db:
        await in_state(db, "accepted", 12)
        before = await db.fetch(CLAIMS)
    with outage(postgres):
        await asyncio.sleep(1.5 * SHORT_LEASE)  # nothing is waited for: this is the outage
    async with connected(both) as db:
        back = await db.fetchval("SELECT clock_timestamp()")
        await until_sql(db, ALL_MAY_JUDGE, back)
        assert await db.fetch(CLAIMS) == before, "same tokens, same workers, no yield"
        assert await db.fetchval(NOBODY_WAS_RESCUED, len(workers))
    await sandbox.clear_faults()
    await all_went_well(both, sandbox, workers)
    assert [worker.events("worker.given_up") for worker in workers] == [[], []]
