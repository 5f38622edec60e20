"""The platforms' views, refreshed as often as their designs say, past a reader who stays."""

from __future__ import annotations

from tests.database.depot import time_goes_by
from tests.database.support import Connect, OpenStore
from worker import maps
from worker.scheduled import Scheduled

VIEWS = {
    "education": (
        "public.course_statistics",
        "3 hours 58 minutes",
        "UPDATE public.courses SET title = 'Anew'",
        "SELECT count(*) FROM public.course_statistics WHERE title = 'Anew'",
    ),
    "photomemory_v1": (
        "public.user_analytics_daily",
        "23 hours 58 minutes",
        "UPDATE public.users SET created_at = '2001-02-03 12:00Z'",
        "SELECT count(*) FROM public.user_analytics_daily WHERE date < '2002-01-01'",
    ),
}


async def refreshed_in_time(
    platform: str, dsn: str, connect: Connect, open_store: OpenStore
) -> None:
    view, almost, change, seen = VIEWS[platform]
    connection, reader = await connect(dsn), await connect(dsn)
    worker = Scheduled(await open_store(dsn), lambda: [maps.load(platform)])
    await worker.refreshes()
    await connection.execute(change)
    await time_goes_by(connection, almost)
    await worker.refreshes()
    assert await connection.fetchval(seen) == 0
    await time_goes_by(connection, "5 minutes")
    async with reader.transaction():
        await reader.fetch(f"SELECT * FROM {view}")
        await worker.refreshes()
    assert await connection.fetchval(seen) > 0


async def test_courses_are_counted_every_four_hours(
    education: str, connect: Connect, open_store: OpenStore
) -> None:
    await refreshed_in_time("education", education, connect, open_store)


async def test_users_are_counted_daily(
    photomemory_v1: str, connect: Connect, open_store: OpenStore
) -> None:
    await refreshed_in_time("photomemory_v1", photomemory_v1, connect, open_store)
