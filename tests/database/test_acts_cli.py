"""rowmill retry, requeue, cancel, priority, resolve: the real command, upon one job and many."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.commandline import Rowmill
from tests.database.support import Connect, Hand, OpenStore, add_texts, add_videos, queued
from tests.database.terminal import Terminal
from tests.database.test_requeue import submit
from tests.process.fleet import until_sql
from worker.cli import app

JOBS = "generation_jobs"


async def states(connection: Any) -> Counter[str]:
    rows = await connection.fetch(f"SELECT status::text, count(*) FROM {JOBS} GROUP BY status")
    return Counter(dict(map(tuple, rows)))


async def recorded(connection: Any) -> Counter[str]:
    rows = await connection.fetch("SELECT action, count(*) FROM rowmill.actions GROUP BY action")
    return Counter(dict(map(tuple, rows)))


@pytest.fixture
async def shop(photomemory: str, connect: Connect, open_store: OpenStore) -> tuple[str, Any, Hand]:
    """Twelve failed videos of replicate, two completed ones with known costs, one that is held."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 15)
    works = await hand.take(15)
    await hand.fail(works[:12])
    for work, cents in zip(works[12:14], (10, 15), strict=True):
        await paid(connection, work.key, "main", cents, delivered=True)
    await hand.succeed(works[12:14])
    await hand.hold(works[14:])
    return photomemory, connection, hand


async def paid(connection: Any, key: str, step: str, cents: int, *, delivered: bool) -> None:
    await connection.execute(
        "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
        " account, model, state, estimate_cents, cost_cents, delivered_at, ended_at)"
        " VALUES ($1, $2, 1, $3, 'replicate', 1, 'replicate', 'main', 'm', 'finished', 20, $4,"
        " CASE WHEN $5 THEN now() END, now())",
        *(JOBS, key, step, cents, delivered),
    )


async def test_one_job_is_never_asked_for(shop: tuple[str, Any, Hand], rowmill: Rowmill) -> None:
    dsn, connection, _ = shop
    failed, done = [
        await connection.fetchval(f"SELECT id::text FROM {JOBS} WHERE status = $1 LIMIT 1", status)
        for status in ("failed", "completed")
    ]
    said = await rowmill(dsn, "retry", failed, "--json")
    assert said.code == 0
    assert said.json["jobs"] == [
        {
            "source": JOBS,
            "key": failed,
            "verdict": "requeued",
            "done": True,
            "message": "is queued again, with no tries spent",
        }
    ]
    assert {k: said.json[k] for k in ("action", "dry_run", "matched", "done")} == {
        "action": "retry",
        "dry_run": False,
        "matched": 1,
        "done": 1,
    }
    said = await rowmill(dsn, "retry", done)
    assert (said.code, said.out) == (1, "")
    assert f"{JOBS}/{done}: nothing was changed: its status is completed" in said.err
    said = await rowmill(dsn, "priority", failed, "--to", "9")
    assert said.out == f"{JOBS}/{failed} has its new place: rank 19, before 11\n"
    said = await rowmill(dsn, "priority", failed, "--to", "ten")
    assert (said.code, "it takes 1 to 10" in said.err) == (2, True)
    said = await rowmill(dsn, "requeue", done)  # nobody there who could be asked
    assert said.out == f"{JOBS}/{done} is queued again, for new work\n"
    assert (await queued(connection))[done]["run"] == 2
    assert await recorded(connection) == {"retry": 2, "priority": 1, "requeue": 1}


async def test_what_would_do_too_much_is_refused(
    shop: tuple[str, Any, Hand], rowmill: Rowmill
) -> None:
    dsn, connection, _ = shop
    one, two = (await connection.fetchval(f"SELECT array_agg(id::text) FROM {JOBS}"))[:2]

    def run(*arguments: str) -> tuple[int, str]:
        """Nobody sits at its standard input."""
        said = CliRunner().invoke(app, arguments, env={"ROWMILL_DATABASE_URL": dsn})
        return said.exit_code, " ".join(said.output.replace("│", " ").split())

    for wrong, why in (
        (["retry"], "--dry-run"),
        (["retry", "--error", ""], "--dry-run"),
        (["retry", "--limit", "5", "--yes"], "--dry-run"),
        (["cancel", "--state", "all", "--yes"], "narrow it down"),
        (["retry", "--state", "failed", "--state", "held", "--state", "scheduled", "-y"], "narrow"),
        (["retry", "--state", "completed", "--yes"], "retry is for jobs that are"),
        (["retry", "--lane", "replicate"], "--yes"),
        (["cancel", one, two], "--yes"),
        (["retry", one, "--lane", "replicate", "--yes"], "not both"),
        (["requeue", "--lane", "replicate", "--yes"], "--state completed"),
        (["resolve", "--lane", "replicate", "--external-id", "x", "--yes"], "one job's"),
        (["resolve", one, "--fail", "--resubmit"], "say one of"),
        (["resolve", "--state", "held", "--fail", "--yes"], "narrow it down"),
    ):
        code, said = await asyncio.to_thread(run, *wrong)
        assert (code, why in said) == (2, True), (wrong, said)
    refused = await rowmill(dsn, "priority", "--source", JOBS, "--to", "11", "--yes")
    assert (refused.code, refused.out, "1 to 10" in refused.err) == (2, "", True)
    refused = await rowmill(dsn, "retry", one, "no-such-job", "--yes")
    assert (refused.code, "no job 'no-such-job'" in refused.err) == (1, True)
    assert await recorded(connection) == {}
    assert await states(connection) == {"failed": 12, "completed": 2, "processing": 1}


async def test_a_dry_run_tells_the_cost_and_changes_nothing(
    shop: tuple[str, Any, Hand], rowmill: Rowmill
) -> None:
    dsn, connection, _ = shop
    bought, doubtful = await connection.fetch(
        f"SELECT id::text AS key FROM {JOBS} WHERE status = 'failed' ORDER BY id LIMIT 2"
    )
    await paid(connection, bought["key"], "main", 9, delivered=False)
    await submit(connection, doubtful["key"], 1, "unknown", delivered=False)
    await connection.execute(
        "INSERT INTO rowmill.budgets (lane, period, limit_cents) VALUES ('replicate', 'day', 500)"
    )
    before = await connection.fetchval("SELECT sum(hashtext(q::text)) FROM rowmill.queue q")
    said = await rowmill(dsn, "retry", "--lane", "replicate", "--dry-run", "--json")
    assert (said.code, said.json["matched"], said.json["done"]) == (0, 13, 0)
    forecast = said.json["forecast"]
    assert forecast["used"] == {"results": 1, "cents": "9"}
    assert forecast["in_doubt"] == {"calls": 1, "cents": "10"}
    (buys,) = forecast["buys"]
    # Twelve of thirteen need one: of the last the result is there; what is in doubt isn't counted.
    assert (buys["jobs"], buys["cents"], buys["mean_cents"]) == (11, "137.5", "12.5")
    assert buys["basis"] == "the mean of the last 2 that were delivered"
    assert (forecast["cents"], forecast["unknown"]) == ("137.5", 0)
    (budget,) = forecast["budgets"]
    assert (budget["lane"], budget["limit_cents"], budget["left_cents"]) == (
        "replicate",
        "500",
        "456",  # 10, 15 and 9 cents, and 10 for what is in doubt
    )
    text = await rowmill(dsn, "requeue", "--lane", "replicate", "--state", "finished", "--dry-run")
    assert text.code == 0
    assert f"{JOBS}/{bought['key']}: a paid result of it was never delivered" in text.out
    assert f"{JOBS}/{doubtful['key']}: a call of it is in doubt" in text.out
    assert "requeue: 12 jobs: 12 of generation_jobs, lane replicate\n" in text.out
    assert "expected cost: $1.50\n" in text.out
    assert "lane replicate: the day budget has $4.56 left of $5.00\n" in text.out
    assert await recorded(connection) == {}
    after = await connection.fetchval("SELECT sum(hashtext(q::text)) FROM rowmill.queue q")
    assert after == before


async def test_many_at_once_and_one_that_the_table_refuses(
    shop: tuple[str, Any, Hand], rowmill: Rowmill
) -> None:
    dsn, connection, _ = shop
    broken = await connection.fetchval(f"SELECT min(id::text) FROM {JOBS} WHERE status = 'failed'")
    await connection.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION E'not \\x1b[31mthis'; END $$;"
        f"CREATE TRIGGER no BEFORE UPDATE ON {JOBS} FOR EACH ROW"
        f" WHEN (OLD.id = '{broken}') EXECUTE FUNCTION no()"
    )
    said = await rowmill(dsn, "retry", "--state", "failed", "--lane", "replicate", "--yes")
    assert said.code == 1
    assert said.out.splitlines()[-1] == "retry: 11 of 12 jobs done, 1 failed"
    assert f"{JOBS}/{broken}: nothing was changed: the database refused" in said.err
    assert "\x1b" not in said.err
    assert await states(connection) == {"queued": 11, "failed": 1, "completed": 2, "processing": 1}
    assert await recorded(connection) == {"retry": 11}
    logged = await connection.fetchval("SELECT count(*) FROM audit_logs WHERE action = 'retry'")
    assert logged == 11
    said = await rowmill(dsn, "cancel", "--source", JOBS, "--yes", "--json")
    assert (said.code, said.json["matched"], said.json["done"]) == (0, 12, 12)
    assert said.json["forecast"]["buys"] == []
    said = await rowmill(dsn, "cancel", "--source", JOBS, "--yes")
    assert (said.code, said.out) == (0, "cancel: no job matches\n")


async def test_calls_in_doubt_by_their_provider(
    both: str, connect: Connect, open_store: OpenStore, rowmill: Rowmill
) -> None:
    connection, hand = await connect(both), await Hand.hire(await open_store(both))
    await add_videos(connection, 3)
    await add_texts(connection, 1)
    works = await hand.take(4)
    videos = [work for work in works if work.source == JOBS]
    for work in videos[:2]:
        await submit(connection, work.key, 1, "unknown", delivered=False)
    await hand.hold(works)
    look = await rowmill(both, "resolve", "--provider", "replicate", "--resubmit", "--dry-run")
    assert "resolve: 2 jobs: 2 of generation_jobs, lane replicate" in look.out
    assert "sends again 2 calls in doubt, paid for twice if the provider had them" in look.out
    said = await rowmill(both, "resolve", "--provider", "replicate", "--fail", "--yes", "--json")
    assert (said.code, said.json["matched"]) == (0, 2)
    assert {job["verdict"] for job in said.json["jobs"]} == {"failed"}
    assert await states(connection) == {"failed": 2, "processing": 1}
    assert await recorded(connection) == {"resolve": 2}


# --------------------------------------------------------------------------- on a terminal


async def test_the_question_no_and_yes(shop: tuple[str, Any, Hand]) -> None:
    dsn, connection, _ = shop
    shell = await Terminal.open(dsn, "retry", "--lane", "replicate", "--limit", "3")
    await shell.until("Go on? [y/N]")
    assert "retry: 3 jobs: 3 of generation_jobs, lane replicate" in shell.shown
    assert "more jobs match than --limit lets in" in shell.shown
    assert "expected cost: $0.375" in shell.shown
    assert "one costs $0.125: the mean of the last 2 that were delivered" in shell.shown
    shell.type("n\n")
    assert await shell.end() == 1
    assert "nothing was changed" in shell.shown
    assert await recorded(connection) == {}

    shell = await Terminal.open(dsn, "retry", "--lane", "replicate", "--state", "failed")
    await shell.until("Go on? [y/N]")
    # Meanwhile someone else saw to one of them, and another one is looked at.
    one, two = await connection.fetch(f"SELECT id FROM {JOBS} WHERE status = 'failed' LIMIT 2")
    await connection.execute(f"UPDATE {JOBS} SET status = 'cancelled' WHERE id = $1", one["id"])
    await connection.execute(
        f"UPDATE {JOBS} SET error_message = 'I am on it' WHERE id = $1", two["id"]
    )
    shell.type("y\n")
    assert await shell.end() == 1
    assert "retry: 10 of 12 jobs done, 2 changed meanwhile" in shell.shown
    assert await states(connection) == {
        "queued": 10,
        "failed": 1,
        "cancelled": 1,
        "completed": 2,
        "processing": 1,
    }


async def test_what_may_pay_again_is_asked_for_even_if_it_is_one(
    shop: tuple[str, Any, Hand],
) -> None:
    dsn, connection, _ = shop
    key = await connection.fetchval(f"SELECT id::text FROM {JOBS} WHERE status = 'completed'")
    shell = await Terminal.open(dsn, "requeue", key)
    await shell.until("Go on? [y/N]")
    shell.type("\n")
    assert await shell.end() == 1
    assert await recorded(connection) == {}
    shell = await Terminal.open(dsn, "requeue", key)
    await shell.until("Go on? [y/N]")
    shell.type("y\n")
    assert await shell.end() == 0
    assert (await queued(connection))[key]["run"] == 2


# --------------------------------------------------------------------------- stopped in the middle


SLOW = f"""
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON {JOBS} FOR EACH ROW EXECUTE FUNCTION slow();
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_in_the_middle_of_many(shop: tuple[str, Any, Hand], number: signal.Signals) -> None:
    """Each job is as it was, or done and recorded."""
    dsn, connection, _ = shop
    await connection.execute(SLOW)
    shell = await Terminal.open(dsn, "retry", "--lane", "replicate", "--state", "failed", "--yes")
    await until_sql(connection, "SELECT count(*) > 0 FROM rowmill.actions")
    shell.process.send_signal(number)
    code = await shell.end()
    await until_sql(
        connection,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%rowmill.act(%' AND state ="
        " 'active' AND pid <> pg_backend_pid() AND datname = current_database()",
    )
    now = await states(connection)
    assert 0 < now["queued"] < 12
    assert now["queued"] + now["failed"] == 12
    assert await recorded(connection) == {"retry": now["queued"]}
    subjects = await connection.fetch("SELECT DISTINCT row_key, detail FROM rowmill.actions")
    again = await queued(connection)
    assert {row["row_key"] for row in subjects} == {
        key for key, row in again.items() if row["state"] == "ready"
    }
    assert {json.loads(row["detail"])["verdict"] for row in subjects} == {"requeued"}
    if number == signal.SIGINT:
        assert code == 130
        assert f"retry: {now['queued']} of 12 jobs done, {now['failed']} not come to" in shell.shown
