"""The money proof: a fleet whose workers die and whose providers fail in every way, and the bill.

work.py     what is to be done, and what goes wrong with it
crew.py     three workers, killed at random moments and at every failpoint
verdict.py  the provider's bill and the faults that were put in, against ledger and rows
"""

from __future__ import annotations

import math
import random
import shutil
import sys
import tempfile
import time
from asyncio import sleep
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.database import fresh, server
from bench.money.crew import LEASE, SLOTS, Crew
from bench.money.verdict import Verdict, gather, judge
from bench.money.work import KINDS, Job, insert, plan, prepare
from jobs.failpoints import POINTS
from worker.demo import platform
from worker.demo.fleet import Fleet, Sandbox
from worker.settings import Settings
from worker.store import Store

LOOK = 0.1
PATIENCE = 120.0
"""Seconds without any change after which something is stuck."""
TIMEOUT = 3
"""Seconds that a provider has for an answer."""
JOBS_PER_KILL = 40
AHEAD = 0.1
"""The share of the jobs that may come before their share of the deaths."""

_BUSY = "SELECT count(*) FROM rowmill.queue WHERE state IN ('ready', 'claimed')"
_UNDONE = """
SELECT (SELECT count(*) FROM rowmill.queue WHERE state <> 'held')
     + (SELECT count(*) FROM rowmill.submissions WHERE state = 'accepted')
"""


@dataclass(frozen=True, slots=True)
class Plan:
    jobs: int = 600
    seed: int = 7
    resubmit_up_to: Decimal | None = None
    """None: as a worker has it that nobody told."""
    points: Sequence[str] = tuple(POINTS)

    @property
    def risk(self) -> Decimal:
        usual: Decimal = Settings.model_fields["resubmit_up_to_cents"].default
        return usual if self.resubmit_up_to is None else self.resubmit_up_to


async def run(given: Plan) -> dict[str, Any]:
    """On a database of its own. What the processes said and stored is kept if there are problems."""
    home = Path(tempfile.mkdtemp(prefix="rowmill-money-"))
    with server() as admin:
        async with fresh(admin) as dsn:
            await platform.prepare(dsn)
            began = time.monotonic()
            verdict = await prove(dsn, home, given)
            seconds = round(time.monotonic() - began, 1)
    if verdict.sound:
        shutil.rmtree(home)
    else:
        print(*verdict.problems, f"logs are in {home}", sep="\n", file=sys.stderr, flush=True)
    return verdict.row() | {"seconds": seconds, "sound": verdict.sound}


async def prove(dsn: str, home: Path, given: Plan) -> Verdict:
    """On a database that both platforms are attached to; logs and outputs go below `home`."""
    dice = random.Random(given.seed)
    jobs = plan(given.jobs, dice)
    store = await Store.open(dsn)
    sandbox = await Sandbox.start(home, duration=0.4)
    fleet = Fleet(dsn, sandbox.url, home, settings=_settings(sandbox.url, given))
    try:
        await prepare(store)
        crew = Crew(fleet, store, dice, given.points, kills=math.ceil(given.jobs / JOBS_PER_KILL))
        await _play(store, crew, jobs, dice)
        await fleet.dismiss()
        evidence = await gather(
            store,
            await sandbox.bill(),
            await sandbox.faults_met(),
            jobs=jobs,
            deaths=crew.deaths,
            resubmit_up_to=given.risk,
        )
    finally:
        await fleet.dismiss()
        await sandbox.stop()
        await store.close()
    return judge(evidence)


async def _play(store: Store, crew: Crew, jobs: list[Job], dice: random.Random) -> None:
    """Jobs come as the dying goes on, so that whoever dies has work in hand."""
    fed, changed, before = 0, time.monotonic(), (-1, -1)
    while True:
        await crew.tend()
        busy, undone = await store.value(_BUSY), await store.value(_UNDONE)
        if fed == len(jobs) and undone == 0:
            if not crew.missing:
                return
            jobs += plan(SLOTS, dice)  # someone has still to die
        allowed = len(jobs) * (crew.progress + AHEAD)
        due = busy == 0 or crew.progress == 1 or (busy < SLOTS and fed < allowed)
        if fed < len(jobs) and due:
            await insert(store, jobs[fed : fed + SLOTS])
            fed = min(len(jobs), fed + SLOTS)
        now = (undone, len(crew.deaths))
        if now != before:
            changed, before = time.monotonic(), now
        elif time.monotonic() > changed + PATIENCE:
            raise RuntimeError(f"{undone} jobs don't move: see {crew.fleet.directory}")
        await sleep(LOOK)


def _settings(url: str, given: Plan) -> dict[str, str]:
    """Every provider of the work, at the sandbox; and one worker's share of patience."""
    bases = {
        "anthropic": "anthropic/v1",
        "elevenlabs": "elevenlabs/v1",
        "freepik": "freepik/v1/ai",
        "gemini": "gemini/v1beta",
        "openai": "openai/v1",
        "openai_responses": "openai/v1",
        "replicate": "replicate/v1",
        "runway": "runway/v1",
    }
    settings = {"ROWMILL_POLL_SECONDS": "0.2", "ROWMILL_LEASE_SECONDS": str(LEASE)}
    for name in {kind.lane for kind in KINDS if kind.lane}:
        prefix = f"ROWMILL_PROVIDERS__{name.upper()}__"
        settings |= {
            f"{prefix}BASE_URL": f"{url}/{bases[name]}",
            f"{prefix}API_KEY": "proof",
            f"{prefix}REQUEST_TIMEOUT": str(TIMEOUT),
            f"{prefix}POLL_SECONDS": "0.3",
        }
    if given.resubmit_up_to is not None:
        settings["ROWMILL_RESUBMIT_UP_TO_CENTS"] = str(given.resubmit_up_to)
    return settings
