"""Texts by template through the whole engine: one generation per job, one use counted."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from jobs.contract import Failed, Job, Outcome, Succeeded
from jobs.registry import load
from tests.database.settling import Desk, settlement
from tests.database.support import Connect, Hand, OpenStore, Work, add, add_texts, queued
from worker.transitions import Settlement, settle

TEMPLATE = "e7000000-0000-4000-8000-000000000001"
MODEL = "e2000000-0000-4000-8000-000000000001"
BOOK, OTHER_BOOK = (f"e5000000-0000-4000-8000-00000000000{n}" for n in (1, 2))
CHAPTER = "e6000000-0000-4000-8000-000000000001"


def user(number: int) -> str:
    return f"e0000000-0000-4000-8000-{number:012}"


async def ask(connection: Any, **payload: Any) -> str:
    given = {"template_id": TEMPLATE, "user_id": user(2), "variables": {"subject": "tea"}}
    (key,) = await add(
        connection,
        "system.background_jobs",
        job_type="generate_from_template",
        payload=json.dumps(given | payload),
    )
    return key


async def outcome(work: Work) -> Outcome:
    """The real handler's, of what the real input rule read."""
    started, claimed = work.started, work.claimed
    kind = load().get(started.kind)
    assert kind is not None
    job = Job(work.source, work.key, started.kind, claimed.lane, 1, 0, 3, None, started.input)
    return await kind.handler(job, None)  # type: ignore[arg-type]


async def settled(work: Work) -> Settlement:
    said = await outcome(work)
    assert isinstance(said, Succeeded), said
    return settlement(work, said)


async def generations(connection: Any) -> dict[str, Any]:
    rows = await connection.fetch("SELECT * FROM ai_processing.ai_generations")
    return {str(row["id"]): row for row in rows}


async def uses(connection: Any, template: str = TEMPLATE) -> int:
    return int(
        await connection.fetchval(
            "SELECT usage_count FROM ai_processing.prompt_templates WHERE id = $1", template
        )
    )


async def test_a_job_becomes_a_generation_that_is_queued_in_the_same_commit(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    hand = await Hand.hire(await open_store(ebook))
    key = await ask(connection, chapterId=CHAPTER, max_tokens=40)
    (work,) = await hand.take()
    assert (await generations(connection), await uses(connection)) == ({}, 0)
    assert await hand.write([await settled(work)]) == {key: "settled"}

    row = (await generations(connection))[key]
    assert row["prompt"] == "Write a short passage about tea."
    assert row["system_prompt"] == "You write in a plain voice."
    assert (float(row["temperature"]), row["max_tokens"]) == (0.9, 40)
    assert (str(row["model_id"]), str(row["user_id"])) == (MODEL, user(2))
    assert (str(row["chapter_id"]), str(row["project_id"])) == (CHAPTER, BOOK)
    assert (row["status"], await uses(connection)) == ("pending", 1)
    waiting = (await queued(connection))[key]
    assert (waiting["source_name"], waiting["state"]) == ("ai_generations", "ready")
    (text,) = await hand.take()
    assert (text.key, text.started.input["prompt"]) == (key, row["prompt"])


async def test_a_repeat_after_a_crash_makes_and_counts_nothing_more(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    hand = await Hand.hire(store)
    key = await ask(connection)
    (work,) = await hand.take()
    made = await settled(work)
    await hand.write([made])
    assert await hand.write([made]) != {key: "settled"}  # its answer was lost, and it is sent again
    (text,) = await hand.take()  # which has the same key, in another table
    await hand.write([settlement(text)])
    # Someone makes the job pending again: its text is there already.
    await connection.execute(
        "UPDATE system.background_jobs SET status = 'pending' WHERE id = $1", key
    )
    (again,) = await hand.take(2)
    assert await hand.write([await settled(again)]) == {key: "settled"}
    assert (len(await generations(connection)), await uses(connection)) == (1, 1)
    assert await queued(connection) == {}


async def test_many_workers_count_every_use_of_two_templates(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    second = str(uuid4())
    await connection.execute(
        "INSERT INTO ai_processing.prompt_templates"
        " SELECT (jsonb_populate_record(t, jsonb_build_object('id', $1::text))).*"
        " FROM ai_processing.prompt_templates t",
        second,
    )
    for n in range(40):
        await ask(connection, template_id=(TEMPLATE, second)[n % 2])
    stores = [await open_store(ebook) for _ in range(4)]
    desks = [Desk(store, batch=3) for store in stores]
    hand = await Hand.hire(stores[0])
    made = [await settled(work) for work in await hand.take(40)]
    for n, one in enumerate(made):
        desks[n % 4].put(one)
    async with asyncio.timeout(60):
        await asyncio.gather(*[desk.until_empty() for desk in desks])
    assert (await uses(connection), await uses(connection, second)) == (20, 20)
    assert len(await generations(connection)) == 40


@pytest.mark.parametrize(
    ("public", "author", "asker", "allowed"),
    [
        (True, 3, 2, True),
        (False, 3, 3, True),
        (False, 3, 2, False),
        (None, 3, 2, False),
        (False, None, 2, False),
        (True, None, 2, True),
    ],
)
async def test_a_private_template_is_its_authors(
    public: bool | None,
    author: int | None,
    asker: int,
    *,
    allowed: bool,
    ebook: str,
    connect: Connect,
    open_store: OpenStore,
) -> None:
    connection = await connect(ebook)
    await connection.execute(
        "UPDATE ai_processing.prompt_templates SET is_public = $1, created_by = $2",
        public,
        user(author) if author else None,
    )
    hand = await Hand.hire(await open_store(ebook))
    await ask(connection, user_id=user(asker))
    (work,) = await hand.take()
    assert isinstance(await outcome(work), Succeeded if allowed else Failed)


async def test_a_failure_makes_nothing_and_says_why(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    hand = await Hand.hire(await open_store(ebook))
    good, bad = await ask(connection), await ask(connection, variables={})
    works = {work.key: work for work in await hand.take(2)}
    said = await outcome(works[bad])
    refusal = settle(
        said,
        works[bad].as_try(),
        policy=load().get("text").retry,  # type: ignore[union-attr]
        max_yields=9,
        chance=0.0,
        duration_ms=1,
    )
    await hand.write([await settled(works[good]), refusal])
    assert (list(await generations(connection)), await uses(connection)) == ([good], 1)
    row = await connection.fetchrow("SELECT * FROM system.background_jobs WHERE id = $1", bad)
    assert row["status"] == "failed"
    assert row["error_message"] == "payload.variables: subject must be given"


async def test_a_chapter_that_is_gone_by_then_fails_its_job_alone(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    hand, desk = await Hand.hire(store), Desk(store)
    good, bad = await ask(connection), await ask(connection, chapter_id=CHAPTER)
    made = [await settled(work) for work in await hand.take(2)]
    await connection.execute("DELETE FROM content.chapters WHERE id = $1", CHAPTER)
    await desk.step(*made)
    assert list(await generations(connection)) == [good]
    row = await connection.fetchrow("SELECT * FROM system.background_jobs WHERE id = $1", bad)
    assert (row["status"], "chapter_id_fkey" in row["error_message"]) == ("failed", True)


async def test_odd_payloads_start_and_are_refused(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    hand = await Hand.hire(await open_store(ebook))
    odd: list[Any] = [
        [],
        "x",
        None,
        {"template_id": [TEMPLATE]},
        {"TemplateId": "x", "userId": {}},
        {"template_id": TEMPLATE, "user_id": user(2), "chapter_id": "one"},
        {"template_id": TEMPLATE, "user_id": user(2), "model_id": str(uuid4())},
        {"template_id": TEMPLATE, "user_id": str(uuid4())},
    ]
    for payload in odd:
        await add(
            connection,
            "system.background_jobs",
            job_type="generate_from_template",
            payload=json.dumps(payload),
        )
    works = await hand.take(len(odd))
    assert len(works) == len(odd)
    for work in works:
        assert isinstance(await outcome(work), Failed)


# --------------------------------------------------------------------------- replacing a chapter


@pytest.mark.parametrize(
    ("payload", "book", "asked"),
    [
        ({}, "{}", None),
        ({"replace_content": True}, "{}", True),
        ({"ReplaceContent": True}, "{}", True),
        ({"replace_content": "yes"}, "{}", None),
        ({}, '{"replace_content": true}', True),
        ({"replace_content": False}, '{"replace_content": true}', False),
        ({}, '{"replace_content": "true"}', None),
        ({}, "[]", None),
    ],
)
async def test_a_producer_asks_for_a_chapters_text_to_be_replaced(
    payload: dict[str, Any],
    book: str,
    *,
    asked: bool | None,
    ebook: str,
    connect: Connect,
    open_store: OpenStore,
) -> None:
    connection = await connect(ebook)
    await connection.execute(
        "UPDATE content.projects SET ai_configuration = $1 WHERE id = $2", book, BOOK
    )
    hand = await Hand.hire(await open_store(ebook))
    await ask(connection, chapter_id=CHAPTER, **payload)
    (work,) = await hand.take()
    await hand.write([await settled(work)])
    (text,) = await hand.take()
    assert text.started.input["replace_content"] is asked


async def test_a_book_may_ask_for_all_of_its_generations(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(ebook)
    await connection.execute(
        """UPDATE content.projects SET ai_configuration = '{"replace_content": true}'"""
        " WHERE id = $1",
        OTHER_BOOK,
    )
    hand = await Hand.hire(await open_store(ebook))
    await add_texts(connection, chapter_id=CHAPTER)
    await add_texts(connection, chapter_id="e6000000-0000-4000-8000-000000000005")
    works = await hand.take(2)
    assert [work.started.input["replace_content"] for work in works] == [None, True]
