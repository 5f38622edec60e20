"""`rowmill drain` while Postgres is away, and when it goes away in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tests.process.fleet import Fleet, Sandbox, paid_twice
from tests.process.postgres import own_postgres
from tests.process.rows import all_done, exactly_once, in_state
from tests.process.test_drain import short_and_long
from worker.embedded import EmbeddedPostgres

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with own_postgres(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.fixture(scope="module")
def server(postgres: EmbeddedPostgres) -> str:
    return postgres.dsn()


@pytest.fixture(scope="module")
def templates() -> dict[str, str]:
    return {}


async def test_postgres_goes_away(
    both: str, db: Any, postgres: EmbeddedPostgres, fleet: Fleet, sandbox: Sandbox
) -> None:
    worker = await fleet.hire("a", GRACE_SECONDS=60)
    _, long = await short_and_long(db, sandbox)
    await in_state(db, "accepted", len(long))

    postgres.stop("immediate")
    code, said = await fleet.command("drain", "a")
    assert code == 3
    assert "can't reach the database" in said
    postgres.start()
    assert worker.alive

    # Asked, and away again before it is done: what was asked is kept, and who waits goes on.
    waits = asyncio.create_task(fleet.command("drain", "a", "--wait"))
    await worker.says("worker.draining")
    postgres.stop("immediate")
    await sandbox.clear_faults()
    postgres.start()
    code, said = await waits
    assert (code, said.splitlines()[-1]) == (0, "1 of 1 gone")
    assert await worker.ended() == 0

    again = await asyncpg.connect(both)
    try:
        await fleet.hire("b")
        await all_done(again)
        await exactly_once(again)
        asked = "SELECT count(*) FROM rowmill.actions WHERE action = 'drain'"
        assert await again.fetchval(asked) == 1
    finally:
        again.terminate()
    assert not paid_twice(await sandbox.bill())
