"""One platform's files, attached in whatever schema its tables are in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.database.platform_samples import NewDatabase, run
from tests.database.studio import SCHEMA, built, written
from tests.database.support import Connect, Hand, OpenStore, add, queued
from worker.maps import MapError
from worker.store.attaching import attach, detach, regenerate
from worker.store.migrations import migrate

NOTE = "INSERT INTO public.notes (shoot, said) SELECT row_id, kind FROM result;"


@pytest.mark.parametrize("schema", ["elsewhere", "order"])
async def test_a_platform_in_another_schema(
    schema: str, new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    """Queued by its triggers, run, its rules write where its tables are; and public stays empty."""
    dsn = await built(
        await new_database(),
        written(tmp_path, schema=schema, shoots__finish=NOTE, shoots__usage=NOTE),
    )
    connection = await connect(dsn)
    (key,) = await add(connection, f'"{schema}".shoots')
    assert list(await queued(connection)) == [key]
    hand = await Hand.hire(await open_store(dsn))
    (work,) = await hand.take(1)
    assert work.started.kind == "background:make_video"
    assert await hand.succeed([work]) == {key: "settled"}
    assert await connection.fetchval(f'SELECT state FROM "{schema}".shoots') == "done"
    said = await connection.fetch(f'SELECT said FROM "{schema}".notes')
    assert [row["said"] for row in said] == ["background:make_video"] * 2  # finish, and metered
    assert await connection.fetchval("SELECT to_regclass('public.shoots') IS NULL")
    assert await detach(dsn, "studio") == [f"{schema}.shoots"]


async def test_other_words_pass(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    """What isn't among the words stays as it is, and isn't metered for it."""
    dsn = await built(await new_database(), written(tmp_path, shoots__usage=NOTE))
    connection = await connect(dsn)
    await add(connection, "public.shoots", what="Archive")
    hand = await Hand.hire(await open_store(dsn))
    (work,) = await hand.take(1)
    assert work.started.kind == "background:Archive"
    await hand.succeed([work])
    assert await connection.fetchval("SELECT count(*) FROM public.notes") == 0


async def test_words_of_a_lane(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    """A lane that mirrors a kind with words is spelled like it, and a rule of the kind runs."""
    mirrored = (
        'lane = { column = "what", words = { MakeVideo = "make_video" }, prefix = "background:" }'
    )
    platform = written(
        tmp_path,
        ('lane = { constant = "replicate" }', mirrored),
        shoots__make_video__finish=NOTE,
    )
    dsn = await built(await new_database(), platform)
    connection = await connect(dsn)
    (key,) = await add(connection, "public.shoots")
    assert (await queued(connection))[key]["lane"] == "background:make_video"
    await connection.execute("UPDATE public.shoots SET what = 'Archive'")
    assert (await queued(connection))[key]["lane"] == "background:Archive"
    await connection.execute("UPDATE public.shoots SET what = 'MakeVideo'")
    hand = await Hand.hire(await open_store(dsn), lanes=["background:make_video"])
    assert await hand.succeed(await hand.take(1)) == {key: "settled"}
    assert await connection.fetchval("SELECT said FROM public.notes") == "background:make_video"


async def test_an_upgrade_makes_the_moved_functions_again(
    new_database: NewDatabase, connect: Connect, tmp_path: Path
) -> None:
    dsn = await built(
        await new_database(), written(tmp_path, schema="elsewhere", shoots__finish=NOTE)
    )
    connection = await connect(dsn)
    question = "SELECT pg_get_functiondef('rowmill.settle_shoots'::regproc)"
    before: str = await connection.fetchval(question)
    definition: Any = json.loads(
        await connection.fetchval("SELECT definition FROM rowmill.sources")
    )
    assert definition["rules"]["shoots.finish"] == NOTE.replace("public.", "elsewhere.")
    await connection.execute("DROP FUNCTION rowmill.settle_shoots")
    source_id = await connection.fetchval("SELECT id FROM rowmill.sources")
    await connection.execute("SET search_path = pg_catalog")
    await regenerate(connection, source_id, "shoots", definition)
    assert await connection.fetchval(question) == before


async def test_a_schema_that_is_not_there(new_database: NewDatabase, tmp_path: Path) -> None:
    dsn = await new_database()
    await migrate(dsn)
    with pytest.raises(MapError, match=r"no schema 'nowhere' in this database \(it has public\)"):
        await attach(dsn, written(tmp_path, schema="nowhere"))


async def test_one_platform_in_two_schemas(
    new_database: NewDatabase, connect: Connect, tmp_path: Path
) -> None:
    """Refused, also the way back to public that a forgotten `--schema` would be."""
    dsn = await built(await new_database(), written(tmp_path, schema="elsewhere"))
    await run(dsn, SCHEMA)
    connection = await connect(dsn)
    before = await connection.fetch("SELECT * FROM rowmill.sources")
    with pytest.raises(MapError, match=r"attached to elsewhere\.shoots.*--schema elsewhere"):
        await attach(dsn, written(tmp_path))
    assert await connection.fetch("SELECT * FROM rowmill.sources") == before
    await attach(dsn, written(tmp_path, schema="elsewhere"))
    await detach(dsn, "studio")
    await attach(dsn, written(tmp_path))
    (key,) = await add(connection, "public.shoots")
    await add(connection, "elsewhere.shoots")
    assert list(await queued(connection)) == [key]
