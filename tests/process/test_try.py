"""`rowmill try`: one real call through the whole path, beside whatever else is in the queue."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NewDatabase
from tests.process.conftest import OpenFleet
from tests.process.fleet import Fleet, Sandbox, until, until_sql
from tests.process.rows import add_media, row
from worker.store.migrations import migrate

pytestmark = pytest.mark.process

IMAGE = ("try", "replicate", "--medium", "image", "--json")


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    steps: str
    json: dict[str, Any]


async def attempt(fleet: Fleet, *words: str, cents: str = "1", **settings: Any) -> Said:
    code, said = await fleet.command(*words, "--max-cents", cents, **settings)
    steps, brace, document = said.partition("{\n")
    return Said(code, steps, json.loads(brace + document) if brace else {})


async def billed(sandbox: Sandbox) -> Decimal:
    return sum((charge.net for charge in await sandbox.bill()), Decimal(0))


async def trials(db: Any) -> list[Any]:
    return list(await db.fetch("SELECT * FROM rowmill.trials"))


# --------------------------------------------------------------------------- when all is well


async def test_a_text_where_nothing_is_attached(
    new_database: NewDatabase, open_fleet: OpenFleet, sandbox: Sandbox
) -> None:
    dsn = await new_database()
    await migrate(dsn)
    fleet = await open_fleet(dsn)
    words = ("try", "openai", "Say hello.", "--model", "gpt-4o-mini", "--json")
    said = await attempt(fleet, *words)
    assert said.code == 0, said.steps
    assert "no live worker serves lane openai: this process runs it" in said.steps
    assert "no worker is running" not in said.steps
    got = said.json
    assert (got["status"], got["medium"], got["model"]) == ("completed", "text", "gpt-4o-mini")
    assert got["text"]
    assert got["outputs"] == []
    assert Decimal(got["cost_cents"]) == await billed(sandbox) > 0
    assert Decimal(got["cost_cents"]) <= Decimal(got["estimate_cents"]) <= 1
    again = await attempt(fleet, *words)
    assert (again.code, again.json["job"] != got["job"]) == (0, True)
    code, story = await fleet.command("job", "show", got["job"], "--json")
    assert (code, len(json.loads(story)["submissions"])) == (0, 1)


async def test_an_image_is_stored_and_nobody_elses_job_is_touched(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    """Two jobs wait in the same lane, one of them before it: they are another worker's."""
    waiting = await add_media(db, 2, priority=10)
    said = await attempt(fleet, *IMAGE, "A boat at dawn")
    assert said.code == 0, said.steps
    (output,) = [o for o in said.json["outputs"] if o["role"] == "main"]
    assert output["mime_type"].startswith("image/")
    path = Path(output["url"].removeprefix("file://"))
    assert path.stat().st_size == output["size"]
    assert Decimal(said.json["cost_cents"]) == await billed(sandbox) == Decimal("0.3")
    assert {(await row(db, "generation_jobs", key))["status"] for key in waiting} == {"queued"}
    assert (
        await db.fetchval("SELECT count(*) FROM public.media_files WHERE file_key ~ 'trials'") == 0
    )
    states = await db.fetch("SELECT state::text FROM rowmill.queue")
    assert [state["state"] for state in states] == ["ready", "ready"]
    assert await db.fetchval("SELECT count(*) FROM rowmill.workers WHERE stopped_at IS NULL") == 0


async def test_a_live_worker_runs_it(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    await fleet.hire("a")
    code, said = await fleet.command("try", "replicate", "A boat", "--max-cents", "1")
    assert code == 0, said
    assert "worker a serves lane replicate" in said
    assert "completed; estimated 0.3 cents, cost 0.3 cents" in said
    names = await db.fetch(
        "SELECT w.name FROM rowmill.submissions u JOIN rowmill.workers w ON w.id = u.worker"
    )
    assert [found["name"] for found in names] == ["a"]
    assert len(await sandbox.bill()) == 1


async def test_it_waits_for_its_turn_under_a_limit(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    await db.execute("INSERT INTO rowmill.lanes (lane, max_running) VALUES ('replicate', 0)")
    words = (*IMAGE, "A boat", "--max-cents", "1")
    trying = await fleet.start("try", sys.executable, "-m", "worker.cli", *words)

    async def told() -> bool:
        return "waits for its turn" in trying.log_file.read_text()

    await until(told, what="the wait")
    assert await sandbox.bill() == []
    await db.execute("UPDATE rowmill.lanes SET max_running = 1")
    assert await trying.process.wait() == 0
    assert len(await sandbox.bill()) == 1


# --------------------------------------------------------------------------- refused at once


@pytest.mark.parametrize(
    ("words", "settings", "named"),
    [
        (("replicate", "A boat", "--medium", "video"), {}, "is estimated at 25 cents, more than 1"),
        (("replicate", "A boat", "--medium", "text", "--model", "x/y"), {}, "only media are made"),
        (("openai", "Hello", "--medium", "text"), {}, "no model is named; give --model"),
        (("openai", "Hello", "--model", "gpt-none"), {}, "no price is known"),
        (("openai", "Hello", "--model", "no"), {"UNKNOWN_PRICE": 2}, "estimated at 2 cents"),
        (("runway", "A boat"), {}, "ROWMILL_PROVIDERS__RUNWAY__API_KEY"),
    ],
)
async def test_refused_before_anything_is_done(  # noqa: PLR0917 - fixtures and cases
    db: Any, fleet: Fleet, sandbox: Sandbox, words: tuple[str, ...], settings: Any, named: str
) -> None:
    said = await attempt(fleet, "try", *words, **settings)
    assert (said.code, named in said.steps) == (1, True), said.steps
    assert await db.fetchval("SELECT to_regclass('rowmill.trials')") is None
    assert await sandbox.bill() == []


async def test_a_paused_lane_is_left_alone(db: Any, fleet: Fleet) -> None:
    await add_media(db)
    await fleet.command("pause", "replicate")
    said = await attempt(fleet, *IMAGE, "A boat")
    assert (said.code, "`rowmill resume replicate` first" in said.steps) == (1, True)
    assert await db.fetchval("SELECT to_regclass('rowmill.trials')") is None


# --------------------------------------------------------------------------- when it doesn't work


async def test_a_refused_key_is_told_and_not_tried_again(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    said = await attempt(fleet, *IMAGE, "A boat [fault:auth]")
    assert (said.code, said.json["status"], said.json["cost_cents"]) == (1, "cancelled", "0")
    assert said.json["why"].startswith("not now: ")
    assert await db.fetchval("SELECT count(*) FROM rowmill.queue") == 0
    code, providers = await fleet.command("providers", "--json")
    (state,) = [
        p["state"] for p in json.loads(providers)["providers"] if p["provider"] == "replicate"
    ]
    assert (code, state) == (1, "broken")
    assert await sandbox.bill() == []


async def test_over_budget(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    await add_media(db)
    await fleet.command("budget", "set", "replicate", "--day", "0.2")
    said = await attempt(fleet, *IMAGE, "A boat")
    assert (said.code, said.json["status"]) == (1, "cancelled")
    assert said.json["why"] == "not now: over budget"
    assert await sandbox.bill() == []


async def test_a_task_that_fails(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    said = await attempt(fleet, *IMAGE, "A boat [fault:fail]")
    assert (said.code, said.json["status"], bool(said.json["why"])) == (1, "failed", True)
    (trial,) = await trials(db)
    assert (trial["status"], trial["error"]) == ("failed", said.json["why"])
    assert len(await sandbox.bill()) == 1, "and it isn't bought again"


async def test_a_lost_answer_is_found_not_bought_again(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    said = await attempt(fleet, *IMAGE, "A boat [fault:disconnect-after*1]", RESUBMIT_UP_TO_CENTS=0)
    assert (said.code, said.json["status"]) == (0, "completed"), said.steps
    assert len(await sandbox.bill()) == 1
    assert len(await trials(db)) == 1


async def test_an_interrupt_cancels_it_there_and_here(
    db: Any, fleet: Fleet, sandbox: Sandbox
) -> None:
    words = (*IMAGE, "A boat [fault:stall]", "--max-cents", "1")
    process = await fleet.start("try", sys.executable, "-m", "worker.cli", *words)
    accepted = "SELECT to_regclass('rowmill.trials') IS NOT NULL AND EXISTS"
    await until_sql(db, accepted + " (SELECT FROM rowmill.submissions WHERE state = 'accepted')")
    process.process.send_signal(signal.SIGINT)
    assert await process.process.wait() != 0
    (trial,) = await trials(db)
    assert trial["status"] == "cancelled"

    async def ended() -> bool:
        states = await db.fetch("SELECT state::text FROM rowmill.submissions")
        return [state["state"] for state in states] == ["cancelled"]

    await until(ended, what="the call's end")
    assert len(await sandbox.bill()) <= 1
