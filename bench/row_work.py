"""Jobs per second through one worker process, beside pgbench calling the same functions.

Ours: the worker as it runs in production, with an instant provider. pgbench: claim, start and settle
(and, paid, the journal) with the same batches on the same server, and nothing in between; it builds
its results in SQL, as it can't build them itself. Both sides take turns; medians count.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import Any

from bench.database import database, enqueue, server
from bench.instant import InstantRunner, registry
from bench.yardstick import yardstick

BATCH = 200
SLOTS = 1000


async def run(jobs: int, *, paid: bool, runs: int) -> dict[str, Any]:
    ours, theirs = [], []
    with server() as admin:
        for number in range(1, runs + 1):
            ours.append(await _ours(admin, jobs, paid=paid))
            theirs.append(await yardstick(admin, jobs, batch=BATCH, paid=paid))
            print(
                f"run {number}/{runs}: worker {ours[-1]:,.0f} jobs/s, pgbench {theirs[-1]:,.0f}",
                file=sys.stderr,
                flush=True,
            )
    mine, pgbench = statistics.median(ours), statistics.median(theirs)
    return {
        "name": "row-work-paid" if paid else "row-work",
        "jobs": jobs,
        "jobs_per_s": round(mine),
        "pgbench_jobs_per_s": round(pgbench),
        "ratio": round(mine / pgbench, 3),
        "runs": [
            {"jobs_per_s": round(a), "pgbench_jobs_per_s": round(b)}
            for a, b in zip(ours, theirs, strict=True)
        ],
    }


# ------------------------------------------------------------------------------ the worker


async def _ours(admin: str, jobs: int, *, paid: bool) -> float:
    """In a process of its own, as a worker has one."""
    async with database(admin) as dsn:
        await enqueue(dsn, jobs)
        arguments = [sys.executable, "-m", "bench.row_work", dsn, str(jobs), str(int(paid))]
        process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"the worker process ended with {process.returncode}")
        return float(output.split()[-1])


async def _work(dsn: str, jobs: int, *, paid: bool) -> float:
    from pydantic import SecretStr  # noqa: PLC0415 - the yardstick needs none of it

    from jobs.providers.registry import ProviderSettings  # noqa: PLC0415
    from worker.app import Worker  # noqa: PLC0415
    from worker.logs import configure  # noqa: PLC0415
    from worker.settings import Settings  # noqa: PLC0415

    settings = Settings(
        database_url=dsn,
        slots=SLOTS,
        claim_batch=BATCH,
        settle_batch=BATCH,
        storage_url="memory:///",
        log_level="error",
        providers={"replicate": ProviderSettings(api_key=SecretStr("none"))},
    )
    configure("error")
    worker = await Worker.open(settings, registry=registry(), runner=InstantRunner(paid=paid))
    began = time.perf_counter()
    await worker.start()
    while await worker.store.value("SELECT count(*) FROM rowmill.queue"):
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - began
    done = await worker.store.value(
        "SELECT count(*) FROM public.generation_jobs j JOIN public.usage_records u"
        " ON u.generation_job_id = j.id JOIN public.media_files m ON m.id = j.output_file_id"
        " WHERE j.status = 'completed'"
    )
    await worker.drain()
    if done != jobs:
        raise RuntimeError(f"{done} of {jobs} jobs have their file and their usage record")
    return jobs / seconds


if __name__ == "__main__":
    import uvloop

    print(uvloop.run(_work(sys.argv[1], int(sys.argv[2]), paid=sys.argv[3] == "1")))
