"""`rowmill doctor` on a server of its own, whose settings are its own; and through poolers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.database.conftest import attached
from tests.database.doctoring import SEEN, found, provokes
from tests.process import postgres
from tests.process.fleet import until
from tests.process.postgres import pooler
from worker.doctor import Plan, examine
from worker.doctor.patient import Limits
from worker.embedded import EmbeddedPostgres, embedded_postgres
from worker.settings import Settings
from worker.store import Store

pytestmark = pytest.mark.process

SETTINGS = {"fsync": "off", "max_prepared_transactions": "5", "wal_level": "logical"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    home: Path = tmp_path_factory.mktemp("own")
    home.chmod(0o711)
    with embedded_postgres(home / "postgres", settings=SETTINGS) as server:
        yield server


async def every(store: Store, **limits: Any) -> set[str]:
    """Also what depends on the server, which other tests leave out."""
    report = await examine(
        store, Settings.model_construct(providers={}), Plan(limits=Limits(**limits))
    )
    names = {finding["id"] for finding in report["findings"]}
    SEEN.update(names)
    return names


@provokes(
    "durability.fsync",
    "durability.pages",
    "durability.managed",
    "bloat.autovacuum",
    "transactions.prepared",
    "transactions.slot",
    "transactions.unseen",
)
async def test_the_settings_of_a_server(own: EmbeddedPostgres) -> None:
    await attached("photomemory")(own.dsn())
    connection = await asyncpg.connect(own.dsn())
    store = await Store.open(own.dsn(), 2)
    try:
        assert await every(store) == {"durability.fsync"}
        for setting in ("autovacuum", "full_page_writes"):
            await connection.execute(f"ALTER SYSTEM SET {setting} = off")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute("CREATE ROLE supabase_admin")

        async def seen() -> bool:
            return {"bloat.autovacuum", "durability.pages", "durability.managed"} <= await every(
                store
            )

        await until(seen)
        await connection.execute(
            "BEGIN; CREATE TABLE half (id integer); PREPARE TRANSACTION 'it''s'"
        )
        assert "transactions.prepared" not in await every(store)
        finding = (await found(store, idle_transaction=0.0))["transactions.prepared"]
        assert "ROLLBACK PREPARED 'it''s'" in finding["fix"]
        await connection.execute("ROLLBACK PREPARED 'it''s'")
        await connection.execute("SELECT pg_create_physical_replication_slot('left', true)")
        await connection.execute("CREATE TABLE more AS SELECT generate_series(1, 10000)")
        assert "transactions.slot" not in await every(store)
        finding = (await found(store, slot_bytes=1))["transactions.slot"]
        assert finding["fix"].endswith("SELECT pg_drop_replication_slot('left')")
        await connection.execute("SELECT pg_drop_replication_slot('left')")
        await connection.execute(
            "CREATE ROLE plain LOGIN BYPASSRLS; GRANT ALL ON SCHEMA rowmill TO plain;"
            "GRANT ALL ON ALL TABLES IN SCHEMA rowmill TO plain"
        )
        blind = await Store.open(own.dsn(user="plain"), 1)
        assert "transactions.unseen" in await every(blind)
        await connection.execute("GRANT pg_read_all_stats TO plain")
        assert "transactions.unseen" not in await every(blind)
        await blind.close()
    finally:
        await store.close()
        await connection.close()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_poolers(both: str, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    ini = postgres.PGBOUNCER_INI.replace("pool_mode = transaction", f"pool_mode = {mode}")
    monkeypatch.setattr(postgres, "PGBOUNCER_INI", ini)
    with pooler(both, size=3) as dsn:
        store = await Store.open(dsn, 2)
        try:
            findings = await found(store)
        finally:
            await store.close()
    finding = findings[f"pooler.{mode}"]
    assert finding["severity"] == {"transaction": "info", "statement": "error"}[mode]
    if mode == "transaction":
        assert set(findings) == {"pooler.transaction"}, "all other checks work through it"


provokes("pooler.transaction", "pooler.statement")  # each of them asked for by name above
