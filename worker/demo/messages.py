"""A producer without a database: its jobs go in as arq messages, and it reads the answers."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any

from worker.arq_host import producer, serve
from worker.coordination import connections
from worker.settings import Settings
from worker.store import Store

SOURCE = "ai_generations"
"""Where they go in: AI Ebook's texts."""
MODEL = "e2000000-0000-4000-8000-000000000001"
USER = "e0000000-0000-4000-8000-000000000003"


class _NobodysChores:
    """The workers of the demo have chores of their own; this process only holds the door open."""

    async def make_partitions(self) -> None: ...
    async def sweep(self) -> None: ...
    async def clean_up(self) -> None: ...


def _redis() -> Any:
    """ROWMILL_REDIS_URL's, else one inside this process, which the workers then can't see."""
    url = os.environ.get("ROWMILL_REDIS_URL")
    if url:
        return connections(url)
    import fakeredis  # noqa: PLC0415 - of the demo extra

    return fakeredis.FakeAsyncRedis().connection_pool


async def submit_by_message(dsn: str, count: int) -> None:
    """Send `count` texts; return when each is a row, which is when arq has the row's id."""
    if count <= 0:
        return
    pool = _redis()
    store = await Store.open(dsn)
    door = asyncio.create_task(
        serve(Settings(database_url=dsn), store, chores=_NobodysChores(), pool=pool)
    )
    try:
        sender = producer(pool)
        for _ in range(count):
            await _submit(sender)
    finally:
        door.cancel()
        await asyncio.gather(door, return_exceptions=True)
        await store.close()


async def _submit(sender: Any) -> None:
    key = str(uuid.uuid4())  # chosen here: a message that is sent again is the same row
    row = {
        "id": key,
        "user_id": USER,
        "model_id": MODEL,
        "prompt": f"A limerick about queues [job:{SOURCE}/{key}]",
        "max_tokens": 120,
    }
    job = await sender.enqueue_job("submit", source=SOURCE, row=row)
    answer = await job.result(timeout=20)
    if not answer["ok"]:
        raise RuntimeError(f"the message was refused: {answer['error']}")
