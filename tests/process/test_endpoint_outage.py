"""Health and readiness while Postgres is away, in each of the ways it can be."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from tests.process.fleet import Fleet, Sandbox, until
from tests.process.machine import seen
from tests.process.postgres import frozen, own_postgres
from tests.process.rows import add_media, all_done, exactly_once, in_state
from worker.embedded import EmbeddedPostgres

pytestmark = pytest.mark.process

STUCK = 1.0
"""Far shorter than the outages here: it must not be reached by them."""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with own_postgres(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.fixture(scope="module")
def server(postgres: EmbeddedPostgres) -> str:
    """In place of the session's: the databases of this test are on its own server."""
    return postgres.dsn()


@pytest.fixture(scope="module")
def templates() -> dict[str, str]:
    return {}


async def test_healthy_without_a_database_and_ready_again_with_it(
    postgres: EmbeddedPostgres, both: str, fleet: Fleet, sandbox: Sandbox
) -> None:
    db = await asyncpg.connect(both)
    await sandbox.fault("poll-hang")
    (key,) = await add_media(db)
    worker = await fleet.hire("a", HTTP_PORT=0, STUCK_SECONDS=STUCK)
    machine = await seen(worker)
    await in_state(db, "accepted")
    db.terminate()
    assert (await machine.get("/readyz"))[0] == 200
    assert "rowmill_queue_jobs" in await machine.metrics()

    postgres.stop("immediate")
    told = await machine.until("/readyz", 503)
    assert "no heartbeat acknowledged for" in told["reasons"][0]
    assert told["slots_used"] == 1
    assert (await machine.get("/healthz"))[0] == 200
    assert (await machine.metrics())["rowmill_ready"].samples[0].value == 0
    postgres.start()
    await machine.until("/readyz", 200)

    with frozen(postgres):  # connections stay open, and nobody is answered
        told = await machine.until("/readyz", 503)
        age = told["heartbeat_age_s"]

        async def for_long() -> bool:
            status, told = await machine.get("/healthz")
            assert (status, told["reasons"]) == (200, [])
            return bool(told["heartbeat_age_s"] > age + 4 * STUCK)

        await until(for_long)
    await machine.until("/readyz", 200)
    assert (await machine.get("/healthz"))[0] == 200

    await sandbox.clear_faults()
    db = await asyncpg.connect(both)
    await all_done(db)
    await exactly_once(db)
    told_metrics = await machine.metrics()
    errors = told_metrics["rowmill_database_errors"].samples
    assert sum(sample.value for sample in errors if sample.labels["kind"] == "unavailable") > 0
    assert await worker.drain() == 0
    assert (await db.fetchrow("SELECT status FROM generation_jobs WHERE id = $1", key))[0] == (
        "completed"
    )
    db.terminate()
