"""The whole report of `rowmill status`, of a small fleet's database and of one a thousand times as full.

Two databases on one server: a thousand unfinished jobs, and a million; the ledger, the failures and
the arrivals grow with them. The same hour of four workers' statistics is in both. Reports are made
by turns on open connections, so both see the same machine, and the start of a process, which would
hide the difference, isn't part of it.
"""

from __future__ import annotations

import random
import statistics
import time
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from bench.database import database, server
from worker.store import Store
from worker.store.reports import status
from worker.store.upkeep import condense, sum_up

SMALL, LARGE = 1_000, 1_000_000

# Of 1,000: a lane each of 700, 200, 80, 19 and 1, one INSERT after the other; one in 20 is scheduled, and
# one in 500 held.
_QUEUE = """
INSERT INTO rowmill.queue (source, row_key, lane, rank, ready_at, state, enqueued_at, note)
SELECT s.id, md5(n::text), $2, 2 * (1 + n % 10), now() - make_interval(secs => n * 86400.0 / $1),
       (CASE WHEN n % 500 = 7 THEN 'held' WHEN n % 20 = 3 THEN 'scheduled' ELSE 'ready' END)::rowmill.queue_state,
       now() - make_interval(secs => n * 86400.0 / $1), CASE WHEN n % 500 = 7 THEN 'someone has to look' END
  FROM rowmill.sources s, generate_series($3::integer, $4::integer) n WHERE s.name = 'generation_jobs'
"""
LANES = {"replicate": 700, "runway": 200, "stability": 80, "freepik": 19, "elevenlabs": 1}

_LEDGER = """
INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider, account, model, state,
       external_id, ref, result, estimate_cents, cost_cents, intended_at, accepted_at, ended_at, delivered_at)
SELECT 'generation_jobs', md5('done' || n), 1, 'main', lane, 1, lane, 'main', lane || '/video', 'finished',
       'task-' || n, jsonb_build_object('id', 'task-' || n), '{"outputs": [{"url": "https://files.example.com/a.mp4"}]}',
       12.5, 12.5, at, at + interval '1 second', at + interval '40 seconds', at + interval '41 seconds'
  FROM (SELECT n, (ARRAY['replicate', 'runway', 'stability'])[1 + n % 3] AS lane,
               now() - make_interval(secs => 30 * 86400.0 * ($1 - n) / $1) AS at
          FROM generate_series(1, $1) n) calls
"""

_FAILURES = """
INSERT INTO rowmill.failures (at, source, row_key, lane, run, try, final, kind, provider, message, worker)
SELECT now() - make_interval(secs => 30 * 86400.0 * ($1 - n) / $1), 'generation_jobs', md5('failed' || n),
       'replicate', 1, 1, n % 3 = 0, 'transient', 'replicate', 'their machines are down', 1
  FROM generate_series(1, $1) n
"""

_PULSES = """
INSERT INTO rowmill.pulses (at, worker, source, lane, started, succeeded, failed, retried, yielded, waits, runs)
SELECT now() - make_interval(secs => 2 * n), w, 'generation_jobs', lane, 3, 2, 1, 0, 0,
       array_fill(0, ARRAY[12]) || ARRAY[1, 2] || array_fill(0, ARRAY[18]),
       array_fill(0, ARRAY[14]) || ARRAY[1, 1] || array_fill(0, ARRAY[16])
  FROM generate_series(1799, 0, -1) n, generate_series(1, 4) w,
       unnest(ARRAY['replicate', 'runway', 'stability', 'freepik']) lane
"""


async def run(samples: int) -> dict[str, Any]:
    with server() as admin:
        async with AsyncExitStack() as opened:
            stores = []
            for jobs in (SMALL, LARGE):
                dsn = await opened.enter_async_context(database(admin))
                await fill(dsn, jobs)
                store = await Store.open(dsn, 1)
                opened.push_async_callback(store.close)
                await condense(store)  # as workers do all the time
                await sum_up(store)
                await store.script("VACUUM ANALYZE")
                stores.append(store)
            small, large = await _measured(stores, samples)
    return {
        "name": "status",
        "ms_1k": round(small, 2),
        "ms_1m": round(large, 2),
        "ratio": round(large / small, 2),
    }


async def fill(dsn: str, jobs: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        first = 1
        for lane, share in LANES.items():
            last = first + share * jobs // 1000 - 1
            await connection.execute(_QUEUE, jobs, lane, first, last)
            first = last + 1
        await connection.execute(_LEDGER, jobs)
        await connection.execute(_FAILURES, jobs // 10)
        await connection.execute(_PULSES)
    finally:
        await connection.close()


async def _measured(stores: list[Store], samples: int) -> list[float]:
    times: list[list[float]] = [[] for _ in stores]
    for number in range(samples + 10):
        for nth in random.sample(range(len(stores)), len(stores)):
            began = time.perf_counter()
            await status(stores[nth])
            if number >= 10:  # the first ones warm caches and plans
                times[nth].append((time.perf_counter() - began) * 1000)
    return [statistics.median(taken) for taken in times]
