"""From the version before: its schema, its form of the maps, and its workers' claims."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.commandline import Rowmill
from tests.database.support import LANES, Connect, Hand, OpenStore, add_videos
from worker import maps
from worker.store import LockTimeout, acts
from worker.store.attaching import attach, detach, regenerate
from worker.store.migrations import migrate, migrations, pending

NEWEST_BEFORE = 10
SINCE = ("words", "refreshes", "retention")
"""Keys of a map that it didn't have."""

# All that came since goes, so that a migration or a function that is forgotten is missed.
BEFORE = """
DROP TABLE rowmill.schedules, rowmill.turns CASCADE;
DROP FUNCTION rowmill.audit CASCADE;
DROP FUNCTION IF EXISTS rowmill.audit_photomemory;
ALTER TABLE rowmill.actions DROP COLUMN source, DROP COLUMN row_key;
ALTER TABLE rowmill.workers DROP COLUMN host, DROP COLUMN drain_asked_at,
    DROP COLUMN drain_asked_by, DROP COLUMN drain_reason;
DROP FUNCTION rowmill.register(bigint, text, text, text[], integer, double precision, text);
CREATE OR REPLACE FUNCTION rowmill.register(
    p_worker bigint, p_name text, p_version text, p_lanes text[], p_slots integer,
    p_lease double precision) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO rowmill.workers (id, name, version, lanes, slots, lease)
    VALUES (p_worker, p_name, p_version, p_lanes, p_slots, make_interval(secs => p_lease))
$$;
DROP FUNCTION IF EXISTS rowmill.take_turn, rowmill.said_id, rowmill.said,
    rowmill.bonus_generation_jobs, rowmill.stops_generation_jobs CASCADE;
DROP TABLE rowmill.spending;
ALTER TABLE rowmill.pulses DROP COLUMN arrived;
DROP FUNCTION rowmill.counted, rowmill.iso;
DELETE FROM rowmill.migrations WHERE version > 10;
UPDATE rowmill.functions SET version = 10, checksum = 'of the version before';
"""

REGISTER = "SELECT rowmill.register($1, 'hand', 'before', $2, 100, 30)"
"""As workers of that version do."""


def as_it_was(node: Any) -> Any:
    match node:
        case dict():
            return {key: as_it_was(value) for key, value in node.items() if key not in SINCE}
        case list():
            return [as_it_was(value) for value in node]
    return node


async def downgraded(connection: Any) -> None:
    await connection.execute("SET search_path = pg_catalog")
    for row in await connection.fetch("SELECT id, name, definition FROM rowmill.sources"):
        definition = json.loads(row["definition"])
        del definition["schema"]
        definition["map"] = as_it_was(definition["map"])
        for rule in [
            r for r in definition["rules"] if r.endswith(("rank", "stop", "fail", "audit"))
        ]:
            del definition["rules"][rule]
        await connection.execute(
            "UPDATE rowmill.sources SET definition = $2 WHERE id = $1",
            row["id"],
            json.dumps(definition),
        )
        await regenerate(connection, row["id"], row["name"], definition)
    await connection.execute(BEFORE)


@pytest.fixture
async def before(photomemory: str, connect: Connect) -> str:
    await downgraded(await connect(photomemory))
    return photomemory


async def test_what_was_claimed_before_is_finished_after(
    before: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(before), await open_store(before)
    running, waiting = await add_videos(connection, 2)
    names = [script.name for script in migrations()[NEWEST_BEFORE:]]
    assert await pending(before) == [*names, "functions"]
    hand = Hand(store, LANES)
    await store.value(REGISTER, hand.id, LANES)
    works = await hand.take(1)
    assert [work.key for work in works] == [running]
    assert await migrate(before) == [*names, "functions"]
    assert await pending(before) == []
    assert await hand.succeed(works) == {running: "settled"}
    assert await hand.succeed(await hand.take(1)) == {waiting: "settled"}


async def test_a_command_of_this_version_says_what_is_lacking(
    before: str, rowmill: Rowmill
) -> None:
    said = await rowmill(before, "status")
    assert said.code == 1
    assert "run `rowmill migrate`" in said.err


async def test_operators_act_and_are_recorded(
    before: str, connect: Connect, open_store: OpenStore
) -> None:
    """Without the audit rule that its map hadn't yet; with it, once it is attached again."""
    await migrate(before)
    connection, store = await connect(before), await open_store(before)
    first, second = await add_videos(connection, 2)
    for key in (first, second):
        assert await acts.cancel(store, "generation_jobs", key, "ada") == "cancelled"
        row = await connection.fetchrow(
            "SELECT source, row_key, detail ? 'audit_failed' AS failed FROM rowmill.actions"
            " WHERE row_key = $1",
            key,
        )
        assert tuple(row) == ("generation_jobs", key, False)
        await attach(before, maps.load("photomemory"))
    assert await connection.fetchval(
        "SELECT to_regprocedure('rowmill.audit_photomemory(rowmill.actions)') IS NOT NULL"
    )


@pytest.mark.parametrize("platform", ["photomemory", "ebook"])
async def test_what_is_attached_is_attached_again(
    platform: str, both: str, connect: Connect
) -> None:
    """As every upgrade does, for a platform of several tables, too."""
    connection = await connect(both)
    ids = "SELECT name, id FROM rowmill.sources ORDER BY name"
    before = await connection.fetch(ids)
    await attach(both, maps.load(platform))
    assert await connection.fetch(ids) == before


async def test_its_form_of_a_map_can_be_detached(before: str, connect: Connect) -> None:
    await migrate(before)
    await detach(before, "photomemory")
    left = "SELECT count(*) FROM pg_proc WHERE proname LIKE '%\\_generation\\_jobs'"
    assert await (await connect(before)).fetchval(left) == 0


async def test_it_waits_for_no_one_while_others_wait_for_it(
    before: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a migration that waits for a table, heartbeats and INSERTs would wait as long."""
    producer, others = await connect(before), await connect(before)
    insert = producer.transaction()
    await insert.start()
    await add_videos(producer, 1)
    monkeypatch.setattr("worker.store.migrations.PATIENCE", "100ms")
    monkeypatch.setattr("worker.store.migrations.PAUSE", 0)
    async with asyncio.timeout(30):
        with pytest.raises(LockTimeout):
            await migrate(before)
        await others.execute(REGISTER, 1, LANES)
        await add_videos(others, 1)
    assert await pending(before) != []
    await insert.commit()
    await migrate(before)
    assert await pending(before) == []


async def test_it_tries_again_until_it_is_free(
    before: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await connect(before)
    reading = reader.transaction()
    await reading.start()
    await reader.fetch("SELECT FROM rowmill.workers")

    async def free_then(_seconds: float) -> None:
        if reader.is_in_transaction():
            await reading.commit()

    monkeypatch.setattr("worker.store.migrations.PATIENCE", "100ms")
    monkeypatch.setattr("worker.store.migrations.asyncio.sleep", free_then)
    assert await migrate(before) != []
