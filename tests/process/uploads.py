"""Kinds of work for the process tests of media, served by real workers through ROWMILL_HANDLERS."""

from __future__ import annotations

import os
import time
from pathlib import Path

from jobs.contract import Context, Job, Outcome, Succeeded
from jobs.registry import kind


@kind("background:webhook_delivery", timeout=120)
async def busy(job: Job, ctx: Context) -> Outcome:
    """Keep a processor busy for as long as the payload says, never asleep."""
    payload = job.input["payload"]
    await ctx.compute(crunch, float(payload["seconds"]), Path(payload["file"]), timeout=100)
    return Succeeded()


def crunch(seconds: float, file: Path) -> int:
    """Until its time is up, or a file beside `file` says that it may stop."""
    stop = file.with_suffix(".stop")
    file.write_text(str(os.getpid()))
    until, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < until and not stop.exists():
        rounds += sum(range(1000))
    return rounds
