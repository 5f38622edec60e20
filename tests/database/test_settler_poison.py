"""One bad result in a batch: it is held or fails alone, and what was paid for is kept."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import Failed, Succeeded
from tests.database.platform_samples import project
from tests.database.settling import (
    POLICY,
    Desk,
    half_effects,
    like,
    media_of,
    settlement,
    video,
)
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    Work,
    add_texts,
    add_videos,
    failure,
    queued,
)
from worker.transitions import Settlement, settle

# --------------------------------------------------------------------------- one bad row in 200

BOOM = """
CREATE FUNCTION public.boom() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.file_key LIKE '%boom%' THEN RAISE EXCEPTION 'no booms here'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER boom BEFORE INSERT ON public.media_files FOR EACH ROW EXECUTE FUNCTION public.boom();
"""


def changed(work: Work, **changes: Any) -> Settlement:
    good = settlement(work)
    return like(work, outputs=({**good.outputs[0], **changes},))


POISON: dict[str, tuple[Callable[[Work], Settlement], str]] = {
    "a CHECK": (lambda w: changed(w, width=0), "valid_dimensions"),
    "another CHECK": (lambda w: changed(w, size=0), "positive_file_size"),
    "too long": (lambda w: changed(w, mime_type="m" * 101), "value too long"),
    "a foreign key": (lambda w: changed(w, role="thumbnail"), "output_file_id_fkey"),
    "no output": (lambda w: like(w, outputs=(), media_id=None), "status_consistency"),
    "a trigger": (lambda w: changed(w, key="boom.mp4"), "no booms here"),
    "an overflow": (lambda w: like(w, cost_cents=Decimal(10) ** 12), "out of range"),
    "an overflow while reading": (lambda w: like(w, duration_ms=2**40), "out of range"),
    "a number that is none": (lambda w: like(w, metadata={"n": float("nan")}), "invalid input"),
}


@pytest.mark.parametrize("name", POISON)
async def test_a_paid_result_that_is_refused_is_held_and_199_commit(
    name: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    spoil, why = POISON[name]
    connection = await connect(photomemory)
    await connection.execute(BOOM)
    store = await open_store(photomemory)
    hand, desk = await Hand.hire(store), Desk(store)
    await add_videos(connection, 200, of=8)
    works = await hand.take(200)
    bad = works[77]
    batch = [spoil(w) if w is bad else settlement(w) for w in works]
    assert await desk.step(*batch) == 200

    assert desk.said == dict.fromkeys([w.key for w in works], "settled")
    ((key, row),) = (await queued(connection)).items()
    assert (key, row["state"]) == (bad.key, "held")
    assert row["note"].startswith("the database refused the result: ")
    assert why in row["note"]
    job = await video(connection, bad.key)
    assert (job["status"], job["retry_count"]) == ("processing", 0)
    assert await media_of(connection, bad.key) == []
    assert await half_effects(connection) == []


async def test_an_unpaid_result_that_is_refused_fails(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    store = await open_store(ebook)
    hand, desk = await Hand.hire(store), Desk(store)
    await add_texts(connection, 200)
    works = await hand.take(200)
    bad = works[0]
    free = Succeeded(text="Rows.", tokens=2**31)
    await desk.step(*[settlement(w, free if w is bad else None) for w in works])
    rows = await connection.fetch(
        "SELECT id, status, error_message FROM ai_processing.ai_generations"
    )
    failed = {str(r["id"]): r["error_message"] for r in rows if r["status"] != "completed"}
    assert list(failed) == [bad.key]
    assert "out of range" in failed[bad.key]
    assert await queued(connection) == {}


async def test_ten_bad_rows_in_one_batch(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand, desk = await Hand.hire(store), Desk(store)
    await add_videos(connection, 60)
    works = await hand.take(60)
    bad = {w.key for w in works[::6]}
    await desk.step(*[changed(w, width=0) if w.key in bad else settlement(w) for w in works])
    assert set(await queued(connection)) == bad
    assert await half_effects(connection) == []


# --------------------------------------------------------------------------- unfit text


@pytest.mark.parametrize(
    ("dirty", "stored"),
    [("a\x00b", "ab"), ("\ud83d!", "\ufffd!"), ("😀", "😀"), ("\\u0000", "\\u0000")],
)
async def test_a_paid_text_is_not_lost_for_a_character(
    dirty: str, stored: str, ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    store = await open_store(ebook)
    hand, desk = await Hand.hire(store), Desk(store)
    await add_texts(connection, 3)
    works = await hand.take(3)
    outcome = Succeeded(
        text=dirty, data={dirty: [dirty]}, metadata={"m": dirty}, model=dirty, cost_cents=Decimal(1)
    )
    await desk.step(settlement(works[0], outcome), *map(settlement, works[1:]))
    row = await connection.fetchrow(
        "SELECT status, response FROM ai_processing.ai_generations WHERE id = $1", works[0].key
    )
    assert tuple(row) == ("completed", stored)
    assert await queued(connection) == {}


async def test_an_error_message_of_any_bytes_is_written(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand, desk = await Hand.hire(store), Desk(store)
    (key,) = await add_videos(connection)
    (work,) = await hand.take()
    await desk.step(like(work, verb="fail", error="\ud800\x00bad", error_code="\x00"))
    job = await video(connection, key)
    assert (job["status"], job["error_message"]) == ("failed", "\ufffdbad")


# --------------------------------------------------------------------------- stubborn rows

STUBBORN = """
CREATE FUNCTION public.stubborn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'this row is read-only'; END $$;
CREATE TRIGGER stubborn BEFORE UPDATE ON public.generation_jobs
    FOR EACH ROW EXECUTE FUNCTION public.stubborn();
"""


SULKY = f"""
CREATE FUNCTION public.sulky() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'leave me alone'; END $$;
CREATE TRIGGER sulky BEFORE UPDATE ON public.video_projects FOR EACH ROW
    WHEN (NEW.id = '{project(4)}') EXECUTE FUNCTION public.sulky();
"""


async def test_a_row_that_refuses_every_update_is_held(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Not even its failure can be written; the queue's own row still can."""
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand, desk = await Hand.hire(store), Desk(store)
    await add_videos(connection, 3)
    free, failing, paid = await hand.take(3)
    await connection.execute(STUBBORN)
    unpaid = settle(Failed(failure()), failing.as_try(), policy=POLICY, max_yields=5, chance=0.0)
    await desk.step(
        like(free, outputs=(), media_id=None, cost_cents=None), unpaid, settlement(paid)
    )
    assert desk.said == dict.fromkeys([free.key, failing.key, paid.key], "settled")
    rows = await queued(connection)
    assert {row["state"] for row in rows.values()} == {"held"}
    assert all("this row is read-only" in row["note"] for row in rows.values())


async def test_what_can_not_even_be_held_keeps_its_claim(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """The project refuses: the job's result waits in the worker until someone mends that."""
    connection = await connect(photomemory)
    store = await open_store(photomemory)
    hand, desk = await Hand.hire(store), Desk(store)
    (stuck,) = await add_videos(connection, of=4)
    (other,) = await add_videos(connection, of=5)
    works = await hand.take(2)
    await connection.execute(SULKY)
    await connection.execute(
        "UPDATE generation_jobs SET progress_percentage = 7 WHERE id = $1", stuck
    )
    assert await desk.step(*map(settlement, works)) == 1
    assert desk.said == {other: "settled"}
    assert desk.settler.pending == 1
    row = (await queued(connection))[stuck]
    assert (row["state"], row["worker"]) == ("claimed", hand.id)
    await connection.execute("DROP TRIGGER sulky ON video_projects")
    await desk.until_empty()
    assert desk.said[stuck] == "settled"
    assert (await queued(connection))[stuck]["state"] == "held"
