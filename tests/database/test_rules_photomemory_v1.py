"""PhotoMemory v1 through the whole engine: CHECKs, repeats, storage, estimates, projects."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.database.platform_samples import v1_project, v1_user
from tests.database.settling import Desk, like, settlement, until
from tests.database.support import Connect, Hand, OpenStore, Work, add_v1_videos, queued
from worker.store import Refused
from worker.transitions import Settlement

CHECKS = """
SELECT conname FROM pg_constraint
 WHERE contype = 'c' AND conrelid = ANY ($1::text[]::regclass[])
"""
WRITTEN = ["public.generated_videos", "public.media_items", "public.usage_records"]
SIZE = 120_000
"""Of the file that a hand makes."""


def with_file(work: Work, **changes: Any) -> Settlement:
    good = settlement(work)
    return like(work, outputs=({**good.outputs[0], **changes},))


SPOILED: dict[str, Callable[[Work], Settlement]] = {
    "status_consistency": lambda w: like(w, outputs=(), media_id=None),
    "valid_file_type": lambda w: with_file(w, file_type="audio"),
    "valid_file_size": lambda w: with_file(w, size=0),
    "valid_image_mime": lambda w: with_file(w, file_type="image", mime_type="image/gif"),
}
BY_PROGRESS = {"valid_progress"}
NEVER_WRITTEN = {"valid_duration", "positive_amount", "valid_unit"}
"""What the rule files can't break: a constant, or a value they bound themselves."""


async def row(connection: Any, key: str) -> Any:
    return await connection.fetchrow(
        "SELECT *, status::text AS status FROM public.generated_videos WHERE id = $1", key
    )


async def effects(connection: Any, key: str) -> tuple[list[Any], list[Any]]:
    """Its files, and what was used as (type, amount)."""
    by_video = "metadata ->> 'generated_video_id' = $1"
    files = await connection.fetch(f"SELECT * FROM public.media_items WHERE {by_video}", key)
    used = await connection.fetch(
        f"SELECT resource_type, amount FROM public.usage_records WHERE {by_video} ORDER BY amount",
        key,
    )
    return list(files), [tuple(record) for record in used]


async def stored(connection: Any, number: int = 4) -> int:
    total: int = await connection.fetchval(
        "SELECT total_storage_bytes FROM public.users WHERE id = $1", v1_user(number)
    )
    return total


async def project_of(connection: Any, number: int = 4) -> str:
    status = await connection.fetchval(
        "SELECT status::text FROM public.video_projects WHERE id = $1", v1_project(number)
    )
    return str(status)


# --------------------------------------------------------------------------- checks


async def test_every_check_of_the_written_tables_is_accounted_for(
    photomemory_v1: str, connect: Connect
) -> None:
    rows = await (await connect(photomemory_v1)).fetch(CHECKS, WRITTEN)
    assert {r["conname"] for r in rows} == set(SPOILED) | BY_PROGRESS | NEVER_WRITTEN


@pytest.mark.parametrize("check", SPOILED)
async def test_a_result_that_breaks_a_check_is_held(
    check: str, photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    store = await open_store(photomemory_v1)
    hand, desk = await Hand.hire(store), Desk(store)
    bad, good = await add_v1_videos(connection, 2)
    before = await stored(connection)
    works = {w.key: w for w in await hand.take(2)}
    await desk.step(SPOILED[check](works[bad]), settlement(works[good]))
    waiting = (await queued(connection))[bad]
    assert waiting["state"] == "held"
    assert f'violates check constraint "{check}"' in waiting["note"]
    assert (await row(connection, bad))["status"] == "processing"
    assert await effects(connection, bad) == ([], [])
    assert (await row(connection, good))["status"] == "completed"
    assert await stored(connection) == before + SIZE


async def test_progress_beyond_its_check_is_refused(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    store = await open_store(photomemory_v1)
    hand = await Hand.hire(store)
    (key,) = await add_v1_videos(connection)
    (work,) = await hand.take()
    with pytest.raises(Refused, match="valid_progress"):
        await store.progress("generated_videos", [entry(work, 101)])
    assert (await row(connection, key))["progress_percentage"] == 0


def entry(work: Work, progress: int, **more: Any) -> dict[str, Any]:
    claim = {"queue_id": work.queue_id, "token": work.token, "key": work.key}
    return {**claim, "progress": progress, **more}


# --------------------------------------------------------------------------- a video's life


async def test_a_success_has_all_its_effects(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    hand = await Hand.hire(await open_store(photomemory_v1))
    (key,) = await add_v1_videos(connection)
    before = await stored(connection)
    waiting = (await queued(connection))[key]
    assert (waiting["lane"], waiting["rank"]) == ("replicate", 10)
    assert waiting["tenant"] == v1_user(4)
    (work,) = await hand.take()
    assert (work.started.kind, work.started.max_retries) == ("media:video", 3)
    running = await row(connection, key)
    assert (running["status"], running["started_at"] is not None) == ("processing", True)
    assert await hand.succeed([work]) == {key: "settled"}
    video = await row(connection, key)
    assert (video["status"], video["progress_percentage"]) == ("completed", 100)
    assert video["file_url"].endswith(f"{key}-1.mp4")
    assert (video["duration_seconds"], video["file_size_bytes"]) == (2, SIZE)
    assert video["external_generation_id"] == f"task-{key}"
    assert video["started_at"] <= video["completed_at"]
    files, used = await effects(connection, key)
    assert [(str(f["user_id"]), f["file_size_bytes"]) for f in files] == [(v1_user(4), SIZE)]
    assert used == [("video_generation", 1), ("storage_bytes", SIZE)]
    assert await stored(connection) == before + SIZE
    assert await queued(connection) == {}


async def test_a_repeat_after_a_lost_answer_changes_nothing(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    hand = await Hand.hire(await open_store(photomemory_v1))
    (key,) = await add_v1_videos(connection)
    (work,) = await hand.take()
    assert await hand.succeed([work]) == {key: "settled"}
    before = (await effects(connection, key), await stored(connection))
    assert await hand.succeed([work]) == {key: "lost"}
    assert (await effects(connection, key), await stored(connection)) == before


async def test_the_same_file_again_is_no_second_one(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    """Someone wanted it anew, and what was made has the same place in the storage."""
    connection = await connect(photomemory_v1)
    hand = await Hand.hire(await open_store(photomemory_v1))
    (key,) = await add_v1_videos(connection)
    before = await stored(connection)
    (work,) = await hand.take()
    first = settlement(work)
    await hand.write([first])
    again = "UPDATE public.generated_videos SET status = 'queued' WHERE id = $1"
    await connection.execute(again, key)
    (work,) = await hand.take()
    larger = {**first.outputs[0], "size": SIZE + 1}
    assert await hand.write([like(work, outputs=(larger,), media_id=first.media_id)]) == {
        key: "settled"
    }
    files, _ = await effects(connection, key)
    assert [file["file_size_bytes"] for file in files] == [SIZE + 1]
    assert await stored(connection) == before + SIZE + 1


async def test_only_a_success_leaves_anything(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    hand = await Hand.hire(await open_store(photomemory_v1))
    before = await stored(connection)
    await add_v1_videos(connection, 6)
    works = await hand.take(6)
    verbs = (hand.fail, hand.retry, hand.yield_, hand.hold, hand.cancel, hand.release)
    for finish, work in zip(verbs, works, strict=True):
        assert await finish([work]) == {work.key: "settled"}
        assert await effects(connection, work.key) == ([], [])
    assert await stored(connection) == before


async def test_tries_are_counted_without_a_column(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    hand = await Hand.hire(await open_store(photomemory_v1))
    (key,) = await add_v1_videos(connection)
    for _ in range(3):
        await hand.retry(await hand.take())
        assert (await row(connection, key))["status"] == "queued"
    await hand.retry(await hand.take())
    video = await row(connection, key)
    assert (video["status"], video["error_message"]) == ("failed", "it broke")
    assert await project_of(connection) == "failed"


# --------------------------------------------------------------------------- estimates


async def made_in(connection: Any, minutes: int) -> None:
    await connection.execute(
        "INSERT INTO public.generated_videos (project_id, ai_prompt, generation_service, status,"
        " file_url, started_at, completed_at) SELECT $1, 'a', 'replicate', 'completed', 'u',"
        " now() - $2::interval, now()",
        v1_project(2),
        timedelta(minutes=minutes),
    )


async def left(connection: Any, key: str) -> float | None:
    """Minutes until it is thought to be there."""
    found = await connection.fetchval(
        "SELECT estimated_completion_at - clock_timestamp() FROM public.generated_videos"
        " WHERE id = $1",
        key,
    )
    return None if found is None else found.total_seconds() / 60


async def test_an_estimate_through_a_videos_life(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    store = await open_store(photomemory_v1)
    hand = await Hand.hire(store)
    await made_in(connection, 10)
    (key,) = await add_v1_videos(connection)
    assert await left(connection, key) is None
    (work,) = await hand.take()
    assert await left(connection, key) == pytest.approx(10, abs=0.5)
    await store.progress("generated_videos", [entry(work, 0, external_id="task")])
    assert await left(connection, key) == pytest.approx(10, abs=0.5)
    await store.progress("generated_videos", [entry(work, 80)])
    assert await left(connection, key) == pytest.approx(2, abs=0.5)
    for again in (hand.retry, hand.yield_, hand.release):
        await again([work])
        assert await left(connection, key) is None
        (work,) = await hand.take()
        assert await left(connection, key) == pytest.approx(10, abs=0.5)
    await hand.succeed([work])
    assert await left(connection, key) is None


@pytest.mark.parametrize("verb", ["fail", "cancel"])
async def test_what_is_over_has_no_estimate(
    verb: str, photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    hand = await Hand.hire(await open_store(photomemory_v1))
    await made_in(connection, 10)
    (key,) = await add_v1_videos(connection)
    works = await hand.take()
    await getattr(hand, verb)(works)
    assert await left(connection, key) is None


async def test_retry_by_an_operator_begins_anew(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    hand = await Hand.hire(await open_store(photomemory_v1))
    (key,) = await add_v1_videos(connection)
    (work,) = await hand.take()
    await hand.store.progress("generated_videos", [entry(work, 50)])
    await hand.fail([work])
    assert await connection.fetchval("SELECT rowmill.retry_generated_videos($1)", key) == "requeued"
    video = await row(connection, key)
    assert (video["status"], video["progress_percentage"]) == ("queued", 0)
    assert (video["started_at"], video["error_message"]) == (None, None)


# --------------------------------------------------------------------------- projects and owners


async def test_two_videos_of_one_project_at_once(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    """By two workers, in one moment, again and again: the later one is the project's."""
    connection = await connect(photomemory_v1)
    hands = [await Hand.hire(await open_store(photomemory_v1)) for _ in range(2)]
    before = await stored(connection)
    for _ in range(8):
        (older,) = await add_v1_videos(connection)
        (newer,) = await add_v1_videos(connection)
        works = {w.key: (hand, w) for hand in hands for w in await hand.take(1)}
        assert set(works) == {older, newer}
        assert await project_of(connection) == "processing"
        desks = []
        for key in (older, newer):
            hand, work = works[key]
            end = like(work, verb="fail", error="late") if key == older else settlement(work)
            desks.append(Desk(hand.store))
            desks[-1].put(end)
        await asyncio.gather(*(desk.until_empty() for desk in desks))
        assert await project_of(connection) == "completed"
    assert await stored(connection) == before + 8 * SIZE


async def test_batches_of_the_same_customers_never_wait_in_a_circle(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    """Each result changes its owner's total, whatever the order of the results is."""
    connection = await connect(photomemory_v1)
    stores = [await open_store(photomemory_v1) for _ in range(2)]
    before = [await stored(connection, n) for n in range(1, 11)]
    for _ in range(10):
        hands = [await Hand.hire(store) for store in stores]
        for owner in [*range(1, 11), *range(10, 0, -1)]:
            await add_v1_videos(connection, of=owner)
        batches = [await hand.take(10) for hand in hands]
        # With the projects' locks alone they would take turns: each has projects of its own.
        await connection.execute(
            "INSERT INTO public.video_projects (id, user_id)"
            " SELECT md5(video.id::text)::uuid, project.user_id"
            "   FROM public.generated_videos video"
            "   JOIN public.video_projects project ON project.id = video.project_id"
            "  WHERE video.status = 'processing'"
        )
        await connection.execute(
            "UPDATE public.generated_videos SET project_id = md5(id::text)::uuid"
            " WHERE status = 'processing'"
        )
        said = await asyncio.gather(
            *(hand.succeed(works) for hand, works in zip(hands, batches, strict=True))
        )
        assert {verdict for each in said for verdict in each.values()} == {"settled"}
    after = [await stored(connection, n) for n in range(1, 11)]
    assert [a - b for a, b in zip(after, before, strict=True)] == [20 * SIZE] * 10


async def test_a_customer_whose_row_is_held_keeps_only_their_own_video_waiting(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, profile = await connect(photomemory_v1), await connect(photomemory_v1)
    store = await open_store(photomemory_v1)
    hand, desk = await Hand.hire(store), Desk(store)
    keys = {n: (await add_v1_videos(connection, of=n))[0] for n in (3, 4, 5)}
    works = await hand.take(3)
    transaction = profile.transaction()
    await transaction.start()
    await profile.execute("UPDATE public.users SET language = 'ko' WHERE id = $1", v1_user(4))
    desk.put(*(settlement(work) for work in works))
    writing = asyncio.create_task(desk.until_empty())
    done = "SELECT count(*) = 2 FROM public.generated_videos WHERE status = 'completed'"
    await until(connection, done)
    assert (await row(connection, keys[4]))["status"] == "processing"
    await transaction.commit()
    await writing
    assert (await row(connection, keys[4]))["status"] == "completed"
    assert set(desk.said.values()) == {"settled"}


async def test_a_project_follows_only_its_latest_video(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    hand = await Hand.hire(await open_store(photomemory_v1))
    (older,) = await add_v1_videos(connection)
    (old,) = await hand.take()
    seen = [await project_of(connection)]
    (newer,) = await add_v1_videos(connection)
    await hand.succeed([old])
    seen.append(await project_of(connection))
    (new,) = await hand.take()
    assert (old.key, new.key) == (older, newer)
    await hand.fail([new])
    seen.append(await project_of(connection))
    assert seen == ["processing", "processing", "failed"]


# --------------------------------------------------------------------------- rights

README = Path(str(files("sql") / "platforms" / "photomemory_v1" / "README.md"))
ROWMILL = """
GRANT USAGE ON SCHEMA rowmill TO {role};
GRANT ALL ON ALL TABLES IN SCHEMA rowmill TO {role};
GRANT ALL ON ALL SEQUENCES IN SCHEMA rowmill TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA rowmill TO {role};
"""


async def test_a_worker_needs_no_more_than_the_readme_says(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory_v1)
    (rights,) = re.findall(r"```sql\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    role, password = f"rowmill_test_{secrets.token_hex(6)}", secrets.token_hex(16)
    await connection.execute(f"CREATE ROLE {role} LOGIN BYPASSRLS PASSWORD '{password}'")
    try:
        await connection.execute(ROWMILL.format(role=role) + rights.replace("rowmill_worker", role))
        dsn = re.sub(r"^(\w+://)([^@/]*@)?", rf"\1{role}:{password}@", photomemory_v1)
        store = await open_store(dsn)
        hand = await Hand.hire(store)
        await made_in(connection, 10)
        keys = await add_v1_videos(connection, 4)
        works = await hand.take(4)
        await store.progress("generated_videos", [entry(work, 30) for work in works])
        assert await hand.fail(works[:1]) == {keys[0]: "settled"}
        assert await hand.retry(works[1:2]) == {keys[1]: "settled"}
        assert await hand.cancel(works[2:3]) == {keys[2]: "settled"}
        assert await hand.succeed(works[3:]) == {keys[3]: "settled"}
        await store.close()
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
