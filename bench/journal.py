"""What the journal of paid calls costs: entries through the worker's ledger beside single commits.

An entry is an intent, or the acceptance that follows it. Ours: through `ClaimJournal`, `Ledger` and
`Store`, as a worker writes them, first one at a time (idle), then for 100 claims at once, when they
share commits. The yardstick: the same two SQL functions with the same values, called on one
connection, one commit after the other. The sides take turns on one database.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any

import asyncpg

from bench.database import database, enqueue, server
from worker.ledger import ClaimJournal, Lease, Ledger
from worker.store import Claimed, Store, to_json
from worker.store.pool import connect_options

AT_ONCE = 100
ROUNDS = 5
LEASE = 3600.0
WARM = 20
INTENT = {
    "provider": "replicate",
    "account": "default",
    "model": "bench",
    "estimate_cents": Decimal("6.5"),
    "fingerprint": "",
}


async def run(samples: int) -> dict[str, Any]:
    with server() as admin:
        async with database(admin) as dsn:
            await enqueue(dsn, AT_ONCE)
            async with _claimed(dsn) as (store, claims):
                return await _measure(store, claims, samples)


@asynccontextmanager
async def _claimed(dsn: str) -> AsyncIterator[tuple[Store, list[Claimed]]]:
    store = await Store.open(dsn)
    try:
        lanes = ["replicate"]
        await store.register(1, name="bench", version="0", lanes=lanes, slots=1000, lease=LEASE)
        claims = await store.claim(1, secrets.randbits(62), lanes, AT_ONCE)
        if len(claims) != AT_ONCE:
            raise RuntimeError(f"{len(claims)} jobs were claimed instead of {AT_ONCE}")
        yield store, claims
    finally:
        await store.close()


async def _measure(store: Store, claims: list[Claimed], samples: int) -> dict[str, Any]:
    ledger = Ledger(store, Lease(LEASE))
    ours = [
        ClaimJournal(ledger, queue_id=claim.queue_id, token=claim.token, worker=1)
        for claim in claims
    ]
    bare = await asyncpg.connect(store.dsn, **connect_options(pooled=store.pooled))
    alone: list[float] = []
    idle: list[float] = []
    for number in range(samples + WARM):
        which = number % AT_ONCE
        single = await _single(bare, claims[which], f"single-{number}")
        through = await _through(ours[which], f"idle-{number}")
        if number >= WARM:
            alone += single
            idle += through
    rates: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        for claim in claims:
            await _single(bare, claim, f"one-{number}")
        between = time.perf_counter()
        await asyncio.gather(*(_through(journal, f"many-{number}") for journal in ours))
        ended = time.perf_counter()
        rates.append((2 * AT_ONCE / (between - began), 2 * AT_ONCE / (ended - between)))
    await bare.close()
    single_rate, shared_rate = (statistics.median(side) for side in zip(*rates, strict=True))
    return {
        "name": "journal",
        "single_commit_p50_ms": round(statistics.median(alone), 3),
        "idle_p50_ms": round(statistics.median(idle), 3),
        "idle_ratio": round(statistics.median(idle) / statistics.median(alone), 2),
        "single_per_s": round(single_rate),
        "at_100_concurrent_per_s": round(shared_rate),
        "ratio": round(shared_rate / single_rate, 2),
        "samples": samples,
    }


async def _through(journal: ClaimJournal, step: str) -> list[float]:
    """Milliseconds of an intent and of its acceptance."""
    began = time.perf_counter()
    submission = await journal.intend(step, **INTENT)  # type: ignore[arg-type]  # as it is declared
    between = time.perf_counter()
    name = str(submission.id)
    await journal.accepted(submission.id, ref={"id": name}, external_id=name)
    return _milliseconds(began, between, time.perf_counter())


async def _single(bare: Any, claim: Claimed, step: str) -> list[float]:
    intent = {**INTENT, "queue_id": claim.queue_id, "token": claim.token, "worker": 1, "step": step}
    began = time.perf_counter()
    given = to_json([{**intent, "nonce": secrets.randbits(63)}])
    row = await bare.fetchrow("SELECT * FROM rowmill.intend($1)", given)
    between = time.perf_counter()
    name = str(row["id"])
    entry = {"id": row["id"], "state": "accepted", "ref": {"id": name}, "external_id": name}
    await bare.fetch("SELECT id FROM rowmill.journal($1)", to_json([entry]))
    return _milliseconds(began, between, time.perf_counter())


def _milliseconds(*moments: float) -> list[float]:
    return [(b - a) * 1000 for a, b in pairwise(moments)]
