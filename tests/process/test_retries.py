"""What costs a try and what doesn't, read off rows, failures and the provider's bill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.database.support import time_passes
from tests.process.fleet import Fleet, Sandbox, paid_twice, until
from tests.process.rows import (
    add_media,
    add_texts,
    all_done,
    exactly_once,
    failures,
    has_status,
    in_state,
    ledger_equals_bill,
    row,
    submissions,
)

pytestmark = pytest.mark.process


@dataclass(frozen=True, slots=True)
class Case:
    max_retries: int
    failing: int
    """Predictions that fail before one succeeds."""
    status: str

    @property
    def failures(self) -> int:
        return min(self.failing, self.max_retries + 1)

    @property
    def retries(self) -> int:
        return min(self.failing, self.max_retries)


CASES = (
    Case(0, 0, "completed"),
    Case(0, 1, "failed"),
    Case(1, 1, "completed"),
    Case(1, 2, "failed"),
    Case(3, 3, "completed"),
    Case(3, 4, "failed"),
)
_DELAYS = """
SELECT f.row_key, f.try, extract(epoch FROM q.ready_at - f.at)::float8 AS delay
  FROM rowmill.queue q JOIN rowmill.failures f ON f.row_key = q.row_key AND f.try = q.tries
 WHERE q.state = 'scheduled'
"""


async def test_own_failures_cost_tries(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    jobs = {}
    for case in CASES:
        prompt = f"[fault:fail*{case.failing}]" if case.failing else ""
        (key,) = await add_media(db, prompt=prompt, max_retries=case.max_retries)
        jobs[key] = case
    await fleet.hire("a")
    delays = await delays_until_done(db)
    for key, case in jobs.items():
        await ended_as(db, key, case)
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)
    assert not paid_twice(await sandbox.bill())
    # 2, 4, 8 s and up to a quarter more; the moment the row was written lies a little before.
    assert set(delays) == {1, 2, 3}
    for tried, seen in delays.items():
        assert all(0.99 * 2**tried <= delay <= 1.26 * 2**tried for delay in seen), delays


async def delays_until_done(db: Any) -> dict[int, list[float]]:
    """The back-off of each failed try; it is noted, and then not waited for."""
    seen: dict[tuple[str, int], float] = {}

    async def look() -> bool:
        async with db.transaction():
            waiting = await db.fetch(_DELAYS + " FOR UPDATE OF q SKIP LOCKED")
            new = [w for w in waiting if (w["row_key"], w["try"]) not in seen]
            seen.update({(w["row_key"], w["try"]): w["delay"] for w in new})
            if new:
                await time_passes(db, 60, *(w["row_key"] for w in new))
        return bool(await db.fetchval("SELECT NOT EXISTS (SELECT FROM rowmill.queue)"))

    await until(look, what="the queue")
    delays: dict[int, list[float]] = {}
    for (_, tried), delay in seen.items():
        delays.setdefault(tried, []).append(delay)
    return delays


async def ended_as(db: Any, key: str, case: Case) -> None:
    job, tries = await row(db, "generation_jobs", key), await failures(db, key)
    assert (job["status"], job["retry_count"]) == (case.status, case.retries), case
    assert [f["try"] for f in tries] == list(range(1, case.failures + 1)), case
    assert [f["final"] for f in tries if f["final"]] == [True] * (case.status == "failed"), case
    assert all("CUDA out of memory" in f["message"] for f in tries)
    assert (job["failed_at"] is not None) == (case.status == "failed")


# --------------------------------------------------------------------------- not its own fault


@pytest.mark.parametrize("fault", ["429=0.1*4", "503=0.1*1", "poll-500*2", "download-503*1"])
async def test_their_trouble_costs_no_try(
    db: Any, fleet: Fleet, sandbox: Sandbox, fault: str
) -> None:
    keys = await add_media(db, 2, prompt=f"[fault:{fault}]", max_retries=0)
    keys += await add_media(db, 1, max_retries=0)
    await fleet.hire("a")
    await all_done(db, within=30)
    for key in keys:
        job = await row(db, "generation_jobs", key)
        assert (job["status"], job["retry_count"]) == ("completed", 0)
        assert await failures(db, key) == []
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    await ledger_equals_bill(db, sandbox)


async def test_an_outage_costs_no_try(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    """Some jobs are at the provider when it goes away, others come while it is away."""
    keys = await add_media(db, 4, max_retries=0)
    await fleet.hire("a")
    await in_state(db, "accepted", 4)
    await sandbox.outage(on=True)
    texts = await add_texts(db, 4)
    await until_yielded(db, texts)
    await sandbox.outage(on=False)
    await time_passes(db, 60)
    await all_done(db)
    for key in keys:
        job = await row(db, "generation_jobs", key)
        assert (job["status"], job["retry_count"]) == ("completed", 0)
    for key in texts:
        await has_status(db, key, "completed", within=0)
    assert await db.fetchval("SELECT count(*) FROM rowmill.failures") == 0
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    await ledger_equals_bill(db, sandbox)


async def until_yielded(db: Any, keys: list[str]) -> None:
    async def look() -> bool:
        return bool(
            await db.fetchval(
                "SELECT count(*) = cardinality($1::text[]) FROM rowmill.queue"
                " WHERE row_key = ANY ($1) AND yields > 0 AND tries = 0",
                keys,
            )
        )

    await until(look, what="the return of the texts to the queue")


async def test_a_lost_answer_is_found_again(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    """Accepted and billed, then the connection broke: the provider's own list tells."""
    prompts = ("[fault:disconnect-after*1]", "[fault:cut*1]", "[fault:garbled*1]")
    keys = [key for prompt in prompts for key in await add_media(db, prompt=prompt)]
    await fleet.hire("a")
    await all_done(db)
    by_marker = {charge.marker: charge for charge in await sandbox.bill()}
    assert len(by_marker) == len(await sandbox.bill()) == len(keys)
    for key in keys:
        (submission,) = await submissions(db, key)
        assert submission["external_id"] == by_marker[f"generation_jobs/{key}"].external_id
        assert (await row(db, "generation_jobs", key))["retry_count"] == 0
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)


# --------------------------------------------------------------------------- hopeless


@pytest.mark.parametrize("fault", ["policy", "invalid"])
async def test_the_hopeless_fails_at_once(
    db: Any, fleet: Fleet, sandbox: Sandbox, fault: str
) -> None:
    (video,) = await add_media(db, prompt=f"[fault:{fault}]")
    (text,) = await add_texts(db, prompt=f"[fault:{fault}]")
    await fleet.hire("a")
    await all_done(db)
    job = await row(db, "generation_jobs", video)
    assert (job["status"], job["retry_count"]) == ("failed", 0)
    assert (await row(db, "ai_generations", text))["status"] == "failed"
    for key in (video, text):
        (failure,) = await failures(db, key)
        assert (failure["kind"], failure["final"]) == (fault, True)
        assert len(await submissions(db, key)) == 1
    await exactly_once(db)
    await ledger_equals_bill(db, sandbox)
