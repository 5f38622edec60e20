"""PhotoMemory v1 from INSERT to library: what its demo inserts, and how its verdict judges it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.database.conftest import attached
from tests.database.platform_samples import CloneDatabase, sql_file
from tests.process.conftest import OpenFleet
from tests.process.fleet import Fleet, Sandbox, paid_twice, until, until_sql
from tests.process.rows import all_done, ledger_equals_bill

pytestmark = pytest.mark.process

PLATFORM = "photomemory_v1"
JOBS = 12
# What Runway may have heard and hasn't answered, nobody can ask it for: such a video would be held.
HALF_WAY = """
SELECT (SELECT count(*) FILTER (WHERE status = 'completed') BETWEEN 1 AND $1 - 2
               AND count(*) FILTER (WHERE status = 'processing') > 0 FROM public.generated_videos)
   AND NOT EXISTS (SELECT FROM rowmill.submissions WHERE state = 'intent')
   AND EXISTS (SELECT FROM rowmill.submissions WHERE state = 'accepted')
"""
ESTIMATED = """
SELECT EXISTS (SELECT FROM public.generated_videos
                WHERE status = 'processing' AND estimated_completion_at >= started_at)
"""


@pytest.fixture
async def dsn(clone_database: CloneDatabase) -> str:
    return await clone_database(f"{PLATFORM}-attached", attached(PLATFORM))


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    yield connection
    connection.terminate()


async def hire(fleet: Fleet, name: str, slots: int) -> Any:
    runway = {"BASE_URL": f"{fleet.sandbox.url}/runway/v1", "API_KEY": "t", "POLL_SECONDS": 0.2}
    settings: dict[str, Any] = {f"PROVIDERS__RUNWAY__{key}": value for key, value in runway.items()}
    return await fleet.hire(name, slots=slots, **settings)


async def test_a_killed_worker_and_every_promise_kept(
    dsn: str, db: Any, sandbox: Sandbox, open_fleet: OpenFleet
) -> None:
    fleet = await open_fleet(dsn)
    await db.execute(sql_file(PLATFORM, "demo.sql").replace(":jobs", str(JOBS)))
    first = await hire(fleet, "first", 3)
    await until_sql(db, ESTIMATED)

    async def killed() -> bool:
        first.stop()
        if await db.fetchval(HALF_WAY, JOBS):
            await first.kill()
            return True
        first.go_on()
        return False

    await until(killed)
    await hire(fleet, "second", 4)
    await all_done(db, within=60)
    rows = await db.fetch(sql_file(PLATFORM, "verdict.sql").rstrip().removesuffix(";"))
    assert [row["key"] for row in rows if not row["consistent"]] == []
    assert [(row["status"], row["usage"], row["metered"]) for row in rows] == [
        ("completed", 1, True)
    ] * JOBS
    assert not paid_twice(await sandbox.bill())
    await ledger_equals_bill(db, sandbox)
    services = await db.fetch(
        "SELECT generation_service, count(*) FROM generated_videos GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row) for row in services] == [("replicate", 9), ("runway", 3)]


SPOILED = (
    "UPDATE generated_videos SET file_size_bytes = 1",
    "UPDATE generated_videos SET estimated_completion_at = now()",
    "UPDATE generated_videos SET status = 'failed', error_message = 'x'",
    "UPDATE video_projects SET status = 'draft'",
    "UPDATE users SET total_storage_bytes = total_storage_bytes + 1",
    "UPDATE media_items SET file_url = 'elsewhere'",
    "DELETE FROM media_items",
    "DELETE FROM usage_records WHERE resource_type = 'storage_bytes'",
)


async def test_the_verdict_sees_what_is_wrong(dsn: str, db: Any, open_fleet: OpenFleet) -> None:
    await db.execute(sql_file(PLATFORM, "demo.sql").replace(":jobs", "1"))
    await hire(await open_fleet(dsn), "a", 3)
    await all_done(db)
    verdict = sql_file(PLATFORM, "verdict.sql").rstrip().removesuffix(";")
    assert [row["consistent"] for row in await db.fetch(verdict)] == [True]
    for spoil in SPOILED:
        transaction = db.transaction()
        await transaction.start()
        await db.execute(spoil)
        assert [row["consistent"] for row in await db.fetch(verdict)] == [False], spoil
        await transaction.rollback()
