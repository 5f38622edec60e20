"""A platform that differs in all an adopter's may: partitions, words, local times, attempts."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.database.platform_samples import CloneDatabase, run
from tests.database.support import Connect, Hand, OpenStore, queued
from worker import maps
from worker.store.attaching import attach
from worker.store.migrations import migrate

HERE = Path(__file__).parent / "data" / "warehouse"
LANES = ("post", "air", "shelf")


async def build(dsn: str) -> None:
    await migrate(dsn)
    await run(dsn, (HERE / "schema.sql").read_text(encoding="utf-8"))
    await attach(dsn, maps.load(str(HERE / "map.toml")))


@pytest.fixture
async def warehouse(clone_database: CloneDatabase) -> str:
    return await clone_database("warehouse", build)


async def waiting(connection: Any) -> dict[str, tuple[str, int, str]]:
    return {k: (r["lane"], r["rank"], r["state"]) for k, r in (await queued(connection)).items()}


@pytest.mark.parametrize("table", ["parcels", "parcels_january"])
async def test_inserts_through_the_parent_and_into_a_leaf(
    warehouse: str, connect: Connect, table: str
) -> None:
    admin = await connect(warehouse)
    await admin.execute(
        f"INSERT INTO warehouse.{table} (id, carrier, urgency) VALUES"
        " (1, 'AIR', 'express'), (2, NULL, 'slow'), (3, '', 'whenever'), (4, 'air', NULL)"
    )
    assert await waiting(admin) == {
        "1": ("air", 18, "ready"),
        "2": ("post", 3, "ready"),
        "3": ("post", 7, "ready"),
        "4": ("air", 7, "ready"),
    }


@pytest.mark.parametrize("table", ["parcels", "parcels_march"])
async def test_a_partition_made_after_attaching_is_attached_too(
    warehouse: str, connect: Connect, table: str
) -> None:
    admin = await connect(warehouse)
    await admin.execute(
        "CREATE TABLE warehouse.parcels_march (LIKE warehouse.parcels INCLUDING ALL);"
        "ALTER TABLE warehouse.parcels ATTACH PARTITION warehouse.parcels_march"
        " FOR VALUES FROM ('2030-03-01') TO ('2030-04-01')"
    )
    await admin.execute(
        f"INSERT INTO warehouse.{table} (id, packed_on) SELECT n, '2030-03-09'"
        " FROM generate_series(1, 3) n"
    )
    await admin.execute(f"UPDATE warehouse.{table} SET state = 'void' WHERE id = 1")
    await admin.execute(f"DELETE FROM warehouse.{table} WHERE id = 2")
    assert list(await queued(admin)) == ["3"]


async def test_copy_into_a_leaf_and_truncate_of_the_whole(warehouse: str, connect: Connect) -> None:
    admin = await connect(warehouse)
    await admin.copy_records_to_table(
        "parcels_january", schema_name="warehouse", columns=["id"], records=[(1,), (2,)]
    )
    assert list(await queued(admin)) == ["1", "2"]
    await admin.execute("TRUNCATE warehouse.parcels")
    assert await queued(admin) == {}


async def test_a_time_without_a_zone_is_the_platforms(warehouse: str, connect: Connect) -> None:
    admin = await connect(warehouse)
    await admin.execute("SET timezone = 'Asia/Tokyo'")
    await admin.execute("INSERT INTO warehouse.parcels (id, due) VALUES (1, '2999-07-01 12:00')")
    row = (await queued(admin))["1"]
    assert row["ready_at"] == datetime(2999, 7, 1, 16, tzinfo=UTC)


@pytest.mark.parametrize(
    ("due", "state"),
    [
        ("294276-12-31 23:59:59", "scheduled"),  # its zone would carry it past the end of time
        ("infinity", "scheduled"),
        ("4714-11-24 00:00:00 BC", "ready"),
        ("-infinity", "ready"),
    ],
)
async def test_no_local_time_fails_its_producer(
    warehouse: str, connect: Connect, due: str, state: str
) -> None:
    admin = await connect(warehouse)
    await admin.execute(f"INSERT INTO warehouse.parcels (id, due) VALUES (1, '{due}')")
    await admin.execute("UPDATE warehouse.parcels SET urgency = 'express'")
    assert (await queued(admin))["1"]["state"] == state


async def test_a_lane_of_any_length_fails_no_producer(warehouse: str, connect: Connect) -> None:
    """Longer than an index entry can be, and nothing that compresses."""
    admin = await connect(warehouse)
    carrier = secrets.token_hex(8000)
    await admin.execute("INSERT INTO warehouse.parcels (id, carrier) VALUES (1, $1)", carrier)
    (lane,) = [row["lane"] for row in (await queued(admin)).values()]
    assert carrier.startswith(lane)
    await admin.execute("UPDATE warehouse.parcels SET carrier = $1", carrier[::-1])
    (moved,) = [row["lane"] for row in (await queued(admin)).values()]
    assert carrier[::-1].startswith(moved)


async def test_attempts_are_counted_at_the_start_and_given_back_by_a_yield(
    warehouse: str, connect: Connect, open_store: OpenStore
) -> None:
    admin = await connect(warehouse)
    hand = await Hand.hire(await open_store(warehouse), LANES)
    await admin.execute("INSERT INTO warehouse.parcels (id) VALUES (1)")
    seen = []
    for go_back in (hand.yield_, hand.retry, hand.release, hand.retry, hand.fail):
        works = await hand.take()
        attempts = await admin.fetchval("SELECT attempts FROM warehouse.parcels")
        seen.append((attempts, works[0].started.tries, works[0].started.max_retries))
        assert await go_back(works) == {"1": "settled"}
    assert seen == [(1, 0, 2), (1, 0, 2), (2, 1, 2), (2, 1, 2), (3, 2, 2)]
    assert await admin.fetchval("SELECT state FROM warehouse.parcels") == "lost"


async def test_from_one_ready_word_to_the_other_it_stays_one_job(
    warehouse: str, connect: Connect
) -> None:
    admin = await connect(warehouse)
    await admin.execute("INSERT INTO warehouse.parcels (id) VALUES (1)")
    await admin.execute("UPDATE warehouse.parcels SET state = 'again'")
    assert await waiting(admin) == {"1": ("post", 7, "ready")}


async def test_a_row_that_changes_its_partition_while_it_runs_keeps_its_job(
    warehouse: str, connect: Connect, open_store: OpenStore
) -> None:
    """Postgres makes such an UPDATE a DELETE here and an INSERT there, triggers included."""
    admin = await connect(warehouse)
    hand = await Hand.hire(await open_store(warehouse), LANES)
    await admin.execute("INSERT INTO warehouse.shelves SELECT generate_series(1, 2)")
    works = await hand.take(2)
    assert await hand.retry(works[:1]) == {"1": "settled"}
    assert await hand.succeed(works[1:]) == {"2": "settled"}
    assert await hand.succeed(await hand.take(2)) == {"1": "settled"}
    assert await queued(admin) == {}
    states = await admin.fetch("SELECT id, state FROM warehouse.shelves ORDER BY id")
    assert [tuple(row) for row in states] == [(1, "done"), (2, "done")]


async def test_a_producer_that_moves_a_row_between_partitions_re_enqueues_it(
    warehouse: str, connect: Connect, open_store: OpenStore
) -> None:
    admin = await connect(warehouse)
    hand = await Hand.hire(await open_store(warehouse), LANES)
    await admin.execute("INSERT INTO warehouse.shelves VALUES (1)")
    assert await hand.fail(await hand.take()) == {"1": "settled"}
    await admin.execute("UPDATE warehouse.shelves SET state = 'new'")
    assert await waiting(admin) == {"1": ("shelf", 10, "ready")}
    await admin.execute("UPDATE warehouse.shelves SET state = 'broken'")
    assert await queued(admin) == {}
