"""What a platform's rules do when a job is over: failed for good, cancelled; and follow-up jobs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import Cancelled
from tests.database.platform_samples import NewDatabase
from tests.database.settling import settlement
from tests.database.studio import LOCKS, built, written
from tests.database.support import Connect, Hand, OpenStore, add, queued
from worker.store import LockTimeout, Refused, acts, to_json

NOTE = (
    "INSERT INTO public.notes (shoot, said)"
    " SELECT row_id, verb || ': ' || error || ' / ' || kind || ' / ' || s.state FROM result"
    " JOIN public.shoots s ON s.id = result.row_id WHERE s.id = ANY (rowmill_keys);"
)
COUNT = """
UPDATE public.studios AS studio SET jobs = (
    SELECT count(*) FROM public.shoots AS s
    WHERE s.studio_id = studio.id AND s.state <> 'cancelled')
WHERE studio.id IN (SELECT s.studio_id FROM public.shoots AS s WHERE s.id = ANY (rowmill_keys));
"""
AGAIN = """
INSERT INTO public.shoots (what, problem)
SELECT 'SendMail', row_id::text FROM result WHERE kind = 'background:make_video';
"""


async def notes(connection: Any) -> dict[str, str]:
    return {str(r["shoot"]): r["said"] for r in await connection.fetch("TABLE public.notes")}


async def test_failed_and_cancelled(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    """The rule sees the updated row and how it ended; a retry and a success are none of its own."""
    platform = written(tmp_path, ("max_retries = 0", "max_retries = 1"), shoots__fail=NOTE)
    dsn = await built(await new_database(), platform)
    connection = await connect(dsn)
    await add(connection, "public.shoots", 4)
    hand = await Hand.hire(await open_store(dsn))
    failed, cancelled, done, later = await hand.take(4)
    await hand.fail([failed])
    await hand.settle([cancelled], lambda _: Cancelled("enough"))
    await hand.succeed([done])
    await hand.retry([later])
    kind = "background:make_video"
    assert await notes(connection) == {
        failed.key: f"fail: it broke / {kind} / broken",
        cancelled.key: f"cancel: enough / {kind} / cancelled",
    }
    (again,) = await hand.take(1)
    assert await acts.cancel(hand.store, "shoots", again.key, "test") == "cancelled"
    assert again.key not in await notes(connection)


async def test_an_operators_word_is_a_failure_like_others(
    new_database: NewDatabase, connect: Connect, tmp_path: Path
) -> None:
    dsn = await built(await new_database(), written(tmp_path, shoots__fail=NOTE))
    connection = await connect(dsn)
    (key,) = await add(connection, "public.shoots")
    assert (
        await connection.fetchval("SELECT rowmill.fail_shoots($1, 'gone wrong')", key) == "failed"
    )
    assert await notes(connection) == {key: "fail: gone wrong / background:make_video / broken"}


async def test_a_rule_that_fails_leaves_no_half(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    wrong = NOTE + "\nSELECT 1 / (SELECT count(*) - 1 FROM result);\n"
    dsn = await built(await new_database(), written(tmp_path, shoots__fail=wrong))
    connection = await connect(dsn)
    (key,) = await add(connection, "public.shoots")
    hand = await Hand.hire(await open_store(dsn))
    with pytest.raises(Refused):
        await hand.fail(await hand.take(1))
    assert await notes(connection) == {}
    assert await connection.fetchval("SELECT state FROM public.shoots") == "busy"
    assert list(await queued(connection)) == [key]


# --------------------------------------------------------------------------- an operator's cancel


async def test_an_operators_cancel_rolls_up(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    platform = written(tmp_path, more=LOCKS, shoots__follow=COUNT)
    dsn = await built(await new_database(), platform)
    connection, store = await connect(dsn), await open_store(dsn)
    (place,) = await add(connection, "public.studios", jobs=2)
    (key, _) = await add(connection, "public.shoots", 2, studio_id=place)
    assert await acts.cancel(store, "shoots", key, "test") == "cancelled"
    assert await connection.fetchval("SELECT jobs FROM public.studios") == 1
    assert key not in await queued(connection)


async def test_an_operators_cancel_waits_for_a_parent_only_a_moment(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    """A producer that holds the parent and wants the row is never the victim of a deadlock."""
    platform = written(tmp_path, more=LOCKS, shoots__follow=COUNT)
    dsn = await built(await new_database(), platform)
    connection, producer = await connect(dsn), await connect(dsn)
    store = await open_store(dsn)
    (place,) = await add(connection, "public.studios", jobs=1)
    (key,) = await add(connection, "public.shoots", studio_id=place)
    async with producer.transaction():
        await producer.execute("UPDATE public.studios SET bonus = 1")
        cancelling = asyncio.create_task(acts.cancel(store, "shoots", key, "test"))
        with pytest.raises(LockTimeout):
            await cancelling
        await producer.execute("UPDATE public.shoots SET urgency = 1 WHERE id = $1", key)
    assert key in await queued(connection)
    assert await acts.cancel(store, "shoots", key, "test") == "cancelled"


# --------------------------------------------------------------------------- follow-up jobs


@pytest.mark.parametrize("verb", ["succeed", "fail", "cancel"])
async def test_a_follow_up_job_is_queued_in_the_same_commit(
    verb: str, new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    """Into the source's own table: nobody sees the job's end without its follow-up's queue row."""
    platform = written(tmp_path, shoots__finish=AGAIN, shoots__fail=AGAIN)
    dsn = await built(await new_database(), platform)
    connection, settling = await connect(dsn), await connect(dsn)
    await add(connection, "public.shoots")
    hand = await Hand.hire(await open_store(dsn))
    (work,) = await hand.take(1)
    batch = to_json([replace(settlement(work), verb=verb).row()])  # type: ignore[arg-type]
    async with settling.transaction():
        (said,) = await settling.fetch("SELECT * FROM rowmill.settle_shoots($1)", batch)
        assert said["verdict"] == "settled"
        assert list(await queued(connection)) == [work.key]
    (key,) = await queued(connection)
    assert key != work.key
    row = await connection.fetchrow("SELECT * FROM public.shoots WHERE id = $1", key)
    assert (row["problem"], row["state"]) == (work.key, "new")
    (mail,) = await hand.take(5)
    assert mail.started.kind == "background:SendMail"
    assert await hand.succeed([mail]) == {key: "settled"}
    assert await queued(connection) == {}


async def test_a_follow_up_job_is_gone_with_what_made_it(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    wrong = AGAIN + "\nSELECT 1 / (SELECT count(*) - 1 FROM result);\n"
    dsn = await built(await new_database(), written(tmp_path, shoots__finish=wrong))
    connection = await connect(dsn)
    (key,) = await add(connection, "public.shoots")
    hand = await Hand.hire(await open_store(dsn))
    works = await hand.take(1)
    with pytest.raises(Refused):
        await hand.succeed(works)
    assert list(await queued(connection)) == [key]
    assert await connection.fetchval("SELECT count(*) FROM public.shoots") == 1
    await hand.fail(works)
    assert await queued(connection) == {}


async def test_a_follow_up_job_of_another_source(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    other = """
[[sources]]
name = "mails"
table = "public.mails"
kind = { constant = "mail" }
lane = { constant = "replicate" }
status = { column = "state", ready = ["new"], running = "busy", succeeded = "done", failed = "bad" }
"""
    platform = written(
        tmp_path,
        more=other,
        shoots__fail="INSERT INTO public.mails (id) SELECT row_id FROM result;",
    )
    dsn = await new_database()
    connection = await connect(dsn)
    await connection.execute(
        "CREATE TABLE public.mails (id uuid PRIMARY KEY, state text DEFAULT 'new')"
    )
    await built(dsn, platform)
    (key,) = await add(connection, "public.shoots")
    hand = await Hand.hire(await open_store(dsn))
    await hand.fail(await hand.take(1))
    assert {k: q["source_name"] for k, q in (await queued(connection)).items()} == {key: "mails"}
