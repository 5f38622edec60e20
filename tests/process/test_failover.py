"""A primary dies with commits its standby never got: what they paid for isn't bought again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.process.conftest import OpenFleet
from tests.process.fleet import Sandbox, paid_twice, until_sql
from tests.process.postgres import own_postgres, standby_of
from tests.process.rows import (
    add_media,
    all_done,
    exactly_once,
    ledger_equals_bill,
    submissions,
)
from worker.embedded import EmbeddedPostgres

pytestmark = pytest.mark.process

HAS_ALL = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
ACCEPTED = """
SELECT count(*) = cardinality($1::text[]) FROM rowmill.submissions
 WHERE accepted_at IS NOT NULL AND row_key = ANY ($1)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("own")
    made.chmod(0o711)
    return made


@pytest.fixture(scope="module")
def primary(home: Path) -> Iterator[EmbeddedPostgres]:
    with own_postgres(home) as server:
        yield server


@pytest.fixture(scope="module")
def server(primary: EmbeddedPostgres) -> str:
    """In place of the session's: the database of this test is on its own server."""
    return primary.dsn()


@pytest.fixture(scope="module")
def templates() -> dict[str, str]:
    return {}


@pytest.fixture
def standby(primary: EmbeddedPostgres, home: Path, both: str) -> Iterator[EmbeddedPostgres]:
    """It is stopped before the database is dropped on the primary, which is there again by then."""
    assert both
    with standby_of(primary, home) as follower:
        yield follower
    primary.start()


async def cut_off(db: Any, there: Any) -> None:
    """The standby has everything so far, and gets nothing more."""
    await until_sql(there, HAS_ALL, await db.fetchval("SELECT pg_current_wal_lsn()::text"))
    await there.execute("ALTER SYSTEM SET primary_conninfo = ''")
    await there.execute("SELECT pg_reload_conf()")
    await until_sql(db, "SELECT NOT EXISTS (SELECT FROM pg_stat_replication)")


async def test_what_the_lost_commits_bought_is_taken_over(
    both: str,
    primary: EmbeddedPostgres,
    standby: EmbeddedPostgres,
    open_fleet: OpenFleet,
    sandbox: Sandbox,
) -> None:
    new_dsn = standby.dsn(urlsplit(both).path.removeprefix("/"))
    db = await asyncpg.connect(both)
    fleet = await open_fleet(both)
    (kept,) = await add_media(db)
    await fleet.hire("first", options=("--burst",))
    await until_sql(db, "SELECT NOT EXISTS (SELECT FROM rowmill.queue)")
    lost = await add_media(db, 3)
    there = await asyncpg.connect(new_dsn)
    await cut_off(db, there)

    worker = await fleet.hire("second", slots=3)
    await until_sql(db, ACCEPTED, lost)
    await worker.kill()
    assert len(await sandbox.bill()) == 4
    db.terminate()
    primary.stop("immediate")
    await there.execute("SELECT pg_promote()")

    assert await submissions(there, kept)
    assert [await submissions(there, key) for key in lost] == [[], [], []]
    worker = await (await open_fleet(new_dsn)).hire("third", slots=3)
    await all_done(there, within=40)
    await exactly_once(there)
    charges = await sandbox.bill()
    assert len(charges) == 4, "nothing was bought again"
    assert not paid_twice(charges)
    await ledger_equals_bill(there, sandbox)
    assert [event["tasks"] for event in worker.events("strays.found")] == [3]
    assert await there.fetchval("SELECT max(id) FROM rowmill.timelines") == 2
    there.terminate()
