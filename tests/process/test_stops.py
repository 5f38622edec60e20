"""A platform's stop rule, with real workers: at the start, while a job runs, and after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.database.test_attach import edited
from tests.process.fleet import Fleet, Sandbox, until_sql
from tests.process.rows import add_media, has_status, ledger_equals_bill, row, submissions
from worker import maps
from worker.store.attaching import attach

pytestmark = pytest.mark.process

ENDLESS = "[fault:stall]"
STOP = """
SELECT j.id AS key, 'the project is closed' AS message,
       CASE WHEN p.ai_prompt LIKE '%[banned]%' THEN 'refuse' ELSE 'cancel' END AS verdict
FROM public.generation_jobs AS j
JOIN public.video_projects AS p ON p.id = j.project_id
WHERE j.id = ANY (rowmill_keys) AND p.ai_prompt LIKE ANY (ARRAY['%[banned]%', '%[closed]%']);
"""
FAIL = """
UPDATE public.video_projects AS p
SET ai_prompt = p.ai_prompt || ' [' || r.verb || ': ' || r.error || ']'
FROM public.generation_jobs AS j JOIN result AS r ON r.row_id = j.id
WHERE j.id = ANY (rowmill_keys) AND p.id = j.project_id;
"""
CLOSE = """
UPDATE public.video_projects SET ai_prompt = ai_prompt || ' [closed]'
WHERE id = (SELECT project_id FROM public.generation_jobs WHERE id = $1)
"""
RUNS = "SELECT external_job_id IS NOT NULL FROM public.generation_jobs WHERE id = $1"
_SETTLED = "SELECT state::text FROM rowmill.submissions WHERE row_key = $1 AND state = 'cancelled'"
_PROMPT = """
SELECT p.ai_prompt FROM public.video_projects p
  JOIN public.generation_jobs j ON j.project_id = p.id WHERE j.id = $1
"""


async def with_rules(dsn: str, folder: Path, *changes: tuple[str, str]) -> None:
    edited(folder, *changes)
    (folder / "generation_jobs.stop.sql").write_text(STOP, encoding="utf-8")
    (folder / "generation_jobs.fail.sql").write_text(FAIL, encoding="utf-8")
    await attach(dsn, maps.load(str(folder / "map.toml")))


async def test_at_the_start_nothing_is_paid(
    both: str, db: Any, fleet: Fleet, sandbox: Sandbox, tmp_path: Path
) -> None:
    await with_rules(both, tmp_path / "map")
    (banned,) = await add_media(db, prompt="[banned]")
    (closed,) = await add_media(db, prompt="[closed]")
    (fine,) = await add_media(db)
    await fleet.hire("a")
    await has_status(db, banned, "failed")
    await has_status(db, closed, "cancelled")
    await has_status(db, fine, "completed")
    for key in (banned, closed):
        job = await row(db, "generation_jobs", key)
        assert (job["error_message"], job["started_at"]) == ("the project is closed", None)
        assert await submissions(db, key) == []
    kinds = await db.fetch("SELECT row_key, kind, final FROM rowmill.failures")
    assert [tuple(f) for f in kinds] == [(banned, "allowance", True)]
    assert (await db.fetchval(_PROMPT, banned)).endswith("[fail: the project is closed]")
    assert (await db.fetchval(_PROMPT, closed)).endswith("[cancel: the project is closed]")
    assert len(await sandbox.bill()) == 1


async def test_while_it_runs(
    both: str, db: Any, fleet: Fleet, sandbox: Sandbox, tmp_path: Path
) -> None:
    """It ends as cancelled, its provider's task too, and the slot is free for another."""
    await with_rules(both, tmp_path / "map")
    (key,) = await add_media(db, prompt=ENDLESS)
    worker = await fleet.hire("a", slots=1)
    await until_sql(db, RUNS, key)
    await db.execute(CLOSE, key)
    await has_status(db, key, "cancelled")
    await until_sql(db, _SETTLED, key, within=4)  # not by maintenance, which waits for a lease
    job = await row(db, "generation_jobs", key)
    assert job["error_message"] == "the project is closed"
    (other,) = await add_media(db)
    await has_status(db, other, "completed")
    assert len(worker.events("job.stopped")) == 1
    assert (await db.fetchval(_PROMPT, key)).count("[cancel:") == 1
    await ledger_equals_bill(db, sandbox)


async def test_a_drain_at_the_same_time(
    both: str, db: Any, fleet: Fleet, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Each job is either handed back or cancelled, and none is both."""
    await with_rules(both, tmp_path / "map")
    keys = await add_media(db, 4, prompt=ENDLESS)
    worker = await fleet.hire("a", GRACE_SECONDS=1)
    for key in keys:
        await until_sql(db, RUNS, key)
    for key in keys[:2]:
        await db.execute(CLOSE, key)
    assert await worker.drain() == 0
    for key in keys[:2]:
        await db.execute(CLOSE, key)
    await fleet.hire("b")
    for key in keys[:2]:
        await has_status(db, key, "cancelled")
        await until_sql(db, _SETTLED, key)
        assert (await db.fetchval(_PROMPT, key)).count("[cancel:") == 1
    for key in keys[2:]:
        assert (await row(db, "generation_jobs", key))["status"] in {"queued", "processing"}
        await db.execute(CLOSE, key)
        await has_status(db, key, "cancelled")
        await until_sql(db, _SETTLED, key)
    await ledger_equals_bill(db, sandbox)


async def test_a_table_without_a_word_for_it(
    both: str, db: Any, fleet: Fleet, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Its worker dies, an operator cancels it, and what the provider still brings stays away."""
    await with_rules(both, tmp_path / "map", ('  cancelled = "cancelled"\n', ""))
    (key,) = await add_media(db, prompt=ENDLESS)
    worker = await fleet.hire("a")
    await until_sql(db, RUNS, key)
    await worker.kill()
    code, said = await fleet.command("cancel", key)
    assert code == 0, said
    assert (await row(db, "generation_jobs", key))["status"] == "failed"
    await fleet.hire("b")
    await until_sql(db, _SETTLED, key)  # given up at the provider, though its row is a failed one
    assert (await row(db, "generation_jobs", key))["status"] == "failed"
    assert await db.fetchval("SELECT count(*) FROM rowmill.actions WHERE action = 'deliver'") == 0
    await ledger_equals_bill(db, sandbox)
