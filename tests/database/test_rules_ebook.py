"""AI Ebook's rules through the whole engine: chapters, versions, charges, background jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import Succeeded
from tests.database.platform_samples import CloneDatabase, run, sql_file
from tests.database.settling import Desk, like, settlement
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    Work,
    add_background,
    add_texts,
    queued,
)
from worker import maps
from worker.store import Store
from worker.store.attaching import attach
from worker.store.migrations import migrate
from worker.store.upkeep import refresh_unserved
from worker.transitions import Settlement

EMPTY = "e6000000-0000-4000-8000-000000000004"
WRITTEN = "e6000000-0000-4000-8000-000000000001"


def text(words: str, **changes: Any) -> Succeeded:
    given: dict[str, Any] = {
        "tokens": 300,
        "cost_cents": Decimal("0.012345"),
        "model": "gpt-4o-mini",
    }
    return Succeeded(text=words, **(given | changes))


async def generation(connection: Any, key: str) -> Any:
    return await connection.fetchrow(
        "SELECT * FROM ai_processing.ai_generations WHERE id = $1", key
    )


async def chapter(connection: Any, key: str) -> Any:
    return await connection.fetchrow("SELECT * FROM content.chapters WHERE id = $1", key)


async def versions(connection: Any, key: str) -> list[tuple[int, str]]:
    rows = await connection.fetch(
        "SELECT version_number, content FROM content.content_versions WHERE chapter_id = $1"
        " ORDER BY version_number",
        key,
    )
    return [tuple(row) for row in rows]


async def test_a_text_is_written_whole(ebook: str, connect: Connect, open_store: OpenStore) -> None:
    connection = await connect(ebook)
    hand = await Hand.hire(await open_store(ebook))
    (key,) = await add_texts(connection, of=2)
    (work,) = await hand.take()
    assert await hand.write([settlement(work, text("Rows in a line."))]) == {key: "settled"}
    row = await generation(connection, key)
    assert (row["status"], row["response"], row["tokens_used"]) == (
        "completed",
        "Rows in a line.",
        300,
    )
    assert (row["cost"], row["processing_time_ms"]) == (Decimal("0.000123"), 1500)
    assert row["started_at"] <= row["completed_at"]
    (charge,) = await connection.fetch("SELECT * FROM billing.usage_records")
    assert (str(charge["ai_generation_id"]), charge["quantity"]) == (key, 300)
    assert str(charge["subscription_id"]) == "e4000000-0000-4000-8000-000000000002"
    assert charge["resource_type"] == "ai_tokens"
    today = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    assert charge["usage_date"] == today


async def test_jobs_of_one_chapter_in_one_batch_are_numbered(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    hand = await Hand.hire(await open_store(ebook))
    keys = [(await add_texts(connection, chapter_id=EMPTY))[0] for _ in range(4)]
    works = await hand.take(4)
    order = {key: n for n, key in enumerate(keys)}
    made = [settlement(w, text(f"Text {order[w.key]}")) for w in works]
    await hand.write(list(reversed(made)))
    assert await versions(connection, EMPTY) == [(n + 1, f"Text {n}") for n in range(4)]
    row = await chapter(connection, EMPTY)
    assert (row["content"], row["word_count"], row["ai_generated"]) == ("Text 3", 2, True)
    assert row["ai_model"] == "gpt-4o-mini"


async def test_versions_of_one_chapter_from_four_settlers(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    stores = [await open_store(ebook) for _ in range(4)]
    hand = await Hand.hire(stores[0])
    await add_texts(connection, 40, chapter_id=EMPTY)
    works = await hand.take(40)
    desks = [Desk(store) for store in stores]
    for number, desk in enumerate(desks):
        desk.put(*[settlement(w, text(w.key)) for w in works[number::4]])
    async with asyncio.timeout(120):
        await asyncio.gather(*[desk.until_empty() for desk in desks])
    numbered = await versions(connection, EMPTY)
    assert [number for number, _ in numbered] == list(range(1, 41))
    assert {content for _, content in numbered} == {w.key for w in works}


async def test_a_written_chapter_keeps_its_text_unless_asked(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    hand = await Hand.hire(await open_store(ebook))
    before = await chapter(connection, WRITTEN)
    await add_texts(connection, chapter_id=WRITTEN)
    (work,) = await hand.take()
    await hand.write([settlement(work, text("A proposal."))])
    assert (await chapter(connection, WRITTEN))["content"] == before["content"]
    assert (await chapter(connection, WRITTEN))["ai_generated"] is True

    await add_texts(connection, chapter_id=WRITTEN)
    (work,) = await hand.take()
    await hand.write([settlement(work, text("The new text.", data={"replace_content": True}))])
    row = await chapter(connection, WRITTEN)
    assert (row["content"], row["word_count"], row["character_count"]) == ("The new text.", 3, 13)
    assert await versions(connection, WRITTEN) == [(1, "A proposal."), (2, "The new text.")]


# --------------------------------------------------------------------------- CHECKs

SPOILED: dict[str, Callable[[Work], Settlement]] = {
    "check_reasonable_cost": lambda w: like(w, cost_cents=Decimal(100_000)),
    "numeric field overflow": lambda w: like(w, cost_cents=Decimal(10) ** 9),
    "out of range": lambda w: like(w, tokens=2**31),
}


@pytest.mark.parametrize("problem", SPOILED)
async def test_a_text_the_table_refuses_is_held(
    problem: str, ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    store = await open_store(ebook)
    hand, desk = await Hand.hire(store), Desk(store)
    bad, good = await add_texts(connection, 2, chapter_id=EMPTY)
    works = {w.key: w for w in await hand.take(2)}
    await desk.step(SPOILED[problem](works[bad]), settlement(works[good]))
    row = (await queued(connection))[bad]
    assert row["state"] == "held"
    assert problem in row["note"]
    assert (await generation(connection, bad))["response"] is None
    assert len(await versions(connection, EMPTY)) == 1
    charged = await connection.fetch("SELECT ai_generation_id FROM billing.usage_records")
    assert [str(row[0]) for row in charged] == [good]


async def test_a_failure_too_dear_for_its_row_is_held_and_stops_no_other(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    hand, desk = await Hand.hire(store), Desk(store)
    bad, good = await add_texts(connection, 2)
    works = {w.key: w for w in await hand.take(2)}
    failed = like(works[bad], verb="fail", error="no text", cost_cents=Decimal(100_000))
    await desk.step(failed, settlement(works[good]))
    waits = await queued(connection)
    assert {key: row["state"] for key, row in waits.items()} == {bad: "held"}
    assert "check_reasonable_cost" in waits[bad]["note"]
    assert (await generation(connection, good))["status"] == "completed"


@pytest.mark.parametrize("kind", ["content_statistics", "embed_content"])
async def test_content_of_an_impossible_type_fails_alone(
    kind: str, ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    await require_table(connection, kind)
    store = await open_store(ebook)
    hand, desk = await Hand.hire(store), Desk(store)
    bad, good = await add_background(connection, 2, kind=kind)
    works = {w.key: w for w in await hand.take(2)}
    made = content(kind, 1)
    await desk.step(
        settlement(works[bad], Succeeded(data={**made, "content_type": "sentence"})),
        settlement(works[good], Succeeded(data=made)),
    )
    rows = await connection.fetch("SELECT id, status, error_message FROM system.background_jobs")
    said = {str(row["id"]): row for row in rows}
    assert (said[good]["status"], said[bad]["status"]) == ("completed", "failed")
    assert f"content_{TABLE[kind]}_content_type_check" in said[bad]["error_message"]


# --------------------------------------------------------------------------- background jobs

TABLE = {"content_statistics": "statistics", "embed_content": "embeddings"}


def content(kind: str, number: float) -> dict[str, Any]:
    about = {"content_id": WRITTEN, "content_type": "chapter"}
    if kind == "embed_content":
        return {**about, "model": "text-embedding-3-small", "embedding": [number] * 1536}
    counts = {"word_count": number, "character_count": 9, "sentence_count": 1}
    return {**about, **counts, "paragraph_count": 1, "flesch_reading_ease": 70.5}


async def require_table(connection: Any, kind: str) -> None:
    if kind == "embed_content" and not await connection.fetchval(
        "SELECT to_regclass('content.content_embeddings')::text"
    ):
        pytest.skip("this server has no pgvector")


@pytest.mark.parametrize(
    ("kind", "value"),
    [("content_statistics", "word_count"), ("embed_content", "(embedding::real[])[1]::integer")],
)
async def test_a_repeat_replaces_what_it_made(
    kind: str, value: str, ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    await require_table(connection, kind)
    hand = await Hand.hire(await open_store(ebook))
    read = f"SELECT {value} FROM content.content_{TABLE[kind]} WHERE content_id = '{WRITTEN}'"

    async def settle(works: Sequence[Work], *numbers: float) -> list[Any]:
        said = await hand.write(
            [
                settlement(w, Succeeded(data=content(kind, n)))
                for w, n in zip(works, numbers, strict=True)
            ]
        )
        assert set(said.values()) == {"settled"}
        return [row[0] for row in await connection.fetch(read)]

    await add_background(connection, kind=kind)
    assert await settle(await hand.take(), 3) == [3]
    first, second = [(await add_background(connection, kind=kind))[0] for _ in range(2)]
    works = {w.key: w for w in await hand.take(2)}
    assert await settle([works[second], works[first]], 5, 4) == [5], "the last of a batch wins"
    statuses = await connection.fetch("SELECT DISTINCT status FROM system.background_jobs")
    assert [row[0] for row in statuses] == ["completed"]
    assert await connection.fetchval("SELECT count(*) FROM billing.usage_records") == 0


async def test_several_kinds_in_one_batch(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    await require_table(connection, "embed_content")
    hand = await Hand.hire(await open_store(ebook))
    kinds = ("content_statistics", "embed_content", "webhook_delivery")
    keys = {(await add_background(connection, kind=kind))[0]: kind for kind in kinds}
    works = await hand.take(3)
    data = {key: content(kind, 1) if kind in TABLE else {} for key, kind in keys.items()}
    said = await hand.write([settlement(w, Succeeded(data=data[w.key])) for w in works])
    assert said == dict.fromkeys(keys, "settled")
    for table in TABLE.values():
        assert await connection.fetchval(f"SELECT count(*) FROM content.content_{table}") == 1


# --------------------------------------------------------------------------- without pgvector


async def without_embeddings(dsn: str) -> None:
    await migrate(dsn)
    await run(
        dsn,
        sql_file("ebook", "schema.sql"),
        sql_file("ebook", "sample.sql"),
        "DROP TABLE IF EXISTS content.content_embeddings",
    )
    await attach(dsn, maps.load("ebook"))


async def unserved(store: Store) -> dict[str, dict[str, str]]:
    return {source.name: source.unserved for source in await store.sources()}


async def test_without_pgvector_all_else_works_and_the_reason_is_named(
    clone_database: CloneDatabase, connect: Connect, open_store: OpenStore
) -> None:
    dsn = await clone_database("ebook-without-embeddings", without_embeddings)
    connection, store = await connect(dsn), await open_store(dsn)
    reason = "table content.content_embeddings does not exist here"
    assert await unserved(store) == {
        "ai_generations": {},
        "background_jobs": {"background:embed_content": reason},
    }
    served = ["openai", "background:content_statistics"]
    hand = await Hand.hire(store, served)
    (waits,) = await add_background(connection, kind="embed_content")
    (counted,) = await add_background(connection, kind="content_statistics")
    (written,) = await add_texts(connection)
    works = {w.key: w for w in await hand.take(3)}
    assert set(works) == {counted, written}
    assert await hand.write(
        [
            settlement(works[counted], Succeeded(data=content("content_statistics", 1))),
            settlement(works[written]),
        ]
    ) == {counted: "settled", written: "settled"}
    assert (await queued(connection))[waits]["state"] == "ready"

    await connection.execute("CREATE TABLE content.content_embeddings (id uuid)")
    assert await refresh_unserved(store, maps.load("ebook")) == {}
    assert (await unserved(store))["background_jobs"] == {}
