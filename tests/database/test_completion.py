"""What a real shell offers after `rowmill …<Tab>`."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commandline import ROOT
from tests.database.support import LANES, Connect, OpenStore, add_videos
from worker.commands.completion import SCRIPTS, Shell

FAILED = "0f0f0f0f-failed-and-over"

# Bash calls the function as it would for a line whose cursor is at its end.
ASK_BASH = """
for COMP_LINE in "$@"; do
    COMP_POINT=${#COMP_LINE} COMPREPLY=()
    _rowmill_completion rowmill
    printf '%s\\n' "${COMPREPLY[@]}"
    printf -- '--\\n'
done
"""

# Zsh's own completion needs a terminal; what it would be told is caught where it is told.
ASK_ZSH = """
_describe() { print -rl -- "${(@P)2}" }
_files() { : }
for line in "$@"; do
    words=("${(@s: :)line}") CURRENT=${#words}
    _rowmill
    print -r -- --
done
"""

ASK_FISH = """
for line in $argv
    complete --do-complete $line
    printf '%s\\n' --
end
"""


async def offered(
    shell: Shell, dsn: str, directory: Path, *lines: str, **settings: str
) -> list[list[str]]:
    """For each line the names, without what is said about them."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    script = {
        Shell.BASH: SCRIPTS[shell] + ASK_BASH,
        Shell.ZSH: f"compdef() {{ : }}\n{SCRIPTS[shell]}{ASK_ZSH}",
        Shell.FISH: SCRIPTS[shell] + ASK_FISH,
    }[shell]
    (directory / "ask").write_text(script)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *(program, str(directory / "ask"), *lines),
        cwd=directory,
        env=clean
        | {
            "ROWMILL_DATABASE_URL": dsn,
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "HOME": str(directory),
        }
        | settings,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert err.decode() == ""
    answers = out.decode().split("--\n")[:-1]
    return [[line.split("\t")[0] for line in a.splitlines() if line] for a in answers]


async def a_fleet(dsn: str, connect: Connect, open_store: OpenStore) -> list[str]:
    store, connection = await open_store(dsn), await connect(dsn)
    await store.register(
        7, name="render-7:12", version="1", lanes=LANES, slots=4, lease=30, host="render-7"
    )
    keys = await add_videos(connection, 3)
    await connection.execute(
        "INSERT INTO rowmill.failures"
        " (source, row_key, lane, run, try, final, kind, message, worker)"
        " VALUES ('generation_jobs', $1, 'replicate', 1, 1, true, 'invalid', 'no', 7)",
        FAILED,
    )
    # Names that a shell would read something into; nobody wants them on a line.
    await connection.execute(
        "INSERT INTO rowmill.lanes (lane) VALUES ('replicate;touch pwned'), ('rep$(touch pwned)'),"
        " ('*'), ('rep`touch pwned`'), ('rep''')"
    )
    return keys


async def test_bash(
    photomemory: str, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    keys = await a_fleet(photomemory, connect, open_store)
    commands, lanes, colon, tables, jobs, workers, platforms = await offered(
        Shell.BASH,
        photomemory,
        tmp_path,
        "rowmill pau",
        "rowmill pause rep",
        "rowmill pause background:webhook",
        "rowmill pause --source gen",
        f"rowmill job show {keys[0][:5]}",
        "rowmill drain r",
        "rowmill attach ph",
    )
    filters = await offered(
        Shell.BASH,
        photomemory,
        tmp_path,
        "rowmill jobs --lane rep",
        "rowmill cancel --source gen",
        "rowmill retry --state unf",
        "rowmill jobs --error-kind tra",
        f"rowmill retry {FAILED[:6]}",
        "rowmill watch --lane rep",
    )
    assert filters == [
        ["replicate"],
        ["generation_jobs"],
        ["unfinished"],
        ["transient"],
        [FAILED],
        ["replicate"],
    ]
    assert commands == ["pause"]
    assert lanes == ["replicate"]
    assert colon == ["webhook_delivery"]  # what stands behind the colon is all that bash replaces
    assert tables == ["generation_jobs"]
    assert keys[0] in jobs
    assert workers == ["render-7:12"]
    assert platforms == ["photomemory", "photomemory_v1"]
    assert [path.name for path in tmp_path.iterdir()] == ["ask"]


@pytest.mark.parametrize("shell", [Shell.ZSH, Shell.FISH])
async def test_others(
    shell: Shell, photomemory: str, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    await a_fleet(photomemory, connect, open_store)
    lanes, colon = await offered(
        shell, photomemory, tmp_path, "rowmill pause rep", "rowmill pause background:webhook"
    )
    assert lanes == ["replicate"]
    assert [lane.replace("\\:", ":") for lane in colon] == ["background:webhook_delivery"]
    assert not (tmp_path / "pwned").exists()


async def test_nothing_and_no_error_where_the_database_says_nothing(
    photomemory: str, connect: Connect, tmp_path: Path
) -> None:
    """A lock on what is read is a server that doesn't answer; a provider is known without it."""
    connection: Any = await connect(photomemory)
    async with connection.transaction():
        await connection.execute("LOCK rowmill.lanes, rowmill.sources")
        lanes, tables = await offered(
            Shell.BASH,
            photomemory,
            tmp_path,
            "rowmill pause q",
            "rowmill pause --source g",
            ROWMILL_PROVIDERS__QUILL__ADAPTER="openai",
        )
    assert (lanes, tables) == (["quill"], [])
    for wrong in ("postgresql://nobody@127.0.0.1:1/none", "embedded:here", "nonsense"):
        assert await offered(Shell.BASH, wrong, tmp_path, "rowmill drain ") == [[]]
    assert not (tmp_path / "here").exists()
