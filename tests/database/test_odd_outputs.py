"""Where the output goes to something that can't take it all."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.commandline import ROOT, Rowmill
from tests.database.support import Connect, OpenStore, add_videos
from worker.store import gates

REASON = "Überlast ▁▂ \x9b2J 😀"
WITHOUT_UTF8 = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


async def test_an_encoding_without_most_characters(
    photomemory: str, rowmill: Rowmill, connect: Connect, open_store: OpenStore
) -> None:
    await add_videos(await connect(photomemory))
    await gates.pause(await open_store(photomemory), lane="replicate", who="me", reason=REASON)
    status = await rowmill(photomemory, "status", **WITHOUT_UTF8)
    assert status.err == ""
    assert "\\u2581\\u2582" in status.out
    lanes = (await rowmill(photomemory, "status", "--json", **WITHOUT_UTF8)).json["lanes"]
    assert REASON in {lane["pause_reason"] for lane in lanes}


async def test_a_full_disk_is_one_line(photomemory: str) -> None:
    for words in (["status"], ["jobs", "--json"], ["--help"]):
        full = os.open("/dev/full", os.O_WRONLY)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker.cli", *words),
            env=os.environ | {"ROWMILL_DATABASE_URL": photomemory, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=asyncio.subprocess.PIPE,
        )
        os.close(full)
        _, err = await process.communicate()
        assert err == b"rowmill: can't write the output: No space left on device\n"
        assert process.returncode == 1
