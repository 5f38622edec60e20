"""Made ready again: which run a row belongs to decides whether a provider is paid once more."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.platform_samples import project
from tests.database.support import (
    SUPPORTED,
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_videos,
    new_keys,
    queued,
    set_status,
)

JOBS = "public.generation_jobs"


async def submit(connection: Any, key: str, run: int, state: str, *, delivered: bool) -> None:
    """A call of an earlier claim, as the ledger remembers it."""
    await connection.execute(
        "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
        " account, model, state, estimate_cents, delivered_at)"
        " VALUES ('generation_jobs', $1, $2, 'main', 'replicate', 1, 'replicate', 'main', 'm', $3,"
        " 10, CASE WHEN $4 THEN now() END)",
        key,
        run,
        state,
        delivered,
    )


@pytest.mark.parametrize("finish", ["succeed", "fail", "cancel"])
async def test_a_finished_row_made_ready_runs_again_as_a_new_run(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, finish: str
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    assert await getattr(hand, finish)(await hand.take()) == {key: "settled"}
    await submit(admin, key, 1, "finished", delivered=True)
    await set_status(connection, key, "queued")
    (work,) = await hand.take()
    assert (work.key, work.claimed.run) == (key, 2)


@pytest.mark.parametrize(
    ("state", "delivered", "run"),
    [
        ("intent", False, 1),
        ("accepted", False, 1),
        ("unknown", False, 1),
        ("finished", True, 2),
        ("finished", False, 2),  # whoever asks again for a finished row wants new work
        ("failed", False, 2),
        ("cancelled", False, 2),
        ("written_off", False, 2),
    ],
)
async def test_a_call_in_flight_keeps_its_run(  # noqa: PLR0917 - fixtures and one case
    photomemory: str,
    connect: Connect,
    open_store: OpenStore,
    producer: Producer,
    state: str,
    delivered: bool,
    run: int,
) -> None:
    """The row resumes what it already pays for, instead of paying for another."""
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    await hand.fail(await hand.take())
    await submit(admin, key, 1, state, delivered=delivered)
    await set_status(connection, key, "queued")
    assert (await queued(admin))[key]["run"] == run


async def test_a_row_inserted_again_under_its_key_resumes_an_undelivered_result(
    photomemory: str, connect: Connect, producer: Producer
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    (key,) = await add_videos(connection)
    await submit(admin, key, 3, "finished", delivered=False)
    async with connection.transaction():
        kept = await connection.fetchrow(f"DELETE FROM {JOBS} WHERE id = $1 RETURNING *", key)
        await connection.execute(
            f"INSERT INTO {JOBS} (id, project_id, user_id, generation_service)"
            " VALUES ($1, $2, $3, $4)",
            *(kept[name] for name in ("id", "project_id", "user_id", "generation_service")),
        )
    assert (await queued(admin))[key]["run"] == 3


async def test_made_ready_while_it_runs_voids_the_claim(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection)
    works = await hand.take()
    await set_status(connection, key, "queued")
    row = (await queued(admin))[key]
    assert (row["state"], row["token"], row["worker"], row["run"]) == ("ready", None, None, 1)
    assert await hand.succeed(works) == {key: "lost"}
    assert await admin.fetchval("SELECT count(*) FROM public.usage_records") == 0
    again = await hand.take()
    assert await hand.succeed(again) == {key: "settled"}
    assert await admin.fetchval(f"SELECT status FROM {JOBS}") == "completed"


async def test_made_ready_together_with_other_changes_uses_the_new_values(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,) = await add_videos(connection, priority=2)
    await hand.fail(await hand.take())
    async with connection.transaction():
        await connection.execute(
            f"UPDATE {JOBS} SET priority = 9, retry_count = 0, error_message = NULL WHERE id = $1",
            key,
        )
        await connection.execute(
            f"UPDATE {JOBS} SET status = 'queued', generation_service = 'runway' WHERE id = $1", key
        )
        await connection.execute(
            "UPDATE public.video_projects SET ai_prompt = 'another' WHERE id = $1", project(4)
        )
        assert await queued(admin) == {}
    row = (await queued(admin))[key]
    assert (row["rank"], row["lane"], row["state"]) == (18 + SUPPORTED, "runway", "ready")


async def test_back_and_forth_in_one_transaction_leaves_one_queue_row(
    photomemory: str, connect: Connect, producer: Producer
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    async with connection.transaction():
        (key,) = await add_videos(connection)
        for status in ("cancelled", "queued", "failed", "queued"):
            await set_status(connection, key, status)
    rows = await admin.fetch("SELECT row_key, state FROM rowmill.queue")
    assert [tuple(row) for row in rows] == [(key, "ready")]


@pytest.mark.parametrize("running", [False, True])
async def test_a_new_primary_key_takes_the_job_and_its_calls_along(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, running: bool
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    (key,), (new,) = await add_videos(connection), new_keys(1)
    await submit(admin, key, 1, "accepted", delivered=False)
    works = await hand.take() if running else []
    await connection.execute(f"UPDATE {JOBS} SET id = $2 WHERE id = $1", key, new)
    if running:
        # What runs was started under a key that is gone; it starts over, and finds its call again.
        assert await hand.succeed(works) == {key: "lost"}
    assert {(r["row_key"], r["state"]) for r in (await queued(admin)).values()} == {(new, "ready")}
    assert await admin.fetchval("SELECT row_key FROM rowmill.submissions") == new
    assert await hand.succeed(await hand.take()) == {new: "settled"}
