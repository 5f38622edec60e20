"""Operators' acts in the platforms' own records: each is there, and none is stopped by it."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.database.depot import DEPOT, FOLDER, built
from tests.database.platform_samples import CloneDatabase, run
from tests.database.support import Connect, OpenStore, add_texts
from worker import maps
from worker.doctor import examine
from worker.settings import Settings
from worker.store import Store, acts, budgets, finding, gates
from worker.store.attaching import attach, detach

WHO = "ann@desk"


@pytest.fixture
async def depot(clone_database: CloneDatabase) -> str:
    return await clone_database("depot", built)


@pytest.fixture
async def store(depot: str, open_store: OpenStore) -> Store:
    return await open_store(depot)


async def errand(connection: Any) -> str:
    return str(
        await connection.fetchval("INSERT INTO depot.errands DEFAULT VALUES RETURNING id::text")
    )


async def diary(connection: Any) -> list[Any]:
    return list(await connection.fetch("SELECT * FROM depot.diary ORDER BY said_at"))


async def recorded_acts(connection: Any) -> list[Any]:
    return list(await connection.fetch("SELECT * FROM rowmill.actions ORDER BY id"))


async def test_what_is_done_to_a_job_says_who_when_what_and_before(
    depot: str, store: Store, connect: Connect
) -> None:
    connection = await connect(depot)
    key = await errand(connection)
    assert await acts.cancel(store, "errands", key, WHO) == "cancelled"
    assert await acts.retry(store, "errands", key, WHO) == "requeued"
    first, second = await diary(connection)
    assert (first["who"], first["action"], first["errand"]) == (WHO, "cancel", int(key))
    assert (second["who"], second["action"], second["errand"]) == (WHO, "retry", int(key))
    assert json.loads(first["before"])["state"] == "ready"
    told = await recorded_acts(connection)
    assert [(act["source"], act["row_key"]) for act in told] == [("errands", key)] * 2
    assert [row["said_at"] for row in (first, second)] == [act["at"] for act in told]


@pytest.mark.parametrize("action", ["resolve", "retry"])
async def test_an_act_that_is_taken_back_leaves_no_record(
    action: str, depot: str, connect: Connect
) -> None:
    connection = await connect(depot)
    key = await errand(connection)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "INSERT INTO rowmill.actions (who, action, subject) VALUES ($1, $2, $3)",
        WHO,
        action,
        f"errands/{key}",
    )
    assert len(await diary(connection)) == 1
    await transaction.rollback()
    assert await diary(connection) == await recorded_acts(connection) == []


async def test_an_unknown_call_that_is_resolved(depot: str, store: Store, connect: Connect) -> None:
    connection = await connect(depot)
    key = await errand(connection)
    await connection.execute(
        "INSERT INTO rowmill.submissions (source, row_key, lane, run, step, provider, account,"
        " model, fingerprint, state, estimate_cents, worker)"
        " VALUES ('errands', $1, 'errand', 1, 'go', 'replicate', 'a', 'm', 'f', 'unknown', 1, 1)",
        key,
    )
    await connection.execute("UPDATE rowmill.queue SET state = 'held'")
    job = finding.Found("errands", key)
    assert await acts.resolve(store, job, how="fail", who=WHO) == "failed"
    (line,) = await diary(connection)
    assert (line["who"], line["action"], line["errand"]) == (WHO, "resolve", int(key))
    assert json.loads(line["before"])["state"] == "unknown"


async def test_lanes_tables_and_budgets(depot: str, store: Store, connect: Connect) -> None:
    connection = await connect(depot)
    await errand(connection)
    await gates.pause(store, source="errands", who=WHO, reason="rain")
    await gates.resume(store, source="errands", who=WHO)
    await gates.pause(store, lane="errand", source="errands", who=WHO)
    await gates.limit(store, {"max_running": 2}, lane="errand", who=WHO)
    await gates.pause(store, who=WHO)
    await budgets.set_budget(store, "*", "day", Decimal(500), WHO)
    lines = await diary(connection)
    assert [line["action"] for line in lines] == [
        "pause",
        "resume",
        "pause",
        "limit",
        "pause",
        "budget",
    ]
    assert json.loads(lines[1]["before"])["pause_reason"] == "rain"
    told = await recorded_acts(connection)
    assert [act["source"] for act in told] == ["errands", "errands", "errands", None, None, None]


async def test_what_rowmill_does_by_itself_is_no_operators_act(
    depot: str, store: Store, connect: Connect
) -> None:
    connection = await connect(depot)
    await store.value("SELECT rowmill.trip('errand', 'it is down', 5)")
    assert [act["who"] for act in await recorded_acts(connection)] == ["rowmill"]
    assert await diary(connection) == []


@pytest.mark.parametrize(
    ("breaking", "why"),
    [
        ("ALTER TABLE depot.diary ADD CHECK (who <> 'ann@desk')", "violates check constraint"),
        ("DROP TABLE depot.diary", "does not exist"),
    ],
)
async def test_a_record_that_fails_stops_nobody(
    breaking: str, why: str, depot: str, store: Store, connect: Connect
) -> None:
    connection = await connect(depot)
    key = await errand(connection)
    await connection.execute(breaking)
    assert await acts.cancel(store, "errands", key, WHO) == "cancelled"
    (act,) = await recorded_acts(connection)
    detail = json.loads(act["detail"])
    assert why in detail["audit_failed"]["depot"]
    assert detail["verdict"] == "cancelled"
    assert await connection.fetchval("SELECT state FROM depot.errands") == "void"
    report = await examine(store, Settings.model_construct(providers={}))
    (finding,) = [f for f in report["findings"] if f["id"] == "audit.failed"]
    assert (finding["subject"], finding["severity"]) == ("platform depot", "warning")
    assert why in finding["evidence"]


async def test_a_locked_record_stops_nobody_for_long(
    depot: str, store: Store, connect: Connect
) -> None:
    connection, other = await connect(depot), await connect(depot)
    key = await errand(connection)
    async with other.transaction():
        await other.execute("LOCK depot.diary")
        assert await acts.cancel(store, "errands", key, WHO) == "cancelled"
    (act,) = await recorded_acts(connection)
    assert "lock timeout" in json.loads(act["detail"])["audit_failed"]["depot"]


async def test_only_the_platform_it_concerns(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    await run(both, (FOLDER / "schema.sql").read_text(encoding="utf-8"))
    await attach(both, maps.load(DEPOT))
    (text,) = await add_texts(connection)
    await acts.cancel(store, "ai_generations", text, WHO)
    assert await diary(connection) == []
    await gates.pause(store, lane="openai", who=WHO, providers=["openai"])
    assert len(await diary(connection)) == 1, "a lane is everybody's"


async def test_a_rule_that_is_gone_and_a_platform_that_is(
    depot: str, store: Store, connect: Connect, tmp_path: Path
) -> None:
    connection = await connect(depot)
    there = "SELECT to_regprocedure('rowmill.audit_depot(rowmill.actions)') IS NOT NULL"
    assert await connection.fetchval(there)
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "audit.sql").unlink()
    await attach(depot, maps.load(str(tmp_path / "map.toml")))
    assert not await connection.fetchval(there)
    await gates.pause(store, who=WHO)
    assert await diary(connection) == []
    await attach(depot, maps.load(DEPOT))
    assert await connection.fetchval(there)
    await detach(depot, "depot")
    assert not await connection.fetchval(there)
