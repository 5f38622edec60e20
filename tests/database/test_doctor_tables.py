"""`rowmill doctor` on attached tables: triggers, functions, maps, rights, partitions, rows."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.database.depot import as_role, built
from tests.database.doctoring import all_found, found, mended, provokes, recorded, settings
from tests.database.journaling import at_work, intend, journal_of
from tests.database.platform_samples import CloneDatabase
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_videos,
    queued,
)
from tests.database.test_partitioned import build as warehouse_built
from worker.doctor.patient import Limits, Patient
from worker.doctor.rows import targets
from worker.store import Store, StoreError, acts, reports, upkeep
from worker.store.finding import find_one
from worker.store.health import rows

RIGHTS = """
GRANT ALL ON SCHEMA rowmill TO {role};
GRANT ALL ON ALL TABLES IN SCHEMA rowmill TO {role};
GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
GRANT EXECUTE ON FUNCTION public.create_monthly_partition TO {role};
"""


@pytest.fixture
async def store(photomemory: str, open_store: OpenStore) -> Store:
    return await open_store(photomemory)


@pytest.fixture
async def db(photomemory: str, connect: Connect) -> Any:
    return await connect(photomemory)


# --------------------------------------------------------------------------- triggers, functions


async def told_of_triggers(store: Store) -> dict[str, list[str]]:
    """What status says of tables that lack some; maintenance logs the same."""
    sources = (await reports.status(store))["sources"]
    told = {row["source"]: row["missing_triggers"] for row in sources if row["missing_triggers"]}
    logged = [f"{source}: {', '.join(missing)}" for source, missing in told.items()]
    assert await upkeep.missing_triggers(store) == logged
    return told


@pytest.mark.parametrize("how", ["DISABLE", "ENABLE REPLICA"])
@provokes("tables.triggers")
async def test_a_trigger_that_is_not_fired(db: Any, store: Store, how: str) -> None:
    await db.execute(f"ALTER TABLE generation_jobs {how} TRIGGER rowmill_enqueue")
    finding = (await found(store))["tables.triggers"]
    said = {"DISABLE": "disabled", "ENABLE REPLICA": "enabled for replicas alone"}[how]
    assert f"rowmill_enqueue ({said})" in finding["evidence"]
    assert (finding["severity"], finding["repairable"]) == ("error", True)
    assert await told_of_triggers(store) == {"generation_jobs": ["rowmill_enqueue"]}
    (key,) = await add_videos(db)
    assert await queued(db, key) == {}
    assert (await found(store))["rows.unqueued"]["repairable"]
    done, left = await mended(store)
    assert [row["failed"] for row in done] == [None, None]
    assert not {"tables.triggers", "rows.unqueued"} & set(left)
    assert list(await queued(db, key)) == [key]


@provokes("tables.triggers")
async def test_a_trigger_of_one_partition(
    clone_database: CloneDatabase, connect: Connect, open_store: OpenStore
) -> None:
    dsn = await clone_database("warehouse", warehouse_built)
    connection, store = await connect(dsn), await open_store(dsn)
    assert "tables.triggers" not in await found(store, only=("tables",))
    await connection.execute("ALTER TABLE warehouse.parcels_january DISABLE TRIGGER rowmill_change")
    finding = (await found(store, only=("tables",)))["tables.triggers"]
    assert "rowmill_change on warehouse.parcels_january (disabled)" in finding["evidence"]
    assert await told_of_triggers(store) == {"parcels": ["rowmill_change"]}
    (done,), left = await mended(store)
    assert (done["failed"], "tables.triggers" in left) == (None, False)


@provokes("tables.replica")
async def test_a_role_whose_sessions_fire_no_triggers(
    db: Any, store: Store, producer: Producer
) -> None:
    name = await db.fetchval("SELECT current_database()")
    await db.execute(
        f"ALTER ROLE {producer.name} IN DATABASE {name} SET session_replication_role = replica"
    )
    finding = (await found(store, only=("tables",)))["tables.replica"]
    assert finding["subject"] == f"role {producer.name} in this database"


@provokes("tables.functions")
async def test_functions_that_another_version_made(db: Any, store: Store) -> None:
    source = await db.fetchval(
        "SELECT pg_get_functiondef('rowmill.retry_generation_jobs'::regproc)"
    )
    await db.execute(source.replace("BEGIN", "BEGIN\n    PERFORM 1;", 1))
    finding = (await found(store))["tables.functions"]
    assert (finding["severity"], finding["repairable"]) == ("warning", True)
    assert finding["evidence"].endswith("of the map: rowmill.retry_generation_jobs")
    await db.execute("DROP FUNCTION rowmill.cancel_generation_jobs")
    finding = (await found(store))["tables.functions"]
    assert finding["severity"] == "error"
    assert finding["evidence"] == "missing: rowmill.cancel_generation_jobs"
    (done,), left = await mended(store)
    assert (done["failed"], left) == (None, {})
    assert await db.fetchval("SELECT 'rowmill.cancel_generation_jobs'::regproc IS NOT NULL")
    assert await recorded(db) == [("ann@desk", "platform photomemory")]
    # What a newer version made isn't ours to judge.
    await db.execute(source.replace("BEGIN", "BEGIN\n    PERFORM 1;", 1))
    await db.execute("INSERT INTO rowmill.functions (version, checksum) VALUES (9999, 'newer')")
    assert await found(store) == {}


@provokes("schema.ahead")
async def test_a_newer_database(db: Any, store: Store) -> None:
    await db.execute(
        "INSERT INTO rowmill.migrations (version, name, checksum) VALUES (9999, '9999_new', '')"
    )
    finding = (await found(store, only=("schema",)))["schema.ahead"]
    assert (finding["severity"], "9999_new" in finding["evidence"]) == ("warning", True)


# --------------------------------------------------------------------------- maps


@provokes("maps.misfit", "maps.changed")
async def test_a_map_that_fits_no_more(db: Any, store: Store) -> None:
    await db.execute("ALTER TABLE generation_jobs RENAME COLUMN output_metadata TO about_it")
    finding = (await found(store))["maps.misfit"]
    assert finding["severity"] == "error"
    assert "table public.generation_jobs has no column 'output_metadata'" in finding["evidence"]
    await db.execute("ALTER TABLE generation_jobs RENAME COLUMN about_it TO output_metadata")
    await db.execute(
        "UPDATE rowmill.sources SET definition ="
        " jsonb_set(definition, '{rules,limits}', to_jsonb('SELECT 1'::text))"
    )
    finding = (await found(store, only=("maps.changed",)))["maps.changed"]
    assert (finding["severity"], finding["evidence"][-10:]) == ("info", "limits.sql")
    assert "rowmill attach photomemory --schema public" in finding["fix"]


@provokes("maps.notice")
async def test_zones_that_differ(ecomvideo: str, connect: Connect, open_store: OpenStore) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    finding = (await found(store, only=("maps",)))["maps.notice"]
    assert (finding["severity"], "Asia/Tokyo" in finding["evidence"]) == ("warning", True)


async def test_where_backslashes_are_read_otherwise(
    photomemory: str, db: Any, open_store: OpenStore
) -> None:
    await db.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off',"
        " current_database()); END $$"
    )
    store = await open_store(photomemory)
    assert await store.value("SHOW standard_conforming_strings") == "off"
    assert await found(store, only=("maps", "tables")) == {}


# --------------------------------------------------------------------------- rights


@provokes("rights.missing", "rights.row_security")
async def test_what_a_role_may_not(photomemory: str, db: Any, open_store: OpenStore) -> None:
    role = Producer("rowmill_test_poor", "secret")
    await db.execute(f"DROP ROLE IF EXISTS {role.name}")
    await db.execute(f"CREATE ROLE {role.name} LOGIN BYPASSRLS PASSWORD '{role.password}'")
    try:
        (key,) = await add_videos(db)
        await db.execute(RIGHTS.format(role=role.name))
        poor = await open_store(as_role(photomemory, role))
        told = await found(poor, only=("rights.missing", "rights.row_security"))
        assert told == {}, "as docs/platforms.md has it"

        await db.execute(f"REVOKE INSERT ON media_files FROM {role.name}")
        await db.execute(f"REVOKE UPDATE ON rowmill.queue FROM {role.name}")
        findings = {
            (f["subject"], f["evidence"])
            for f in (await all_found(poor, only=("rights",)))
            if f["id"] == "rights.missing"
        }
        assert findings == {
            ("photomemory", f"role {role.name} lacks INSERT on table media_files"),
            ("rowmill", f"role {role.name} lacks UPDATE on table rowmill.queue"),
        }
        await db.execute(RIGHTS.format(role=role.name))
        await db.execute(f"REVOKE UPDATE ON generation_jobs FROM {role.name}")
        await db.execute(f"GRANT UPDATE (status) ON generation_jobs TO {role.name}")
        evidence = (await found(poor, only=("rights",)))["rights.missing"]["evidence"]
        assert "UPDATE (" in evidence
        assert "output_file_id" in evidence
        assert "status" not in re.findall(r"\w+", evidence)
        await db.execute(RIGHTS.format(role=role.name))

        await db.execute(f"ALTER ROLE {role.name} NOBYPASSRLS")
        blind = {f["subject"] for f in await all_found(poor, only=("rights.row_security",))}
        assert "table generation_jobs" in blind
        await db.execute("ALTER TABLE media_files DISABLE ROW LEVEL SECURITY")
        # What it can't see isn't gone.
        unseen = await all_found(poor, only=("rows", "usage"))
        assert {f["id"] for f in unseen} == {"doctor.failed"}
        assert "row-level security" in unseen[0]["evidence"]
        with pytest.raises(StoreError, match="row-level security"):
            await find_one(poor, f"generation_jobs/{key}")
        assert blind - {f["subject"] for f in await all_found(poor, only=("rights",))} == {
            "table media_files"
        }
        finding = (await found(poor, only=("rights",)))["rights.row_security"]
        assert finding["severity"] == "error"
        assert finding["fix"] == f"ALTER ROLE {role.name} BYPASSRLS"
        await db.execute(f"ALTER ROLE {role.name} BYPASSRLS")
        assert "rights.row_security" not in await found(poor, only=("rights",))
        assert "rights.row_security" not in await found(
            await open_store(photomemory), only=("rights",)
        )
        # Who looks as somebody else is told of the workers' role.
        await db.execute(f"ALTER ROLE {role.name} NOBYPASSRLS")
        await Hand.hire(poor)
        assert "rights.row_security" in await found(await open_store(photomemory), only=("rights",))
    finally:
        await db.execute(f"DROP OWNED BY {role.name}; ALTER ROLE {role.name} NOLOGIN")
        await poor.close()
        await db.execute(f"DROP ROLE {role.name}")


@provokes("rights.owner", "schedules.failed")
async def test_a_view_of_another(
    clone_database: CloneDatabase, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    dsn = await clone_database("depot", built)
    connection = await connect(dsn)
    await connection.execute(
        f"GRANT USAGE ON SCHEMA rowmill, depot TO {producer.name};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA rowmill TO {producer.name};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA depot TO {producer.name}"
    )
    theirs = await open_store(as_role(dsn, producer))
    finding = (await found(theirs))["rights.owner"]
    assert (finding["severity"], "can't refresh it" in finding["evidence"]) == ("warning", True)
    await connection.execute(
        "INSERT INTO rowmill.schedules (platform, chore, subject, token, taken_at, "
        "not_before, error)"
        " VALUES ('depot', 'refresh', 'depot.totals', 1, now(), now(), 'permission denied')"
    )
    assert "schedules.failed" in await found(await open_store(dsn))


# --------------------------------------------------------------------------- partitions


@provokes("partitions.missing", "partitions.default")
async def test_partitions_ahead(db: Any, store: Store) -> None:
    leaf = """
SELECT c.oid::regclass::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'usage_records'::regclass
   AND pg_get_expr(c.relpartbound, c.oid) LIKE
       '%FROM (''' || to_char(now() AT TIME ZONE 'UTC' + $1::interval, 'YYYY-MM-01') || '%'
"""
    # As every worker does at its start.
    await mended(store)
    assert await found(store, only=("partitions",)) == {}
    for ahead, severity in (("1 month", "warning"), ("0", "error")):
        days = timedelta(days=0 if ahead == "0" else 31)
        first = await db.fetchval(
            "SELECT date_trunc('month', now() AT TIME ZONE 'UTC') - now() AT TIME ZONE 'UTC'"
        )
        name = await db.fetchval(leaf, first + days)
        await db.execute(f"DROP TABLE {name}")
        finding = (await found(store, only=("partitions",)))["partitions.missing"]
        assert (finding["subject"], finding["severity"]) == ("table public.usage_records", severity)
    (done,), left = await mended(store)
    assert (done["id"], done["failed"], left) == ("partitions.missing", None, {})
    await db.execute("CREATE TABLE usage_rest PARTITION OF usage_records DEFAULT")
    assert await found(store, only=("partitions",)) == {}
    await db.execute(
        "INSERT INTO usage_records (user_id, resource_type, quantity, unit, billing_period)"
        " SELECT id, 'video_generation', 1, 'count', '1999-01-01' FROM users LIMIT 1"
    )
    finding = (await found(store, only=("partitions",)))["partitions.default"]
    assert "usage_rest holds rows" in finding["evidence"]


# --------------------------------------------------------------------------- rows


@provokes("rows.unqueued", "rows.running", "rows.finished", "rows.tries")
async def test_rows_that_contradict_the_queue(db: Any, store: Store) -> None:
    keys = await add_videos(db, 6)
    assert set(await found(store)) == {"fleet.none", "providers.key"}
    await db.execute("DELETE FROM rowmill.queue WHERE row_key = $1", keys[0])
    await db.execute(
        "SET session_replication_role = replica;"
        f"UPDATE generation_jobs SET status = 'cancelled' WHERE id = '{keys[1]}';"
        f"DELETE FROM generation_jobs WHERE id = '{keys[2]}';"
        f"UPDATE generation_jobs SET status = 'processing' WHERE id = '{keys[3]}';"
        f"DELETE FROM rowmill.queue WHERE row_key = '{keys[3]}';"
        "ALTER TABLE generation_jobs DROP CONSTRAINT IF EXISTS valid_retry_count;"
        "RESET session_replication_role"
    )
    for check in await db.fetch(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'generation_jobs'::regclass"
        " AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%max_retries%'"
    ):
        await db.execute(f"ALTER TABLE generation_jobs DROP CONSTRAINT {check['conname']}")
    await db.execute(
        "UPDATE generation_jobs SET retry_count = max_retries + 1 WHERE id = $1", keys[4]
    )
    findings = await found(store, only=("rows",))
    assert {name: f["severity"] for name, f in findings.items()} == {
        "rows.unqueued": "warning",
        "rows.running": "warning",
        "rows.finished": "warning",
        "rows.tries": "info",
    }
    assert keys[0] in findings["rows.unqueued"]["evidence"]
    assert keys[3] in findings["rows.running"]["evidence"]
    assert findings["rows.finished"]["evidence"].startswith("2 row(s)")
    done, left = await mended(store)
    assert {(d["id"], d["did"]) for d in done} == {
        ("rows.unqueued", "queued 1 row(s) of generation_jobs"),
        ("rows.finished", "took 2 row(s) of generation_jobs from the queue"),
    }
    assert {name for name in left if name.startswith("rows")} == {"rows.running", "rows.tries"}
    assert set(await queued(db)) == {keys[0], keys[4], keys[5]}
    assert len(await recorded(db)) == 2


async def test_what_is_claimed_or_ready_again_is_left_alone(db: Any, store: Store) -> None:
    """The repair looks again, with the row locked: it waits for whoever changes it."""
    hand = await Hand.hire(store)
    keys = await add_videos(db, 2)
    await hand.claim(1)
    await db.execute("SET session_replication_role = replica")
    await db.execute("UPDATE generation_jobs SET status = 'cancelled'")
    await db.execute("SET session_replication_role = origin")
    findings = await found(store)
    assert "1 of them claimed" in findings["rows.finished"]["evidence"]
    await db.execute("UPDATE generation_jobs SET status = 'queued' WHERE id = $1", keys[1])
    done, _ = await mended(store)
    assert done == []
    (target,) = await targets(Patient(store, settings(), Limits(), []))

    async with db.transaction():
        # A producer in the middle of it: nobody knows yet how it ends.
        await db.execute("UPDATE generation_jobs SET status = 'queued' WHERE id = $1", keys[0])
        assert await rows.drop(store, target, keys) == 0
    assert await rows.drop(store, target, keys) == 0
    assert set(await queued(db)) == set(keys)


@provokes("rows.empty", "usage.missing", "usage.double")
async def test_completed_without_a_file_or_a_usage_record(db: Any, store: Store) -> None:

    hand, works = await at_work(db, store, 3)
    for work in works:
        journal = journal_of(store, work, hand)
        await journal.finished((await intend(journal)).id, result={}, cost_cents=Decimal(2))
    await hand.succeed(works)
    assert await found(store) == {}
    keys = [work.key for work in works]
    await db.execute("DELETE FROM usage_records WHERE generation_job_id = $1", keys[0])
    await db.execute(
        "INSERT INTO usage_records (user_id, resource_type, quantity, unit, billing_period,"
        " generation_job_id) SELECT user_id, resource_type, quantity, unit, billing_period,"
        " generation_job_id FROM usage_records WHERE generation_job_id = $1",
        keys[1],
    )
    findings = await found(store)
    assert set(findings) == {"usage.missing", "usage.double"}
    assert findings["usage.missing"]["evidence"].endswith(keys[0])
    assert findings["usage.double"]["evidence"].endswith(keys[1])
    assert {f["severity"] for f in findings.values()} == {"error"}
    await db.execute("ALTER TABLE generation_jobs DROP CONSTRAINT status_consistency")
    await db.execute("UPDATE generation_jobs SET output_file_id = NULL WHERE id = $1", keys[2])
    assert (await found(store))["rows.empty"]["evidence"].endswith(keys[2])


async def test_a_job_that_was_done_again_is_charged_for_each_run(db: Any, store: Store) -> None:
    hand, works = await at_work(db, store, 1)
    for again in (False, True):
        if again:
            key = works[0].key
            assert await acts.requeue(store, "generation_jobs", key, "ann") == "requeued"
            works = await hand.take()
        journal = journal_of(store, works[0], hand)
        await journal.finished((await intend(journal)).id, result={}, cost_cents=Decimal(2))
        await hand.succeed(works)
    assert await db.fetchval("SELECT count(*) FROM usage_records") == 2
    await db.execute(
        "UPDATE rowmill.submissions SET delivered_at = now() - interval '8 days' WHERE run = 1"
    )
    assert "usage.double" not in await found(store)
