"""`ROWMILL_HANDLERS` names an adopter's module in the directory where a worker is started."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.commandline import ROOT, Said, rowmill_in
from tests.database.platform_samples import CloneDatabase, run
from tests.database.redis_servers import real_redis
from tests.process.fleet import until_sql
from worker import maps
from worker.store.attaching import attach
from worker.store.migrations import migrate

pytestmark = pytest.mark.process

SCRIPT = str(Path(sys.executable).parent / "rowmill")
WAYS = {"script": (SCRIPT,), "module": (sys.executable, "-m", "worker.cli")}
TABLE = """
CREATE TABLE public.notes (id text PRIMARY KEY, state text DEFAULT 'new', answer text)
"""
MAP = """
platform = "notes"
[[sources]]
name = "notes"
table = "public.notes"
kind = { constant = "note" }
lane = { constant = "note" }
  [sources.status]
  column = "state"
  ready = ["new"]
  running = "busy"
  succeeded = "done"
  failed = "broken"
  [sources.set.success]
  answer = "text"
  [sources.set.failure]
  answer = "error"
"""
HANDLER = """
from jobs.contract import Succeeded
from jobs.registry import kind
from myapp.words import ANSWER

@kind("note")
async def note(job, ctx):
    return Succeeded(text=ANSWER + job.input["id"])
"""


@pytest.fixture
async def dsn(clone_database: CloneDatabase, tmp_path: Path) -> str:
    (tmp_path / "map.toml").write_text(MAP)
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "jobs.py").write_text(HANDLER)
    (tmp_path / "myapp" / "words.py").write_text("ANSWER = 'hello '\n")

    async def build(dsn: str) -> None:
        await migrate(dsn)
        await run(dsn, TABLE)
        await attach(dsn, maps.load(str(tmp_path / "map.toml")))

    return await clone_database("notes", build)


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    yield connection
    connection.terminate()


@pytest.mark.parametrize("way", WAYS)
async def test_a_module_in_the_current_directory(
    way: str, dsn: str, db: Any, tmp_path: Path
) -> None:
    await db.execute("INSERT INTO public.notes VALUES ('n-1')")
    said = await rowmill_in(tmp_path, *WAYS[way])(
        dsn, "run", "--burst", ROWMILL_HANDLERS="myapp.jobs"
    )
    assert said.code == 0, said.err
    assert await db.fetchval("SELECT answer FROM public.notes") == "hello n-1"


@pytest.mark.redis
async def test_the_arq_host_finds_it_too(dsn: str, db: Any, tmp_path: Path) -> None:
    await db.execute("INSERT INTO public.notes VALUES ('n-1')")
    async with real_redis() as redis:
        ours = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).parent / "arq"), "worker.arq_host.WorkerSettings"),
            cwd=tmp_path,
            env={
                **ours,
                "PYTHONPATH": str(ROOT),
                "ROWMILL_DATABASE_URL": dsn,
                "ROWMILL_REDIS_URL": redis.url,
                "ROWMILL_HANDLERS": "myapp.jobs",
            },
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await until_sql(db, "SELECT answer = 'hello n-1' FROM public.notes")
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


# --------------------------------------------------------------------------- what can be wrong

WRONG = {
    "missing": ("nowhere.jobs", "names 'nowhere.jobs', which cannot be imported: No module named"),
    "ours": ("jobs", "names 'jobs', which is a package of Rowmill's own"),
    "syntax": ("odd", "names 'odd', which fails while it is imported: SyntaxError"),
    "breaks": ("broken", "names 'broken', which fails while it is imported: ZeroDivisionError"),
    "inner": ("inner", "names 'inner', which cannot be imported: No module named 'absent'"),
    "twice": ("twice", "two handlers for kind 'text'"),
}
FILES = {
    "odd": "def x(:\n",
    "broken": "import json\n\n1 / 0\n",
    "inner": "import absent\n",
    "twice": "from jobs.registry import kind\n\n@kind('text')\nasync def mine(job, ctx): ...\n",
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_wrong_is_said_in_a_line(what: str, dsn: str, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    module, message = WRONG[what]
    said: Said = await rowmill_in(tmp_path)(dsn, "run", "--burst", ROWMILL_HANDLERS=module)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1
    if what == "breaks":
        assert "broken.py, line 3" in said.err


async def test_help_names_it(tmp_path: Path) -> None:
    said = await rowmill_in(tmp_path)(None, "run", "--help")
    assert "ROWMILL_HANDLERS" in said.out
