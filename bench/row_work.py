"""Jobs per second through one worker process, beside pgbench calling the same functions.

Ours: the worker as it runs in production, with an instant provider. pgbench: claim, start and settle
(and, paid, the journal) with the same batches on the same server, and nothing in between; it builds
its results in SQL, as it can't build them itself. Both sides take turns; medians count.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.database import database, enqueue, server
from bench.instant import InstantRunner, registry

BATCH = 200
SLOTS = 1000


async def run(jobs: int, *, paid: bool, runs: int) -> dict[str, Any]:
    ours, theirs = [], []
    with server() as admin:
        for number in range(1, runs + 1):
            ours.append(await _ours(admin, jobs, paid=paid))
            theirs.append(await _pgbench(admin, jobs, paid=paid))
            print(
                f"run {number}/{runs}: worker {ours[-1]:,.0f} jobs/s, pgbench {theirs[-1]:,.0f}",
                file=sys.stderr,
                flush=True,
            )
    mine, yardstick = statistics.median(ours), statistics.median(theirs)
    return {
        "name": "row-work-paid" if paid else "row-work",
        "jobs": jobs,
        "jobs_per_s": round(mine),
        "pgbench_jobs_per_s": round(yardstick),
        "ratio": round(mine / yardstick, 3),
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


# ------------------------------------------------------------------------------ the yardstick

_CLAIM = r"""
\set token random(1, 4611686018427387904)
SELECT coalesce(array_agg(queue_id), '{}') AS ids FROM rowmill.claim(1, :token::bigint, '{replicate}', %(batch)d) \gset
SELECT count(*) FROM rowmill.start_generation_jobs(:token::bigint, :ids::bigint[], true);
"""

_JOURNAL = r"""
SELECT coalesce(jsonb_agg(jsonb_build_object('queue_id', id, 'token', :token::bigint, 'worker', 1, 'step', 'main',
       'provider', 'replicate', 'account', 'default', 'model', 'instant', 'estimate_cents', '6.5')), '[]') AS intents
  FROM unnest(:ids::bigint[]) AS i (id) \gset
SELECT coalesce(array_agg(id), '{}') AS submissions FROM rowmill.intend(:intents::jsonb) \gset
SELECT count(*) FROM rowmill.journal((SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'state', 'accepted',
       'ref', jsonb_build_object('id', id), 'external_id', id)), '[]') FROM unnest(:submissions::bigint[]) AS s (id)));
SELECT count(*) FROM rowmill.journal((SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'state', 'finished',
       'result', jsonb_build_object('url', 'https://cdn.example.com/x'), 'cost_cents', '6.5')), '[]')
  FROM unnest(:submissions::bigint[]) AS s (id)));
"""

_SETTLE = r"""
SELECT count(*) FROM rowmill.settle_generation_jobs((
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'queue_id', q.id, 'token', q.token, 'key', q.row_key, 'lane', q.lane, 'kind', 'media' || chr(58) || 'video',
        'run', q.run, 'verb', 'succeed', 'try', 1, 'media_id', q.row_key,
        'outputs', jsonb_build_array(jsonb_build_object(
            'role', 'main', 'media_id', q.row_key, 'key', 'generation_jobs/' || q.row_key || '/1/main/0.mp4',
            'url', 'https://cdn.example.com/' || q.row_key, 'mime_type', 'video/mp4', 'file_type', 'video',
            'size', 123456, 'sha256', md5(q.row_key), 'filename', 'video.mp4',
            'width', 1920, 'height', 1080, 'duration_seconds', 5.0)),
        'metadata', '{"provider": "replicate", "model": "instant"}'::jsonb, 'data', '{}'::jsonb,
        'cost_cents', '6.5', 'provider', 'replicate', 'model', 'instant',
        'external_id', q.row_key || '-1', 'duration_ms', 0)), '[]')
      FROM rowmill.queue q WHERE q.id = ANY (:ids::bigint[])), true);
"""


async def _pgbench(admin: str, jobs: int, *, paid: bool) -> float:
    """The better of one and two clients: which it is depends on the machine."""
    one = await _clients(admin, jobs, 1, paid=paid)
    return max(one, await _clients(admin, jobs, 2, paid=paid))


async def _clients(admin: str, jobs: int, clients: int, *, paid: bool) -> float:
    script = (_CLAIM + (_JOURNAL if paid else "") + _SETTLE) % {"batch": BATCH}
    with tempfile.TemporaryDirectory(prefix="rowmill-bench-") as directory:
        file = Path(directory) / "cycle.sql"
        file.write_text(script)
        async with database(admin) as dsn:
            await enqueue(dsn, jobs)
            return await _measure(dsn, file, jobs, clients)


async def _measure(dsn: str, file: Path, jobs: int, clients: int) -> float:
    import asyncpg  # noqa: PLC0415 - a benchmark's own look at the database

    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "SELECT rowmill.register(1, 'pgbench', '0', '{replicate}', 1000, 3600)"
    )
    each = -(-jobs // (BATCH * clients))
    arguments = [
        "-n",
        "-M",
        "prepared",
        "-c",
        str(clients),
        "-j",
        str(clients),
        "-t",
        str(each),
        "-f",
        str(file),
        dsn,
    ]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        _binary(), *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    seconds = time.perf_counter() - began
    left = await connection.fetchval("SELECT count(*) FROM rowmill.queue")
    await connection.close()
    if process.returncode != 0:
        raise RuntimeError(f"pgbench failed: {errors.decode()[-500:]}")
    return float((jobs - left) / seconds)


def _binary() -> str:
    found = shutil.which("pgbench")
    if found:
        return found
    from worker.embedded_places import wheel_binaries  # noqa: PLC0415

    return str(wheel_binaries()[0] / "pgbench")


if __name__ == "__main__":
    import uvloop

    print(uvloop.run(_work(sys.argv[1], int(sys.argv[2]), paid=sys.argv[3] == "1")))
