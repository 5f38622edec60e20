"""Schemas, tables, types and columns with capitals, which SQL keeps only in quotes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.commandline import Rowmill, rowmill_in
from tests.database.platform_samples import CloneDatabase, NewDatabase, run
from tests.database.support import Connect, Hand, OpenStore, failure, new_keys, queued
from worker import maps
from worker.coordination import Coordination
from worker.doctor import examine
from worker.inbox import Inbox
from worker.settings import Settings
from worker.store import (
    Store,
    acts,
    finding,
    gates,
    limits,
    refreshing,
    reports,
    retention,
    story,
    upkeep,
)
from worker.store.attaching import attach, detach
from worker.store.migrations import migrate

FOLDER = Path(__file__).parent / "data" / "atelier"
ATELIER = str(FOLDER / "map.toml")
RELATION = '"Atelier"."Orders"'
MISSING = "DROP TRIGGER rowmill_enqueue ON " + RELATION


@pytest.fixture
async def atelier(clone_database: CloneDatabase) -> str:
    async def build(dsn: str) -> None:
        await migrate(dsn)
        await run(dsn, (FOLDER / "schema.sql").read_text(encoding="utf-8"))
        await attach(dsn, maps.load(ATELIER))

    return await clone_database("atelier", build)


@pytest.fixture
async def db(atelier: str, connect: Connect) -> Any:
    return await connect(atelier)


@pytest.fixture
async def store(atelier: str, open_store: OpenStore) -> Store:
    return await open_store(atelier)


async def add(db: Any, count: int = 1, **columns: Any) -> list[str]:
    keys = new_keys(count)
    names = "".join(f', "{name}"' for name in columns)
    values = "".join(f", ${number}" for number in range(2, len(columns) + 2))
    await db.execute(
        f'INSERT INTO {RELATION} ("Id"{names}) SELECT k{values} FROM unnest($1::uuid[]) k',
        keys,
        *columns.values(),
    )
    return keys


async def row(db: Any, key: str) -> Any:
    return await db.fetchrow(f'SELECT * FROM {RELATION} WHERE "Id" = $1', key)


# --------------------------------------------------------------------------- the life of a job


async def test_a_job_is_queued_run_and_written_back(db: Any, store: Store) -> None:
    (key,) = await add(db, Priority=8)
    job = (await queued(db))[key]
    assert (job["lane"], job["rank"], job["tenant"]) == ("replicate", 16, "1")
    hand = await Hand.hire(store)
    (work,) = await hand.take()
    assert (work.started.kind, work.started.input["JobType"]) == ("background:Paint", "Paint")
    assert (await row(db, key))["Status"] == "Running"
    assert await hand.succeed([work]) == {key: "settled"}
    done = await row(db, key)
    assert (done["Status"], done["Answer"]) == ("Completed", "Rows wait in their line.")
    assert None not in (done["StartedAt"], done["EndedAt"], done["CostUsd"])
    assert await db.fetchval('SELECT "Finished" FROM "Atelier"."Customers" WHERE "Id" = 1') == 1
    assert await db.fetchval('SELECT count(*) FROM "Atelier"."Notes"') == 1


async def test_a_job_that_fails_is_retried_and_cancelled(db: Any, store: Store) -> None:
    (key,) = await add(db)
    hand = await Hand.hire(store)
    await hand.retry(await hand.take())
    assert (await row(db, key))["RetryCount"] == 1
    await hand.fail(await hand.take())
    assert (await row(db, key))["ErrorMessage"] == failure().message
    assert await acts.retry(store, "orders", key, "ada") == "requeued"
    again = await row(db, key)
    assert (again["Status"], again["RetryCount"], again["ErrorMessage"]) == ("Pending", 0, None)
    assert await acts.cancel(store, "orders", key, "ada") == "cancelled"
    assert (await row(db, key))["Status"] == "Cancelled"
    assert await queued(db) == {}
    (source,) = maps.load(ATELIER).map.sources
    assert await upkeep.row_status(store, source, key) == "Cancelled"
    assert await upkeep.unwanted(store, source, key)


async def test_a_change_and_a_delete_are_seen(db: Any) -> None:
    moved, gone = await add(db, 2)
    await db.execute(
        f'UPDATE {RELATION} SET "Priority" = 1, "ProviderId" = 2 WHERE "Id" = $1', moved
    )
    await db.execute(f'DELETE FROM {RELATION} WHERE "Id" = $1', gone)
    ((key, job),) = (await queued(db)).items()
    assert (key, job["rank"], job["lane"]) == (moved, 2, "openai")
    await db.execute(f"TRUNCATE {RELATION} CASCADE")
    assert await queued(db) == {}


async def test_the_platform_says_stop(db: Any, store: Store) -> None:
    (key,) = await add(db, CustomerId=2)
    await db.execute('UPDATE "Atelier"."Customers" SET "Closed" = true WHERE "Id" = 2')
    hand = await Hand.hire(store)
    (started,) = (await hand.verdicts(await hand.claim())).values()
    assert started.verdict == "cancel"
    assert key in await queued(db)


async def test_the_sweep_finds_what_no_trigger_saw(db: Any, store: Store) -> None:
    assert await upkeep.missing_triggers(store) == []
    await db.execute(MISSING)
    (key,) = await add(db)
    assert await queued(db) == {}
    assert await upkeep.missing_triggers(store) == ["orders: rowmill_enqueue"]
    assert await store.sweep("orders") == 1
    assert list(await queued(db)) == [key]


# --------------------------------------------------------------------------- what people see


async def test_what_is_told_of_it(db: Any, store: Store) -> None:
    (key,) = await add(db)
    await Hand.hire(store)
    status = await reports.status(store)
    assert status["needs_person"] == []
    (source,) = status["sources"]
    assert (source["relation"], source["gone"]) == (RELATION, False)
    assert source["unserved"] == {"background:Gild": "table Atelier.GoldLeaf does not exist here"}
    told = await story.job(store, "orders", key)
    assert (told["relation"], told["row"]["JobType"]) == (RELATION, "Paint")
    assert (told["why"], told["ahead"]) == ("ready: waits its turn", 0)
    assert await finding.find_one(store, key) == finding.Found("orders", key)
    await db.execute(MISSING)
    (item,) = (await reports.status(store))["needs_person"]
    assert item["kind"] == "missing_triggers"
    await db.execute(f"DROP TABLE {RELATION} CASCADE")
    (item,) = (await reports.status(store))["needs_person"]
    assert item["kind"] == "missing_table"


async def test_the_doctor(db: Any, store: Store) -> None:
    async def of_tables() -> list[str]:
        report = await examine(store, Settings.model_construct(providers={}))
        return [f["id"] for f in report["findings"] if f["id"].startswith("tables.")]

    assert await of_tables() == []
    await db.execute(MISSING)
    assert await of_tables() == ["tables.triggers"]


@pytest.mark.parametrize("called", ["orders", RELATION, "Atelier.Orders"])
async def test_a_table_is_paused_by_its_name(called: str, store: Store) -> None:
    await gates.pause(store, source=called, who="ada")
    assert await gates.paused_gates(store) == [gates.Gate(source="orders")]


async def test_messages(store: Store) -> None:
    inbox = Inbox(store, Coordination())
    (key,) = new_keys(1)
    message = {"source": "orders", "row": {"Id": key, "Priority": 7, "Status": "Pending"}}
    assert (await inbox.answer("submit", (), message))["created"] is True
    assert (await inbox.answer("submit", (), message))["created"] is False
    assert (await inbox.answer("get", (), {"id": key}))["status"] == "Pending"
    small = {"source": "orders", "row": {"Id": key, "priority": 7}}
    refused = (await inbox.answer("submit", (), small))["error"]
    assert refused.startswith("Atelier.Orders has no column priority; it has Id, JobType,")
    assert (await inbox.answer("cancel", (), {"id": key}))["result"] == "cancelled"
    assert (await inbox.answer("retry", (), {"id": key}))["result"] == "requeued"


# --------------------------------------------------------------------------- now and then


async def test_limits_of_the_platform(db: Any, store: Store) -> None:
    await limits.apply(store, maps.load(ATELIER))
    await add(db, 3)
    assert len(await (await Hand.hire(store)).claim(3)) == 1


async def test_partitions_and_views(db: Any, store: Store) -> None:
    platform = maps.load(ATELIER)
    await upkeep.make_partitions(store, platform)
    assert await db.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'Visits\\_%'") == 3
    await add(db, 4)
    await refreshing.refresh(store, platform.map.refreshes[0])
    assert await db.fetchval('SELECT "Orders" FROM "Atelier"."Totals"') == 4


async def test_old_rows_go(db: Any, store: Store) -> None:
    old, young, waiting, told = await add(db, 4)
    await db.execute(
        f"""UPDATE {RELATION} SET "Status" = 'Failed', "CreatedAt" = now() - interval '1 year',"""
        """ "EndedAt" = CASE WHEN "Id" = $2 THEN now() END WHERE "Id" <> $1""",
        waiting,
        young,
    )
    await db.execute('INSERT INTO "Atelier"."Notes" VALUES ($1)', told)
    platform = maps.load(ATELIER)
    done = await retention.remove(store, platform, platform.map.retention[0], most=9, seconds=9)
    assert done.removed == 1
    assert "still referred to by" in done.kept[0]
    left = {str(r[0]) for r in await db.fetch(f'SELECT "Id" FROM {RELATION}')}
    assert left == {young, waiting, told} != {old}


# --------------------------------------------------------------------------- attached and detached


async def test_it_can_be_attached_again_and_detached(atelier: str, db: Any) -> None:
    await add(db)
    await attach(atelier, maps.load(ATELIER))
    assert len(await queued(db)) == 1
    assert await detach(atelier, "atelier") == [RELATION]
    await add(db)
    assert await queued(db) == {}
    assert await db.fetchval("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'rowmill%'") == 0


async def test_two_tables_whose_names_differ_in_capitals_alone(
    atelier: str, db: Any, tmp_path: Path
) -> None:
    """Each is its own; and one table isn't attached twice."""
    text = Path(ATELIER).read_text(encoding="utf-8").split("[[partitions]]", maxsplit=1)[0]
    other = text.replace("atelier", "other").replace('"orders"', '"small_orders"')
    (tmp_path / "map.toml").write_text(other)
    with pytest.raises(
        maps.MapError, match=r"Atelier\.Orders is already attached, as source orders"
    ):
        await attach(atelier, maps.load(str(tmp_path / "map.toml")))
    (tmp_path / "map.toml").write_text(other.replace("Atelier.Orders", "Atelier.orders"))
    with pytest.raises(maps.MapError, match=r"there is no table Atelier\.orders in this database"):
        await attach(atelier, maps.load(str(tmp_path / "map.toml")))
    await db.execute(f'CREATE TABLE "Atelier".orders (LIKE {RELATION} INCLUDING ALL)')
    await attach(atelier, maps.load(str(tmp_path / "map.toml")))
    (key,) = new_keys(1)
    await db.execute('INSERT INTO "Atelier".orders ("Id") VALUES ($1)', key)
    (job,) = (await queued(db)).values()
    assert job["source_name"] == "small_orders"


async def test_removing_rows_that_would_take_jobs_along(
    atelier: str, db: Any, tmp_path: Path
) -> None:
    await db.execute(
        f'ALTER TABLE {RELATION} ADD FOREIGN KEY ("CustomerId")'
        ' REFERENCES "Atelier"."Customers" ("Id") ON DELETE CASCADE;'
        'ALTER TABLE "Atelier"."Customers" ADD "LeftAt" date'
    )
    (tmp_path / "map.toml").write_text(
        Path(ATELIER).read_text(encoding="utf-8")
        + '\n[[retention]]\ntable = "Atelier.Customers"\ncolumn = "LeftAt"\nkeep = "1 year"\n'
    )
    with pytest.raises(maps.MapError, match=r'would remove jobs of "Atelier"\."Orders", too'):
        await attach(atelier, maps.load(str(tmp_path / "map.toml")))


# --------------------------------------------------------------------------- map new, map check


@pytest.mark.parametrize("asked", ["Atelier.Orders", RELATION])
async def test_a_map_is_proposed_checked_and_works(
    asked: str, new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    dsn = await new_database()
    await migrate(dsn)
    await run(dsn, (FOLDER / "schema.sql").read_text(encoding="utf-8"))
    rowmill: Rowmill = rowmill_in(tmp_path)
    said = await rowmill(dsn, "map", "new", "--table", asked, "--output", "map.toml")
    assert said.code == 0, said.err
    (source,) = maps.load(str(tmp_path / "map.toml")).map.sources
    assert (source.name, source.table, source.key) == ("orders", "Atelier.Orders", "Id")
    assert (source.status.column, source.status.failed) == ("Status", "Failed")
    assert source.set.success["EndedAt"] == "now"
    said = await rowmill(dsn, "map", "check", "map.toml", "--json")
    assert (said.code, said.json["ok"]) == (0, True), said.out
    assert (await rowmill(None, "map", "check", "map.toml", "--offline")).code == 0
    await attach(dsn, maps.load(str(tmp_path / "map.toml")))
    db = await connect(dsn)
    (key,) = await add(db)
    hand = await Hand.hire(await open_store(dsn), ["replicate", "background:Paint"])
    assert await hand.succeed(await hand.take()) == {key: "settled"}
    assert (await row(db, key))["Status"] == "Completed"
