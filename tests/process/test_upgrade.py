"""A fleet of two versions: what the newer one attached must not end the older one's workers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process.fleet import Fleet, until_sql
from tests.process.rows import add_media, add_texts, has_status

pytestmark = pytest.mark.process

NEWER = """
UPDATE rowmill.sources SET definition = jsonb_set(definition, '{map,of_a_newer_version}', '[1]')
 WHERE platform = 'photomemory'
"""


async def test_a_map_of_a_newer_version_stops_no_worker(db: Any, fleet: Fleet) -> None:
    """Who knew the platform before goes on with it; who comes new serves the others."""
    old = await fleet.hire("old")
    await db.execute(NEWER)
    said = await old.says("platform.too_new")
    assert said["platform"] == "photomemory"
    assert "upgrade this one: of_a_newer_version" in said["error"]
    (key,) = await add_media(db)
    await has_status(db, key, "completed")
    assert old.alive
    assert await old.drain() == 0

    new = await fleet.hire("new")
    (video,) = await add_media(db)
    (text,) = await add_texts(db)
    await until_sql(
        db, "SELECT status = 'completed' FROM ai_processing.ai_generations WHERE id = $1", text
    )
    assert await db.fetchval("SELECT count(*) FROM rowmill.queue WHERE row_key = $1", video) == 1
    assert new.alive
