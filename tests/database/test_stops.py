"""What must not run: the stop rule, when a job starts and while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.contract import Cancelled, Failed, Failure, FailureKind
from tests.database.platform_samples import NewDatabase
from tests.database.studio import WITHOUT_CANCELLED, built, written
from tests.database.support import Connect, Hand, OpenStore, Work, add, queued
from worker.maps import Platform
from worker.store import Refused, Store, acts, upkeep

STOP = """
SELECT s.id AS key, CASE WHEN s.urgency < 0 THEN 'refuse' ELSE 'cancel' END AS verdict,
       'the studio is closed' AS message
FROM public.shoots AS s
WHERE s.id = ANY (rowmill_keys) AND (s.urgency < 0 OR s.studio_id IN (
    SELECT studio.id FROM public.studios AS studio WHERE NOT studio.open));
"""
Studio = tuple[str, Any, Store]


@pytest.fixture
async def studio(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> Studio:
    dsn = await built(await new_database(), written(tmp_path, shoots__stop=STOP))
    return dsn, await connect(dsn), await open_store(dsn)


async def row(connection: Any, key: str) -> Any:
    return await connection.fetchrow("SELECT * FROM public.shoots WHERE id = $1", key)


async def test_a_batch_of_all_kinds(studio: Studio) -> None:
    """Each is told its own; what must not run isn't marked as running."""
    _, connection, store = studio
    (closed,) = await add(connection, "public.studios", open=False)
    (runs,) = await add(connection, "public.shoots")
    (refused,) = await add(connection, "public.shoots", urgency=-5)
    (cancelled,) = await add(connection, "public.shoots", studio_id=closed)
    hand = await Hand.hire(store)
    claims = await hand.claim(3)
    said = await hand.verdicts(claims)
    assert {key: one.verdict for key, one in said.items()} == {
        runs: "run",
        refused: "refuse",
        cancelled: "cancel",
    }
    assert said[refused].input == {"message": "the studio is closed"}
    assert said[refused].kind == "background:make_video"
    states = {key: await row(connection, key) for key in said}
    assert {key: one["state"] for key, one in states.items()} == {
        runs: "busy",
        refused: "new",
        cancelled: "new",
    }
    assert states[refused]["started_at"] is None
    # They are settled from where they are: nobody else has them meanwhile.
    works = {c.key: Work("shoots", c, said[c.key]) for c in claims}
    assert await hand.settle([works[cancelled]], lambda _: Cancelled("closed")) == {
        cancelled: "settled"
    }
    assert await hand.settle([works[refused]], lambda _: Failed(no("closed"))) == {
        refused: "settled"
    }
    done = [(await row(connection, key))["state"] for key in (refused, cancelled)]
    assert done == ["broken", "cancelled"]
    assert list(await queued(connection)) == [runs]


def no(message: str) -> Failure:
    return Failure(FailureKind.ALLOWANCE, message)


async def test_cancel_comes_before_refuse(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    twice = """SELECT k AS key, v AS verdict, v AS message FROM unnest(rowmill_keys) k,
        unnest(ARRAY['refuse', 'cancel']) v;"""
    dsn = await built(await new_database(), written(tmp_path, shoots__stop=twice))
    (key,) = await add(await connect(dsn), "public.shoots")
    hand = await Hand.hire(await open_store(dsn))
    said = await hand.verdicts(await hand.claim(1))
    assert (said[key].verdict, said[key].input) == ("cancel", {"message": "cancel"})


@pytest.mark.parametrize("state", ["intent", "accepted", "unknown", "finished"])
async def test_what_is_paid_for_is_not_refused(studio: Studio, state: str) -> None:
    """A call that is there already goes on; a cancel ends it all the same."""
    _, connection, store = studio
    (refused,) = await add(connection, "public.shoots", urgency=-5)
    await paid(connection, refused, state)
    hand = await Hand.hire(store)
    said = await hand.verdicts(await hand.claim(1))
    assert said[refused].verdict == "run"


async def test_what_brought_nothing_is_refused(studio: Studio) -> None:
    _, connection, store = studio
    (refused,) = await add(connection, "public.shoots", urgency=-5)
    await paid(connection, refused, "failed")
    hand = await Hand.hire(store)
    said = await hand.verdicts(await hand.claim(1))
    assert said[refused].verdict == "refuse"


async def paid(connection: Any, key: str, state: str) -> None:
    await connection.execute(
        "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
        " account, model, estimate_cents, state) VALUES ('shoots', $1, 1, 's', 'l', 1, 'p', 'a',"
        " 'm', 1, $2::text::rowmill.submission_state)",
        key,
        state,
    )


async def test_while_they_run(studio: Studio) -> None:
    """Only `cancel` is asked of running jobs, and only of those that were asked about."""
    _, connection, store = studio
    (place,) = await add(connection, "public.studios")
    keys = await add(connection, "public.shoots", 2, studio_id=place)
    (other,) = await add(connection, "public.shoots")
    hand = await Hand.hire(store)
    works = {work.key: work for work in await hand.take(3)}
    assert await asked(store, works.values()) == {}
    await connection.execute("UPDATE public.studios SET open = false")
    await connection.execute("UPDATE public.shoots SET urgency = -1 WHERE id = $1", other)
    assert await asked(store, works.values()) == {
        works[key].queue_id: "the studio is closed" for key in keys
    }
    assert set(await asked(store, [works[keys[0]], works[other]])) == {works[keys[0]].queue_id}


async def asked(store: Store, works: Any) -> dict[int, str]:
    entries = [{"queue_id": work.queue_id, "key": work.key} for work in works]
    return await store.stops("shoots", entries)


async def test_another_word_than_the_two(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    wrong = "SELECT k AS key, 'maybe' AS verdict, '' AS message FROM unnest(rowmill_keys) k;"
    dsn = await built(await new_database(), written(tmp_path, shoots__stop=wrong))
    await add(await connect(dsn), "public.shoots")
    hand = await Hand.hire(await open_store(dsn))
    with pytest.raises(Refused, match=r"shoots\.stop\.sql answered maybe .* refuse and cancel"):
        await hand.verdicts(await hand.claim(1))


# ------------------------------------------------------------- cancelled, where it is called failed


@pytest.fixture
async def wordless(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> Studio:
    platform = written(tmp_path, WITHOUT_CANCELLED, shoots__stop=STOP)
    dsn = await built(await new_database(), platform)
    return dsn, await connect(dsn), await open_store(dsn)


async def is_unwanted(store: Store, key: str) -> bool:
    return await upkeep.unwanted(store, source_of(await store.sources()), key)


def source_of(infos: Any) -> Any:
    return Platform.from_definition(infos[0].definition).map.sources[0]


async def test_a_settled_cancel_is_no_failure_to_be_mended(wordless: Studio) -> None:
    """What a provider still brings for a failed job is delivered; for a cancelled one, not."""
    _, connection, store = wordless
    keys = await add(connection, "public.shoots", 2)
    hand = await Hand.hire(store)
    works = await hand.take(2)
    await hand.settle(works[:1], lambda _: Cancelled("the studio is closed"))
    await hand.fail(works[1:])
    rows = [await row(connection, work.key) for work in works]
    assert [one["state"] for one in rows] == ["broken", "broken"]
    assert rows[0]["problem"] == "the studio is closed"
    assert [await is_unwanted(store, work.key) for work in works] == [True, False]
    assert await is_unwanted(store, "00000000-0000-4000-8000-000000000000")
    assert len(keys) == 2


async def test_an_operators_cancel_the_same(wordless: Studio) -> None:
    """And the last end counts: one that is retried and fails is wanted again, and so on."""
    _, connection, store = wordless
    (key,) = await add(connection, "public.shoots")
    assert await acts.cancel(store, "shoots", key, "test") == "cancelled"
    assert await is_unwanted(store, key)
    assert await acts.retry(store, "shoots", key, "test") == "requeued"
    assert not await is_unwanted(store, key)
    hand = await Hand.hire(store)
    await hand.fail(await hand.take(1))
    assert not await is_unwanted(store, key)
    await acts.retry(store, "shoots", key, "test")
    await hand.take(1)
    assert await acts.cancel(store, "shoots", key, "test") == "cancelled"
    assert await is_unwanted(store, key)


async def test_with_a_word_nothing_is_written_as_a_failure(studio: Studio) -> None:
    _, connection, store = studio
    keys = await add(connection, "public.shoots", 2)
    hand = await Hand.hire(store)
    await hand.settle((await hand.take(1)), lambda _: Cancelled("why not"))
    for key in keys:
        await acts.cancel(store, "shoots", key, "test")
    assert [await is_unwanted(store, key) for key in keys] == [True, True]
    assert await connection.fetchval("SELECT count(*) FROM rowmill.failures") == 0
