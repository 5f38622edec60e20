"""EcomVideo keeps its rows as long as its design says: four tables, four times."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.database.shop import add_video
from tests.database.support import Connect, OpenStore
from worker import maps
from worker.store import retention

KEPT = {
    "public.api_usage": timedelta(days=90),
    "public.video_analytics": timedelta(days=365),
    "public.user_activity": timedelta(days=2 * 365),
}
ROWS = {
    "public.api_usage": "(endpoint, method, status_code, created_at) SELECT '/v', 'GET', 200",
    "public.video_analytics": "(video_id, event_type, created_at) SELECT id, 'View'",
    "public.user_activity": "(user_id, action, created_at) SELECT user_id, 'VideoCreated'",
}


async def left(store: Any, connection: Any, subject: str, table: str) -> int:
    platform = maps.load("ecomvideo")
    (entry,) = [e for e in platform.map.retention if e.subject == subject]
    await retention.remove(store, platform, entry, most=1000, seconds=60)
    return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


@pytest.mark.parametrize("table", sorted(KEPT))
async def test_what_users_did_is_kept_for_its_time(
    table: str, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    await connection.execute(f"DELETE FROM {table}")
    video = await add_video(connection)
    for age in (KEPT[table] - timedelta(days=2), KEPT[table] + timedelta(days=2)):
        await connection.execute(
            f"INSERT INTO {table} {ROWS[table]}, now() AT TIME ZONE 'UTC' - $2::interval"
            " FROM public.videos WHERE id = $1::uuid",
            video,
            age,
        )
    assert await left(store, connection, table, table) == 1


async def test_jobs_are_kept_for_thirty_days_after_they_ended(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    await connection.execute("DELETE FROM public.background_jobs")
    for status, days in (("Completed", 29), ("Completed", 31), ("Failed", 31), ("Pending", 31)):
        await connection.execute(
            """
            INSERT INTO public.background_jobs
                   (job_type, job_data, status, created_at, completed_at)
            SELECT 'scrape_product', '{}', $1::text, at,
                   CASE WHEN $1::text <> 'Pending' THEN at END
              FROM (SELECT now() AT TIME ZONE 'UTC' - make_interval(days => $2)) AS given (at)
            """,
            status,
            days,
        )
    assert await left(store, connection, "video_jobs", "public.background_jobs") == 2
