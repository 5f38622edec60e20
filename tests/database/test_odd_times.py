"""Times that Postgres keeps and Python can't tell: infinite ones, years BC and beyond 9999."""

from __future__ import annotations

from datetime import datetime

import pytest
from worker.store.filtering import SORTS

from tests.database.support import Connect, OpenStore
from worker.store import story
from worker.store.listing import Filter, listed

ODD = ("infinity", "-infinity", "20000-01-01", "4713-01-01 BC", "0001-01-01 00:00+14")
WORDS = {"completed": "completed", "pending": "ready"}


@pytest.mark.parametrize("word", WORDS)
async def test_rows_with_odd_times_are_told(
    ebook: str, connect: Connect, open_store: OpenStore, word: str
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    keys = {
        row[0]
        for row in await connection.fetch(
            "INSERT INTO system.background_jobs (job_type, payload, status, scheduled_at,"
            "                                    created_at, started_at, completed_at) "
            "SELECT 'webhook_delivery', '{}', $2, '-infinity', odd, odd, other "
            "  FROM unnest($1::text[]::timestamptz[]) odd, unnest($1::text[]::timestamptz[]) other "
            "RETURNING id::text",
            list(ODD),
            word,
        )
    }
    for key in keys:
        told = await story.job(store, "background_jobs", key)
        assert told["status"] == word
        for name in ("enqueued_at", "started_at", "ended_at"):
            at = told["timings"][name]
            assert at is None or datetime.fromisoformat(at).tzinfo
    which = Filter(sources=("background_jobs",), states=(WORDS[word],))
    for sort in SORTS:
        if sort == "failure" or (sort == "order" and word == "completed"):
            continue  # these are of others
        page = await listed(store, which, sort=sort, limit=10)
        seen = [job["key"] for job in page.jobs]
        while page.next:
            page = await listed(store, which, sort=sort, limit=10, after=page.next)
            seen += [job["key"] for job in page.jobs]
        assert (len(seen), set(seen)) == (len(keys), keys), sort
