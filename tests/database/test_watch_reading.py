"""How `watch` asks: in turns, one statement at a time, whatever can't be answered."""

from __future__ import annotations

import asyncpg

from tests.database.support import Connect, Hand, OpenStore, add_texts, add_videos
from worker.store import Store
from worker.watch.kept import Kept
from worker.watch.reading import Reader, open_store


def reader_of(dsn: str, kept: Kept) -> Reader:
    async def opened() -> Store:
        return await open_store(dsn)

    return Reader(opened, kept, every=1.0, text=lambda: "", told=lambda: None)


async def test_running_jobs_that_cant_be_read_leave_the_report(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(both)
    hand = await Hand.hire(await open_store(both))
    (video,) = await add_videos(connection)
    (text,) = await add_texts(connection)
    await hand.claim(2)
    kept = Kept()
    reader = reader_of(both, kept)
    try:
        await reader.open()
        assert kept.reports == 1
        await asked(reader, 2)  # the maps, then the jobs
        assert len(kept.running) == 2
        await connection.execute("DROP TABLE public.generation_jobs CASCADE")
        await asked(reader, 2)
        assert kept.reports == 2
        assert "generation_jobs" in str(kept.untold)
        assert kept.problem is None
        await asked(reader, 3)  # a report, the maps anew, the jobs
        assert kept.reports == 3
        assert kept.untold is None
        kinds = {job["key"]: job["kind"] for job in kept.running}
        assert kinds == {video: None, text: "text"}  # its queue row is still there
    finally:
        await reader.close()


async def asked(reader: Reader, times: int) -> None:
    for _ in range(times):
        await reader._asked()


async def test_a_lost_connection_is_told_and_made_anew(both: str, connect: Connect) -> None:
    connection = await connect(both)
    kept = Kept()
    reader = reader_of(both, kept)
    try:
        await reader.open()
        await cut_viewers(connection)
        await asked(reader, 2)
        await asked(reader, 2)
        assert kept.problem is None
        assert kept.reports > 1
    finally:
        await reader.close()


async def cut_viewers(connection: asyncpg.Connection) -> None:
    cut = await connection.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'rowmill watch' AND datname = current_database()"
    )
    assert cut == 1


async def test_the_server_itself_ends_what_takes_too_long(both: str) -> None:
    store = await open_store(both)
    try:
        assert await store.value("SHOW statement_timeout") == "10s"
    finally:
        await store.close()
