"""The endpoint of real workers: through their life, stopped, stuck, and counting."""

from __future__ import annotations

import asyncio
import re
import sys
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
import pytest
from prometheus_client.metrics_core import Metric

from tests.database.redis_servers import real_redis
from tests.golden_metrics import GOLDEN
from tests.process.fleet import Fleet, Sandbox, Worker, until, until_sql
from tests.process.machine import seen
from tests.process.rows import add_background, add_media, add_texts, in_state

pytestmark = pytest.mark.process

LONG = "this one takes its time"


def value(family: Metric, suffix: str = "", **labels: str) -> float:
    name = family.name + suffix
    return sum(
        s.value for s in family.samples if s.name == name and labels.items() <= s.labels.items()
    )


# --------------------------------------------------------------------------- life


@pytest.mark.parametrize("host", ["rowmill", "arq"])
async def test_ready_then_draining_then_gone(
    db: Any, fleet: Fleet, sandbox: Sandbox, host: str
) -> None:
    if host == "arq":
        async with real_redis() as redis:
            words = (sys.executable, "-m", "arq", "worker.arq_host.WorkerSettings")
            settings = {"REDIS_URL": redis.url, "HTTP_PORT": 0, "WORKER_NAME": "a"}
            await _lives(db, sandbox, await fleet.start("a", *words, **settings))
    else:
        await _lives(db, sandbox, await fleet.hire("a", HTTP_PORT=0))


async def _lives(db: Any, sandbox: Sandbox, worker: Worker) -> None:
    await worker.says("worker.started")
    machine = await seen(worker)
    told = await machine.until("/readyz", 200)
    assert told.keys() == {
        *("status", "reasons", "worker", "version", "lanes", "slots", "slots_used", "draining"),
        "heartbeat_age_s",
    }
    assert (told["status"], told["worker"], told["reasons"]) == ("ready", "a", [])
    assert "replicate" in told["lanes"]
    assert told["heartbeat_age_s"] < 1.5

    await sandbox.fault("poll-hang", match=LONG)
    await add_media(db, 2, prompt=LONG)
    await in_state(db, "accepted", 2)
    worker.terminate()
    told = await machine.until("/readyz", 503)
    assert told["draining"] is True
    assert "draining" in told["reasons"][0]
    assert told["slots_used"] == 2
    status, told = await machine.get("/healthz")
    assert (status, told["status"]) == (200, "ok")
    await sandbox.clear_faults()
    assert await worker.ended() == 0
    assert await machine.gone()
    assert await db.fetchval("SELECT bool_and(stopped_at IS NOT NULL) FROM rowmill.workers")


async def test_a_port_in_use_is_said_before_anyone_knows_the_worker(db: Any, fleet: Fleet) -> None:
    other = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    async with other:
        port = other.sockets[0].getsockname()[1]
        code, said = await fleet.command("run", HTTP_PORT=port)
    assert code not in (0, None)
    assert "Traceback" not in said
    assert re.search(rf"can't listen on 127\.0\.0\.1:{port}: .* ROWMILL_HTTP_PORT", said, re.DOTALL)
    assert await db.fetchval("SELECT count(*) FROM rowmill.workers") == 0


# --------------------------------------------------------------------------- standing still


async def test_a_process_that_stood_still_is_not_stuck(fleet: Fleet) -> None:
    worker = await fleet.hire("a", HTTP_PORT=0, STUCK_SECONDS=1)
    machine = await seen(worker)
    worker.stop()
    with pytest.raises(httpx.ReadTimeout):
        await machine.client.get("/healthz", timeout=3)  # longer than it may be stuck
    worker.go_on()
    for _ in range(10):
        status, told = await machine.get("/healthz")
        assert (status, told["reasons"]) == (200, [])
        await asyncio.sleep(0.05)  # over the first looks it takes at itself
    await machine.until("/readyz", 200)


async def test_a_loop_that_hangs_though_the_database_answers(both: str, fleet: Fleet) -> None:
    machine = await seen(await fleet.hire("a", HTTP_PORT=0, STUCK_SECONDS=1.5))
    blocker = await asyncpg.connect(both)
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE rowmill.workers")

            async def stuck() -> bool:
                status, told = await machine.get("/healthz")
                return status == 503 and any("pulse" in reason for reason in told["reasons"])

            await until(stuck)
        told = await machine.until("/healthz", 200)
        assert told["reasons"] == []
        await machine.until("/readyz", 200)
    finally:
        blocker.terminate()


# --------------------------------------------------------------------------- counting

_ENDED = """
SELECT (SELECT count(*) FROM public.generation_jobs WHERE status = 'completed') AS media,
       (SELECT count(*) FROM public.generation_jobs WHERE status = 'failed') AS media_failed,
       (SELECT count(*) FROM ai_processing.ai_generations WHERE status = 'completed') AS texts
"""
_SPENT = "SELECT provider, sum(cost_cents) AS cents FROM rowmill.submissions GROUP BY provider"
_TRIES = """
SELECT count(*) FROM rowmill.failures WHERE source = 'generation_jobs' AND NOT final
"""


def full_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def labels_of(family: Metric) -> set[str]:
    return {name for sample in family.samples for name in sample.labels} - {"le"}


async def test_the_numbers_are_the_databases_and_the_names_are_these(db: Any, fleet: Fleet) -> None:
    await add_background(db, kind="nobody_serves_this")  # before: what waits is read at start
    worker = await fleet.hire("a", HTTP_PORT=0)
    machine = await seen(worker)
    await add_media(db, 4)
    await add_media(db, 2, prompt="[fault:fail*1]")  # each fails once, and is tried again
    await add_media(db, 3, prompt="[fault:400]")
    await add_texts(db, 5)
    await until_sql(db, "SELECT count(*) <= 1 FROM rowmill.queue")
    ended = await db.fetchrow(_ENDED)
    assert (ended["media"], ended["media_failed"], ended["texts"]) == (6, 3, 5)
    retried = await db.fetchval(_TRIES)
    assert retried == 2
    jobs = {"source": "generation_jobs", "lane": "replicate"}

    async def counted() -> dict[str, Metric] | None:
        """The last settlement's acknowledgement, and the rendering, may be a moment behind."""
        now = await machine.metrics()
        return now if value(now["rowmill_jobs_finished"], "_total") == 16 else None

    told = await until(counted)
    assert told is not None
    finished = told["rowmill_jobs_finished"]
    assert value(finished, "_total", **jobs, outcome="succeeded") == ended["media"]
    assert value(finished, "_total", **jobs, outcome="failed") == ended["media_failed"]
    assert value(finished, "_total", **jobs, outcome="retried") == retried
    assert value(finished, "_total", lane="openai", outcome="succeeded") == ended["texts"]
    started = told["rowmill_jobs_started"]
    assert value(started, "_total") == value(finished, "_total")
    assert value(told["rowmill_job_wait_seconds"], "_count", **jobs) == 11
    assert value(told["rowmill_job_run_seconds"], "_count", **jobs) == 6
    assert 0.5 < value(told["rowmill_job_run_seconds"], "_sum", **jobs) / 6 < 60

    calls = told["rowmill_provider_calls"]
    assert value(calls, "_total", provider="replicate", outcome="succeeded") == ended["media"]
    assert value(calls, "_total", provider="replicate", outcome="failed") == 5
    kinds = told["rowmill_provider_failures"]
    assert value(kinds, "_total", provider="replicate") == 5
    for row in await db.fetch(_SPENT):
        spent = value(told["rowmill_provider_spend_cents"], "_total", provider=row["provider"])
        assert Decimal(str(round(spent, 6))) == round(row["cents"], 6) > 0
    assert value(told["rowmill_slots_used"]) == 0
    assert value(told["rowmill_slots"]) == 20
    assert value(told["rowmill_settle_batch_jobs"], "_sum") >= 16

    found = {full_name(family): (family.type, labels_of(family)) for family in told.values()}
    assert found == {name: (kind, set(labels)) for name, (kind, labels) in GOLDEN.items()}
    assert await worker.drain() == 0


async def test_what_waits_is_told_and_what_nobody_serves_is_other(db: Any, fleet: Fleet) -> None:
    """Read once at start: the rows are there before."""
    await add_background(db, 3, kind="nobody_serves_this")
    await db.execute(
        "INSERT INTO rowmill.lanes (lane, source, paused_at, paused_by)"
        " VALUES ('replicate', '*', now(), 'test')"
    )
    await add_media(db, 2)
    await fleet.hire("first", LANES="openai")  # so that openai is known when the other one looks
    machine = await seen(await fleet.hire("a", HTTP_PORT=0, LANES="replicate"))

    async def looked() -> dict[str, Metric] | None:
        told = await machine.metrics()
        return told if "rowmill_queue_jobs" in told else None

    told = await until(looked)
    assert told is not None
    jobs = told["rowmill_queue_jobs"]
    assert value(jobs, lane="other", source="background_jobs", state="ready") == 3
    waits = told["rowmill_queue_oldest_wait_seconds"]
    assert value(waits, lane="other") > 0
    assert {s.labels["lane"]: s.value for s in told["rowmill_lane_broken"].samples}["openai"] == 0
    lanes = {
        s.labels["lane"] for family in told.values() for s in family.samples if "lane" in s.labels
    }
    assert lanes <= {"openai", "replicate", "other"}
