"""`rowmill doctor` finds what it says it finds: durability, keys, money."""

from __future__ import annotations

import importlib
import re
from decimal import Decimal
from pathlib import Path

import pytest

from tests.conftest import NewDatabase
from tests.database.conftest import attached
from tests.database.doctoring import (
    PROVOKED,
    all_found,
    checked,
    found,
    mended,
    provokes,
    recorded,
    settings,
)
from tests.database.journaling import at_work, intend, journal_of
from tests.database.platform_samples import CloneDatabase
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_videos,
    failure,
    fell_silent,
)
from worker.commands.health import doctor
from worker.doctor import FINDINGS, examine
from worker.doctor.checks import CHECKS
from worker.findings import reference
from worker.store import gates

TESTS = Path(__file__).parents[1]


def test_every_finding_is_looked_for_provoked_and_documented() -> None:
    for path in sorted(TESTS.glob("*/test_*.py")):
        if "provokes(" in path.read_text(encoding="utf-8"):
            importlib.import_module(f"tests.{path.parent.name}.{path.stem}")
    assert set(FINDINGS) == PROVOKED
    made = {"schema.behind", "doctor.failed"}  # by the examination itself
    assert {name for check in CHECKS for name in check.ids} | made == set(FINDINGS)
    help_, _, manual = (doctor.__doc__ or "").partition("\f")
    assert "rowmill doctor --repair" in help_
    assert reference() in manual
    assert all(f"| `{name}` |" in manual for name in FINDINGS)


@pytest.mark.parametrize(
    "platform", ["photomemory", "photomemory_v1", "ebook", "ecomvideo", "education"]
)
async def test_all_is_well(
    platform: str, clone_database: CloneDatabase, open_store: OpenStore
) -> None:
    dsn = await clone_database(f"{platform}-attached", attached(platform))
    assert await all_found(await open_store(dsn)) == []


async def test_only_what_is_asked_for(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection)
    assert set(await found(store, only=("providers", "fleet.none"))) == {
        "providers.key",
        "fleet.none",
    }
    assert set(await found(store, only=("fleet",))) == {"fleet.none"}
    assert await found(store, only=("tables",)) == {}


@provokes("doctor.failed")
async def test_a_check_that_fails_hides_no_other(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection)
    await connection.execute("DROP TABLE rowmill.schedules")
    findings = await found(store)
    assert {"doctor.failed", "fleet.none"} <= set(findings)
    assert findings["doctor.failed"]["subject"] == "schedules"
    assert "rowmill.schedules" in findings["doctor.failed"]["evidence"]


async def test_a_check_that_takes_long_is_given_up(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    locker, store = await connect(photomemory), await open_store(photomemory)
    async with locker.transaction():
        await locker.execute("LOCK TABLE generation_jobs")
        findings = await found(store, only=("rows.unqueued", "tables"), check=0.3)
    assert findings["doctor.failed"]["evidence"].startswith("it took longer than 0.3s")


@provokes("durability.commit")
@pytest.mark.parametrize("where", ["DATABASE", "ROLE"])
async def test_commits_that_wait_for_nothing(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, where: str
) -> None:
    connection = await connect(photomemory)
    name = await connection.fetchval("SELECT current_database()")
    subject = name if where == "DATABASE" else f"{producer.name} IN DATABASE {name}"
    await connection.execute(f"ALTER {where} {subject} SET synchronous_commit = off")
    rights = f"GRANT ALL ON SCHEMA rowmill TO {producer.name};"
    await connection.execute(
        rights + f"GRANT ALL ON ALL TABLES IN SCHEMA rowmill TO {producer.name}"
    )
    as_them = f"//{producer.name}:{producer.password}@"
    theirs = re.sub("//([^@/]*@)?", as_them, photomemory, count=1)
    finding = (await found(await open_store(theirs)))["durability.commit"]
    assert (finding["severity"], finding["repairable"]) == ("error", False)
    by = {"DATABASE": "database", "ROLE": "database user"}[where]
    assert f"synchronous_commit is off (set by: {by})" in finding["evidence"]
    if where == "ROLE":
        assert await found(await open_store(photomemory)) == {}, "it holds for that role alone"


@pytest.mark.parametrize("word", ["fsync", "full_page_writes"])
async def test_what_the_server_says_of_its_disk(
    photomemory: str, open_store: OpenStore, word: str
) -> None:
    """The embedded server of the tests runs without fsync; another's settings are its own."""
    store = await open_store(photomemory)
    off = await store.value("SELECT current_setting($1) = 'off'", word)
    name = {"fsync": "durability.fsync", "full_page_writes": "durability.pages"}[word]
    report = await examine(store, settings())
    checked(report)
    assert (name in {finding["id"] for finding in report["findings"]}) is off


@provokes("schema.behind")
async def test_migrations_that_are_behind(new_database: NewDatabase, open_store: OpenStore) -> None:
    store = await open_store(await new_database())
    finding = (await found(store))["schema.behind"]
    assert (finding["severity"], finding["repairable"]) == ("error", True)
    assert (finding["fix"], "0001_tables" in finding["evidence"]) == ("rowmill migrate", True)
    (done,), left = await mended(store)
    assert (done["id"], done["failed"], left) == ("schema.behind", None, {})
    assert "0001_tables" in done["did"]


async def test_an_older_schema_is_told_and_not_tripped_over(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    await connection.execute("DROP VIEW rowmill.waiting CASCADE; DROP TABLE rowmill.budgets")
    await connection.execute("DELETE FROM rowmill.migrations WHERE version > 3")
    assert set(await found(await open_store(photomemory))) == {"schema.behind"}


@provokes("tables.triggers", "tables.gone")
async def test_missing_triggers_and_tables(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await connection.execute("DROP TRIGGER rowmill_enqueue ON generation_jobs")
    finding = (await found(store))["tables.triggers"]
    assert (finding["severity"], finding["repairable"]) == ("error", True)
    assert (finding["subject"], finding["fix"]) == (
        "generation_jobs",
        "rowmill attach photomemory",
    )
    (done,), left = await mended(store)
    assert (done["id"], done["failed"], left) == ("tables.triggers", None, {})
    assert await recorded(connection) == [("ann@desk", "platform photomemory")]
    key = (await add_videos(connection))[0]
    assert await connection.fetchval("SELECT row_key FROM rowmill.queue") == key, "it works again"
    await connection.execute("DROP TABLE generation_jobs CASCADE")
    assert "rowmill detach" in (await found(store))["tables.gone"]["fix"]


@provokes("providers.key")
async def test_keys_that_waiting_jobs_need(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection, 3, service="runway")
    findings = await found(store)
    assert set(findings) == {"fleet.none", "providers.key"}
    key = findings["providers.key"]
    assert (key["severity"], key["subject"]) == ("error", "lane runway")
    assert key["evidence"].startswith("3 waiting")
    assert "ROWMILL_PROVIDERS__RUNWAY__API_KEY" in key["fix"]
    assert set(await found(store, settings(runway="k"))) == {"fleet.none"}
    assert set(await found(store, settings(runway=""))) == {"fleet.none", "providers.key"}
    hand = await Hand.hire(store, ("replicate",))
    assert set(await found(store)) == {"providers.key"}, "told once"
    await Hand.hire(store, ("runway",))
    assert await found(store) == {}, "it has the key"
    await gates.pause(store, lane="runway", who="me")
    await connection.execute(
        "UPDATE rowmill.workers SET stopped_at = now() WHERE id <> $1", hand.id
    )
    assert await found(store) == {}, "that is meant"


@provokes("jobs.held", "payments.unresolved", "fleet.none")
async def test_what_status_says_needs_a_person(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await at_work(connection, store, 2)
    for work in works:
        journal = journal_of(store, work, hand)
        submission = await intend(journal)
        await journal.unknown(submission.id, failure("cut off"))
    await hand.hold(works[:1])
    await hand.fail(works[1:])
    await connection.execute(
        "UPDATE rowmill.submissions SET intended_at = now() - interval '1 day'"
    )
    findings = await found(store)
    assert set(findings) == {"jobs.held", "payments.unresolved"}
    assert {finding["severity"] for finding in findings.values()} == {"warning"}
    assert (
        f"rowmill resolve generation_jobs/{works[1].key}" in findings["payments.unresolved"]["fix"]
    )
    await fell_silent(connection, hand)
    await add_videos(connection)
    assert "fleet.none" in await found(store, settings(replicate="k"))


@provokes("providers.broken")
async def test_a_provider_that_refuses_us(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await at_work(connection, store, 1)
    await intend(journal_of(store, works[0], hand))
    await hand.fail(works)
    await connection.execute(
        "UPDATE rowmill.submissions SET state = 'failed', error = 'no such key',"
        ' ended_at = now(), result = \'{"kind": "auth"}\''
    )
    findings = await found(store, settings(replicate="k"))
    assert "auth: no such key" in findings["providers.broken"]["evidence"]


@provokes("durability.lost")
async def test_a_failover_of_the_last_day(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await store.mark_timeline()
    assert await found(store) == {}
    await connection.execute("UPDATE rowmill.timelines SET id = id + 1")
    finding = (await found(store))["durability.lost"]
    since = (await connection.fetchval("SELECT min(last_seen) FROM rowmill.timelines")).isoformat()
    assert (finding["severity"], since in finding["fix"]) == ("warning", True)


@provokes("payments.undelivered")
async def test_paid_but_not_delivered(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await at_work(connection, store, 3)
    for work in works:
        journal = journal_of(store, work, hand)
        await journal.finished((await intend(journal)).id, result={}, cost_cents=Decimal("2.5"))
    assert await found(store) == {}, "their jobs still run"
    await hand.succeed(works[:1])
    await hand.fail(works[1:2])
    await connection.execute(
        "UPDATE generation_jobs SET status = 'cancelled' WHERE id = $1", works[2].key
    )
    finding = (await found(store))["payments.undelivered"]
    assert (finding["severity"], finding["subject"]) == ("warning", "source generation_jobs")
    assert finding["evidence"].startswith("2 result(s) of the last 30 days, for 5.0 cents")
