"""docs/adopt.md, followed to the letter: what it promises is what happens."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.database.platform_samples import NewDatabase
from tests.process.fleet import until_sql
from tests.process.page import ROOT, Reader, Shell, blocks_of
from worker.embedded_places import free_port

pytestmark = pytest.mark.process

PAGE = ROOT / "docs" / "adopt.md"


@pytest.fixture
async def dsn(new_database: NewDatabase) -> str:
    return await new_database()


@pytest.fixture
async def role(server: str) -> AsyncIterator[str]:
    """A name for the page's role; roles belong to all databases of a server."""
    name = f"rowmill_test_{secrets.token_hex(6)}"
    yield name
    connection = await asyncpg.connect(server)
    await connection.execute(f"DROP ROLE IF EXISTS {name}")
    await connection.close()


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    opened = await Shell.open(tmp_path)
    yield opened
    await opened.close()


async def test_a_reader_gets_from_a_table_to_a_running_fleet(
    role: str, dsn: str, shell: Shell
) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        instead = {
            "postgresql://localhost/shop": f"'{dsn}'",
            "8900": str(free_port()),
            "letters_worker": role,
        }
        reader = Reader(shell, connection)
        for block in blocks_of(PAGE, instead):
            await reader.follow(block)

        names = await connection.fetch("SELECT name FROM rowmill.workers ORDER BY name")
        assert {"one", "two"} <= {row["name"] for row in names}

        # The role of the last chapter can do the work: nobody else does any more.
        await shell.type("kill %3 %4; wait %3 %4")
        await connection.execute(
            "INSERT INTO public.letters (number, task, customer, body, urgency)"
            " VALUES ('L-10', 'count', 'eve', 'Two words', 'now')"
        )
        as_role = re.sub(r"//[^/@]*@", f"//{role}:change%20me@", dsn)
        await shell.type(f"ROWMILL_DATABASE_URL='{as_role}' rowmill run --burst 2> role.log")
        await until_sql(connection, "SELECT words = 2 FROM public.letters WHERE number = 'L-10'")
    finally:
        await connection.close()
        await drop_owned(dsn, role)


async def drop_owned(dsn: str, role: str) -> None:
    """What the page granted, so that the role can go."""
    connection = await asyncpg.connect(dsn)
    if await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f"DROP OWNED BY {role}")
    await connection.close()
