"""A platform is detached while a worker has its rows in hand."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from tests.process.fleet import Fleet, until_sql
from tests.process.rows import add_media, add_texts
from worker.store.attaching import detach

pytestmark = pytest.mark.process

CLAIMED = "SELECT count(*) = 1 FROM rowmill.queue WHERE state = 'claimed'"
DONE = "SELECT status = 'completed' FROM ai_processing.ai_generations WHERE id = $1"


async def test_between_a_claim_and_its_start(both: str, db: Any, fleet: Fleet) -> None:
    """Its claim is dropped, and the worker goes on with the other tables."""
    await add_media(db)
    holder = await asyncpg.connect(both)
    async with holder.transaction():
        await holder.execute("LOCK public.project_media")  # its input can't be read meanwhile
        worker = await fleet.hire("a", slots=1)
        await until_sql(db, CLAIMED)
        await detach(both, "photomemory")
        await worker.says("start.unavailable")
    await holder.close()
    (key,) = await add_texts(db)
    await until_sql(db, DONE, key)
    assert worker.alive
