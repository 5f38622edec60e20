"""docs/enqueue.md: its snippets, to the letter, as a role that has no right on Rowmill."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import asyncpg
import pytest
from fakeredis import TcpFakeServer

from tests.database.platform_samples import project
from tests.database.redis_servers import real_redis
from tests.process.fleet import Fleet, until_sql
from tests.process.rows import has_status, in_state

pytestmark = pytest.mark.process

PAGE = Path(__file__).parents[2] / "docs" / "enqueue.md"
RIGHTS = ("The role", "Its policies")
ONE = "6b0b6f0e-6d5c-4b63-9d55-0c3a3e6a1f10"
MANY = "6b0b6f0e-6d5c-4b63-9d55-{:012}"
LATER = "6b0b6f0e-6d5c-4b63-9d55-00000000aaaa"
NPM_SECONDS = 90.0


def snippets() -> dict[str, str]:
    """Each by the heading it stands under; a heading has one at most."""
    found: dict[str, str] = {}
    for part in re.split(r"^##+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        heading = part.partition("\n")[0]
        for code in re.findall(r"^```\w+\n(.*?)^```$", part, re.DOTALL | re.MULTILINE):
            assert heading not in found, heading
            found[heading] = code
    return found


SNIPPETS = snippets()
NOT_RUN = {"C# with EF Core"}
SQL = {
    *("Enqueue", "Watch", "Read the result", "Many at once", "Cancel", "Again", "Move"),
    *("Later", "Not like this"),
}


def test_every_snippet_is_run_or_said_not_to_be() -> None:
    elsewhere = {"Supabase JS", "node-postgres", "SQLAlchemy", "arq"}
    assert set(SNIPPETS) == {*RIGHTS, *SQL, *elsewhere, *NOT_RUN}


# --------------------------------------------------------------------------- the role


@pytest.fixture
async def app(both: str, db: Any) -> AsyncIterator[str]:
    """DSN of the page's role, which gets the page's rights and has no others."""
    role, password = f"rowmill_test_{secrets.token_hex(6)}", secrets.token_hex(16)
    for heading in RIGHTS:
        await db.execute(SNIPPETS[heading].replace("shop_app", role))
    await db.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
    yield re.sub(r"^(\w+://)([^@/]*@)?", rf"\1{role}:{password}@", both)
    await db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        connection.terminate()


async def run(app: str, *words: str, **environment: str) -> str:
    """A program in an environment of its own, with the role's connection string."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**inherited, "DATABASE_URL": app, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            said, error = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, error.decode()
    return said.decode()


# --------------------------------------------------------------------------- SQL


async def queue_of(db: Any) -> dict[str, tuple[str, int]]:
    rows = await db.fetch("SELECT row_key, state::text, rank FROM rowmill.queue")
    return {row["row_key"]: (row["state"], row["rank"]) for row in rows}


async def test_sql_from_enqueue_to_result(db: Any, app: str, fleet: Fleet) -> None:
    many = [MANY.format(number) for number in range(1, 21)]
    async with connected(app) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SELECT FROM rowmill.queue")
        assert await connection.execute(SNIPPETS["Enqueue"]) == "INSERT 0 1"
        assert await connection.execute(SNIPPETS["Enqueue"]) == "INSERT 0 0"
        assert list(await queue_of(db)) == [ONE]
        assert await connection.execute(SNIPPETS["Many at once"]) == "INSERT 0 20"
        assert set(await queue_of(db)) == {ONE, *many}
        assert await connection.execute(SNIPPETS["Cancel"]) == "UPDATE 1"
        assert set(await queue_of(db)) == {ONE, *many[1:]}
        assert await connection.execute(SNIPPETS["Cancel"]) == "UPDATE 0"
        assert await connection.execute(SNIPPETS["Again"]) == "UPDATE 1"
        assert await connection.execute(SNIPPETS["Move"]) == "UPDATE 1"
        queued = await queue_of(db)
        assert {state for state, _ in queued.values()} == {"ready"}
        again, moved, first = (queued[key][1] for key in (many[0], many[1], ONE))
        assert again < first < moved == 20, "by their priorities: 5, 8 and 10"
        await connection.execute(SNIPPETS["Not like this"])
        assert await queue_of(db) == queued
        waiting = dict(await connection.fetchrow(SNIPPETS["Watch"]))
        assert (waiting["status"], waiting["progress_percentage"]) == ("queued", 0)

        await fleet.hire()
        for key in (ONE, *many):
            await has_status(db, key, "completed", within=40)
        done = await connection.fetchrow(SNIPPETS["Watch"])
        assert (done["progress_percentage"], done["error_message"]) == (100, None)
        result = await connection.fetchrow(SNIPPETS["Read the result"])
        assert (result["status"], result["mime_type"]) == ("completed", "video/mp4")
        assert result["file_url"].endswith(".mp4")
        # Nobody takes what said that it was already running.
        assert await db.fetchval(
            "SELECT count(*) = 1 FROM generation_jobs WHERE status = 'processing'"
        )


async def test_sql_cancels_what_runs(db: Any, app: str, fleet: Fleet) -> None:
    await db.execute(
        "UPDATE video_projects SET ai_prompt = '[fault:stall]' WHERE id = $1", project(4)
    )
    async with connected(app) as connection:
        await connection.execute(SNIPPETS["Many at once"])
        await fleet.hire()
        await in_state(db, "accepted", 20)
        assert await connection.execute(SNIPPETS["Cancel"]) == "UPDATE 1"
        await in_state(db, "cancelled", 1)
        await has_status(db, MANY.format(1), "cancelled")
        assert await db.fetchval(
            "SELECT row_key = $1 FROM rowmill.submissions WHERE state = 'cancelled'",
            MANY.format(1),
        )


async def test_a_time_to_start(db: Any, app: str) -> None:
    role = re.split("[:/@]+", app)[1]
    await db.execute(
        f"GRANT USAGE ON SCHEMA system TO {role};GRANT INSERT ON system.background_jobs TO {role}"
    )
    async with connected(app) as connection:
        await connection.execute(SNIPPETS["Later"])
    assert (await queue_of(db))[LATER][0] == "scheduled"
    assert await db.fetchval(
        "SELECT ready_at > now() + interval '50 min' FROM rowmill.queue WHERE row_key = $1", LATER
    )


# --------------------------------------------------------------------------- JavaScript


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node here")
    return found


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with node-postgres in it; skips without npm, or a place to fetch it from."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm here")
    (tmp_path / "package.json").write_text('{"type": "module", "private": true}')
    words = ("install", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=0", "pg@8")
    try:
        done = subprocess.run(
            [npm, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=NPM_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm install pg takes too long here")
    if done.returncode:
        pytest.skip(f"npm can't install pg here: {done.stderr.strip()[:300]}")
    return tmp_path


async def test_node_postgres(db: Any, app: str, fleet: Fleet, node: str, packages: Path) -> None:
    await fleet.hire()
    (packages / "enqueue.js").write_text(SNIPPETS["node-postgres"])
    said = json.loads(await run(app, node, str(packages / "enqueue.js")))
    assert (said["status"], said["error_message"], said["cancelled"]) == ("completed", None, False)
    assert said["file_url"].endswith(".mp4")
    assert [str(row["id"]) for row in await db.fetch("SELECT id FROM generation_jobs")] == [
        said["id"]
    ]
    assert len(await fleet.sandbox.bill()) == 1, "a repeat is no second job"


async def test_supabase_js_is_sound_in_form(app: str, node: str, tmp_path: Path) -> None:
    """There is no PostgREST here, so it isn't run; the page says so."""
    (tmp_path / "enqueue.mjs").write_text(SNIPPETS["Supabase JS"])
    await run(app, node, "--check", str(tmp_path / "enqueue.mjs"))


# --------------------------------------------------------------------------- Python


async def test_sqlalchemy(db: Any, app: str, fleet: Fleet, tmp_path: Path) -> None:
    pytest.importorskip("greenlet", reason="SQLAlchemy needs greenlet for asyncpg")
    await fleet.hire()
    (tmp_path / "enqueue.py").write_text(SNIPPETS["SQLAlchemy"])
    url = re.sub(r"^\w+://", "postgresql+asyncpg://", app)
    key, status, cancelled = (await run(url, sys.executable, str(tmp_path / "enqueue.py"))).split()
    assert (status, cancelled) == ("completed", "0")
    assert (
        await db.fetchval("SELECT status::text FROM generation_jobs WHERE id = $1", key) == status
    )


@asynccontextmanager
async def redis_url(kind: str) -> AsyncIterator[str]:
    if kind == "real":
        async with real_redis() as real:
            yield real.url
        return
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ["fake", pytest.param("real", marks=pytest.mark.redis)])
async def test_arq(db: Any, fleet: Fleet, tmp_path: Path, kind: str) -> None:
    """Without a connection to the database at all."""
    (tmp_path / "enqueue.py").write_text(SNIPPETS["arq"])
    async with redis_url(kind) as url:
        worker = await fleet.hire(REDIS_URL=url)
        said = await run("", sys.executable, str(tmp_path / "enqueue.py"), REDIS_URL=url)
        key, status, file = said.split()
        assert status == "completed"
        assert file.endswith(".mp4")
        await until_sql(
            db, "SELECT status = 'completed' FROM public.generation_jobs WHERE id = $1", key
        )
        await worker.drain()
