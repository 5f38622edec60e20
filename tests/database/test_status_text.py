"""`rowmill status` as people see it: in terminals, in a pipe, with hostile names."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pyte

from tests.commandline import ROOT, Rowmill
from tests.database.support import Connect, Hand, OpenStore, add_texts, add_videos
from tests.database.test_status import pulse
from worker.store import gates

WHO = "tester@here"
HOSTILE = "moved\x1b[2J\x1b]0;owned\x07 \u202e[red]:boom:\nNothing needs a person."


async def in_terminal(dsn: str, width: int, cwd: Path, *words: str, **environment: str) -> str:
    """What `rowmill` sent to a terminal of this width, as it was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 100, width, 0, 0))
    inherited = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("ROWMILL_") and k not in {"COLUMNS", "LINES", "NO_COLOR"}
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker.cli", *words),
        cwd=cwd,
        env={
            **inherited,
            "ROWMILL_DATABASE_URL": dsn,
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm-256color",
            **environment,
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = await asyncio.to_thread(read_to_the_end, ours)
    await process.wait()
    return said


def read_to_the_end(terminal: int) -> str:
    parts = []
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:  # the last process on the other side is gone
        pass
    os.close(terminal)
    return b"".join(parts).decode()


def screen_of(said: str, width: int) -> list[str]:
    screen = pyte.Screen(width, 100)
    pyte.Stream(screen).feed(said)
    return [line.rstrip() for line in screen.display]


async def test_status_in_terminals_and_in_a_pipe(
    both: str, rowmill: Rowmill, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    connection, store = await connect(both), await open_store(both)
    await add_videos(connection, 7)
    await add_texts(connection, 3)
    hand = await Hand.hire(store, ["replicate", "openai"])
    await hand.take(2)
    await gates.pause(store, lane="openai", who=WHO, reason=HOSTILE)
    await gates.limit(store, {"max_running": 4}, lane="replicate", who=WHO)
    waits = [0] * 32
    waits[8] = 5
    await store.add_pulses([pulse(started=5, succeeded=4, failed=1, waits=waits, runs=waits)])

    narrow, wide, dull, piped = await asyncio.gather(
        in_terminal(both, 80, tmp_path, "status"),
        in_terminal(both, 160, tmp_path, "status"),
        in_terminal(both, 80, tmp_path, "status", "--lane", "replicate", NO_COLOR="1"),
        rowmill(both, "status"),
    )
    lines = screen_of(narrow, 80)
    text = "\n".join(lines)
    header = next(line for line in lines if line.startswith("lane "))
    assert header.split()[:3] == ["lane", "table", "ready"]
    (video,) = [line for line in lines if line.startswith("replicate  generation_jobs")]
    assert "2/4" in video
    (told,) = [line for line in lines if line.startswith("openai  ") and "ai_generations" in line]
    assert "paused" in told
    assert "owned" not in told, "there is no room for the reason"
    assert "Last hour" in text
    assert "Nothing needs a person." in lines
    assert not any("…" in line for line in lines if line.startswith(("lane ", "replicate")))

    lines = screen_of(wide, 160)
    header = next(line for line in lines if line.startswith("lane "))
    for name in ("in/min", "out/min", "held", "oldest"):
        assert name in header
    (video,) = [line for line in lines if line.startswith("replicate  generation_jobs")]
    assert "███···" in video
    assert len([line for line in lines if line == "Nothing needs a person."]) == 1

    # Not a sequence but rich's own colours; what the reason holds is shown, never obeyed.
    for said in (narrow, wide):
        assert not re.search(r"\x1b(?!\[[0-9;]*m)", said)
        assert "\x07" not in said
        assert "\u202e" not in said
        assert "\x1b[" in said
    assert "\x1b[3" not in dull, "NO_COLOR"
    assert not [line for line in dull.splitlines() if line.startswith("openai")]

    assert piped.code == 0
    assert "\x1b" not in piped.out
    assert not re.search("[█▁▏]", piped.out)
    shown = "moved␛[2J␛]0;owned␇ \\u202e[red]:boom:"
    assert f"paused by {WHO}: {shown}␊Nothing needs a person.; 3 jobs wait" in piped.out
    header = next(line for line in piped.out.splitlines() if line.startswith("lane "))
    assert {"run", "scheduled", "today", "table"} <= {*header.split()}


async def test_a_lane_that_nobody_knows_is_refused(photomemory: str, rowmill: Rowmill) -> None:
    said = await rowmill(photomemory, "status", "--lane", "relicate")
    assert said.code == 1
    assert "no lane 'relicate'" in said.err
