"""AI Ebook's word on its providers and models, in a running fleet: nothing is paid against it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.support import time_passes
from tests.process.fleet import Fleet, Sandbox, paid_twice, until_sql
from tests.process.rows import (
    add_media,
    add_texts,
    all_done,
    exactly_once,
    has_status,
    ledger_equals_bill,
    queue_row,
    row,
)

pytestmark = pytest.mark.process

_PROVIDER = "UPDATE ai_processing.ai_providers SET status = $1 WHERE name = 'openai'"
_MODEL = "UPDATE ai_processing.ai_models SET status = $1 WHERE name = 'gpt-4o-mini'"
_CLOSED = """
SELECT EXISTS (SELECT FROM rowmill.lanes WHERE lane = 'openai' AND source = 'ai_generations'
                                           AND platform_paused_why IS NOT NULL)
"""


async def texts_paid(sandbox: Sandbox) -> int:
    marks = [charge.marker or "" for charge in await sandbox.bill()]
    return sum(mark.startswith("ai_generations/") for mark in marks)


async def test_a_closed_provider_is_paid_nothing_and_another_platform_goes_on(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    await db.execute(_PROVIDER, "maintenance")
    early = await add_texts(db, 5)
    (video,) = await add_media(db)
    await fleet.hire("a")
    await has_status(db, video, "completed")
    await until_sql(db, _CLOSED, within=10)
    for key in early:
        await has_status(db, key, "pending")
    assert await texts_paid(sandbox) == 0
    await db.execute(_PROVIDER, "active")
    await time_passes(db, 200)
    await all_done(db)
    assert await texts_paid(sandbox) == 5

    # What is inserted together with the status may be claimed before the lane is closed; it comes
    # back without a try.
    async with db.transaction():
        await db.execute(_PROVIDER, "inactive")
        late = await add_texts(db, 5)
    await until_sql(db, _CLOSED, within=10)
    (video,) = await add_media(db)
    await has_status(db, video, "completed")
    for key in late:
        await has_status(db, key, "pending")
        waiting = await queue_row(db, key)
        assert (waiting["tries"], waiting["yields"]) == (0, 0)
    assert await texts_paid(sandbox) == 5

    await db.execute(_PROVIDER, "active")
    await time_passes(db, 200)
    await all_done(db)
    assert await texts_paid(sandbox) == 10
    assert not paid_twice(await sandbox.bill())
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)


async def test_a_model_in_maintenance_waits_and_a_retired_one_fails_unpaid(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    await db.execute(_MODEL, "maintenance")
    (waits,) = await add_texts(db)
    await fleet.hire("a")
    await until_sql(
        db, "SELECT note LIKE '%maintenance of gpt%' FROM rowmill.queue WHERE row_key = $1", waits
    )
    assert (await row(db, "ai_generations", waits))["status"] == "pending"
    await db.execute(_MODEL, "retired")
    (fails,) = await add_texts(db)
    await has_status(db, fails, "failed")
    assert "retired" in (await row(db, "ai_generations", fails))["error_message"]
    assert await sandbox.bill() == []
    await db.execute(_MODEL, "active")
    await time_passes(db, 200)
    await all_done(db)
    assert (await row(db, "ai_generations", waits))["status"] == "completed"


async def test_a_platforms_endpoint_gets_no_request(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """Whoever may write that table would be sent our key."""
    await db.execute(
        "UPDATE ai_processing.ai_providers SET api_endpoint = 'http://127.0.0.1:1/v1',"
        """ configuration = '{"base_url": "http://127.0.0.1:1/v1"}'"""
    )
    (key,) = await add_texts(db)
    await fleet.hire("a")
    await has_status(db, key, "completed")
    assert await texts_paid(sandbox) == 1
