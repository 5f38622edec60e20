"""Numbered migrations and the functions that go with them.

Migrations run once, in order, each in a transaction, under an advisory lock that other migrating
workers wait for. Whatever they lock they wait for shortly, and try again: who wants it then queues
up behind them, every heartbeat and every producer's INSERT too. The functions in sql/functions are applied again whenever their text changed,
unless the database has had them before: an old worker that starts late takes nothing back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import asyncpg

from worker.store.errors import translated
from worker.store.pool import connect

LOCK = 0x726F776D  # "rowm"
PATIENCE = "2s"
"""For a table that someone's open transaction holds."""
ATTEMPTS, PAUSE = 5, 1.0

_BOOKS = """
CREATE SCHEMA IF NOT EXISTS rowmill;
CREATE TABLE IF NOT EXISTS rowmill.migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS rowmill.functions (
    checksum   text PRIMARY KEY,
    version    integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


class MigrationError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Script:
    version: int
    name: str
    sql: str
    generator: str = ""
    """The code that makes each source's functions: they are made again when it changes."""

    @property
    def checksum(self) -> str:
        return hashlib.sha256((self.sql + self.generator).encode()).hexdigest()


def migrations() -> list[Script]:
    found = [
        Script(int(path.name.split("_")[0]), path.name.removesuffix(".sql"), path.read_text())
        for path in _sql_files("migrations")
    ]
    return sorted(found, key=lambda script: script.version)


def functions() -> Script:
    """All function files as one script, of the newest migration's version."""
    text = "\n".join(path.read_text() for path in _sql_files("functions"))
    code = sorted(files("worker.generate").iterdir(), key=lambda path: path.name)
    generator = "\n".join(path.read_text() for path in code if path.name.endswith(".py"))
    return Script(migrations()[-1].version, "functions", text, generator)


def _sql_files(folder: str) -> list[Traversable]:
    root = files("sql") / folder
    return sorted((p for p in root.iterdir() if p.name.endswith(".sql")), key=lambda p: p.name)


async def migrate(dsn: str, report: Callable[[str], None] = lambda _: None) -> list[str]:
    """Bring the database up to this code; returns what was applied."""
    with translated():
        connection = await connect(dsn)
        try:
            for _ in range(ATTEMPTS - 1):
                try:
                    return await _migrate(connection, report)
                except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                    await asyncio.sleep(PAUSE)  # meanwhile those behind us go on
            return await _migrate(connection, report)
        finally:
            await connection.close()


async def _migrate(connection: Any, report: Callable[[str], None]) -> list[str]:
    # A session lock can't be held through a transaction-mode pooler; a transaction's can.
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1, 0)", LOCK)
        await connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE}'")
        return await _apply(connection, report)


async def _apply(connection: Any, report: Callable[[str], None]) -> list[str]:
    await connection.execute(_BOOKS)
    applied = []
    known = {
        row["version"]: row["checksum"]
        for row in await connection.fetch("SELECT version, checksum FROM rowmill.migrations")
    }
    for script in migrations():
        if script.version in known:
            if known[script.version] != script.checksum:
                raise MigrationError(
                    f"migration {script.name} was changed after it was applied to this database; "
                    "migrations are never edited: put the change into a new one"
                )
            continue
        report(script.name)
        await connection.execute(script.sql)
        await connection.execute(
            "INSERT INTO rowmill.migrations (version, name, checksum) VALUES ($1, $2, $3)",
            script.version,
            script.name,
            script.checksum,
        )
        applied.append(script.name)
    if await _functions_wanted(connection, functions()):
        report("functions")
        await _apply_functions(connection, functions())
        applied.append("functions")
    return applied


async def _functions_wanted(connection: Any, script: Script) -> bool:
    """Not if they are there, and not if they ever were: then others have gone on since."""
    seen = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM rowmill.functions WHERE checksum = $1 OR version > $2)",
        script.checksum,
        script.version,
    )
    return not seen


async def _apply_functions(connection: Any, script: Script) -> None:
    from worker.store.attaching import regenerate  # noqa: PLC0415 - the two need each other

    await connection.execute(script.sql)
    await connection.execute("SET LOCAL search_path = pg_catalog")
    for row in await connection.fetch("SELECT id, name, definition FROM rowmill.sources"):
        await regenerate(connection, row["id"], row["name"], json.loads(row["definition"]))
    await connection.execute(
        "INSERT INTO rowmill.functions (version, checksum) VALUES ($1, $2)",
        script.version,
        script.checksum,
    )


async def pending(dsn: str) -> list[str]:
    """Migrations this database lacks."""
    with translated():
        connection = await connect(dsn)
        try:
            if not await connection.fetchval(
                "SELECT to_regclass('rowmill.migrations') IS NOT NULL"
            ):
                return [script.name for script in migrations()]
            known = {
                row["version"]
                for row in await connection.fetch("SELECT version FROM rowmill.migrations")
            }
            wanted = await _functions_wanted(connection, functions()) if known else False
        finally:
            await connection.close()
    missing = [script.name for script in migrations() if script.version not in known]
    return [*missing, "functions"] if wanted or missing else []
