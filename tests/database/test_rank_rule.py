"""The rank rule: a bonus by the platform's own data, that never costs a producer its INSERT."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.database.platform_samples import NewDatabase
from tests.database.studio import built, written
from tests.database.support import Connect, OpenStore, Producer, add, queued
from worker.store.attaching import attach

RANK = """
SELECT s.id AS key, studio.bonus AS bonus
FROM public.shoots AS s
JOIN public.studios AS studio ON studio.id = s.studio_id
WHERE s.id = ANY (rowmill_keys);
"""
PARTITIONED = """
ALTER TABLE public.shoots RENAME TO old_shoots;
CREATE TABLE public.shoots (LIKE public.old_shoots INCLUDING DEFAULTS, PRIMARY KEY (id, what))
    PARTITION BY LIST (what);
CREATE TABLE public.shoots_all PARTITION OF public.shoots DEFAULT;
"""


async def ranks(connection: Any, *keys: str) -> list[int]:
    rows = await queued(connection, *keys)
    return [rows[key]["rank"] for key in keys]


@pytest.mark.parametrize("partitioned", [False, True])
async def test_each_row_has_its_own(
    partitioned: bool,
    new_database: NewDatabase,
    connect: Connect,
    producer: Producer,
    tmp_path: Path,
) -> None:
    """Added to the map's priority, between 1 and 20; by a producer without a right on rowmill."""
    platform = written(tmp_path, shoots__rank=RANK)
    dsn = await built(await new_database(), platform)
    superuser = await connect(dsn)
    if partitioned:
        await superuser.execute(PARTITIONED)
        await attach(dsn, platform)
    connection = await connect(dsn, producer)
    keys = [
        (await add(connection, "public.studios", bonus=n))[0] for n in (0, 4, -4, 10**9, -(10**9))
    ]
    jobs = [(await add(connection, "public.shoots", studio_id=k, urgency=1))[0] for k in keys]
    (nowhere,) = await add(connection, "public.shoots")
    assert await ranks(superuser, *jobs, nowhere) == [11, 15, 7, 20, 1, 10]


@pytest.mark.parametrize("type_", ["numeric", "double precision"])
async def test_a_bonus_of_another_number_type(
    type_: str, new_database: NewDatabase, connect: Connect, tmp_path: Path
) -> None:
    """Rounded, as attach tried it: what is no integer mustn't fail the producer's own statement."""
    dsn = await built(await new_database(), written(tmp_path, shoots__rank=RANK))
    connection = await connect(dsn)
    await connection.execute(f"ALTER TABLE public.studios ALTER bonus TYPE {type_}")
    bonuses = ("1.6", "-0.2", "NaN", "Infinity")
    places = [
        await connection.fetchval(
            f"INSERT INTO public.studios (bonus) VALUES ('{bonus}') RETURNING id"
        )
        for bonus in bonuses
    ]
    jobs = [(await add(connection, "public.shoots", studio_id=place))[0] for place in places]
    assert await ranks(connection, *jobs) == [12, 10, 20, 20]


async def test_who_alters_a_table_of_the_rule_keeps_no_producer_waiting(
    new_database: NewDatabase, connect: Connect, tmp_path: Path
) -> None:
    rule = "SELECT k AS key, g.bonus FROM unnest(rowmill_keys) k, public.generous g;"
    platform = written(tmp_path)
    dsn = await built(await new_database(), platform)
    connection, other = await connect(dsn), await connect(dsn)
    await connection.execute("CREATE TABLE public.generous AS SELECT 3 AS bonus")
    await attach(dsn, written(tmp_path, shoots__rank=rule))
    (before,) = await add(connection, "public.shoots")
    async with other.transaction():
        await other.execute("LOCK TABLE public.generous IN ACCESS EXCLUSIVE MODE")
        (key,) = await asyncio.wait_for(add(connection, "public.shoots"), 5)
    assert await ranks(connection, before, key) == [13, 10]


async def test_a_change_and_the_sweep(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    dsn = await built(await new_database(), written(tmp_path, shoots__rank=RANK))
    connection, store = await connect(dsn), await open_store(dsn)
    (place,) = await add(connection, "public.studios", bonus=3)
    (key,) = await add(connection, "public.shoots", studio_id=place)
    await connection.execute("UPDATE public.studios SET bonus = 5")
    assert await ranks(connection, key) == [13]  # as it was queued
    await connection.execute("UPDATE public.shoots SET urgency = 2")
    assert await ranks(connection, key) == [17]
    await connection.execute("DELETE FROM rowmill.queue")
    assert await store.sweep("shoots") == 1
    assert await ranks(connection, key) == [17]
    await connection.execute("UPDATE public.shoots SET state = 'done'")
    await connection.execute("UPDATE public.studios SET bonus = -1")
    await connection.execute("UPDATE public.shoots SET state = 'new'")
    assert await ranks(connection, key) == [11]


@pytest.mark.parametrize(
    "breaks",
    [
        "DROP TABLE public.studios CASCADE",
        "ALTER TABLE public.studios ALTER bonus TYPE text USING 'much'",
        "ALTER TABLE public.studios RENAME COLUMN bonus TO extra",
    ],
)
async def test_a_rule_that_fails_costs_only_the_bonus(
    breaks: str, new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    dsn = await built(await new_database(), written(tmp_path, shoots__rank=RANK))
    connection, store = await connect(dsn), await open_store(dsn)
    (place,) = await add(connection, "public.studios", bonus=3)
    (first,) = await add(connection, "public.shoots", studio_id=place)
    await connection.execute(breaks)
    (key,) = await add(connection, "public.shoots", studio_id=place)
    assert await ranks(connection, key) == [10]
    await connection.execute("UPDATE public.shoots SET urgency = 2")
    assert await ranks(connection, first, key) == [12, 12]
    await connection.execute("DELETE FROM rowmill.queue")
    assert await store.sweep("shoots") == 2
    assert await ranks(connection, first, key) == [12, 12]


async def test_many_at_once(new_database: NewDatabase, connect: Connect, tmp_path: Path) -> None:
    """A rule with an index behind it doesn't make a bulk INSERT another one: nothing is squared."""
    dsn = await built(await new_database(), written(tmp_path, shoots__rank=RANK))
    connection = await connect(dsn)
    (place,) = await add(connection, "public.studios", bonus=3)
    few, many = [await rows_read(connection, place, count) for count in (200, 2000)]
    assert few > 0
    assert many <= 11 * few
    assert await connection.fetchval("SELECT count(*) FROM rowmill.queue WHERE rank = 13") == 2200


async def rows_read(connection: Any, place: str, count: int) -> int:
    """How many rows of any table were read for an INSERT of so many."""
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO public.shoots (studio_id) SELECT $1 FROM generate_series(1, $2::integer)",
            place,
            count,
        )
        read: int = await connection.fetchval(
            "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
        )
    return read
