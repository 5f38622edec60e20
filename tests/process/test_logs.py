"""Every line of a real worker: JSON, whole about its job, and without a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.database.platform_samples import run
from tests.process.fleet import Fleet, Sandbox
from tests.process.planted import PLANTED
from tests.process.rows import add_media, add_texts, has_status, in_state
from worker import maps
from worker.store.attaching import attach

pytestmark = pytest.mark.process

TABLE = """
CREATE TABLE public.notes (
    id text PRIMARY KEY, state text DEFAULT 'new', answer text CHECK (answer <> 'forbidden'))
"""
MAP = """
platform = "notes"
[[sources]]
name = "notes"
table = "public.notes"
kind = { constant = "note" }
lane = { constant = "note" }
  [sources.status]
  column = "state"
  ready = ["new"]
  running = "busy"
  succeeded = "done"
  failed = "broken"
  [sources.set.success]
  answer = "text"
"""
ALWAYS = {"event", "level", "timestamp", "worker"}
OF_A_JOB = {"job", "source", "key", "lane", "kind", "run", "try", "claim"}


async def test_every_line(
    db: Any, both: str, fleet: Fleet, sandbox: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "map.toml").write_text(MAP)
    await run(both, TABLE)
    await attach(both, maps.load(str(tmp_path / "map.toml")))
    await sandbox.fault("poll-hang", match="cancel me")
    worker = await fleet.hire(
        "a",
        HANDLERS="tests.process.talkative",
        LOG_LEVEL="debug",
        HTTP_PORT=0,
        PROVIDERS__OPENAI__API_KEY=f"{PLANTED}-key",
    )
    (cancelled,) = await add_media(db, prompt="cancel me")
    await in_state(db, "accepted")
    await db.execute("UPDATE generation_jobs SET status = 'cancelled' WHERE id = $1", cancelled)
    await db.execute(
        "INSERT INTO notes (id) SELECT unnest(ARRAY['talks', 'crashes', 'fails', 'forbidden'])"
    )
    (failed,) = await add_media(db, prompt="[fault:400]")
    (text,) = await add_texts(db)
    await has_status(db, failed, "failed")
    await has_status(db, text, "completed")
    expected = {
        "said.inside": "notes/talks",
        "said.in_a_task": "notes/talks",
        "said.in_a_thread": "notes/talks",
        "said.too_much": "notes/talks",
        "job.crashed": "notes/crashes",
        "job.retried": "notes/crashes",
        "settle.refused": "notes/forbidden",
        "job.lost": f"generation_jobs/{cancelled}",
    }
    for event, job in expected.items():
        line = await worker.says(event)
        assert (line["job"], line["claim"] is None) == (job, False)
    assert await worker.drain() == 0

    text_of_all = worker.log_file.read_text()
    assert PLANTED not in text_of_all
    lines = [json.loads(line) for line in text_of_all.splitlines()]
    for line in lines:
        assert line.keys() >= ALWAYS, line
        assert line["worker"] == "a"
        if line.keys() & {"job", "key", "claim", "try"}:
            assert line.keys() >= OF_A_JOB, line
            if line["claim"] is not None:  # there is none where nobody has the job any more
                assert None not in {line[name] for name in OF_A_JOB}, line
            assert line["job"] == f"{line['source']}/{line['key']}"
    told = {line["job"]: line for line in lines if line["event"] == "job.failed"}
    assert told.keys() >= {"notes/fails", f"generation_jobs/{failed}"}
    assert told["notes/fails"]["error"] == "no such page: https://***@shop.example/?api_key=***"
    of_library = [line for line in lines if line.get("logger") == "some.library"]
    assert [line["job"] for line in of_library] == 2 * ["notes/talks"]
    (much,) = worker.events("said.too_much")
    assert much["tokens"] == 12
    assert much["headers"]["Accept"] == "x"
    (crash,) = (line for line in worker.events("job.crashed") if line["try"] == 1)
    assert "no login with Basic ***" in crash["exception"], "the first of the chain, too"
    outside = {line["event"] for line in lines if "job" not in line}
    assert outside >= {"endpoint.listening", "worker.started", "worker.draining", "worker.stopped"}
