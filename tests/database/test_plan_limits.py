"""What a customer's plan allows: videos of PhotoMemory, tokens of AI Ebook."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from tests.database.allowing import answers, asked, held, of_free_user, passed, waits_for_a_lock
from tests.database.journaling import intend, journal_of, ledger_rows
from tests.database.platform_samples import subscribe, user
from tests.database.support import Connect, Hand, OpenStore, add_texts, add_videos, set_status

NO_SETTING = "DELETE FROM system_settings WHERE key = 'free_plan_limits'"
"""So that the plan's own row has its limit."""


async def test_what_is_being_made_counts_before_it_is_made(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await of_free_user(connection, store, 8)
    made = await asked(store, hand, works)
    assert passed(made) == [True] * 5 + [False] * 3
    assert str(made[5]) == (
        "the plan's limit is reached: Free Plan, 5 videos a month; 0 made, 0 being made"
    )
    assert len(await ledger_rows(connection)) == len(await held(connection)) == 5
    assert set((await hand.succeed(works[:2])).values()) == {"settled"}
    assert set((await hand.fail(works[2:4])).values()) == {"settled"}
    assert len(await held(connection)) == 1
    again = await asked(store, hand, works[5:])
    assert passed(again) == [True, True, False]
    assert "2 made, 3 being made" in str((await asked(store, hand, works[7:]))[0])


async def test_many_workers_at_once_never_pass_the_limit(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(photomemory)
    stores = [await open_store(photomemory) for _ in range(4)]
    await connection.execute("UPDATE subscription_plans SET max_videos_per_month = 7")
    await connection.execute(NO_SETTING)
    hand = await Hand.hire(stores[0])
    for owner in (1, 2, 3):
        await add_videos(connection, 20, of=owner)
    works = await hand.take(60)
    made = await answers(stores, hand, works)
    assert sorted(type(m).__name__ for m in made) == ["NotAllowed"] * 39 + ["Submission"] * 21
    by_tenant = "SELECT DISTINCT count(*) FROM rowmill.allowances GROUP BY tenant"
    assert [row[0] for row in await connection.fetch(by_tenant)] == [7]
    assert len(await ledger_rows(connection)) == 21


async def test_the_plan_is_the_active_subscriptions_and_else_the_free_one(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    plan = "UPDATE subscription_plans SET max_videos_per_month = $2 WHERE id = $1"
    await connection.execute(NO_SETTING)
    await connection.execute(plan, "free", 1)
    await connection.execute(plan, "pro", 2)
    later, ago = datetime(2099, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    await subscribe(connection, user(1), "pro", until=later)
    await subscribe(connection, user(2), "pro", until=ago)
    await subscribe(connection, user(4), "enterprise", until=later)
    hand = await Hand.hire(store)
    expected = {1: 2, 2: 1, 3: 1, 4: 3}
    for owner, room in expected.items():
        await add_videos(connection, 3, of=owner)
        works = await hand.take(3)
        assert passed(await asked(store, hand, works)) == [n < room for n in range(3)], owner
    await connection.execute(plan, "free", None)
    await add_videos(connection, 3, of=2)
    assert passed(await asked(store, hand, await hand.take(3))) == [True] * 3


async def test_room_that_is_just_being_given_back_is_waited_for(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Or a customer who cancels one video would see the next one fail."""
    connection, sweeper = await connect(photomemory), await connect(photomemory)
    store = await open_store(photomemory)
    hand, works = await of_free_user(connection, store, 6)
    assert passed(await asked(store, hand, works[:5])) == [True] * 5
    await set_status(connection, works[0].key, "cancelled")
    transaction = sweeper.transaction()
    await transaction.start()
    assert await sweeper.fetchval("SELECT rowmill.reclaim_generation_jobs()") == 1
    asking = asyncio.create_task(intend(journal_of(store, works[5], hand)))
    await waits_for_a_lock(connection, asking)
    await transaction.commit()
    assert (await asking).fresh


async def test_only_videos_are_limited(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(connection, 9, of=1, job_type="audio")
    works = await hand.take(9)
    assert passed(await asked(store, hand, works)) == [True] * 9
    await hand.succeed(works)
    await add_videos(connection, 1, of=1)
    assert passed(await asked(store, hand, await hand.take())) == [True]


async def test_what_was_made_in_another_month_is_forgotten(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await of_free_user(connection, store, 5)
    await asked(store, hand, works)
    await hand.succeed(works)
    await add_videos(connection, 1, of=1)
    more = await hand.take()
    assert passed(await asked(store, hand, more)) == [False]
    await connection.execute(
        "UPDATE usage_records SET billing_period = billing_period + interval '1 month'"
    )
    assert passed(await asked(store, hand, more)) == [True]


async def test_included_tokens_are_reserved_as_estimated_and_spent_as_used(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    await connection.execute(
        "UPDATE billing.subscription_plans SET ai_tokens_included = 1000 WHERE name = 'Basic'"
    )
    hand = await Hand.hire(store)
    prompt = "x" * 400
    for tokens in (700, 300, 50, None):  # 800, 400, 150 and 600 with what is asked
        await add_texts(connection, 1, of=2, prompt=prompt, max_tokens=tokens)
    works = await hand.take(4)
    made = await asked(store, hand, works)
    assert passed(made) == [True, False, True, False]  # what doesn't fit leaves its room
    assert str(made[1]) == (
        "the plan's tokens are used up: Basic, 1000 a month; 200 are left, and this needs about 400"
    )
    await hand.succeed([works[0], works[2]])  # twelve tokens each
    assert await held(connection) == []
    assert passed(await asked(store, hand, [works[1], works[3]])) == [True, False]


@pytest.mark.parametrize(
    ("offered", "allowed"), [(None, True), (0, False), (10_000, True), (-1, True)]
)
async def test_without_a_subscription_the_tier_names_the_plan(
    offered: int | None, allowed: bool, ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    hand = await Hand.hire(store)
    await add_texts(connection, 2, of=1)
    works = await hand.take(2)
    assert passed(await asked(store, hand, works[:1])) == [True]  # there is no plan for it
    await connection.execute(
        "INSERT INTO billing.subscription_plans (name, price, ai_tokens_included)"
        " VALUES ('Free', 0, $1)",
        offered,
    )
    assert passed(await asked(store, hand, works[1:])) == [allowed]


async def test_what_would_cost_a_thousand_dollars_is_refused_before_it_is_bought(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    """Its row can't hold such a cost, and a result that can't be written is held for a person."""
    connection, store = await connect(ebook), await open_store(ebook)
    await connection.execute(
        "UPDATE ai_processing.ai_models SET cost_per_output_token = 0.5"
        " WHERE id = 'e2000000-0000-4000-8000-000000000001'"
    )
    hand = await Hand.hire(store)
    for tokens in (1999, 2000, 2**31 - 1, 1):
        await add_texts(connection, 1, of=4, max_tokens=tokens)
    works = await hand.take(4)
    made = await asked(store, hand, works)
    assert passed(made) == [True, False, False, True]
    assert str(made[1]) == (
        "it would cost about 1000 dollars at its model's prices, and a generation must cost less "
        "than 1000"
    )
    await hand.succeed([works[0], works[3]])
