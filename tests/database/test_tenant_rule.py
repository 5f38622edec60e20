"""Whose job it is, where a rule says so: known from its start on, before anything is paid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.database.platform_samples import NewDatabase
from tests.database.studio import built, written
from tests.database.support import Connect, Hand, OpenStore, add, queued
from worker.maps import MapError
from worker.store.attaching import attach

NO_COLUMN = ('tenant = { column = "studio_id" }\n', "")
WHOSE = """
SELECT s.id AS key, s.studio_id AS tenant FROM public.shoots AS s
 WHERE s.id = ANY (rowmill_keys) AND s.studio_id IS NOT NULL;
"""


async def test_a_tenant_of_any_type_that_changes_and_goes(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    """Asked anew at each start; a uuid as it is. Nobody's job starts, too."""
    dsn = await built(await new_database(), written(tmp_path, NO_COLUMN, shoots__tenant=WHOSE))
    connection, store = await connect(dsn), await open_store(dsn)
    first, second = await add(connection, "public.studios", 2)
    (key,) = await add(connection, "public.shoots", studio_id=first)
    hand = await Hand.hire(store)
    for place in (first, second, None):
        await connection.execute("UPDATE public.shoots SET studio_id = $1", place)
        works = await hand.take(1)
        assert [work.key for work in works] == [key]
        assert await tenant(connection, key) == (place and str(place))
        await connection.execute("UPDATE public.shoots SET state = 'new'")
        await connection.execute("UPDATE rowmill.queue SET ready_at = now(), state = 'ready'")


async def tenant(connection: Any, key: str) -> str | None:
    found: str | None = (await queued(connection, key))[key]["tenant"]
    return found


@pytest.mark.parametrize(
    ("rule", "says"),
    [("tenant", "'x' AS tenant"), ("stop", "'cancel' AS verdict, 'closed' AS message")],
)
async def test_a_key_of_another_type_is_refused_by_attach(
    rule: str, says: str, new_database: NewDatabase, tmp_path: Path
) -> None:
    """No job could start, and none would ever say why."""
    dsn = await built(await new_database(), written(tmp_path, NO_COLUMN))
    sql = f"SELECT k::text AS key, {says} FROM unnest(rowmill_keys) k;"
    with pytest.raises(MapError, match=rf"shoots\.{rule}\.sql: operator does not exist"):
        await attach(dsn, written(tmp_path, NO_COLUMN, **{f"shoots__{rule}": sql}))
