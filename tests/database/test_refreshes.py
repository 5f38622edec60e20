"""Materialized views: once per period over the whole fleet, and nobody waits for it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.database.depot import (
    FOLDER,
    as_role,
    built,
    process_of,
    schedule,
    time_goes_by,
    worker_of,
)
from tests.database.platform_samples import CloneDatabase
from tests.database.support import Connect, OpenStore, Producer
from tests.process.fleet import until_sql
from worker import maps
from worker.doctor import examine
from worker.maps import MapError
from worker.settings import Settings
from worker.store import LockTimeout, refreshing
from worker.store.attaching import attach, detach

TOTALS = maps.Refresh(view="depot.totals", every="1 day")
AT_IT = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE query ILIKE 'refresh mat%'"
    " AND datname = current_database() AND wait_event = 'PgSleep'"
)


@pytest.fixture
async def depot(clone_database: CloneDatabase) -> str:
    return await clone_database("depot", built)


async def made(connection: Any) -> int:
    return int(await connection.fetchval("SELECT made FROM depot.totals"))


async def test_two_workers_refresh_a_view_once_per_period(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(depot)
    await connection.execute("INSERT INTO depot.pace VALUES (0.3)")
    workers = [worker_of(await open_store(depot)) for _ in range(4)]
    for period in range(3):
        for _ in range(3):
            await asyncio.gather(*(worker.refreshes() for worker in workers))
        assert await made(connection) == 2 + period
        await time_goes_by(connection, "1 day")


async def test_a_refresh_keeps_nobody_waiting(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    """Neither readers of the view, nor who writes what it reads, nor their migrations for long."""
    connection = await connect(depot)
    await connection.execute("INSERT INTO depot.pace VALUES (2)")
    refreshing_ = asyncio.create_task(worker_of(await open_store(depot)).refreshes())
    await until_sql(connection, AT_IT)
    await connection.execute("SET lock_timeout = '100ms'")
    assert await made(connection) == 1
    await connection.execute("INSERT INTO depot.pace VALUES (0)")
    await connection.execute("INSERT INTO depot.errands DEFAULT VALUES")
    assert not refreshing_.done()
    await refreshing_
    assert await made(connection) == 2


async def test_who_locks_what_it_reads_is_not_waited_for(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, other = await connect(depot), await connect(depot)
    store = await open_store(depot)
    worker = worker_of(store)
    async with other.transaction():
        await other.execute("LOCK depot.pace")
        with capture_logs() as logs:
            await asyncio.wait_for(worker.refreshes(), 3)
    assert [(line["event"], line["chore"]) for line in logs] == [("schedule.failed", "refresh")]
    row = await schedule(connection, "refresh", "depot.totals")
    assert "lock timeout" in row["error"]
    assert row["done_at"] is None
    report = await examine(store, Settings.model_construct(providers={}))
    (finding,) = [f for f in report["findings"] if f["id"] == "schedules.failed"]
    assert (finding["subject"], finding["severity"]) == ("refresh of depot.totals", "warning")
    await worker.refreshes()
    assert await made(connection) == 1, "not again at once"
    await time_goes_by(connection, "10 minutes")
    await worker.refreshes()
    assert await made(connection) == 2
    assert (await schedule(connection, "refresh", "depot.totals"))["error"] is None


async def test_a_killed_worker_is_followed_by_another(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(depot)
    await connection.execute("INSERT INTO depot.pace VALUES (60)")
    process = await process_of(depot, "refreshes")
    await until_sql(connection, AT_IT)
    process.kill()
    await process.wait()
    worker = worker_of(await open_store(depot))
    await connection.execute("DELETE FROM depot.pace")
    await worker.refreshes()
    assert (await schedule(connection, "refresh", "depot.totals"))["taken"]
    # Its server process knows nothing yet: the next one doesn't wait for it.
    await time_goes_by(connection, "3 minutes")
    await asyncio.wait_for(worker.refreshes(), 3)
    assert "lock timeout" in (await schedule(connection, "refresh", "depot.totals"))["error"]
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    await time_goes_by(connection, "10 minutes")
    await until_sql(connection, f"SELECT NOT ({AT_IT})")
    await worker.refreshes()
    row = await schedule(connection, "refresh", "depot.totals")
    assert (row["error"], row["taken"]) == (None, False)
    assert row["done_at"] is not None


async def test_a_slow_one_keeps_its_turn(
    depot: str, connect: Connect, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer than a lease, and nobody follows."""
    monkeypatch.setattr("worker.scheduled.LEASE", 1.0)
    monkeypatch.setattr("worker.store.schedules.LEASE", 1.0)
    connection = await connect(depot)
    await connection.execute("INSERT INTO depot.pace VALUES (2.5)")
    one, other = worker_of(await open_store(depot)), worker_of(await open_store(depot))
    slow = asyncio.create_task(one.refreshes())
    with capture_logs() as logs:
        while not slow.done():
            await other.refreshes()
            await asyncio.sleep(0.1)
    assert [line["event"] for line in logs] == ["view.refreshed"]
    assert await made(connection) == 2


async def test_without_a_unique_index_readers_wait_for_a_moment_only(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(depot), await open_store(depot)
    await connection.execute("DROP INDEX depot.totals_id")
    await refreshing.refresh(store, TOTALS)
    assert await made(connection) == 2
    await connection.execute("INSERT INTO depot.pace VALUES (60)")
    with capture_logs() as logs:
        await asyncio.wait_for(worker_of(store).refreshes(), 5)
    assert "statement timeout" in logs[0]["error"]
    assert await made(connection) == 2
    async with connection.transaction():
        await made(connection)
        with pytest.raises(LockTimeout):
            await refreshing.refresh(store, TOTALS)


async def test_one_that_was_never_filled_takes_its_time(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(depot), await open_store(depot)
    await connection.execute("REFRESH MATERIALIZED VIEW depot.totals WITH NO DATA")
    await connection.execute("DROP INDEX depot.totals_id; INSERT INTO depot.pace VALUES (3)")
    await refreshing.refresh(store, TOTALS)
    assert await made(connection) >= 2


async def test_a_missing_right_is_told(
    depot: str, producer: Producer, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(depot)
    await connect(depot, producer)
    await connection.execute(
        f"GRANT USAGE ON SCHEMA rowmill TO {producer.name};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA rowmill TO {producer.name};"
        f"REVOKE ALL ON depot.totals FROM {producer.name}"
    )
    store = await open_store(as_role(depot, producer))
    with capture_logs() as logs:
        await worker_of(store).refreshes()
    (line,) = logs
    assert "MAINTAIN" in line["fix"]
    assert "totals" in line["error"]


@pytest.mark.parametrize(
    ("view", "why"),
    [
        ("depot.nothing", "does not exist"),
        ("depot.visits", "is no materialized view"),
    ],
)
async def test_attach_refuses_what_is_no_view(
    view: str, why: str, depot: str, tmp_path: Path
) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "map.toml"
    path.write_text(path.read_text().replace("depot.totals", view))
    with pytest.raises(MapError, match=rf"refreshes\[0\].view: {view} {why}"):
        await attach(depot, maps.load(str(path)))


async def test_attach_warns_of_a_view_without_a_unique_index(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(depot)
    await connection.execute("DROP INDEX depot.totals_id")
    # Neither will do: the one is partial, the other of an expression.
    await connection.execute(
        "CREATE UNIQUE INDEX a ON depot.totals (id) WHERE id > 0;"
        "CREATE UNIQUE INDEX b ON depot.totals ((id + 1))"
    )
    said: list[str] = []
    await attach(depot, maps.load(str(FOLDER / "map.toml")), report=said.append)
    assert [line for line in said if "no unique index" in line]
    await worker_of(await open_store(depot)).refreshes()
    await detach(depot, "depot")
    assert await connection.fetchval("SELECT count(*) FROM rowmill.schedules") == 0


async def test_a_worker_that_stops_does_not_wait_for_its_refresh(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    """Nor does the server go on with it: the next worker finds the view free."""
    connection, store = await connect(depot), await open_store(depot)
    await connection.execute("INSERT INTO depot.pace VALUES (60)")
    task = asyncio.create_task(worker_of(store).refreshes())
    await until_sql(connection, AT_IT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 3)
    await until_sql(connection, f"SELECT NOT ({AT_IT})", within=3)
    await connection.execute("DELETE FROM depot.pace")
    await time_goes_by(connection, "3 minutes")
    await worker_of(await open_store(depot)).refreshes()
    assert (await schedule(connection, "refresh", "depot.totals"))["done_at"] is not None
