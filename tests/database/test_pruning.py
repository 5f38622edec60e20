"""What may be taken away of the ledger, and what never."""

from __future__ import annotations

import re
import secrets
from datetime import timedelta
from typing import Any

import pytest

from tests.commandline import Rowmill
from tests.database.support import Connect, OpenStore, add_videos, new_keys
from worker.store import StoreError
from worker.store.pruning import Pruned, prune

OLD = timedelta(days=90)

_PAID = """
INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider, account, model,
       state, external_id, estimate_cents, cost_cents, intended_at, ended_at, delivered_at)
SELECT $1, $2, $3, 'main', 'replicate', 1, 'replicate', 'default', 'm',
       $4::text::rowmill.submission_state,
       CASE WHEN $4 <> 'intent' THEN gen_random_uuid()::text END, 5, CASE WHEN $7 THEN 5 END,
       now() - make_interval(days => $5), now() - make_interval(days => $5),
       CASE WHEN $6 THEN now() - make_interval(days => $5) END
"""


async def paid(
    connection: Any,
    key: str,
    *,
    run: int = 1,
    state: str = "finished",
    days: int = 100,
    delivered: bool = True,
    cost: bool = True,
    source: str = "generation_jobs",
) -> str:
    await connection.execute(_PAID, source, key, run, state, days, delivered, cost)
    return key


async def failed(connection: Any, key: str, days: int = 100) -> None:
    await connection.execute(
        "INSERT INTO rowmill.failures (at, source, row_key, lane, run, try, final, kind, message,"
        " worker) VALUES (now() - make_interval(days => $2), 'generation_jobs', $1, 'replicate', 1,"
        " 1, true, 'transient', 'away', 1)",
        key,
        days,
    )


async def left(connection: Any, ledger: str = "submissions") -> set[str]:
    rows = await connection.fetch(f"SELECT row_key FROM rowmill.{ledger}")
    return {row["row_key"] for row in rows}


async def test_only_what_belongs_to_rows_that_are_gone(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    store, connection = await open_store(photomemory), await connect(photomemory)
    gone = new_keys(4)
    await paid(connection, gone[0])
    await paid(connection, gone[1], state="failed", delivered=False, cost=False)
    await paid(connection, gone[1], run=2)
    await paid(connection, gone[2], state="written_off", delivered=False, cost=False)
    await failed(connection, gone[0])
    await failed(connection, gone[3])  # it was never paid for
    (waits, done) = await add_videos(connection, 2)
    await connection.execute(
        "UPDATE public.generation_jobs SET status = 'cancelled' WHERE id = $1", done
    )
    kept = {
        await paid(connection, waits),
        await paid(connection, done),
        *[await paid(connection, k, state=s, delivered=False) for k, s in _unfinished().items()],
        await paid(connection, new_keys(1)[0], state="failed", delivered=False),  # was billed
        await paid(connection, new_keys(1)[0], days=80),
        await paid(connection, new_keys(1)[0], source="of_a_detached_table"),
    }
    (held,) = new_keys(1)
    kept.add(await paid(connection, held))
    await connection.execute(
        "INSERT INTO rowmill.allowances (source, row_key, run)"
        " SELECT id, $1, 1 FROM rowmill.sources WHERE name = 'generation_jobs'",
        held,
    )
    (lately,) = new_keys(1)
    kept.add(await paid(connection, lately))
    await paid(connection, lately, run=2, days=80)
    (doubtful,) = new_keys(1)
    kept.add(await paid(connection, doubtful, state="unknown", delivered=False))
    for key in (waits, done, doubtful):
        await failed(connection, key)

    run_before = await connection.fetchval(RUN, done)
    assert await prune(store, OLD, "ada", dry_run=True) == Pruned(4, 2, 0)
    assert await left(connection) == kept | set(gone[:3])
    assert await prune(store, OLD, "ada", dry_run=False) == Pruned(4, 2, 0)
    assert await left(connection) == kept
    assert await left(connection, "failures") == {waits, done, doubtful}
    assert await connection.fetchval(RUN, done) == run_before == 2
    assert await prune(store, OLD, "ada", dry_run=False) == Pruned(0, 0, 0)
    acts = await connection.fetch(
        "SELECT who || ' ' || (detail ->> 'submissions') AS said FROM rowmill.actions"
        " WHERE action = 'prune' ORDER BY id"
    )
    assert [act["said"] for act in acts] == ["ada 4", "ada 0"]


RUN = "SELECT rowmill.run_of('generation_jobs', $1, true)"


def _unfinished() -> dict[str, str]:
    return dict(zip(new_keys(4), ("intent", "accepted", "unknown", "finished"), strict=True))


async def test_more_than_one_page(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    store, connection = await open_store(photomemory), await connect(photomemory)
    keys = new_keys(2500)
    await connection.executemany(
        _PAID, [("generation_jobs", key, 1, "finished", 100, True, True) for key in keys]
    )
    assert (await prune(store, OLD, "ada", dry_run=False)).submissions == 2500
    assert await left(connection) == set()


async def test_old_actions_of_what_is_over(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    store, connection = await open_store(photomemory), await connect(photomemory)
    (waits,) = await add_videos(connection)
    await connection.executemany(
        "INSERT INTO rowmill.actions (at, who, action, subject) VALUES"
        " (now() - make_interval(days => $1), 'bob', 'retry', $2)",
        [
            (100, f"generation_jobs/{waits}"),
            (100, f"generation_jobs/{new_keys(1)[0]}"),
            (100, "lane replicate"),
            (80, "lane replicate"),
        ],
    )
    assert (await prune(store, OLD, "ada", dry_run=True)).actions == 2
    assert (await prune(store, OLD, "ada", dry_run=False)).actions == 2
    assert await connection.fetchval("SELECT count(*) FROM rowmill.actions WHERE who = 'bob'") == 2


async def test_rows_that_a_policy_hides_arent_gone(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """A role that sees no rows would take the whole ledger away: it is refused instead."""
    connection = await connect(photomemory)
    (key,) = await add_videos(connection)
    await connection.execute(
        "UPDATE public.generation_jobs SET status = 'cancelled' WHERE id = $1", key
    )
    await paid(connection, key)
    name, password = f"rowmill_test_{secrets.token_hex(6)}", secrets.token_hex(16)
    await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    try:
        for schema in ("rowmill", "public"):
            for what in (f"USAGE ON SCHEMA {schema}", f"ALL ON ALL TABLES IN SCHEMA {schema}"):
                await connection.execute(f"GRANT {what} TO {name}")
        store = await open_store(re.sub("//[^@/]*@", f"//{name}:{password}@", photomemory))
        with pytest.raises(StoreError, match="row-level security"):
            await prune(store, OLD, "ada", dry_run=True)
        await store.close()
    finally:
        await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    assert await left(connection) == {key}


async def test_the_command(photomemory: str, connect: Connect, rowmill: Rowmill) -> None:
    connection = await connect(photomemory)
    await paid(connection, new_keys(1)[0])
    said = await rowmill(photomemory, "prune", "--older-than", "90d", "--dry-run")
    assert (said.code, said.out) == (0, "would take away 1 submissions, 0 failures, 0 actions\n")
    said = await rowmill(photomemory, "prune", "--older-than", "13w", "--json")
    assert said.json == {
        "dry_run": False,
        "older_than_days": 91,
        "submissions": 1,
        "failures": 0,
        "actions": 0,
    }
    assert (await rowmill(photomemory, "prune", "--older-than", "34d")).code == 2
    assert (await rowmill(photomemory, "prune", "--older-than", "long")).code == 2
