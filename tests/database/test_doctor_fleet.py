"""`rowmill doctor` on workers, sessions, clocks, dead rows and the settings of a shell."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from jobs.providers.registry import ProviderSettings
from tests.database.doctoring import all_found, found, mended, provokes, recorded, settings
from tests.database.journaling import at_work, intend, journal_of
from tests.database.redis_servers import until
from tests.database.support import Connect, Hand, OpenStore, add_videos, fell_silent, has_lived
from worker.doctor import sessions
from worker.settings import Settings
from worker.store import Store


@pytest.fixture
async def store(photomemory: str, open_store: OpenStore) -> Store:
    return await open_store(photomemory)


@pytest.fixture
async def db(photomemory: str, connect: Connect) -> Any:
    return await connect(photomemory)


# --------------------------------------------------------------------------- workers


@provokes("fleet.silent", "fleet.abandoned")
async def test_workers_that_are_gone(db: Any, store: Store) -> None:
    hand, _ = await at_work(db, store, 2)
    await fell_silent(db, hand, 2 * 600)
    assert "fleet.silent" not in await found(store, only=("fleet",)), "a rescue may still come"
    await fell_silent(db, hand, 4 * 600)
    finding = (await found(store, only=("fleet",)))["fleet.silent"]
    assert "2 job(s) of its wait, and no worker lives" in finding["evidence"]
    assert finding["fix"].startswith("rowmill run")
    other = await Hand.hire(store)
    finding = (await found(store, only=("fleet",)))["fleet.silent"]
    assert "those that live don't give it up" in finding["evidence"]
    await db.execute("DELETE FROM rowmill.workers WHERE id = $1", hand.id)
    assert "fleet.abandoned" not in await found(store, only=("fleet",)), "claimed a moment ago"
    findings = await found(store, only=("fleet",), rescue=0.0)
    assert findings["fleet.abandoned"]["evidence"].startswith("2 job(s) are claimed by workers")
    await has_lived(db, other)
    assert await store.rescue(other.id) == 2
    assert not {"fleet.abandoned", "fleet.silent"} & set(
        await found(store, only=("fleet",), rescue=0.0)
    )


@provokes("fleet.crashes")
async def test_workers_that_die_at_once(db: Any, store: Store) -> None:
    for number in range(4):
        hand = await Hand.hire(store, lease=2)
        await db.execute(
            "UPDATE rowmill.workers SET name = 'box:' || $2, started_at = now() - interval '9 min',"
            " heartbeat_at = now() - interval '9 min' + interval '5 s' WHERE id = $1",
            hand.id,
            str(number),
        )
        if number == 2:
            assert "fleet.crashes" in await found(store, only=("fleet",))
            await db.execute(
                "UPDATE rowmill.workers SET stopped_at = heartbeat_at WHERE id = $1", hand.id
            )
            assert "fleet.crashes" not in await found(store, only=("fleet",)), (
                "this one left by itself"
            )
    finding = (await found(store, only=("fleet",)))["fleet.crashes"]
    assert (finding["subject"], finding["evidence"][:14]) == ("host box", "3 workers died")


@provokes("versions.mixed", "versions.here")
async def test_versions(db: Any, store: Store) -> None:
    old, new = await Hand.hire(store), await Hand.hire(store)
    assert "versions.mixed" not in await found(store, only=("versions",))
    await db.execute("UPDATE rowmill.workers SET version = 'next' WHERE id = $1", new.id)
    assert (await found(store, only=("versions",)))["versions.mixed"]["severity"] == "info", (
        "it is being rolled out"
    )
    await db.execute("UPDATE rowmill.workers SET started_at = now() - interval '2 hours'")
    finding = (await found(store, only=("versions",)))["versions.mixed"]
    assert finding["severity"] == "warning"
    assert "1 of next, 1 of test" in finding["evidence"]
    await store.retire(old.id)
    assert "versions.mixed" not in await found(store, only=("versions",))


@provokes("fleet.unserved")
async def test_a_lane_that_nobody_serves(db: Any, store: Store) -> None:
    await add_videos(db)
    await Hand.hire(store, ("openai",))
    given = settings(replicate="k")
    assert (await found(store, given))["fleet.unserved"]["subject"] == "lane replicate"


@provokes("payments.open")
async def test_calls_that_stay_open(db: Any, store: Store) -> None:
    hand, (work,) = await at_work(db, store)
    journal = journal_of(store, work, hand)
    await journal.accepted((await intend(journal)).id, external_id="x-1", ref={"id": "x-1"})
    assert "payments.open" not in await found(store, only=("payments",))
    await db.execute("UPDATE rowmill.submissions SET accepted_at = now() - interval '25 hours'")
    finding = (await found(store, only=("payments",)))["payments.open"]
    assert finding["subject"] == "provider replicate"
    assert finding["evidence"].startswith("1 call(s) of account acct")
    assert work.key in finding["evidence"]


@provokes("audit.failed")
async def test_a_record_that_could_not_be_written(db: Any, store: Store) -> None:
    await db.execute("ALTER TABLE audit_logs RENAME TO audit_lost")
    await db.execute(
        "INSERT INTO rowmill.actions (who, action, subject) VALUES ('ann', 'pause', 'everything')"
    )
    assert "audit_logs" in (await found(store, only=("audit",)))["audit.failed"]["evidence"]


# --------------------------------------------------------------------------- sessions and clocks


@provokes("transactions.old")
async def test_an_old_transaction(photomemory: str, db: Any, store: Store) -> None:
    other = await asyncpg.connect(
        photomemory, server_settings={"application_name": "report\x1b[2J"}
    )
    try:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("CREATE TEMP TABLE holds (id integer)")
        assert "transactions.old" not in await found(store, only=("transactions",))
        findings = await all_found(store, only=("transactions",), idle_transaction=0.0)
        (finding,) = [f for f in findings if f["subject"] == f"pid {other.get_server_pid()}"]
        assert "and idle for" in finding["evidence"]
        assert "vacuum can't remove" in finding["evidence"]
        assert f"pg_terminate_backend({other.get_server_pid()})" in finding["fix"]
        assert finding["repairable"] is False
        assert await db.fetchval("SELECT count(*) FROM rowmill.actions") == 0
    finally:
        other.terminate()


@provokes("clocks.apart")
async def test_clocks_that_differ(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=25)

    assert await found(store, only=("clocks",)) == {}
    monkeypatch.setattr(sessions, "datetime", Late)
    finding = (await found(store, only=("clocks",)))["clocks.apart"]
    assert finding["evidence"].startswith("this machine's clock is 2")
    assert "ahead of" in finding["evidence"]
    assert Late.now(UTC) > datetime.now(UTC)


@provokes("clocks.future")
async def test_heartbeats_of_the_future(db: Any, store: Store) -> None:
    await Hand.hire(store)
    await db.execute("UPDATE rowmill.workers SET heartbeat_at = now() + interval '3 minutes'")
    finding = (await found(store, only=("clocks",)))["clocks.future"]
    assert finding["evidence"].startswith("the last heartbeat of hand lies 3.0m in the future")


@provokes("database.version", "database.connections")
async def test_the_server(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await found(store, only=("database",)) == {}
    monkeypatch.setattr(sessions, "OLDEST", 99)
    assert (await found(store, only=("database",)))["database.version"]["severity"] == "error"
    monkeypatch.setattr(sessions, "OLDEST", 1)
    monkeypatch.setattr(sessions, "NEWEST", 2)
    assert (await found(store, only=("database",)))["database.version"]["severity"] == "info"
    findings = await found(store, only=("database.connections",), connections=0.0)
    assert "connections are used" in findings["database.connections"]["evidence"]


# --------------------------------------------------------------------------- space


@provokes("bloat.dead", "bloat.autovacuum", "bloat.statistics", "bloat.wraparound")
async def test_what_vacuum_should_have_done(photomemory: str, db: Any, store: Store) -> None:
    assert await found(store, only=("bloat",)) == {}
    await db.execute("ALTER TABLE rowmill.pulses SET (autovacuum_enabled = false)")
    finding = (await found(store, only=("bloat",)))["bloat.autovacuum"]
    assert finding["subject"] == "table rowmill.pulses"
    assert finding["fix"] == "ALTER TABLE rowmill.pulses RESET (autovacuum_enabled)"
    assert finding["repairable"] is False
    await db.execute("ALTER TABLE rowmill.turns SET (autovacuum_enabled = false)")
    other = await asyncpg.connect(photomemory)  # what it did is counted when it leaves
    await other.execute(
        "INSERT INTO rowmill.pulses (worker, source, lane, started, succeeded, failed, retried,"
        " yielded, waits, runs) SELECT 1, 's', 'l', 0, 0, 0, 0, 0, '{}', '{}'"
        " FROM generate_series(1, 300)"
    )
    await other.execute("DELETE FROM rowmill.pulses WHERE started = 0")
    await other.close()

    async def bloated() -> dict[str, Any]:
        return await found(store, only=("bloat.dead",), dead_rows=100)

    await until(bloated)
    finding = (await bloated())["bloat.dead"]
    assert finding["evidence"].startswith("300 dead rows and 0 living ones; last vacuumed: never")
    assert finding["repairable"] is True
    done, left = await mended(store, dead_rows=100)
    assert {d["did"] for d in done} == {"VACUUM (ANALYZE) rowmill.pulses"}
    assert "bloat.dead" not in left
    assert ("ann@desk", "table rowmill.pulses") in await recorded(db)

    await db.execute(
        "INSERT INTO rowmill.turns (name, latest, come_back) SELECT n::text, now(), now()"
        " FROM generate_series(1, 300) n"
    )
    finding = (await found(store, only=("bloat",), unanalyzed_bytes=8192))["bloat.statistics"]
    assert finding["subject"] == "table rowmill.turns"
    await mended(store, unanalyzed_bytes=8192)
    assert "bloat.statistics" not in await found(store, only=("bloat",), unanalyzed_bytes=8192)

    assert (await found(store, only=("bloat",), wraparound=0.0))["bloat.wraparound"][
        "severity"
    ] == "warning"


# --------------------------------------------------------------------------- settings


@provokes("environment.unknown")
async def test_variables_that_nothing_reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ROWMILL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROWMILL_PROVIDERS__OPENAI__API_KEY", "k")
    monkeypatch.setenv("ROWMILL_PROVIDERS__OPENAI__MODELS__VIDEO", "m")
    monkeypatch.setenv("rowmill_slots", "3")
    assert await found(store, only=("environment.unknown",)) == {}
    monkeypatch.setenv("ROWMILL_SLOT", "3")
    monkeypatch.setenv("ROWMILL_PROVIDERS__OPENAI__APIKEY", "secret-key")
    monkeypatch.setenv("ROWMILL_WEATHER_FORECAST", "rain")
    findings = await all_found(store, only=("environment.unknown",))
    assert {f["subject"]: f["fix"] for f in findings} == {
        "ROWMILL_SLOT": "did you mean ROWMILL_SLOTS?",
        "ROWMILL_PROVIDERS__OPENAI__APIKEY": "did you mean ROWMILL_PROVIDERS__OPENAI__API_KEY?",
        "ROWMILL_WEATHER_FORECAST": "docs/configuration.md has every setting",
    }
    assert "secret-key" not in str(findings)


def with_settings(**given: Any) -> Settings:
    return Settings.model_construct(_fields_set=set(given), **{"providers": {}, **given})


@provokes("environment.worker", "environment.lane", "environment.mail", "environment.pulse")
async def test_settings_that_contradict_each_other(store: Store, tmp_path: Path) -> None:
    odd = ProviderSettings.model_validate({"api_key": "k", "adapter": "nobody"})
    given = with_settings(
        handlers=("no.such.module",),
        prices=tmp_path / "none.toml",
        providers={"acme": odd},
        lanes=("replicat", "background:mine"),
        pulse_seconds=20.0,
        mail_from="a@b.example",
    )
    findings = await all_found(store, given, only=("environment",))
    said = {(f["id"], f["severity"]) for f in findings}
    assert {
        ("environment.worker", "error"),
        ("environment.lane", "warning"),
        ("environment.mail", "warning"),
        ("environment.pulse", "info"),
    } <= said
    worker = " ".join(f["evidence"] for f in findings if f["id"] == "environment.worker")
    assert all(word in worker for word in ("no.such.module", "nobody", "ROWMILL_PRICES"))
    (lane,) = [f for f in findings if f["id"] == "environment.lane"]
    assert lane["fix"] == "did you mean replicate?"


@contextmanager
def few_files(count: int) -> Any:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@provokes("environment.files", "environment.disk", "environment.storage", "environment.links")
async def test_what_this_machine_has(db: Any, store: Store) -> None:
    given = with_settings(slots=200, max_output_bytes=1 << 60)
    with few_files(256):
        findings = await found(store, given, only=("environment",))
    assert findings["environment.files"]["evidence"].startswith("256 files may be open here")
    assert "one output may have" in findings["environment.disk"]["evidence"]
    memory = await found(store, with_settings(storage_url="memory:///"), only=("environment",))
    assert memory["environment.storage"]["severity"] == "warning"
    cloud = await found(
        store, with_settings(storage_url="s3://bucket/outputs"), only=("environment",)
    )
    assert cloud["environment.links"]["severity"] == "info"
    local = with_settings(storage_url="file:///srv/outputs")
    await Hand.hire(store)
    assert "environment.storage" not in await found(store, local, only=("environment",))
    await Hand.hire(store)
    await db.execute("UPDATE rowmill.workers SET name = 'box' || (id % 1000)::text || ':1'")
    assert (
        "on 2 hosts"
        in (await found(store, local, only=("environment",)))["environment.storage"]["evidence"]
    )
