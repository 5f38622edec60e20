"""`rowmill jobs` as people and scripts use it: a process, in a pipe and in a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shlex
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from jobs.contract import Failed
from tests.commandline import Rowmill
from tests.database.hand import failure
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_background,
    add_texts,
    add_videos,
)
from worker.store import Store

ROOT = Path(__file__).parents[2]
HOSTILE = "\x1b[2J\x1b]0;mine\x07 [red]no[/red] \x9b31m :boom: 火曜日\r\nrm \u202e" + "長い" * 2000


@pytest.fixture
async def db(both: str, connect: Connect) -> Any:
    return await connect(both)


@pytest.fixture
async def store(both: str, open_store: OpenStore) -> Store:
    return await open_store(both)


async def some_jobs(db: Any, store: Store) -> list[str]:
    """One that failed with a hostile message, one that runs, and four that wait."""
    keys = await add_videos(db, 2, priority=10)
    hand = await Hand.hire(store)
    works = {work.key: work for work in await hand.take(2)}
    await hand.settle([works[keys[0]]], lambda _: Failed(failure(HOSTILE)))
    keys += await add_texts(db, 2)
    return keys + await add_background(db, 2)


# --------------------------------------------------------------------------- in a pipe


async def test_pages_in_a_pipe(rowmill: Rowmill, both: str, db: Any, store: Store) -> None:
    keys = await some_jobs(db, store)
    said = await rowmill(both, "jobs", "--limit", "3")
    head, *lines = said.out.splitlines()
    assert head.split() == ["JOB", "STATE", "LANE", "AGE", "TRIES", "WHY"]
    assert [line.split()[:3] for line in lines] == [
        [keys[1], "running", "replicate"],
        [keys[2], "ready", "openai"],
        [keys[3], "ready", "openai"],
    ]
    assert said.err.startswith("3 of 5; more: rowmill jobs --limit 3 --after ")
    # What it says is what to type.
    more = shlex.split(said.err.strip().partition("more: ")[2])
    said = await rowmill(both, *more[1:])
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == keys[4:]
    assert (said.code, said.err) == (0, "")


async def test_json(rowmill: Rowmill, both: str, db: Any, store: Store) -> None:
    keys = await some_jobs(db, store)
    said = await rowmill(both, "jobs", "--error", "NO[/RED]", "--json")
    (job,) = said.json["jobs"]
    assert said.json["next"] is None
    assert (job["key"], job["state"], job["source"]) == (keys[0], "failed", "generation_jobs")
    assert job["error"]["message"] == HOSTILE
    assert list(job) == [
        *("source", "key", "platform", "state", "status", "kind", "lane", "tenant", "rank"),
        *("priority", "run", "tries", "max_retries", "created_at", "queued_at", "ready_at"),
        *("started_at", "finished_at", "age_s", "ran_s", "worker", "why", "reason"),
        *("may_start_at", "error", "cost_cents"),
    ]
    page = (await rowmill(both, "jobs", "--json", "--limit", "1", "--state", "ready")).json
    assert [job["key"] for job in page["jobs"]] == [keys[2]]
    assert isinstance(page["next"], str)


async def test_nothing_found_and_what_is_misspelt(rowmill: Rowmill, both: str, db: Any) -> None:
    said = await rowmill(both, "jobs")
    assert (said.code, said.out) == (0, "")
    assert "rowmill jobs --state all" in said.err
    await add_texts(db)
    for wrong, code, named in (
        (("--lane", "replicat"), 1, "known lanes: openai"),
        (("--source", "jobs"), 1, "attached: ai_generations, background_jobs, generation_jobs"),
        (("--state", "done"), 2, "completed"),
        (("--error-kind", "bad"), 2, "rate_limit"),
        (("--older-than", "2 hours"), 2, "30m"),
        (("--after", "x"), 2, "no cursor"),
        (("--state", "all", "--sort", "order"), 2, "--state unfinished"),
    ):
        said = await rowmill(both, "jobs", *wrong, COLUMNS="200")
        assert (said.code, said.out) == (code, "")
        assert named in said.err


# --------------------------------------------------------------------------- in a terminal


async def in_terminal(dsn: str, columns: int, *arguments: str) -> str:
    """What it writes into a terminal of so many columns."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker.cli", *arguments),
        cwd=ROOT,
        env=environment(dsn) | {"TERM": "xterm-256color", "NO_COLOR": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=theirs,
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(theirs)
    text = await asyncio.to_thread(_all_of, ours)
    assert await process.wait() == 0
    os.close(ours)
    return text


def _all_of(terminal: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()


def environment(dsn: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
    return clean | {"ROWMILL_DATABASE_URL": dsn, "PYTHONPATH": str(ROOT)}


async def test_eighty_columns(both: str, db: Any, store: Store) -> None:
    """Nothing in a message moves the cursor, and no line is longer than the terminal."""
    keys = await some_jobs(db, store)
    text = await in_terminal(both, 80, "jobs", "--state", "all", "--sort", "oldest")
    plain = text.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
    lines = plain.replace("\r\n", "\n").splitlines()
    assert all(line.isprintable() for line in lines)
    assert max(map(cell_len, lines)) <= 80
    assert {line.split()[0] for line in lines[1:] if not line.startswith(" ")} == set(keys)
    at = next(number for number, line in enumerate(lines) if line.startswith(keys[0]))
    assert lines[at + 1].startswith(
        "    unknown: ␛[2J␛]0;mine␇ [red]no[/red] \\x9b31m :boom: 火曜日␍␊rm"
    )
    assert lines[at + 1].endswith("…")


# --------------------------------------------------------------------------- followed


@asynccontextmanager
async def following(dsn: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker.cli", "jobs", "--follow", "--json", *arguments),
        cwd=ROOT,
        env=environment(dsn),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def next_job(process: asyncio.subprocess.Process) -> tuple[str, str]:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    job = json.loads(line)
    return job["key"], job["state"]


async def test_changes_are_told_as_they_happen(both: str, db: Any, store: Store) -> None:
    (first,) = await add_videos(db)
    hand = await Hand.hire(store)
    async with following(both, "--lane", "replicate") as process:
        assert await next_job(process) == (first, "ready")
        works = await hand.take(1)
        assert await next_job(process) == (first, "running")
        await hand.retry(works, after=600)
        assert await next_job(process) == (first, "scheduled")
        await add_texts(db)  # of another lane
        (second,) = await add_videos(db)
        assert await next_job(process) == (second, "ready")
        # What begins and ends between two looks is told once it is over.
        await hand.succeed([work for work in await hand.take(2) if work.key == second])
        told = await next_job(process)
        assert told in {(second, "running"), (second, "completed")}
        if told[1] == "running":
            assert await next_job(process) == (second, "completed")
        await db.execute(
            "UPDATE public.generation_jobs SET status = 'cancelled' WHERE id = $1", first
        )
        assert await next_job(process) == (first, "cancelled")
        (third,) = await add_videos(db)
        assert await next_job(process) == (third, "ready")
        await db.execute("DELETE FROM public.generation_jobs WHERE id = $1", third)
        assert await next_job(process) == (third, "gone")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stdout.read() == b""
        assert await process.stderr.read() == b""
        assert await process.wait() == -signal.SIGINT


async def test_a_filter_of_states_and_errors_is_followed(both: str, db: Any, store: Store) -> None:
    (key,) = await add_videos(db)
    hand = await Hand.hire(store)
    async with following(both, "--error", "It Broke", "--state", "failed") as process:
        await asyncio.sleep(0)
        other, *_ = await add_videos(db, 2)
        assert process.stderr is not None
        works = {work.key: work for work in await hand.take(3)}
        await hand.settle([works[other]], lambda _: Failed(failure("something else")))
        await hand.fail([works[key]])
        assert await next_job(process) == (key, "failed")


async def test_a_closed_pipe_ends_it(both: str, db: Any) -> None:
    """Also while there is nothing to tell."""
    (key,) = await add_videos(db)
    ours, theirs = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker.cli", "jobs", "--follow"),
        cwd=ROOT,
        env=environment(both),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=theirs,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(theirs)
    line = await asyncio.to_thread(os.read, ours, 4096)
    assert key in line.decode()
    os.close(ours)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err) == (-signal.SIGPIPE, b"")
