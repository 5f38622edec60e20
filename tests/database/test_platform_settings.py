"""The platform's own limit on its table, beside the operators'; and what a closed gate costs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.database.gate import Gate, put_up
from tests.database.support import (
    LANES,
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_texts,
    add_videos,
)
from worker import maps
from worker.store import Store, limits


async def set_limit(connection: Any, value: Any) -> None:
    await connection.execute(
        "UPDATE public.system_settings SET value = $1"
        " WHERE key = 'generation_queue_max_concurrent'",
        json.dumps(value),
    )


async def limited_to(store: Store, hand: Hand) -> int:
    """How many of the many that wait are admitted beside none."""
    await limits.apply(store, maps.load("photomemory"))
    works = await hand.take(50)
    await hand.release(works)
    return len(works)


async def test_the_platforms_setting_limits_its_table_and_is_read_again(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, store = await connect(photomemory, producer), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 10, service="replicate")
    await add_videos(connection, 10, service="runway")
    assert await limited_to(store, hand) == 5  # as the schema has it
    for value, admitted in ((3, 3), ("7", 7), (30, 20)):
        await set_limit(connection, value)
        assert await limited_to(store, hand) == admitted


@pytest.mark.parametrize("value", [0, -3, 2.5, "many", "", [4], {"max": 4}, True, 10**12])
async def test_a_setting_that_is_no_number_of_jobs_is_no_limit(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, value: Any
) -> None:
    connection, store = await connect(photomemory, producer), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 20)
    assert await limited_to(store, hand) == 5
    await set_limit(connection, value)
    assert await limited_to(store, hand) == 20


async def test_the_operators_limit_and_the_platforms_hold_both(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 20)
    await put_up(admin, Gate(source="generation_jobs", most=2))
    assert await limited_to(store, hand) == 2
    await put_up(admin, Gate(source="generation_jobs", most=8))
    assert await limited_to(store, hand) == 5
    await connection.execute("DELETE FROM public.system_settings")
    assert await limited_to(store, hand) == 8


# --------------------------------------------------------------------------- what it costs


async def test_a_paused_lane_full_of_urgent_rows_costs_a_claim_nothing(
    both: str, connect: Connect, producer: Producer, open_store: OpenStore
) -> None:
    """Counted in buffers, not in time: behind the gate there is nothing to read."""
    connection, admin = await connect(both, producer), await connect(both)
    hand = await Hand.hire(await open_store(both))
    await add_texts(connection, 2000)
    await put_up(admin, Gate("replicate", paused=True))
    await admin.execute("VACUUM ANALYZE rowmill.queue")
    alone = await buffers(admin, hand)
    await add_videos(connection, 100_000, priority=10)
    await admin.execute("VACUUM ANALYZE rowmill.queue")
    waiting = "SELECT count(*) FROM rowmill.queue WHERE lane = 'replicate'"
    assert await admin.fetchval(waiting) == 100_000
    beside = await buffers(admin, hand)
    assert beside < 1.2 * alone + 60  # the head of the lane, and a deeper index


async def buffers(connection: Any, hand: Hand) -> int:
    """Pages a claim of ten reads, the second time: the first also plans it."""
    for _ in range(2):
        transaction = connection.transaction()
        await transaction.start()
        explained = await connection.fetchval(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
            f" SELECT * FROM rowmill.claim({hand.id}, 1, '{{{','.join(LANES)}}}', 10)"
        )
        await transaction.rollback()
    plan = json.loads(explained)[0]["Plan"]
    assert plan["Actual Rows"] == 10
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
