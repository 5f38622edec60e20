"""Refusing, and whose a job is: read by index alone, with plans made while all was small, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.database.platform_samples import NewDatabase
from tests.database.studio import built, written
from tests.database.support import Connect, Hand, add
from worker.store import Store

JOBS = 10
FETCHES = 40
STOP = """
SELECT s.id AS key, 'refuse' AS verdict, 'no' AS message FROM public.shoots AS s
 WHERE s.id = ANY (rowmill_keys) AND s.urgency < 0;
"""
WHOSE = """
SELECT s.id AS key, s.studio_id AS tenant FROM public.shoots AS s WHERE s.id = ANY (rowmill_keys);
"""
_LOAD = """
INSERT INTO public.shoots (urgency) SELECT -9 FROM generate_series(1, 20000);
INSERT INTO rowmill.submissions
  (source, row_key, run, step, lane, worker, provider, account, model, estimate_cents)
SELECT 'shoots', row_key, 1, 's', lane, 1, 'p', 'a', 'm', 1 FROM rowmill.queue;
UPDATE rowmill.queue SET ready_at = now() + interval '1 day', state = 'scheduled';
"""
_READS = """
SELECT relname AS name, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS rows
  FROM pg_stat_xact_user_tables WHERE relname IN ('queue', 'submissions', 'shoots')
"""


async def reads(connection: Any) -> dict[str, int]:
    return {row["name"]: row["rows"] for row in await connection.fetch(_READS)}


@pytest.mark.parametrize("seen_small", [True, False])
async def test_refused_and_started_by_index(
    seen_small: bool, new_database: NewDatabase, connect: Connect, tmp_path: Path
) -> None:
    platform = written(
        tmp_path,
        ('tenant = { column = "studio_id" }\n', ""),
        shoots__stop=STOP,
        shoots__tenant=WHOSE,
    )
    dsn = await built(await new_database(), platform)
    connection = await connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    # One connection for all, in one transaction: only there reads are counted exactly.
    store = Store(connection, pooled=False, dsn=dsn)
    store._line._connection = connection
    hand = await Hand.hire(store)

    async def life() -> dict[str, int]:
        await add(connection, "public.shoots", JOBS // 2, urgency=-1)
        await add(connection, "public.shoots", JOBS // 2)
        claims = await hand.claim(JOBS)
        before = await reads(connection)
        said = await hand.verdicts(claims)
        after = await reads(connection)
        verdicts = sorted(one.verdict for one in said.values())
        assert verdicts == ["refuse"] * (JOBS // 2) + ["run"] * (JOBS // 2)
        await connection.execute("DELETE FROM rowmill.queue WHERE state = 'claimed'")
        return {name: rows - before.get(name, 0) for name, rows in after.items()}

    if seen_small:
        for _ in range(7):
            await life()
    await connection.execute(_LOAD)
    for _ in range(2):
        read = await life()
        assert {name: n for name, n in read.items() if n > FETCHES * JOBS} == {}
    await transaction.rollback()
