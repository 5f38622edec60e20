"""The Postgres the tests run on, and databases on it.

ROWMILL_DATABASE_URL names a server to use (any database of it; only databases called
rowmill_test_… are made and dropped there). Without it, an embedded one is started, once for all
xdist workers, of the version in ROWMILL_TEST_POSTGRES (a `bin` directory) if that is set.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.commandline import Rowmill, rowmill_in
from worker.embedded import EmbeddedPostgres

Build = Callable[[str], Awaitable[None]]
NewDatabase = Callable[[], Awaitable[str]]
CloneDatabase = Callable[[str, Build], Awaitable[str]]

DSN = pytest.StashKey[str]()


# --------------------------------------------------------------------------- the server


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Under xdist the controller owns the server: it outlives its workers."""
    node.workerinput["rowmill_dsn"] = admin_dsn(node.config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs the command as a process is the same on every server: CI runs it on one."""
    for item in items:
        if "rowmill" in getattr(item, "fixturenames", ()):
            item.add_marker("command")


def admin_dsn(config: pytest.Config) -> str:
    if DSN not in config.stash:
        given = os.environ.get("ROWMILL_DATABASE_URL")
        inherited = getattr(config, "workerinput", {}).get("rowmill_dsn")
        config.stash[DSN] = given or inherited or start_server(config)
    return config.stash[DSN]


def start_server(config: pytest.Config) -> str:
    directory = Path(tempfile.mkdtemp(prefix="rowmill-test-"))
    directory.chmod(0o711)  # as root, the server runs as another user
    binaries = os.environ.get("ROWMILL_TEST_POSTGRES")
    server = EmbeddedPostgres(
        directory,
        binaries=Path(binaries) if binaries else None,
        # A killed server loses nothing by it, a machine without power would; and dropping a
        # database takes 6 ms instead of 600.
        settings={"fsync": "off"},
    )

    def end() -> None:
        server.stop()
        server.delete()
        directory.rmdir()

    config.add_cleanup(end)
    server.start()
    return server.dsn()


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> str:
    """A superuser's DSN; not for use in tests but to make databases, roles and the like."""
    return admin_dsn(pytestconfig)


# --------------------------------------------------------------------------- databases


def database_dsn(dsn: str, database: str) -> str:
    """The same server and user, another database."""
    return re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{database}", dsn)


async def run_on(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def new_name() -> str:
    return f"rowmill_test_{secrets.token_hex(6)}"


async def drop(server: str, names: list[str]) -> None:
    for name in names:
        await run_on(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
async def new_database(server: str) -> AsyncIterator[NewDatabase]:
    """Await it for the DSN of a fresh, empty database; dropped after the test."""
    names: list[str] = []

    async def new() -> str:
        names.append(new_name())
        await run_on(server, f"CREATE DATABASE {names[-1]} TEMPLATE template0 ENCODING 'UTF8'")
        return database_dsn(server, names[-1])

    yield new
    await drop(server, names)


@pytest.fixture(scope="session")
def templates(server: str) -> Iterator[dict[str, str]]:
    """Databases to clone, by what they are of: built once per session (and xdist worker)."""
    built: dict[str, str] = {}
    yield built
    asyncio.run(drop(server, list(built.values())))


@pytest.fixture
async def clone_database(server: str, templates: dict[str, str]) -> AsyncIterator[CloneDatabase]:
    """Await it with (name, build) for the DSN of a copy of what `await build(dsn)` made.

    `build` runs once per session for a name and must close its connections. Copies are dropped
    after the test.
    """
    names: list[str] = []

    async def clone(name: str, build: Build) -> str:
        if name not in templates:
            templates[name] = await make_template(server, build)
        names.append(new_name())
        await run_on(server, f"CREATE DATABASE {names[-1]} TEMPLATE {templates[name]}")
        return database_dsn(server, names[-1])

    yield clone
    await drop(server, names)


async def make_template(server: str, build: Build) -> str:
    database = new_name()
    await run_on(server, f"CREATE DATABASE {database} TEMPLATE template0 ENCODING 'UTF8'")
    try:
        await build(database_dsn(server, database))
    except BaseException:
        await drop(server, [database])
        raise
    return database


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A real Redis; skips where there is none. Use keys with a prefix of your own."""
    url = os.environ.get("ROWMILL_REDIS_URL")
    if not url:
        pytest.skip("ROWMILL_REDIS_URL isn't set")
    return url


# --------------------------------------------------------------------------- the command


@pytest.fixture
def rowmill(tmp_path: Path) -> Rowmill:
    """(dsn, *arguments, **environment) → what it said."""
    return rowmill_in(tmp_path)
