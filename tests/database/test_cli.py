"""The real `rowmill` as a process, on a real database."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commandline import Rowmill
from tests.database.platform_samples import NewDatabase, run, sql_file
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_background,
    add_videos,
    listening,
    queued,
)
from tests.unit.vendor import vendor_running
from worker.doctor import RESULT

ROOT = Path(__file__).parents[2]
MISSING = "9e0f06a0-22a3-4071-9831-b02b6524d6af"


async def with_photomemory(new_database: NewDatabase) -> str:
    dsn = await new_database()
    await run(dsn, sql_file("photomemory", "schema.sql"), sql_file("photomemory", "sample.sql"))
    return dsn


# --------------------------------------------------------------------------- setting up


async def test_budgets(rowmill: Rowmill, photomemory: str, connect: Connect) -> None:
    await add_videos(await connect(photomemory))
    assert (await rowmill(photomemory, "budget", "set", "nowhere", "--day", "5")).code == 1
    for wrong in (["--day", "5"], ["replicate"], ["replicate", "--all", "--day", "5"]):
        assert (await rowmill(photomemory, "budget", "set", *wrong)).code == 2
    assert (await rowmill(photomemory, "budget", "set", "--all", "--day", "-1")).code == 2
    said = await rowmill(photomemory, "budget", "set", "replicate", "--day", "5", "--month", "99.5")
    assert (
        said.out
        == "lane replicate: at most 5 cents a day\nlane replicate: at most 99.5 cents a month\n"
    )
    (day, month) = (await rowmill(photomemory, "budget", "show", "--json")).json["budgets"]
    assert (day["period"], day["limit_cents"], day["used_cents"]) == ("day", "5", "0")
    assert (month["period"], month["limit_cents"]) == ("month", "99.5")
    assert "$0.995" in (await rowmill(photomemory, "budget", "show")).out
    assert (await rowmill(photomemory, "budget", "unset", "replicate")).code == 0
    assert (await rowmill(photomemory, "budget", "unset", "replicate")).code == 1
    assert "No budgets" in (await rowmill(photomemory, "budget", "show")).out


async def test_a_provider_of_the_configuration_is_a_lane_before_anything_waits_there(
    rowmill: Rowmill, photomemory: str
) -> None:
    acts = (("budget", "set", "quill", "--day", "5"), ("pause", "quill"), ("resume", "quill"))
    for act in acts:
        said = await rowmill(photomemory, *act)
        assert (said.code, said.out) == (1, ""), act
        assert "no lane 'quill'" in said.err
    quill = {"ROWMILL_PROVIDERS__QUILL__ADAPTER": "openai"}
    misspelt = await rowmill(photomemory, "pause", "quil", **quill)
    assert misspelt.code == 1
    assert "no lane 'quil'; known lanes: quill" in misspelt.err
    for act in acts:
        assert (await rowmill(photomemory, *act, **quill)).code == 0, act
    assert (await rowmill(photomemory, "budget", "show")).out.count("quill") == 1


async def test_reconcile(rowmill: Rowmill, photomemory: str) -> None:
    async with vendor_running() as vendor:
        key = {
            "ROWMILL_PROVIDERS__REPLICATE__API_KEY": "hunter2",
            "ROWMILL_PROVIDERS__REPLICATE__BASE_URL": f"{vendor.url}/v1",
            "ROWMILL_PROVIDERS__OPENAI__API_KEY": "hunter2",
        }
        said = await rowmill(photomemory, "reconcile", **key)
        assert said.code == 0, said.err
        assert "openai, since" in said.out
        assert "can't be asked for its tasks" in said.out
        assert "Ledger and providers agree" in said.out
        vendor.add({"prompt": "A boat"})["created_at"] = "2026-01-02T03:04:05Z"
        assert (await rowmill(photomemory, "reconcile", "replicate", **key)).code == 0
        since = ("--since", "2026-01-02")
        said = await rowmill(photomemory, "reconcile", "replicate", *since, "--json", **key)
        assert said.code == said.json["left"] == 1
        (provider,) = said.json["providers"]
        assert (provider["asked"], provider["strangers"]["count"]) == ("listed", 1)
        said = await rowmill(photomemory, "reconcile", *since, **key)
        assert "Tasks the ledger doesn't know: 1" in said.out
        assert (await rowmill(photomemory, "reconcile", "--since", "soon", **key)).code == 2
        said = await rowmill(photomemory, "reconcile", "runway", **key)
        assert (said.code, "ROWMILL_PROVIDERS__RUNWAY__API_KEY" in said.err) == (1, True)


async def test_doctor(rowmill: Rowmill, photomemory: str, connect: Connect) -> None:
    said = await rowmill(photomemory, "doctor", "--json")
    assert (said.code, set(said.json)) == (
        RESULT[said.json["worst"]],
        {"findings", "worst", "repaired"},
    )
    await (await connect(photomemory)).execute("DROP TRIGGER rowmill_change ON generation_jobs")
    said = await rowmill(photomemory, "doctor")
    assert said.code == 2
    assert "error: generation_jobs: public.generation_jobs lacks rowmill_change" in said.out
    assert "  tables.triggers: rowmill attach photomemory\n" in said.out


async def test_limits(rowmill: Rowmill, photomemory: str, connect: Connect) -> None:
    await add_videos(await connect(photomemory))
    rates = ("--requests-per-minute", "60")
    assert (await rowmill(photomemory, "limit", "nowhere", *rates)).code == 1
    for wrong in (["replicate"], list(rates), ["replicate", "--all", *rates]):
        assert (await rowmill(photomemory, "limit", *wrong)).code == 2
    for wrong in (["--none", "--running", "5"], ["--running", "0"], ["--running", "9999999999"]):
        assert (await rowmill(photomemory, "limit", "replicate", *wrong)).code == 2
    said = await rowmill(photomemory, "limit", "replicate", *rates)
    assert said.out == "lane replicate: 60 requests a minute\n"
    said = await rowmill(photomemory, "limit", "replicate", "--running", "5", "--json")
    assert said.json == {
        "subject": "lane replicate",
        "lane": "replicate",
        "source": "*",
        "max_running": 5,
        "requests_per_minute": 60,
        "tokens_per_minute": None,
    }
    (lane,) = (await rowmill(photomemory, "status", "--json")).json["lanes"]
    assert (lane["limit"], lane["requests_per_minute"], lane["slow_until"]) == (5, 60, None)
    said = await rowmill(photomemory, "limit", "--all", "--tokens-per-minute", "7000")
    assert said.out == "everything: 7000 tokens a minute\n"
    told = (await rowmill(photomemory, "providers", "--json")).json["providers"]
    (replicate,) = [row for row in told if row["provider"] == "replicate"]
    assert [limit["of"] for limit in replicate["limits"]] == ["everything", "lane replicate"]
    said = await rowmill(photomemory, "limit", "replicate", "--none")
    assert said.out == "lane replicate: no limit set here any more\n"


async def test_the_version(rowmill: Rowmill) -> None:
    said, long = await rowmill(None, "--version"), await rowmill(None, "version", "--json")
    assert (said.code, said.out) == (0, f"rowmill {long.json['version']}\n")


async def test_migrate_twice(new_database: NewDatabase, rowmill: Rowmill) -> None:
    dsn = await new_database()
    first, second = [await rowmill(dsn, "migrate", "--json") for _ in range(2)]
    assert (first.code, second.code) == (0, 0)
    assert first.json["applied"][0] == "0001_tables"
    assert second.json == {"applied": []}
    assert (await rowmill(dsn, "migrate")).out == "already up to date\n"


async def test_commands_before_migrate_say_so(new_database: NewDatabase, rowmill: Rowmill) -> None:
    dsn = await with_photomemory(new_database)
    for command in (("status",), ("attach", "photomemory"), ("pause", "x"), ("run", "--burst")):
        said = await rowmill(dsn, *command)
        assert said.code == 1, said
        assert said.out == ""
        assert "run `rowmill migrate`" in said.err


TRACES = """
SELECT 'trigger', t.tgrelid::regclass::text, t.tgname, pg_get_triggerdef(t.oid) FROM pg_trigger t
UNION ALL
SELECT 'function', p.pronamespace::regnamespace::text, p.proname, md5(p.prosrc) FROM pg_proc p
UNION ALL
SELECT 'column', a.attrelid::regclass::text, a.attname, a.atttypid::regtype::text
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE a.attnum > 0 AND c.relnamespace::regnamespace::text NOT LIKE 'pg\\_%'
UNION ALL
SELECT 'right', c.oid::regclass::text, '', c.relacl::text FROM pg_class c WHERE c.relacl IS NOT NULL
UNION ALL
SELECT 'index', i.indrelid::regclass::text, i.indexrelid::regclass::text, '' FROM pg_index i
ORDER BY 1, 2, 3, 4
"""


async def traces(connection: Any) -> list[tuple[str, ...]]:
    return [tuple(row) for row in await connection.fetch(TRACES)]


async def test_a_dry_run_prints_the_sql_and_changes_nothing(
    new_database: NewDatabase, rowmill: Rowmill, connect: Connect
) -> None:
    dsn = await with_photomemory(new_database)
    await rowmill(dsn, "migrate")
    connection = await connect(dsn)
    await add_videos(connection)
    before = await traces(connection)
    said = await rowmill(dsn, "attach", "photomemory", "--dry-run")
    assert said.code == 0, said.err
    assert "CREATE TRIGGER rowmill_enqueue AFTER INSERT ON" in said.out
    assert "FUNCTION rowmill.settle_generation_jobs(" in said.out
    assert await traces(connection) == before
    assert await connection.fetchval("SELECT count(*) FROM rowmill.sources") == 0
    assert await queued(connection) == {}
    # What was printed is what would be run: psql takes it as it is.
    await connection.execute(said.out)
    assert await traces(connection) != before


async def test_detach_leaves_no_trace(
    new_database: NewDatabase, rowmill: Rowmill, connect: Connect
) -> None:
    dsn = await with_photomemory(new_database)
    await rowmill(dsn, "migrate")
    connection = await connect(dsn)
    (key,) = await add_videos(connection)
    before = await traces(connection)
    rows = await connection.fetch("SELECT * FROM public.generation_jobs")

    said = await rowmill(dsn, "attach", "photomemory")
    assert (said.code, "1 unfinished rows queued" in said.out) == (0, True)
    assert list(await queued(connection)) == [key]
    listed = {row["platform"]: row for row in (await rowmill(dsn, "platforms", "--json")).json}
    assert listed["photomemory"]["attached"]
    assert listed["photomemory"]["demo"]
    assert not listed["ebook"]["attached"]

    said = await rowmill(dsn, "detach", "photomemory", "--json")
    assert said.json == {"platform": "photomemory", "tables": ["public.generation_jobs"]}
    assert await traces(connection) == before
    assert await connection.fetch("SELECT * FROM public.generation_jobs") == rows
    assert await queued(connection) == {}
    again = await rowmill(dsn, "detach", "photomemory")
    assert (again.code, "not attached" in again.err) == (1, True)


async def test_a_platform_in_a_schema_of_ones_own(
    new_database: NewDatabase, rowmill: Rowmill
) -> None:
    """From its name to an attached platform, by what the commands print alone."""
    dsn = await new_database()
    await rowmill(dsn, "migrate")
    for file in ("schema", "sample"):
        said = await rowmill(dsn, "platforms", "education", "--show", file, "--schema", "order")
        assert said.code == 0
        await run(dsn, said.out)
    assert (await rowmill(dsn, "attach", "education", "--schema", "order")).code == 0
    said = await rowmill(dsn, "platforms", "education", "--json")
    assert [row["tables"] for row in said.json] == [["order.media_files"]]

    assert "ebook" in (await rowmill(dsn, "platforms", "--show", "schema")).err
    assert (await rowmill(dsn, "platforms", "nobody")).code == 1
    bad = await rowmill(dsn, "platforms", "education", "--show", "schema", "--schema", "A;B")
    assert (bad.code, "lower-case letters" in bad.err) == (1, True)


MAP = """\
platform = "shop"
[[sources]]
name = "orders"
table = "public.orders"
kind = { constant = "webhook" }
lane = { constant = "webhook" }
  [sources.status]
  column = "status"
  ready = ["new"]
  running = "doing"
  succeeded = "done"
  failed = "broken"
"""
WRONG = [
    ('column = "status"', 'column = "state"', ["status.column", "public.orders", "'state'"]),
    ('"public.orders"', '"public.order"', ["sources[0]", ".table", "public.order "]),
    ('failed = "broken"', 'fails = "broken"', ["sources[0].status.fails", "public.orders"]),
    ('platform = "shop"', "platform =", ["line 1"]),
]


async def test_a_bad_map_is_refused_with_file_key_table_and_column(
    new_database: NewDatabase, rowmill: Rowmill, connect: Connect, tmp_path: Path
) -> None:
    dsn = await new_database()
    await run(dsn, "CREATE TABLE public.orders (id bigint PRIMARY KEY, status text NOT NULL)")
    await rowmill(dsn, "migrate")
    connection, path = await connect(dsn), tmp_path / "shop.toml"
    before = await traces(connection)
    for right, wrong, named in WRONG:
        path.write_text(MAP.replace(right, wrong))
        said = await rowmill(dsn, "attach", str(path))
        assert (said.code, said.out) == (1, "")
        assert [n for n in ["shop.toml", *named] if n not in said.err] == [], said.err
        assert await traces(connection) == before
        assert await connection.fetchval("SELECT count(*) FROM rowmill.sources") == 0
    path.write_text(MAP)
    assert (await rowmill(dsn, "attach", str(path))).code == 0
    said = await rowmill(dsn, "attach", "shopp")
    assert (said.code, "there are ebook, " in said.err) == (1, True)


# --------------------------------------------------------------------------- looking

SHAPE = {
    "at": str,
    "version": str,
    "database": {"name", "server_version", "pooler", "oldest_transaction_s"},
    "lanes": {
        *(
            "lane",
            "source",
            "ready",
            "scheduled",
            "running",
            "limit",
            "paused",
            "pause_reason",
            "requests_per_minute",
            "tokens_per_minute",
            "slow_until",
            "broken_until",
            "broken_why",
        ),
        *("held", "failed_last_hour", "oldest_wait_s", "per_minute_out", "spend_cents_today"),
        *("wait_p50_ms", "wait_p95_ms", "run_p50_ms", "run_p95_ms"),
        *("ready_estimated", "scheduled_estimated", "held_estimated", "paused_by"),
        *("per_minute_in", "out_history"),
    },
    "sources": {
        *("source", "platform", "relation", "gone", "running", "limit", "paused"),
        *("missing_triggers", "unserved"),
    },
    "workers": {
        *("id", "name", "version", "slots", "running", "heartbeat_age_s", "alive", "draining"),
        *("lanes", "host", "state", "started_at", "claims"),
    },
    "providers": {
        *("provider", "lane", "state", "why", "spend_cents_today", "open_calls"),
        "failed_last_hour",
    },
    "budgets": {"lane", "period", "limit_cents", "used_cents", "renewed_at", "waiting"},
    "unserved": {"source", "lane", "kind", "waiting", "estimated", "paused", "why"},
    "history": {"seconds", "started", "succeeded", "failed", "wait_p50_ms"},
    "needs_person": {"kind", "subject", "message", "commands"},
    "notices": {"kind", "subject", "message", "commands"},
}


async def test_the_shape_of_status_and_its_exit_code(
    photomemory: str, rowmill: Rowmill, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    assert (await rowmill(photomemory, "status")).code == 0
    await add_videos(connection)
    await add_videos(connection, service="runway")
    assert (await rowmill(photomemory, "pause", "runway", "--reason", "[red]no")).code == 0
    said = await rowmill(photomemory, "status", "--json")
    assert said.code == 1
    assert list(said.json) == list(SHAPE)
    assert set(said.json["database"]) == SHAPE["database"]
    (need,) = said.json["needs_person"]
    assert (need["kind"], need["commands"]) == ("no_workers", ["rowmill run"])
    text = await rowmill(photomemory, "status")
    assert text.code == 1
    assert "[red]no" in text.out
    assert "rowmill run" in text.out

    hand = await Hand.hire(store)
    report = (await rowmill(photomemory, "status", "--json")).json
    for part in ("lanes", "sources", "workers", "notices"):
        assert report[part], part
        assert all(set(row) == SHAPE[part] for row in report[part])
    assert report["workers"][0]["id"] == str(hand.id)
    assert (await rowmill(photomemory, "status")).code == 0


PROVIDER_SHAPE = {
    *("provider", "adapter", "state", "why", "account", "base_url", "models", "limits"),
    *("slow_until", "budgets", "spend_cents_today", "spend_cents_month"),
    *("open_calls", "open_cents"),
}


async def test_providers_and_its_exit_code(
    photomemory: str, rowmill: Rowmill, connect: Connect
) -> None:
    key = {"ROWMILL_PROVIDERS__REPLICATE__API_KEY": "hunter2"}
    said = await rowmill(photomemory, "providers", "--json", **key)
    assert said.code == 0, said.err
    assert all(set(row) == PROVIDER_SHAPE for row in said.json["providers"])
    assert [row["provider"] for row in said.json["providers"]][:2] == ["replicate", "anthropic"]
    connection = await connect(photomemory)
    await connection.execute(REFUSED_CALL)
    text = await rowmill(photomemory, "providers", **key)
    assert text.code == 1
    assert (
        "replicate (broken): the last call that ended failed as auth: no [red]such key" in text.out
    )
    assert "hunter2" not in text.out
    assert (await rowmill(photomemory, "providers")).code == 0, "it isn't configured here"
    wrong = {"ROWMILL_PROVIDERS__NOBODY__API_KEY": "hunter2"}
    said = await rowmill(photomemory, "providers", **wrong)
    assert (said.code, "no adapter 'nobody'" in said.err) == (2, True)


REFUSED_CALL = """
INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider, account, model,
                                 state, result, error, estimate_cents, cost_cents, ended_at)
VALUES ('generation_jobs', 'x', 1, 'main', 'replicate', 1, 'replicate', 'default', 'm', 'failed',
        '{"kind": "auth"}', 'no [red]such key', 5, 0, clock_timestamp())
"""


async def test_job_show_tells_why(photomemory: str, rowmill: Rowmill, connect: Connect) -> None:
    connection = await connect(photomemory)
    (key,) = await add_videos(connection)
    text = await rowmill(photomemory, "job", "show", key)
    assert text.code == 0
    assert "  why    no worker is running\n" in text.out
    story = (await rowmill(photomemory, "job", "show", f"generation_jobs/{key}", "--json")).json
    assert (story["key"], story["queue"]["state"]) == (key, "ready")
    assert story["row"]["status"] == "queued"
    said = await rowmill(photomemory, "job", "show", MISSING)
    assert (said.code, MISSING in said.err) == (1, True)


# --------------------------------------------------------------------------- acting


async def test_pause_and_resume(photomemory: str, rowmill: Rowmill, connect: Connect) -> None:
    connection = await connect(photomemory)
    await add_videos(connection)
    assert (await rowmill(photomemory, "pause")).code == 2
    assert (await rowmill(photomemory, "pause", "replicate", "--all")).code == 2
    said = await rowmill(photomemory, "pause", "nope")
    assert (said.code, "known lanes: replicate" in said.err) == (1, True)
    await rowmill(photomemory, "pause", "--all")
    await rowmill(photomemory, "pause", "--source", "public.generation_jobs")
    said = await rowmill(photomemory, "resume", "--all")
    assert said.out == "everything is resumed\nstill paused: source generation_jobs\n"
    said = await rowmill(photomemory, "resume", "--source", "generation_jobs", "--json")
    assert said.json == {
        "resumed": True,
        "subject": "source generation_jobs",
        "still_paused": [],
    }
    assert (await rowmill(photomemory, "resume", "--all")).code == 1
    rows = await connection.fetch("SELECT who, action, subject FROM rowmill.actions ORDER BY id")
    assert [(r["action"], r["subject"]) for r in rows] == [
        ("pause", "everything"),
        ("pause", "source generation_jobs"),
        ("resume", "everything"),
        ("resume", "source generation_jobs"),
    ]
    assert all("@" in row["who"] for row in rows)


async def test_retry_and_cancel(
    photomemory: str, rowmill: Rowmill, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    (key,) = await add_videos(connection)
    hand = await Hand.hire(store)
    await hand.fail(await hand.take())
    assert (await rowmill(photomemory, "retry", key)).code == 0
    row = await connection.fetchrow("SELECT * FROM public.generation_jobs WHERE id = $1", key)
    assert (row["status"], row["retry_count"]) == ("queued", 0)
    assert (row["error_message"], row["failed_at"]) == (None, None)
    assert (await queued(connection))[key]["state"] == "ready"

    await hand.take()
    said = await rowmill(photomemory, "retry", key)
    assert (said.code, "it is running" in said.err) == (1, True)
    said = await rowmill(photomemory, "cancel", key, "--json")
    assert (said.code, said.json["done"], said.json["jobs"][0]["verdict"]) == (0, 1, "cancelled")
    assert await queued(connection) == {}
    for command in ("retry", "cancel"):
        said = await rowmill(photomemory, command, MISSING)
        assert (said.code, "no job" in said.err) == (1, True)


# --------------------------------------------------------------------------- errors


async def test_errors_are_one_line_with_a_documented_exit_code(
    new_database: NewDatabase, rowmill: Rowmill
) -> None:
    dsn = await new_database()
    nowhere = "postgresql://me:hunter2@127.0.0.1:1/x"
    gone = dsn.replace("/rowmill_test_", "/rowmill_test_no_")
    for code, named, said in (
        (2, "ROWMILL_DATABASE_URL is not set", await rowmill(None, "status")),
        (2, "ROWMILL_SLOTS", await rowmill(dsn, "run", ROWMILL_SLOTS="many")),
        (3, "can't reach the database", await rowmill(nowhere, "status")),
        (3, "does not exist", await rowmill(gone, "migrate")),
    ):
        assert (said.code, said.out) == (code, ""), said
        assert named in said.err
        assert len(said.err.splitlines()) == 1
        assert "hunter2" not in said.err


# --------------------------------------------------------------------------- running


async def test_run_in_a_burst(ebook: str, rowmill: Rowmill, connect: Connect) -> None:
    connection = await connect(ebook)
    payload = {"content_type": "chapter", "content_id": "e6000000-0000-4000-8000-000000000001"}
    await add_background(connection, 3, kind="content_statistics", payload=json.dumps(payload))
    said = await rowmill(ebook, "run", "--burst", "--lanes", "background:content_statistics")
    assert said.code == 0, said.err
    rows = await connection.fetch("SELECT status::text FROM system.background_jobs")
    assert [row[0] for row in rows] == ["completed"] * 3
    assert (
        await connection.fetchval("SELECT count(*) FROM rowmill.workers WHERE stopped_at IS NULL")
        == 0
    )
    events = [json.loads(line)["event"] for line in said.err.splitlines()]
    assert events[0] == "worker.started"
    assert events[-1] == "worker.stopped"


async def test_what_run_refuses_to_start_with(ebook: str, rowmill: Rowmill) -> None:
    key = {"ROWMILL_PROVIDERS__NOBODY__API_KEY": "hunter2"}
    for named, environment in (
        ("adapter", key),
        ("ROWMILL_HANDLERS", {"ROWMILL_HANDLERS": "no.such.module"}),
        ("URL", {"ROWMILL_STORAGE_URL": "nonsense"}),
        ("ROWMILL_PRICES: no-such.toml", {"ROWMILL_PRICES": "no-such.toml"}),
        ("ROWMILL_UNKNOWN_PRICE", {"ROWMILL_UNKNOWN_PRICE": "-1"}),
    ):
        said = await rowmill(ebook, "run", "--burst", **environment)
        assert said.code == 2, said
        assert named in said.err
        assert "hunter2" not in said.err


HANGING = """
import asyncio
from jobs.registry import kind

@kind("background:hang")
async def hang(job, ctx):
    await asyncio.Event().wait()
"""


@pytest.mark.process
@pytest.mark.parametrize(("grace", "signals", "code"), [("0", 1, 0), ("600", 2, 143)])
async def test_the_first_signal_drains_and_the_second_ends_at_once(
    ebook: str,
    connect: Connect,
    tmp_path: Path,
    *,
    grace: str,
    signals: int,
    code: int,
) -> None:
    connection = await connect(ebook)
    (tmp_path / "hanging.py").write_text(HANGING)
    (key,) = await add_background(connection, kind="hang")
    settings = {
        "ROWMILL_DATABASE_URL": ebook,
        "ROWMILL_HANDLERS": "hanging",
        "ROWMILL_GRACE_SECONDS": grace,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
    }
    async with listening(connection, "rowmill_test") as heard:
        await connection.execute(TELL_STARTED)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker.cli", "run"),
            cwd=tmp_path,
            env=os.environ | settings,
            stderr=asyncio.subprocess.PIPE,
        )
        assert await heard.get() == key
    process.terminate()
    assert process.stderr is not None
    while b"worker.draining" not in (line := await process.stderr.readline()):
        assert line
    if signals == 2:
        process.terminate()
    await process.communicate()
    assert process.returncode == code
    state = (await queued(connection, key))[key]["state"]
    assert state == ("ready" if code == 0 else "claimed")


TELL_STARTED = """
CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('rowmill_test', NEW.id::text); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER UPDATE ON system.background_jobs FOR EACH ROW
    WHEN (NEW.status::text = 'processing') EXECUTE FUNCTION public.tell();
"""
