"""What producers do to rows that are there already: cancel, delete, truncate, move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.database.platform_samples import project
from tests.database.support import (
    SUPPORTED,
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_background,
    add_videos,
    heard_so_far,
    listening,
    queued,
    set_status,
)

JOBS = "public.generation_jobs"


async def status_of(connection: Any, key: str) -> str:
    return str(await connection.fetchval(f"SELECT status FROM {JOBS} WHERE id = $1", key))


# --------------------------------------------------------------------------- taken away


async def cancelled(connection: Any, key: str) -> None:
    await set_status(connection, key, "cancelled")


async def taken(connection: Any, key: str) -> None:
    """Someone outside works on it, or says so."""
    await set_status(connection, key, "processing")


async def deleted(connection: Any, key: str) -> None:
    await connection.execute(f"DELETE FROM {JOBS} WHERE id = $1", key)


async def deleted_with_its_project(connection: Any, _key: str) -> None:
    await connection.execute("DELETE FROM public.video_projects WHERE id = $1", project(4))


@pytest.mark.parametrize("away", [cancelled, taken, deleted, deleted_with_its_project])
async def test_a_waiting_row_taken_away_leaves_the_queue(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, away: Any
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    (other,) = await add_videos(connection, of=5)
    await away(connection, key)
    assert list(await queued(admin)) == [other]
    assert [c.key for c in await hand.claim(10)] == [other]


@pytest.mark.parametrize("away", [cancelled, deleted, deleted_with_its_project])
async def test_a_claimed_row_taken_away_tells_its_worker_and_does_not_start(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, away: Any
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    claims = await hand.claim()
    async with listening(await connect(photomemory), hand.channel) as heard:
        await away(connection, key)
        said = await heard_so_far(heard, hand.channel, admin)
    assert said == [f"lost {claims[0].queue_id}"]
    assert await queued(admin) == {}
    assert await hand.start(claims) == []


@pytest.mark.parametrize("away", [cancelled, deleted, deleted_with_its_project])
async def test_a_running_row_taken_away_tells_its_worker_and_keeps_the_change(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, away: Any
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    works = await hand.take()
    async with listening(await connect(photomemory), hand.channel) as heard:
        await away(connection, key)
        said = await heard_so_far(heard, hand.channel, admin)
    assert said == [f"lost {works[0].queue_id}"]
    assert await hand.succeed(works) == {key: "lost"}
    left = await admin.fetch(f"SELECT status FROM {JOBS}")
    assert [row["status"] for row in left] in ([], ["cancelled"])
    assert await admin.fetchval("SELECT count(*) FROM public.usage_records") == 0


async def test_truncate_empties_the_queue_of_its_table_alone(
    both: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(both, producer), await connect(both)
    hand = await Hand.hire(await open_store(both))
    await add_videos(connection, 3)
    (hook,) = await add_background(connection)
    works = await hand.take(2)
    await connection.execute(f"TRUNCATE {JOBS}, public.usage_records")
    assert list(await queued(admin)) == [hook]
    assert set((await hand.succeed(works)).values()) == {"lost"}


# --------------------------------------------------------------------------- moved


async def test_a_waiting_row_moves_with_its_priority_and_service(
    photomemory: str, connect: Connect, producer: Producer
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    (key,) = await add_videos(connection)
    before = (await queued(admin))[key]
    await connection.execute(
        f"UPDATE {JOBS} SET priority = 10, generation_service = 'Runway' WHERE id = $1", key
    )
    after = (await queued(admin))[key]
    assert (after["rank"], after["lane"]) == (20, "runway")
    assert (after["id"], after["ready_at"]) == (before["id"], before["ready_at"])


async def test_a_schedule_moves_a_waiting_row_there_and_back(
    ebook: str, connect: Connect, producer: Producer
) -> None:
    connection, admin = await connect(ebook, producer), await connect(ebook)
    (key,) = await add_background(connection)
    later = datetime.now(UTC) + timedelta(hours=2)
    for when, state in (
        (later, "scheduled"),
        (later - timedelta(days=1), "ready"),
        (None, "ready"),
    ):
        await connection.execute("UPDATE system.background_jobs SET scheduled_at = $1", when)
        row = (await queued(admin))[key]
        assert row["state"] == state
        assert when is None or row["ready_at"] == when


async def test_a_back_off_is_not_shortened_by_another_priority(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(ebook, producer), await connect(ebook)
    hand = await Hand.hire(await open_store(ebook))
    (key,) = await add_background(connection)
    await hand.retry(await hand.take(), after=600)
    before = (await queued(admin))[key]
    await connection.execute("UPDATE system.background_jobs SET priority = 5")
    after = (await queued(admin))[key]
    assert after["rank"] == 15
    assert (after["state"], after["ready_at"]) == ("scheduled", before["ready_at"])
    assert await hand.claim() == []


async def test_a_running_row_keeps_its_claim_when_it_is_moved(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection = await connect(photomemory, producer)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    works = await hand.take()
    await connection.execute(f"UPDATE {JOBS} SET priority = 10, generation_service = 'runway'")
    assert await hand.succeed(works) == {key: "settled"}


# --------------------------------------------------------------------------- nothing to us


async def test_our_own_changes_do_not_come_back(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    """From anyone else 'processing' takes a row away, and 'queued' makes it ready."""
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    works = await hand.take()
    row = (await queued(admin))[key]
    assert (row["state"], row["token"]) == ("claimed", works[0].token)
    await hand.retry(works, after=600)
    row = (await queued(admin))[key]
    assert (row["state"], row["run"], row["tries"]) == ("scheduled", 1, 1)
    assert await status_of(admin, key) == "queued"


async def test_a_change_of_other_columns_does_not_touch_the_queue(
    photomemory: str, connect: Connect, producer: Producer
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    (key,) = await add_videos(connection)
    version = "SELECT xmin::text FROM rowmill.queue WHERE row_key = $1"
    before = await admin.fetchval(version, key)
    await connection.execute(f"UPDATE {JOBS} SET estimated_duration_seconds = 7, status = status")
    assert await admin.fetchval(version, key) == before


# --------------------------------------------------------------------------- triggers off


async def test_rows_that_missed_their_trigger_are_swept_in(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    admin, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    async with admin.transaction():
        await admin.execute("SET LOCAL session_replication_role = replica")
        restored = await add_videos(admin, 3, priority=7)
    await admin.execute(f"ALTER TABLE {JOBS} DISABLE TRIGGER rowmill_enqueue")
    producing = await connect(photomemory, producer)
    unseen = await add_videos(producing, 2, priority=3)
    await admin.execute(f"ALTER TABLE {JOBS} ENABLE TRIGGER rowmill_enqueue")
    seen = await add_videos(producing, priority=5)
    assert list(await queued(admin)) == seen
    assert await store.sweep("generation_jobs") == 5
    assert await store.sweep("generation_jobs") == 0
    assert {c.key: c.rank for c in await hand.claim(10)} == {
        **dict.fromkeys(restored, 14 + SUPPORTED),
        **dict.fromkeys(seen, 10 + SUPPORTED),
        **dict.fromkeys(unseen, 6 + SUPPORTED),
    }


async def test_a_sweep_leaves_running_and_finished_rows_alone(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    admin, store = await connect(photomemory), await open_store(photomemory)
    async with admin.transaction():
        await admin.execute("SET LOCAL session_replication_role = replica")
        for status in ("processing", "failed", "cancelled"):
            await add_videos(admin, status=status)
    assert await store.sweep("generation_jobs") == 0
    assert await queued(admin) == {}


async def test_a_deletion_unseen_by_triggers_leaves_the_queue_at_its_start(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    admin = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    await add_videos(await connect(photomemory, producer), 2)
    async with admin.transaction():
        await admin.execute("SET LOCAL session_replication_role = replica")
        await admin.execute(f"DELETE FROM {JOBS}")
    verdicts = await hand.verdicts(await hand.claim(10))
    assert [started.verdict for started in verdicts.values()] == ["gone", "gone"]
    assert await queued(admin) == {}


async def test_a_running_row_whose_service_changes_moves_when_it_comes_back(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Until then it counts in the lane that admitted it: no limit of another is exceeded."""
    connection = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection, service="replicate")
    works = await hand.take()
    await connection.execute(
        "UPDATE public.generation_jobs SET generation_service = 'runway' WHERE id = $1", key
    )
    assert (await queued(connection, key))[key]["lane"] == "replicate"
    await hand.retry(works)
    assert (await queued(connection, key))[key]["lane"] == "runway"
