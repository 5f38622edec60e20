"""Attached platforms, producers without rights, and stores; all on databases of their own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.database.platform_samples import CloneDatabase, run, sql_file
from tests.database.support import Connect, OpenStore, Producer, connection_to
from worker import maps
from worker.store import Store
from worker.store.attaching import attach
from worker.store.migrations import migrate


def attached(*platforms: str) -> Callable[[str], Awaitable[None]]:
    async def build(dsn: str) -> None:
        await migrate(dsn)
        for platform in platforms:
            await run(dsn, sql_file(platform, "schema.sql"), sql_file(platform, "sample.sql"))
            await attach(dsn, maps.load(platform))

    return build


@pytest.fixture
async def photomemory(clone_database: CloneDatabase) -> str:
    """DSN of a database with PhotoMemory's schema and sample, migrated and attached."""
    return await clone_database("photomemory-attached", attached("photomemory"))


@pytest.fixture
async def photomemory_v1(clone_database: CloneDatabase) -> str:
    return await clone_database("photomemory_v1-attached", attached("photomemory_v1"))


@pytest.fixture
async def ebook(clone_database: CloneDatabase) -> str:
    return await clone_database("ebook-attached", attached("ebook"))


@pytest.fixture
async def ecomvideo(clone_database: CloneDatabase) -> str:
    return await clone_database("ecomvideo-attached", attached("ecomvideo"))


@pytest.fixture
async def education(clone_database: CloneDatabase) -> str:
    return await clone_database("education-attached", attached("education"))


@pytest.fixture
async def both(clone_database: CloneDatabase) -> str:
    """Both platforms in one database: three job tables that share one queue."""
    return await clone_database("both-attached", attached("photomemory", "ebook"))


@pytest.fixture(scope="session")
def producer(server: str) -> Iterator[Producer]:
    """A role of its own for the session. BYPASSRLS, as the service role of such platforms has."""
    role = Producer(f"rowmill_test_{secrets.token_hex(6)}", secrets.token_hex(16))
    asyncio.run(run(server, f"CREATE ROLE {role.name} LOGIN BYPASSRLS PASSWORD '{role.password}'"))
    yield role
    # Every right it was given went with the databases.
    asyncio.run(run(server, f"DROP ROLE {role.name}"))


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Await it with a DSN, and perhaps a producer; what it opened is closed after the test."""
    async with AsyncExitStack() as opened:

        async def open_one(dsn: str, role: Producer | None = None) -> Any:
            return await opened.enter_async_context(connection_to(dsn, role))

        yield open_one


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    stores: list[Store] = []

    async def open_one(dsn: str, size: int = 4) -> Store:
        stores.append(await Store.open(dsn, size))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()
