"""A customer whose plan is used up: told so, and nothing is bought for them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process.fleet import Fleet, Sandbox, paid_twice, until_sql
from tests.process.rows import (
    add_media,
    all_done,
    exactly_once,
    failures,
    ledger_equals_bill,
    row,
    submissions,
)

pytestmark = pytest.mark.process

_LIMIT = "UPDATE public.subscription_plans SET max_videos_per_month = $1"
_ONE_OWNER = """
UPDATE public.generation_jobs SET user_id = 'a0000000-0000-4000-8000-000000000004'
 WHERE id = ANY ($1::uuid[])
"""


async def test_what_a_plan_does_not_allow_is_not_paid(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    await db.execute(_LIMIT, 3)
    keys = await add_media(db, 8)
    await db.execute(_ONE_OWNER, keys)
    for name in ("a", "b"):
        await fleet.hire(name)
    await all_done(db)
    jobs = {key: await row(db, "generation_jobs", key) for key in keys}
    assert sorted(job["status"] for job in jobs.values()) == ["completed"] * 3 + ["failed"] * 5
    for key, job in jobs.items():
        if job["status"] == "failed":
            assert job["error_message"].startswith(
                "the plan's limit is reached: Pro Plan, 3 videos"
            )
            assert job["retry_count"] == 0
            assert await submissions(db, key) == []
            (told,) = await failures(db, key)
            assert (told["kind"], told["code"], told["final"]) == ("allowance", "used_up", True)
    assert len(await sandbox.bill()) == 3
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)
    assert await db.fetchval("SELECT count(*) FROM rowmill.allowances") == 0


async def has_submission(db: Any, key: str, state: str) -> None:
    await until_sql(
        db,
        "SELECT EXISTS (SELECT FROM rowmill.submissions WHERE row_key = $1 AND state::text = $2)",
        key,
        state,
    )


async def test_a_killed_worker_leaves_no_place_taken_and_takes_none_twice(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    await db.execute(_LIMIT, 4)
    keys = [*await add_media(db, prompt="[fault:stall]"), *await add_media(db, 3)]
    await db.execute(_ONE_OWNER, keys)
    first = await fleet.hire("a")
    await has_submission(db, keys[0], "accepted")
    await first.kill()
    await db.execute(
        "UPDATE public.generation_jobs SET status = 'cancelled' WHERE id = $1", keys[0]
    )
    keys += await add_media(db)
    await db.execute(_ONE_OWNER, keys)
    await fleet.hire("b")
    await all_done(db)
    assert not paid_twice(await sandbox.bill())
    statuses = [(await row(db, "generation_jobs", key))["status"] for key in keys]
    assert statuses == ["cancelled"] + ["completed"] * 4
    await until_sql(db, "SELECT NOT EXISTS (SELECT FROM rowmill.allowances)")
