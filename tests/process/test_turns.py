"""Two workers read one shop's pages: never two within its delay, by the shop's own clock."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from tests.process.fleet import Fleet, Sandbox, until
from tests.process.rows import add_background, all_done, failures, has_status, row

pytestmark = pytest.mark.process
PAGES = "/shop/products/"
DELAY = 1.0  # seconds, where no rule says otherwise


async def add_pages(db: Any, sandbox: Sandbox, count: int) -> list[str]:
    keys = []
    for number in range(1, count + 1):
        payload = json.dumps({"url": f"{sandbox.url}{PAGES}{number}"})
        keys += await add_background(db, kind="scrape_product", payload=payload)
    return keys


async def test_two_workers_take_turns_at_one_shop(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    await fleet.hire("a", slots=4)
    await fleet.hire("b", slots=4)
    keys = await add_pages(db, sandbox, 8)
    await all_done(db, within=60)
    for key in keys:
        await has_status(db, key, "completed")
    visits = await sandbox.visits(PAGES)
    assert len(visits) == 8
    assert min(later - earlier for earlier, later in pairwise(visits)) >= DELAY
    workers = await db.fetchval("SELECT count(*) FROM rowmill.turns")
    assert workers == 1  # one name: the shop's


async def test_a_page_that_is_gone_fails_its_job_at_once(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    payload = json.dumps({"url": f"{sandbox.url}{PAGES}999999"})
    [key] = await add_background(db, kind="scrape_product", payload=payload)
    await fleet.hire("a")
    await has_status(db, key, "failed")
    [failure] = await failures(db, key)
    assert (failure["kind"], failure["code"]) == ("gone", "http_404")


async def test_a_worker_that_dies_waiting_loses_its_turn_and_nothing_else(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    first = await fleet.hire("a")
    keys = await add_pages(db, sandbox, 6)

    async def began() -> bool:
        return bool(await sandbox.visits(PAGES))

    await until(began)
    await first.kill()
    await fleet.hire("b")
    await all_done(db, within=60)
    for key in keys:
        assert (await row(db, "background_jobs", key))["status"] == "completed"
        assert await failures(db, key) == []
    visits = await sandbox.visits(PAGES)
    assert min(later - earlier for earlier, later in pairwise(visits)) >= DELAY
