"""What follows jobs: each change once, at a price that doesn't grow with what waits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.support import Connect, Hand, OpenStore, add_texts, add_videos, connection_to
from worker.store import Store
from worker.store.listing import Filter, following
from worker.store.listing.following import Follower


@pytest.fixture
async def db(both: str, connect: Connect) -> Any:
    return await connect(both)


@pytest.fixture
async def store(both: str, open_store: OpenStore) -> Store:
    return await open_store(both)


async def told(follower: Follower) -> list[tuple[str, str]]:
    return [(job["key"], job["state"]) for job in await follower.changes()]


async def test_each_change_is_told_once(db: Any, store: Store) -> None:
    (old,) = await add_videos(db)
    follower = Follower(store, Filter())
    await follower.begin()
    assert await told(follower) == []
    (new,) = await add_texts(db)
    assert await told(follower) == [(new, "ready")]
    hand = await Hand.hire(store)
    works = await hand.take(2)
    assert sorted(await told(follower)) == sorted([(old, "running"), (new, "running")])
    assert await told(follower) == []
    # A try that fails and begins anew between two looks is a change, too.
    await hand.retry(works[:1])
    again = await hand.take(1)
    assert await told(follower) == [(works[0].key, "running")]
    await hand.succeed([*again, works[1]])
    assert sorted(await told(follower)) == sorted([(old, "completed"), (new, "completed")])
    await db.execute("UPDATE public.generation_jobs SET status = 'queued' WHERE id = $1", old)
    assert await told(follower) == [(old, "ready")]


async def test_a_transaction_that_commits_late_is_seen(both: str, db: Any, store: Store) -> None:
    follower = Follower(store, Filter())
    await follower.begin()
    async with connection_to(both) as slow:
        transaction = slow.transaction()
        await transaction.start()
        (late,) = await add_videos(slow)
        (early,) = await add_videos(db)
        assert await told(follower) == [(early, "ready")]
        await transaction.commit()
    assert await told(follower) == [(late, "ready")]
    assert await told(follower) == []


async def test_few_are_watched_of_many(
    db: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "WATCHED", 5)
    follower = Follower(store, Filter())
    await follower.begin()
    keys = await add_videos(db, 20)
    assert sorted(await told(follower)) == sorted((key, "ready") for key in keys)
    assert await told(follower) == []
    hand = await Hand.hire(store)
    works = await hand.take(20)
    assert sorted(await told(follower)) == sorted((key, "running") for key in keys)
    await hand.fail(works)
    over = await told(follower)
    assert len(over) >= 5
    assert {state for _, state in over} == {"failed"}
