"""What must stay true through everything at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process.fleet import LEASE, Fleet, Sandbox, paid_twice, until_sql
from tests.process.rows import add_media, all_done, exactly_once, in_state, ledger_equals_bill, row

pytestmark = pytest.mark.process

IN_HANDS = """
SELECT EXISTS (SELECT FROM rowmill.queue q JOIN rowmill.workers w ON w.id = q.worker
                WHERE q.row_key = $1 AND w.name = $2)
"""
OLD_ENOUGH = """
SELECT bool_and(alive_since < clock_timestamp() - lease) FROM rowmill.workers
 WHERE stopped_at IS NULL AND name = $1
"""


async def test_a_stale_runner_leaves_its_successors_task_alone(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """A task that was resumed twice: the one in between wakes up, and must not cancel it."""
    (key,) = await add_media(db, prompt="[fault:stall]")
    first = await fleet.hire("first")
    await in_state(db, "accepted")
    second = await fleet.hire("second")
    await first.kill()
    await until_sql(db, IN_HANDS, key, "second")
    third = await fleet.hire("third")
    await until_sql(db, OLD_ENOUGH, "third")
    second.stop()
    await until_sql(db, IN_HANDS, key, "third")
    second.go_on()
    await second.says("worker.registered_again")
    await second.says("job.lost")
    await second.drain()
    assert not (await row(db, "generation_jobs", key))["error_message"]
    (submission,) = await db.fetch("SELECT state::text FROM rowmill.submissions")
    assert submission["state"] == "accepted"
    assert third.alive
