"""Old rows go: in small steps, never one that is still a job, and what can't go is told."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.database.depot import (
    DEPOT,
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
from worker.maps import MapError
from worker.store import Store, retention
from worker.store.attaching import attach
from worker.store.retention import Round

OLD = "now() AT TIME ZONE 'Asia/Tokyo' - interval '31 days'"


@pytest.fixture
async def depot(clone_database: CloneDatabase) -> str:
    return await clone_database("depot", built)


async def remove(store: Store, subject: str, *, most: int = 50_000) -> Round:
    platform = maps.load(DEPOT)
    (entry,) = [e for e in platform.map.retention if e.subject == subject]
    return await retention.remove(store, platform, entry, most=most, seconds=60)


async def keys(connection: Any, table: str) -> list[int]:
    return [row[0] for row in await connection.fetch(f"SELECT id FROM {table} ORDER BY id")]


async def test_only_jobs_that_are_over_go(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(depot)
    # 1 new, 2 busy: queued. 3 done, 4 lost, 5 void: over. 6 a word that isn't the map's.
    # 7 lost, and re-enqueued; 8 and 9 with an open call; 10 with one that is over; 11 young;
    # 12 ended long ago, 13 just now, both made long ago.
    await connection.execute(
        f"""
        INSERT INTO depot.errands (state, created_at, ended_at) OVERRIDING USER VALUE
        SELECT state, CASE WHEN n = 11 THEN now() ELSE {OLD} END,
               CASE n WHEN 12 THEN {OLD} WHEN 13 THEN now() END
          FROM unnest('{{new,busy,done,lost,void,odd,lost,lost,done,done,done,done,done}}'::text[])
               WITH ORDINALITY AS given (state, n) ORDER BY n;
        UPDATE depot.errands SET state = 'new' WHERE id = 7;
        UPDATE rowmill.queue SET state = 'held';
        INSERT INTO rowmill.submissions
              (source, row_key, lane, run, step, provider, account, model,
               fingerprint, state, estimate_cents, worker)
        SELECT 'errands', key, 'errand', 1, 'go', 'replicate', 'a', 'm', 'f',
               state::rowmill.submission_state, 1, 1
          FROM (VALUES ('8', 'unknown'), ('9', 'accepted'), ('10', 'finished')) AS g (key, state)
        """
    )
    # Finished in its table by someone who was not heard of: the queue still has it.
    await connection.execute(
        "ALTER TABLE depot.errands DISABLE TRIGGER USER;"
        "UPDATE depot.errands SET state = 'done' WHERE id = 1;"
        "ALTER TABLE depot.errands ENABLE TRIGGER USER"
    )
    done = await remove(await open_store(depot), "errands")
    assert await keys(connection, "depot.errands") == [1, 2, 6, 7, 8, 9, 11, 13]
    assert (done.removed, done.whole, done.kept) == (5, True, [])


async def test_what_it_holds_of_an_allowance_is_settled_before_its_row_goes(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    """Without the row nobody could tell any more that it was used, and it would be given back."""
    connection, store = await connect(depot), await open_store(depot)
    await connection.execute(
        "INSERT INTO depot.errands (state, created_at)"
        f" SELECT 'done', {OLD} FROM generate_series(1, 2);"
        "INSERT INTO rowmill.allowances SELECT id, '1', 1, 'x', 3 FROM rowmill.sources"
    )
    assert (await remove(store, "errands")).removed == 1
    assert await keys(connection, "depot.errands") == [1]
    await connection.execute("DELETE FROM rowmill.allowances")
    assert (await remove(store, "errands")).removed == 1


async def test_a_cascade_made_after_attach_removes_no_job(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(depot), await open_store(depot)
    await connection.execute(
        f"INSERT INTO depot.visits VALUES (1, {OLD} - interval '1 year');"
        "ALTER TABLE depot.errands ADD visit bigint REFERENCES depot.visits ON DELETE CASCADE;"
        "INSERT INTO depot.errands (visit) VALUES (1)"
    )
    with capture_logs() as logs:
        await worker_of(store).retention()
    assert await keys(connection, "depot.errands") == [1]
    assert [line["event"] for line in logs] == ["schedule.failed"]
    said = (await schedule(connection, "retention", "depot.visits"))["error"]
    assert "would remove jobs of depot.errands" in said


async def test_what_the_map_no_longer_names_is_forgotten_with_its_error(
    depot: str, connect: Connect, tmp_path: Path
) -> None:
    connection = await connect(depot)
    await connection.execute(
        "INSERT INTO rowmill.schedules SELECT 'depot', c, s, 1, now(), now(), NULL, 'no right'"
        " FROM (VALUES ('retention', 'depot.visits'), ('retention', 'errands'),"
        " ('refresh', 'depot.gone'), ('refresh', 'depot.totals')) AS g (c, s)"
    )
    shutil.copytree(FOLDER, tmp_path / "depot")
    path = tmp_path / "depot" / "map.toml"
    text = path.read_text(encoding="utf-8")
    gone = '[[retention]]\ntable = "depot.visits"\ncolumn = "seen_at"\nkeep = "1 year"\n'
    assert gone in text
    path.write_text(text.replace(gone, ""), encoding="utf-8")
    await attach(depot, maps.load(str(path)))
    left = await connection.fetch("SELECT subject FROM rowmill.schedules ORDER BY 1")
    assert [row["subject"] for row in left] == ["depot.totals", "errands"]


async def test_a_job_someone_is_about_to_run_again_stays(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    """Its row is locked: this time it is passed over; once committed, it is a job again."""
    connection, other, store = await connect(depot), await connect(depot), await open_store(depot)
    await connection.execute(
        "INSERT INTO depot.errands (state, created_at)"
        f" SELECT 'lost', {OLD} FROM generate_series(1, 3)"
    )
    async with other.transaction():
        await other.execute("UPDATE depot.errands SET state = 'new' WHERE id = 2")
        assert (await asyncio.wait_for(remove(store, "errands"), 3)).removed == 2
    assert (await remove(store, "errands")).removed == 0
    assert await keys(connection, "depot.errands") == [2]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
async def test_times_without_a_zone_are_the_platforms(
    zone: str, depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(depot)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET timezone = '{zone}'")
    await connection.execute(
        """
        INSERT INTO depot.visits
        SELECT n, now() AT TIME ZONE 'Asia/Tokyo' - interval '1 year' + n * interval '1 minute'
          FROM unnest(ARRAY[-2, -1, 1, 2]) AS n;
        INSERT INTO depot.visits VALUES (9, NULL)
        """
    )
    assert (await remove(await open_store(depot), "depot.visits")).removed == 2
    assert await keys(connection, "depot.visits") == [1, 2, 9]


async def crates(connection: Any, count: int = 2500) -> None:
    await connection.execute(
        "INSERT INTO depot.crates (id, packed_at) SELECT n, '2023-06-01'::timestamptz"
        " + n % 2 * interval '1 year' FROM generate_series(1, $1::integer) n",
        count,
    )


async def test_what_refuses_is_told_and_stops_nothing_else(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    """A foreign key that is known of beforehand, and a trigger that isn't, over partitions."""
    connection, store = await connect(depot), await open_store(depot)
    await crates(connection)
    await connection.execute(
        "UPDATE depot.crates SET sealed = true WHERE id IN (7, 1800);"
        "INSERT INTO depot.receipts SELECT id, packed_at FROM depot.crates WHERE id IN (3, 4, 2000)"
    )
    with capture_logs() as logs:
        await worker_of(store).retention()
    assert await keys(connection, "depot.crates") == [3, 4, 7, 1800, 2000]
    (line,) = [line for line in logs if line["event"] == "retention.removed"]
    assert (line["log_level"], line["rows"], line["more"]) == ("warning", 2495, False)
    sealed, referred = line["kept"]
    assert sealed.startswith("2 refused to go: crate")
    assert referred.startswith(
        "3 are still referred to by depot.receipts (receipts_crate_packed_at_fkey"
    )
    assert (await schedule(connection, "retention", "depot.crates"))["done_at"] is not None


async def test_a_reference_made_at_that_moment_refuses_one_row(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    """Not committed yet, so it couldn't be seen: its key lock keeps the row, the rest goes."""
    connection, other = await connect(depot), await connect(depot)
    await crates(connection, 100)
    async with other.transaction():
        await other.execute(
            "INSERT INTO depot.receipts SELECT 50, packed_at FROM depot.crates WHERE id = 50"
        )
        done = await asyncio.wait_for(remove(await open_store(depot), "depot.crates"), 10)
    assert await keys(connection, "depot.crates") == [50]
    assert done.removed == 99


async def test_rights_on_the_table_are_enough_and_a_missing_one_is_told(
    depot: str, producer: Producer, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(depot)
    await connect(depot, producer)
    name = producer.name
    await connection.execute(
        f"GRANT USAGE ON SCHEMA rowmill TO {name};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA rowmill TO {name};"
        f"REVOKE ALL ON depot.crates, depot.crates_early, depot.crates_later FROM {name};"
        f"GRANT SELECT, UPDATE ON depot.crates TO {name}"
    )
    await crates(connection, 10)
    worker = worker_of(await open_store(as_role(depot, producer)))
    with capture_logs() as logs:
        await worker.retention()
    (line,) = [line for line in logs if line["event"] == "schedule.failed"]
    assert (line["subject"], "DELETE" in line["fix"]) == ("depot.crates", True)
    assert len(await keys(connection, "depot.crates")) == 10
    await connection.execute(f"GRANT DELETE ON depot.crates TO {name}")
    await time_goes_by(connection, "10 minutes")
    await worker.retention()
    assert await keys(connection, "depot.crates") == []


async def test_a_turn_is_bounded_and_goes_on_soon(
    depot: str, connect: Connect, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.scheduled.MOST", 1000)
    connection, worker = await connect(depot), worker_of(await open_store(depot))
    await crates(connection)
    await worker.retention()
    assert len(await keys(connection, "depot.crates")) == 1500
    await worker.retention()
    assert len(await keys(connection, "depot.crates")) == 1500, "a minute later"
    for left in (500, 0):
        await time_goes_by(connection, "1 minute")
        await worker.retention()
        assert len(await keys(connection, "depot.crates")) == left
    assert (await schedule(connection, "retention", "depot.crates"))["done_at"] is not None
    await crates(connection, 5)
    await time_goes_by(connection, "23 hours")
    await worker.retention()
    assert len(await keys(connection, "depot.crates")) == 5
    await time_goes_by(connection, "1 hour")
    await worker.retention()
    assert await keys(connection, "depot.crates") == []


async def test_two_workers_at_once_take_one_turn(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(depot)
    await crates(connection, 5000)
    workers = [worker_of(await open_store(depot)) for _ in range(3)]
    with capture_logs() as logs:
        await asyncio.gather(*(worker.retention() for worker in workers))
    assert [line["rows"] for line in logs] == [5000]


async def test_two_that_do_it_all_the_same_do_no_harm(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(depot)
    await crates(connection, 5000)
    stores = [await open_store(depot) for _ in range(2)]
    done = await asyncio.gather(*(remove(store, "depot.crates") for store in stores))
    assert sum(round_.removed for round_ in done) == 5000
    assert await keys(connection, "depot.crates") == []


async def test_a_killed_worker_is_followed_by_another(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    """What it had committed is gone, and the rest goes with the next one's turn."""
    connection = await connect(depot)
    await connection.execute(
        """
        CREATE FUNCTION depot.slow() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_sleep(0.001); RETURN OLD; END';
        CREATE TRIGGER slow BEFORE DELETE ON depot.crates
            FOR EACH ROW EXECUTE FUNCTION depot.slow()
        """
    )
    await crates(connection, 8000)
    process = await process_of(depot, "retention")
    await until_sql(connection, "SELECT count(*) < 8000 FROM depot.crates")
    process.kill()
    await process.wait()
    await until_sql(
        connection,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'DELETE%' AND state = 'active' AND pid <> pg_backend_pid()",
    )
    left = len(await keys(connection, "depot.crates"))
    assert 0 < left < 8000
    worker = worker_of(await open_store(depot))
    await worker.retention()
    assert len(await keys(connection, "depot.crates")) == left, "it may still be at it"
    await connection.execute("DROP TRIGGER slow ON depot.crates")
    await time_goes_by(connection, "3 minutes")
    await worker.retention()
    assert await keys(connection, "depot.crates") == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (('table = "depot.visits"', 'table = "depot.nothing"'), "no such table"),
        (('column = "seen_at"', 'column = "gone_at"'), "it has no column 'gone_at'"),
        (('column = "seen_at"', 'column = "id"'), "id is bigint, and must be a time"),
        (
            ('"depot.visits"\ncolumn = "seen_at"', '"depot.yards"\ncolumn = "day"'),
            "remove jobs of depot.errands",
        ),
    ],
)
async def test_attach_refuses_what_can_not_be_kept(
    words: tuple[str, str], why: str, depot: str, connect: Connect, tmp_path: Path
) -> None:
    """Also a table whose rows would take jobs along, at whatever distance."""
    await (await connect(depot)).execute(
        """
        CREATE TABLE depot.yards (id bigint PRIMARY KEY, day date);
        CREATE TABLE depot.ramps (
            id bigint PRIMARY KEY, yard bigint REFERENCES depot.yards ON DELETE CASCADE);
        ALTER TABLE depot.errands ADD ramp bigint REFERENCES depot.ramps ON DELETE CASCADE
        """
    )
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "map.toml"
    text = path.read_text()
    assert words[0] in text
    path.write_text(text.replace(*words))
    with pytest.raises(MapError, match=why):
        await attach(depot, maps.load(str(path)))


async def test_a_big_table_is_read_by_its_index(
    depot: str, connect: Connect, open_store: OpenStore
) -> None:
    """Of 1,000,000 rows, a batch reads those that it removes."""
    connection = await connect(depot)
    await connection.execute(
        """
        INSERT INTO depot.visits
        SELECT n, now() - n * interval '1 minute' FROM generate_series(1, 1000000) n;
        ANALYZE depot.visits
        """
    )
    platform = maps.load(DEPOT)
    (entry,) = [e for e in platform.map.retention if e.subject == "depot.visits"]
    plan = await retention.plan_of(connection, platform, entry)
    pick = retention.pick_of(plan, plan.ages[0])
    lines = await connection.fetch(
        f"EXPLAIN ANALYZE {pick.replace('$1', '$$1 year$$').replace('$2', '$${}$$')}"
    )
    shown = "\n".join(line[0] for line in lines)
    assert "Index Scan using visits_seen" in shown, shown
    assert "Seq Scan" not in shown
    done = await remove(await open_store(depot), "depot.visits", most=3000)
    assert (done.removed, done.whole) == (3000, False)
