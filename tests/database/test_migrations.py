"""Migrating: once, in order, by any number of workers; an older one takes nothing back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.database.platform_samples import NewDatabase
from tests.database.support import Connect, Hand, OpenStore, add_videos
from worker.store import StoreError
from worker.store import migrations as module
from worker.store.migrations import MigrationError, Script, functions, migrate, migrations, pending

CATALOG = """
SELECT format('%s %s', c.relkind, c.relname) AS line FROM pg_class c
 WHERE c.relnamespace = 'rowmill'::regnamespace
UNION ALL
SELECT p.oid::regprocedure || ' ' || md5(pg_get_functiondef(p.oid)) FROM pg_proc p
 WHERE p.pronamespace = 'rowmill'::regnamespace
ORDER BY 1
"""


async def catalog(connection: Any) -> list[str]:
    return [row["line"] for row in await connection.fetch(CATALOG)]


async def books(connection: Any) -> list[Any]:
    rows = await connection.fetch("SELECT version, checksum, applied_at FROM rowmill.migrations")
    return [*rows, await connection.fetchrow("SELECT * FROM rowmill.functions")]


async def test_migrating_twice_changes_nothing(new_database: NewDatabase, connect: Connect) -> None:
    dsn = await new_database()
    names = [script.name for script in migrations()]
    assert await pending(dsn) == names
    said: list[str] = []
    assert await migrate(dsn, said.append) == [*names, "functions"] == said
    assert await pending(dsn) == []
    connection = await connect(dsn)
    before = await catalog(connection), await books(connection)
    assert await migrate(dsn) == []
    assert (await catalog(connection), await books(connection)) == before


async def test_four_at_once(new_database: NewDatabase, connect: Connect) -> None:
    dsn = await new_database()
    applied = await asyncio.gather(*[migrate(dsn) for _ in range(4)])
    names = [*[script.name for script in migrations()], "functions"]
    assert sorted(applied) == [[], [], [], names]
    connection = await connect(dsn)
    known = await connection.fetch("SELECT name, checksum FROM rowmill.migrations ORDER BY version")
    assert [tuple(row) for row in known] == [(s.name, s.checksum) for s in migrations()]


async def test_numbers_go_up_by_one() -> None:
    assert [script.version for script in migrations()] == list(range(1, len(migrations()) + 1))


async def test_an_older_version_that_starts_late_takes_nothing_back(
    photomemory: str, connect: Connect
) -> None:
    connection = await connect(photomemory)
    await connection.execute(
        "UPDATE rowmill.functions SET version = version + 1, checksum = 'of a newer version';"
        "INSERT INTO rowmill.migrations VALUES (9999, '9999_newer', 'of a newer version');"
        "CREATE OR REPLACE FUNCTION rowmill.promote(p_limit integer DEFAULT 1000) RETURNS integer"
        " LANGUAGE sql AS 'SELECT 77'"
    )
    before = await catalog(connection), await books(connection)
    assert await migrate(photomemory) == []
    assert await pending(photomemory) == []
    assert (await catalog(connection), await books(connection)) == before
    assert await connection.fetchval("SELECT rowmill.promote()") == 77


async def test_a_migration_changed_after_it_was_applied_is_refused(
    photomemory: str, connect: Connect
) -> None:
    connection = await connect(photomemory)
    await connection.execute("UPDATE rowmill.migrations SET checksum = 'other' WHERE version = 1")
    before = await catalog(connection), await books(connection)
    with pytest.raises(MigrationError, match="0001_tables was changed after it was applied"):
        await migrate(photomemory)
    assert (await catalog(connection), await books(connection)) == before


async def test_a_failing_migration_leaves_nothing_behind(
    photomemory: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await connect(photomemory)
    newest = migrations()[-1].version
    scripts = [
        *migrations(),
        Script(newest + 1, "good", "CREATE TABLE rowmill.one (n integer)"),
        Script(newest + 2, "bad", "CREATE TABLE rowmill.two (n nonsense)"),
    ]
    monkeypatch.setattr(module, "migrations", lambda: scripts)
    before = await catalog(connection), await books(connection)
    with pytest.raises(StoreError, match="nonsense"):
        await migrate(photomemory)
    assert (await catalog(connection), await books(connection)) == before


async def test_changed_functions_are_made_again_for_attached_sources_too(
    photomemory: str,
    connect: Connect,
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Triggers and waiting rows stay as they are, and what is queued runs with the new ones."""
    connection = await connect(photomemory)
    (waiting,) = await add_videos(connection)
    lost = "SELECT count(*) FROM pg_proc WHERE proname = 'settle_generation_jobs'"
    await connection.execute(
        "DROP FUNCTION rowmill.settle_generation_jobs;"
        "DROP FUNCTION rowmill.start_generation_jobs;"
        "CREATE OR REPLACE FUNCTION rowmill.sweep_generation_jobs("
        "p_limit integer, p_running boolean DEFAULT false)"
        " RETURNS integer LANGUAGE sql AS 'SELECT 77'"
    )
    assert await migrate(photomemory) == []
    assert await connection.fetchval(lost) == 0

    changed = replace(functions(), sql=functions().sql + "\n-- a newer version\n")
    monkeypatch.setattr(module, "functions", lambda: changed)
    triggers = "SELECT oid, tgname FROM pg_trigger WHERE tgname LIKE 'rowmill%' ORDER BY 1"
    before = await connection.fetch(triggers)
    assert await migrate(photomemory) == ["functions"]
    assert await connection.fetch(triggers) == before
    store = await open_store(photomemory)
    assert await store.sweep("generation_jobs") == 0
    hand = await Hand.hire(store)
    assert await hand.succeed(await hand.take()) == {waiting: "settled"}
    assert await migrate(photomemory) == []


async def test_an_attached_table_that_is_gone_stops_no_upgrade(
    photomemory: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await connect(photomemory)
    await connection.execute("DROP TABLE public.generation_jobs CASCADE")
    changed = replace(functions(), sql=functions().sql + "\n-- a newer version\n")
    monkeypatch.setattr(module, "functions", lambda: changed)
    assert await migrate(photomemory) == ["functions"]
