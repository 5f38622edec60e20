"""What `rowmill doctor` says of a primary and a real standby."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.database.doctoring import SEEN, provokes
from tests.process.fleet import until, until_sql
from tests.process.postgres import own_postgres, standby_of
from worker.doctor import examine
from worker.embedded import EmbeddedPostgres
from worker.settings import Settings
from worker.store import Store
from worker.store.migrations import migrate

pytestmark = pytest.mark.process

Row = dict[str, Any]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EmbeddedPostgres]]:
    home: Path = tmp_path_factory.mktemp("own")
    home.chmod(0o711)
    with own_postgres(home) as primary, standby_of(primary, home) as standby:
        yield [primary, standby]


@asynccontextmanager
async def told(dsn: str) -> AsyncIterator[Any]:
    store = await Store.open(dsn, 1)

    async def durability() -> dict[str, Row]:
        report = await examine(store, Settings.model_construct(providers={}))
        SEEN.update(finding["id"] for finding in report["findings"])
        skip = ("durability.fsync", "durability.managed")
        return {f["id"]: f for f in report["findings"] if f["id"] not in skip}

    try:
        yield durability
    finally:
        await store.close()


@provokes("durability.failover", "durability.unseen", "database.standby")
async def test_a_standby_that_may_be_promoted_without_the_last_commits(
    servers: list[EmbeddedPostgres],
) -> None:
    primary, standby = servers
    await migrate(primary.dsn())
    connection = await asyncpg.connect(primary.dsn())
    await until_sql(
        connection, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')"
    )
    async with told(primary.dsn()) as durability:
        finding = (await durability())["durability.failover"]
        assert finding["severity"] == "warning"
        assert finding["evidence"].startswith("1 streaming standby(s), and")

        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await connection.execute("SELECT pg_reload_conf()")
        await until_sql(
            connection, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')"
        )
        assert await durability() == {}

        await connection.execute("ALTER ROLE postgres SET synchronous_commit = local")
        async with told(primary.dsn()) as locally:
            finding = (await locally())["durability.commit"]
            assert (finding["severity"], "is local" in finding["evidence"]) == ("warning", True)
        await connection.execute("ALTER ROLE postgres RESET synchronous_commit")

        await connection.execute(
            "CREATE ROLE plain LOGIN BYPASSRLS; GRANT ALL ON SCHEMA rowmill TO plain;"
            "GRANT ALL ON ALL TABLES IN SCHEMA rowmill TO plain"
        )
        async with told(primary.dsn(user="plain")) as unseen:
            assert set(await unseen()) == {"durability.unseen", "transactions.unseen"}
            await connection.execute("GRANT pg_read_all_stats TO plain")
            assert await unseen() == {}

        async with told(standby.dsn()) as there:

            async def followed() -> bool:
                return set(await there()) == {"database.standby"}

            await until(followed)

        await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await connection.execute("SELECT pg_reload_conf()")
        standby.stop()
        await until_sql(connection, "SELECT NOT EXISTS (SELECT FROM pg_stat_replication)")
        finding = (await durability())["durability.failover"]
        assert finding["evidence"].startswith("1 physical slot(s) of absent standbys, and")
    await connection.close()
