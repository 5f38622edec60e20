"""What the report says of real workers: at work, after work, and killed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process.fleet import Fleet, until, until_sql
from tests.process.rows import add_media, add_texts, all_done
from worker.store import Store, reports

pytestmark = pytest.mark.process

TEXTS = 12


async def test_a_worker_at_work_and_killed(db: Any, both: str, fleet: Fleet) -> None:
    store = await Store.open(both)
    try:
        await add_texts(db, TEXTS)
        worker = await fleet.hire("a", slots=4)
        await all_done(db)
        # Its statistics come with its next pulse.
        await until_sql(db, "SELECT sum(succeeded) = $1 FROM rowmill.pulses", TEXTS)
        (lane,) = [
            lane for lane in (await reports.status(store))["lanes"] if lane["lane"] == "openai"
        ]
        assert (lane["per_minute_in"], lane["per_minute_out"]) == (TEXTS, TEXTS)
        assert sum(lane["out_history"]) == TEXTS
        assert lane["wait_p50_ms"] is not None

        await add_media(db, 6, prompt="[fault:stall]")

        async def all_told() -> bool:
            (told,) = (await reports.status(store))["workers"]
            return (told["running"], told["claims"], told["slots"]) == (4, 4, 4)

        await until(all_told)
        report = await reports.status(store)
        (told,) = report["workers"]
        assert (told["name"], told["alive"], told["draining"]) == ("a", True, False)
        (lane,) = [lane for lane in report["lanes"] if lane["lane"] == "replicate"]
        assert (lane["running"], lane["ready"], lane["per_minute_in"]) == (4, 2, 6)
        (provider,) = [p for p in report["providers"] if p["provider"] == "replicate"]
        assert provider["state"] == "ok"
        assert report["needs_person"] == []

        await worker.kill()

        async def dead() -> bool:
            (told,) = (await reports.status(store))["workers"]
            return not told["alive"]

        await until(dead, within=30)
        report = await reports.status(store)
        (told,) = report["workers"]
        assert told["claims"] == 4
        assert [item["kind"] for item in report["needs_person"]] == ["no_workers"]
        code, text = await fleet.command("status")
        assert code == 1
        assert "silent, holds 4" in text
        assert "rowmill run" in text
    finally:
        await store.close()
