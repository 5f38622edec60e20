"""Pictures of `rowmill status` and `rowmill watch` for the README, of a fleet that really runs.

Customers come in waves to three platforms, two workers serve them; an operator has limited a lane,
paused another, and nobody has a key for a third. After some minutes both are drawn as SVG.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import pty
import re
import sys
import tempfile
import termios
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from worker import logs
from worker.demo.platform import choose, produce
from worker.demo.screen import Screen
from worker.demo.server import demo_database
from worker.demo.stage import Stage, set_up
from worker.maps import relocated
from worker.watch.picture import picture

PLATFORMS = ("photomemory", "ebook", "ecomvideo")
COLUMNS, ROWS = 150, 56
WAVE = 8.0
"""Seconds from one wave of customers to the next."""

BUSY = 12
LOOK = 0.1
_WORKERS = "SELECT count(*) FROM rowmill.workers WHERE stopped_at IS NULL"
_RUNNING = "SELECT count(*) FROM rowmill.queue WHERE state = 'claimed'"

# What each wave brings besides: work for a provider that is paused, and for one nobody has a key for.
_ASIDE = """
WITH aside AS (
    SELECT id FROM public.generation_jobs WHERE status = 'queued' ORDER BY created_at DESC LIMIT 3
)
UPDATE public.generation_jobs j
   SET generation_service = CASE WHEN j.id = (SELECT min(a.id::text)::uuid FROM aside a) THEN 'gemini' ELSE 'freepik' END
  FROM aside WHERE j.id = aside.id
"""


async def draw(directory: Path, minutes: float) -> list[Path]:
    """The files that were written."""
    logs.configure("error")
    with (
        tempfile.TemporaryDirectory(prefix="rowmill-pictures-") as scratch,
        Screen(silent=False) as screen,
    ):
        home = Path(scratch)
        home.chmod(0o711)  # as root, the server runs as another user
        async with (
            demo_database(home) as dsn,
            set_up(screen, dsn, home, choose(PLATFORMS), duration=6) as stage,
        ):
            await _run(stage, minutes)
            shown = {}
            await _busy(stage)
            shown["watch"] = await picture(dsn, (COLUMNS, ROWS), reports=3)
            await _busy(stage)
            shown["status"] = _framed(await _status(dsn), "rowmill status")
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, svg in shown.items():
        files.append(directory / f"{name}.svg")
        files[-1].write_text(_without_fonts(svg), encoding="utf-8")
    return files


async def _run(stage: Stage, minutes: float) -> None:
    for name in ("worker-a", "worker-b"):
        await stage.fleet.hire(name, slots=24)
    await _wave(stage, 40)
    await _until(stage, _WORKERS, 2)  # they say which lanes there are
    for act in (
        ("limit", "replicate", "--running", "8"),
        ("pause", "freepik", "--reason", "credits used up"),
        ("budget", "set", "replicate", "--day", "50000"),
    ):
        await _rowmill(stage.store.dsn, *act)
    began = time.monotonic()
    while (gone := time.monotonic() - began) < minutes * 60:
        # Busier and quieter times, of five minutes each.
        await _wave(stage, 6 + round(10 * (1 + math.sin(gone * math.tau / 300))))
        stage.screen.say(f"{gone / 60:.1f} of {minutes:g} minutes")
        await asyncio.sleep(WAVE)


async def _wave(stage: Stage, jobs: int) -> None:
    await produce(stage.store, stage.shown, jobs, stage.sandbox.url)
    photos = next(one for one in stage.shown if one.name == "photomemory")
    await stage.store.script(relocated(_ASIDE, photos.schema))


async def _busy(stage: Stage) -> None:
    """Until much is running at the same time."""
    await _wave(stage, 60)
    await _until(stage, _RUNNING, BUSY)


async def _until(stage: Stage, count: str, least: int) -> None:
    while await stage.store.value(count) < least:
        await asyncio.sleep(LOOK)


async def _rowmill(dsn: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker.cli", *arguments),
        env={**os.environ, "ROWMILL_DATABASE_URL": dsn, "LOGNAME": "ops"},
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise RuntimeError(f"rowmill {' '.join(arguments)} failed")


async def _status(dsn: str) -> str:
    """What the command writes to a terminal of so many columns."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (200, COLUMNS))
    environment = {
        **{k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS", "LINES"}},
        "ROWMILL_DATABASE_URL": dsn,
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker.cli", "status"),
        env=environment,
        stdin=its,
        stdout=its,
    )
    os.close(its)
    read = asyncio.to_thread(_read_all, ours)
    _, written = await asyncio.gather(process.wait(), read)
    return written


def _read_all(terminal: int) -> str:
    parts = []
    with os.fdopen(terminal, "rb", buffering=0) as file:
        try:
            while part := file.read(65536):
                parts.append(part)
        except OSError:  # Linux says so when the last writer is gone
            pass
    return b"".join(parts).decode().replace("\r\n", "\n")


def _framed(written: str, title: str) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    console.print(Text.from_ansi(written.rstrip()))
    return console.export_svg(title=title)


def _without_fonts(svg: str) -> str:
    """A README's picture fetches nothing from elsewhere: any fixed-width font will do."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
