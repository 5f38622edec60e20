"""The demo's platforms on a database: where they lie, who inserts, what is seen of the order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import CloneDatabase, NewDatabase
from tests.database.support import OpenStore
from worker.demo import order, platform
from worker.demo.platform import NoDemo, Shown, choose, filled, prepare, produce
from worker.demo.progress import counts
from worker.demo.verdict import rows_of
from worker.maps import load
from worker.store import Store

SANDBOX = "http://127.0.0.1:9"
LANES = (
    *("replicate", "openai", "background:embed_content"),
    *("background:content_statistics", "background:generate_from_template"),
)


def test_without_a_name_it_is_the_two_of_the_first_tour() -> None:
    assert [(one.name, one.schema) for one in choose(())] == [
        ("photomemory", "public"),
        ("ebook", "public"),
    ]


def test_all_are_those_with_what_a_demo_needs() -> None:
    assert {one.name for one in choose(["all"])} >= {"photomemory", "ebook"}
    assert [one.name for one in choose(["ebook", "ebook"])] == ["ebook"]


def test_who_would_share_public_gets_a_schema_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "_FOLDER", tmp_path)
    for name, table in {"one": "public.jobs", "two": "public.work", "three": "own.jobs"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "map.toml").write_text(f'table = "{table}"')
    found = [(one.name, one.schema) for one in Shown.among(["one", "two", "three"])]
    assert found == [("one", "one"), ("two", "two"), ("three", "public")]
    assert Shown.among(["two", "three"])[0].schema == "public"


@pytest.mark.parametrize("name", ["nowhere", "bare"])
def test_what_can_not_be_shown_is_refused_with_what_can(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in ("bare", "whole"):
        (tmp_path / known).mkdir()
        for file in platform.NEEDED if known == "whole" else ("schema.sql", "verdict.sql"):
            (tmp_path / known / file).write_text("")
    monkeypatch.setattr(platform, "_FOLDER", tmp_path)
    monkeypatch.setattr(platform, "builtin_platforms", lambda: ["bare", "whole"])
    with pytest.raises(NoDemo, match="give one of whole, or all") as told:
        choose([name])
    assert ("has no sample.sql, demo.sql" in str(told.value)) == (name == "bare")


def test_only_the_two_words_are_replaced() -> None:
    given = "SELECT :jobs, 1::jobs, ':sandbox/x', :jobs_too"
    assert filled(given, 5, "http://s") == "SELECT 5, 1::jobs, 'http://s/x', :jobs_too"


# --------------------------------------------------------------------------- on a database

MOVED = [Shown("photomemory", "photomemory"), Shown("ebook")]


async def test_a_moved_platform_works_where_it_lies(
    new_database: NewDatabase, open_store: OpenStore
) -> None:
    dsn = await new_database()
    await prepare(dsn, MOVED)
    store = await open_store(dsn)
    await produce(store, MOVED, 21, SANDBOX)
    assert await counts(store, MOVED) == {
        "generation_jobs": (11, 0, 0),
        "ai_generations": (4, 0, 0),  # and one more that a background job will ask for
        "background_jobs": (5, 0, 0),
    }
    assert await store.value("SELECT count(*) FROM rowmill.queue") == 20
    assert await store.value("SELECT to_regclass('public.generation_jobs')") is None
    assert {row.finished for row in await rows_of(store, MOVED)} == {None}
    assert load("photomemory", "photomemory").map.sources[0].table == "photomemory.generation_jobs"


async def test_the_producer_has_no_right_on_rowmill(
    clone_database: CloneDatabase, open_store: OpenStore
) -> None:
    store = await open_store(await clone_database("demo-default", prepare))
    with pytest.raises(Exception, match="permission denied for schema rowmill"):
        await store.script(
            f"BEGIN; SET LOCAL ROLE {platform.PRODUCER}; SELECT count(*) FROM rowmill.queue"
        )


@pytest.fixture
async def queue(clone_database: CloneDatabase, open_store: OpenStore) -> Store:
    """Two platforms' jobs, watched since before they came; no worker has come."""
    store = await open_store(await clone_database("demo-default", prepare))
    await order.watch(store)
    await produce(store, choose(()), 20, SANDBOX)
    await store.register(1, name="one", version="0", lanes=LANES, slots=4, lease=60)
    return store


async def take(store: Store, count: int) -> None:
    """By the real claim."""
    assert len(await store.claim(1, 99, LANES, count, None)) == count


async def test_claims_of_two_platforms_are_in_one_order(queue: Store) -> None:
    opened = await order.latest(queue)
    for _ in range(5):
        await take(queue, 3)
    found = order.order(await order.seen(queue, opened))
    assert found.row() == {"claims": 15, "platforms": 2, "inversions": 0}
    assert found.compared == 15


async def test_a_claim_out_of_order_is_seen(queue: Store) -> None:
    opened = await order.latest(queue)
    await take(queue, 3)
    await queue.script(
        "UPDATE rowmill.queue SET state = 'claimed', worker = 1, token = 5, claimed_at = now()"
        " WHERE id = (SELECT id FROM rowmill.queue WHERE state = 'ready' ORDER BY rank LIMIT 1)"
    )
    await take(queue, 3)
    assert order.order(await order.seen(queue, opened)).inversions == 1


async def test_a_closed_lane_is_passed_over_rightly(queue: Store) -> None:
    opened = await order.latest(queue)
    await queue.script("INSERT INTO rowmill.lanes (lane, paused_at) VALUES ('replicate', now())")
    await take(queue, 5)
    found = order.order(await order.seen(queue, opened))
    assert (found.claims, found.platforms, found.inversions) == (5, 1, 0)
    await queue.script("DELETE FROM rowmill.lanes WHERE lane = 'replicate'")
    await take(queue, 2)
    assert order.order(await order.seen(queue, opened)).inversions == 0


async def test_a_rank_that_changes_while_it_runs_is_no_claim(queue: Store) -> None:
    opened = await order.latest(queue)
    await take(queue, 3)
    await queue.script("UPDATE rowmill.queue SET rank = 1 WHERE state = 'claimed'")
    assert order.order(await order.seen(queue, opened)).claims == 3
