"""arq's host as `rowmill run` has it, on a store and a Redis, and a sender in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from arq.connections import ArqRedis

from jobs.providers.runner import Runner
from tests.database.platform_samples import project, user
from tests.database.redis_servers import WAIT
from worker import arq_host
from worker.breaker import Breaker
from worker.coordination import ConnectionPool
from worker.ledger import Lease, Ledger
from worker.maintenance import Maintenance
from worker.maps import Platform
from worker.rates import Rates
from worker.settings import Settings
from worker.store import Store


async def maintenance_of(store: Store, runner: Runner | None = None) -> Maintenance:
    """The runner is asked by `orphans` alone, which isn't the clock's."""
    infos = await store.sources()
    platforms = {info.platform: Platform.from_definition(info.definition) for info in infos}

    async def reload() -> None:
        raise AssertionError("the clock doesn't reload")

    return Maintenance(
        store,
        cast("Runner", runner),
        Ledger(store, Lease(30.0)),
        worker=lambda: 1,
        platforms=lambda: list(platforms.values()),
        accounts=[("replicate", "acct")],
        breaker=Breaker(store),
        rates=Rates(store, {}),
        reload=reload,
        lease=30.0,
        sweep_seconds=60.0,
    )


@asynccontextmanager
async def serving(store: Store, pool: ConnectionPool) -> AsyncIterator[asyncio.Task[None]]:
    chores = await maintenance_of(store)
    host = asyncio.create_task(arq_host.serve(Settings(), store, chores=chores, pool=pool))
    try:
        yield host
        assert not host.done(), "it goes on, whatever came"
    finally:
        host.cancel()
        await asyncio.gather(host, return_exceptions=True)


async def send(sender: ArqRedis, name: str, **fields: Any) -> Any:
    job = await sender.enqueue_job(name, **fields)
    assert job is not None
    return await job.result(timeout=WAIT, poll_delay=0.02)


def video(key: str) -> dict[str, Any]:
    row = {"id": key, "project_id": project(4), "user_id": user(4)}
    return {**row, "generation_service": "replicate"}
