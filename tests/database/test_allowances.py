"""What customers may use: reserved before the first payment of a run, spent or given back at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import Failure, FailureKind, Succeeded
from jobs.providers.journal import NotAllowed, NotNow, Submission
from tests.database.journaling import intend, journal_of, ledger_rows
from tests.database.platform_samples import CloneDatabase, run, subscribe, user
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    Work,
    add,
    add_texts,
    add_videos,
    fell_silent,
    has_lived,
    new_keys,
    set_status,
)
from worker import maps
from worker.ledger import ClaimJournal, Lease, Ledger
from worker.store import Store
from worker.store.attaching import attach, detach
from worker.store.migrations import migrate

CREDITS = Path(__file__).parent / "data" / "credits"
SUCCESS = Succeeded(text="done")


async def build(dsn: str) -> None:
    await migrate(dsn)
    await run(dsn, (CREDITS / "schema.sql").read_text(encoding="utf-8"))
    await attach(dsn, maps.load(str(CREDITS / "map.toml")))


@pytest.fixture
async def credits(clone_database: CloneDatabase) -> str:
    """A platform that counts its customers' credits itself."""
    return await clone_database("credits", build)


# --------------------------------------------------------------------------- what tests ask and do


async def asked(store: Store, hand: Hand, works: Sequence[Work]) -> list[Submission | Exception]:
    """All of them ask at once."""
    ledger = Ledger(store, Lease(30))
    journals = [
        ClaimJournal(ledger, queue_id=w.queue_id, token=w.token, worker=hand.id) for w in works
    ]
    made = await asyncio.gather(*[intend(j) for j in journals], return_exceptions=True)
    for one in made:
        assert isinstance(one, Submission | NotAllowed), one
    return made  # type: ignore[return-value]


def passed(made: Sequence[Submission | Exception]) -> list[bool]:
    return [isinstance(one, Submission) for one in made]


async def held(connection: Any) -> list[tuple[str, int, Decimal]]:
    rows = await connection.fetch("SELECT * FROM rowmill.allowances ORDER BY row_key, run")
    return [(row["row_key"], row["run"], row["amount"]) for row in rows]


async def of_free_user(connection: Any, store: Store, count: int) -> tuple[Hand, list[Work]]:
    """Videos of a customer without a subscription: five a month."""
    hand = await Hand.hire(store)
    await add_videos(connection, count, of=1)
    return hand, await hand.take(count)


async def customer(connection: Any, *pots: int, days: Sequence[int] = ()) -> str:
    """With credits that expire in that many days; a NULL where there is no number of days."""
    (key,) = await add(connection, "credits.users")
    for number, amount in enumerate(pots):
        expires = None
        if number < len(days):
            expires = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=days[number])
        await connection.execute(
            "INSERT INTO credits.usage_credits (user_id, credit_type, amount, source, expires_at)"
            " VALUES ($1, 'VideoGeneration', $2, 'Purchase', $3)",
            key,
            amount,
            expires,
        )
    return key


async def used(connection: Any, owner: str) -> list[int]:
    """By expiry."""
    rows = await connection.fetch(
        "SELECT used_amount FROM credits.usage_credits WHERE user_id = $1"
        " ORDER BY expires_at NULLS LAST, id",
        owner,
    )
    return [row["used_amount"] for row in rows]


async def renders(
    connection: Any, store: Store, owner: str, count: int = 1
) -> tuple[Hand, list[Work]]:
    hand = await Hand.hire(store)
    await add(connection, "credits.renders", count, user_id=owner)
    return hand, await hand.take(count)


async def set_state(connection: Any, key: str, state: str) -> None:
    await connection.execute("UPDATE credits.renders SET state = $2 WHERE id = $1", key, state)


# --------------------------------------------------------------------------- plans


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
    hand = await Hand.hire(stores[0])
    for owner in (1, 2, 3):
        await add_videos(connection, 20, of=owner)
    works = await hand.take(60)
    ledgers = [Ledger(store, Lease(30)) for store in stores]
    made = await asyncio.gather(
        *[
            intend(
                ClaimJournal(
                    ledgers[n % 4], queue_id=work.queue_id, token=work.token, worker=hand.id
                )
            )
            for n, work in enumerate(works)
        ],
        return_exceptions=True,
    )
    assert sorted(type(m).__name__ for m in made) == ["NotAllowed"] * 39 + ["Submission"] * 21
    by_tenant = "SELECT DISTINCT count(*) FROM rowmill.allowances GROUP BY tenant"
    assert [row[0] for row in await connection.fetch(by_tenant)] == [7]
    assert len(await ledger_rows(connection)) == 21


async def test_the_plan_is_the_active_subscriptions_and_else_the_free_one(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    plan = "UPDATE subscription_plans SET max_videos_per_month = $2 WHERE id = $1"
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
        await connection.execute("SELECT pg_sleep(0.002)")
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


# --------------------------------------------------------------------------- one run, one reservation


async def test_steps_tries_and_crashes_of_a_run_reserve_once(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(credits), await open_store(credits)
    owner = await customer(connection, 1)
    hand, (work,) = await renders(connection, store, owner)
    journal = journal_of(store, work, hand)
    first = await intend(journal)
    assert (await intend(journal, step="second")).fresh
    await journal.failed(first.id, Failure(FailureKind.UNKNOWN, "broke"), cost_cents=Decimal(0))
    await hand.retry([work])
    (work,) = await hand.take()
    assert (await intend(journal_of(store, work, hand))).fresh  # the second try
    # Its worker dies; another one takes it over, and yields, and takes it again.
    other = await Hand.hire(store)
    await fell_silent(connection, hand)
    await has_lived(connection, other)
    assert await store.rescue(other.id) == 1
    for _ in range(2):
        (work,) = await other.take()
        assert not (await intend(journal_of(store, work, other))).fresh
        await other.yield_([work])
        await connection.execute("UPDATE rowmill.queue SET state = 'ready'")
    (work,) = await other.take()
    assert await held(connection) == [(work.key, 1, 1)]
    assert await used(connection, owner) == [1]
    assert await other.settle([work], lambda _: SUCCESS) == {work.key: "settled"}
    assert await held(connection) == []
    assert await used(connection, owner) == [1]


async def test_new_work_of_a_finished_row_reserves_anew(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(credits), await open_store(credits)
    owner = await customer(connection, 2)
    hand, (work,) = await renders(connection, store, owner)
    for number in (1, 2, 3):
        made = await asked(store, hand, [work])
        assert passed(made) == [number < 3]
        if number < 3:
            await journal_of(store, work, hand).finished(
                made[0].id, result={}, cost_cents=Decimal(1)
            )
            await hand.settle([work], lambda _: SUCCESS)
            await set_state(connection, work.key, "new")
            (work,) = await hand.take()
            assert work.claimed.run == number + 1
    assert await used(connection, owner) == [2]


async def test_a_lost_answer_asked_for_again_takes_no_second_credit(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(credits)
    stores = [await open_store(credits) for _ in range(2)]
    owner = await customer(connection, 2)
    hand, (work,) = await renders(connection, stores[0], owner)
    entry = {
        "queue_id": work.queue_id,
        "token": work.token,
        "worker": hand.id,
        "step": "main",
        "provider": "replicate",
        "account": "acct",
        "model": "m",
        "estimate_cents": "1",
        "fingerprint": "f",
        "nonce": 7,
    }
    answers = await asyncio.gather(*[store.intend([entry]) for store in stores for _ in range(3)])
    assert {answer[0]["verdict"] for answer in answers} == {"fresh"}
    assert await used(connection, owner) == [1]


# --------------------------------------------------------------------------- credits


async def test_credits_that_expire_first_go_first_and_never_below_zero(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(credits)
    stores = [await open_store(credits) for _ in range(4)]
    owner = await customer(connection, 4, 3, 2, 9, days=(30, 10, 20, -1))
    rich = await customer(connection, 50)
    hand, works = await renders(connection, stores[0], owner, 20)
    await add(connection, "credits.renders", 20, user_id=rich)
    works += await hand.take(20)
    assert passed(await asked(stores[0], hand, works[:4])) == [True] * 4
    assert await used(connection, owner) == [0, 3, 1, 0]  # none that has expired
    ledgers = [Ledger(store, Lease(30)) for store in stores]
    made = await asyncio.gather(
        *[
            intend(
                ClaimJournal(
                    ledgers[n % 4], queue_id=work.queue_id, token=work.token, worker=hand.id
                )
            )
            for n, work in enumerate(works[4:])
        ],
        return_exceptions=True,
    )
    assert sorted(type(m).__name__ for m in made) == ["NotAllowed"] * 11 + ["Submission"] * 25
    assert await used(connection, owner) == [0, 3, 2, 4]
    assert await used(connection, rich) == [20]


async def test_failure_and_cancel_give_back_and_success_spends(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(credits), await open_store(credits)
    owner = await customer(connection, 2, 2, days=(1, 2))
    hand, works = await renders(connection, store, owner, 4)
    assert passed(await asked(store, hand, works)) == [True] * 4
    assert await used(connection, owner) == [2, 2]
    await hand.settle(works[:1], lambda _: SUCCESS)
    assert await used(connection, owner) == [2, 2]
    await hand.fail(works[1:2])
    assert sum(await used(connection, owner)) == 3
    await hand.cancel(works[2:3])
    assert sum(await used(connection, owner)) == 2
    await hand.hold(works[3:])
    assert sum(await used(connection, owner)) == 2
    assert await hand.fail(works[1:2]) == {works[1].key: "lost"}  # a repeat gives back nothing
    assert [key for key, _, _ in await held(connection)] == [works[3].key]
    assert sum(await used(connection, owner)) == 2


async def test_what_left_the_queue_by_itself_is_given_back_once(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(credits), await open_store(credits)
    owner = await customer(connection, 5)
    hand, works = await renders(connection, store, owner, 5)
    assert passed(await asked(store, hand, works)) == [True] * 5
    await set_state(connection, works[0].key, "cancelled")
    await connection.execute("DELETE FROM credits.renders WHERE id = $1", works[1].key)
    await set_state(connection, works[2].key, "done")  # by someone else: it was delivered
    stores = [await open_store(credits) for _ in range(3)]
    found = await asyncio.gather(*[one.reclaim("renders") for one in stores])
    assert sum(found) == 3
    assert await used(connection, owner) == [3]
    assert len(await held(connection)) == 2
    await connection.execute("TRUNCATE credits.renders")
    assert await store.reclaim("renders") == 2
    assert await used(connection, owner) == [1]


async def test_what_is_cancelled_has_room_for_the_next_at_once(
    credits: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Without waiting for maintenance: a customer who cancels one starts another."""
    connection, store = await connect(credits), await open_store(credits)
    owner = await customer(connection, 1)
    hand, works = await renders(connection, store, owner, 2)
    assert passed(await asked(store, hand, works)) == [True, False]
    await set_state(connection, works[0].key, "cancelled")
    assert passed(await asked(store, hand, works[1:])) == [True]
    assert await used(connection, owner) == [1]

    connection, store = await connect(photomemory), await open_store(photomemory)
    hand, works = await of_free_user(connection, store, 6)
    assert passed(await asked(store, hand, works)) == [True] * 5 + [False]
    await set_status(connection, works[0].key, "cancelled")
    assert passed(await asked(store, hand, works[5:])) == [True]


async def test_a_job_cancelled_and_queued_again_pays_for_its_place_again(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    """Its call goes on in the same run; but what it held may be someone else's by now."""
    connection, store = await connect(credits), await open_store(credits)
    owner = await customer(connection, 2)
    hand, works = await renders(connection, store, owner)
    (paid,) = await asked(store, hand, works)
    await set_state(connection, works[0].key, "cancelled")
    assert await store.reclaim("renders") == 1
    assert await used(connection, owner) == [0]
    await set_state(connection, works[0].key, "new")
    (work,) = await hand.take()
    (again,) = await asked(store, hand, [work])
    assert (again.id, work.claimed.run) == (paid.id, 1)
    assert await used(connection, owner) == [1]
    # Not reclaimed in between: it still holds its own.
    await set_state(connection, work.key, "cancelled")
    await set_state(connection, work.key, "new")
    assert await store.reclaim("renders") == 0
    (work,) = await hand.take()
    assert passed(await asked(store, hand, [work])) == [True]
    assert await used(connection, owner) == [1]


async def test_what_was_paid_is_delivered_though_nothing_is_left(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(credits), await open_store(credits)
    owner = await customer(connection, 1)
    hand, (late,) = await renders(connection, store, owner)
    (paid,) = await asked(store, hand, [late])
    await hand.fail([late])  # its call goes on at the provider
    await add(connection, "credits.renders", user_id=owner)
    (other,) = await hand.take()
    assert passed(await asked(store, hand, [other])) == [True]
    await journal_of(store, late, hand).finished(paid.id, result={}, cost_cents=Decimal(1))
    await store.value("SELECT rowmill.retry_renders($1)", late.key)
    (late,) = await hand.take()
    (again,) = await asked(store, hand, [late])
    assert (again.id, again.fresh) == (paid.id, False)
    await hand.settle([late, other], lambda _: SUCCESS)
    assert await used(connection, owner) == [1]


# --------------------------------------------------------------------------- trouble


async def test_credits_that_someone_holds_delay_only_their_customer(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, holder = await connect(credits), await connect(credits)
    store = await open_store(credits)
    owner, free = await customer(connection, 5), await customer(connection, 5)
    hand, waits = await renders(connection, store, owner)
    await add(connection, "credits.renders", user_id=free)
    goes = await hand.take()
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("UPDATE credits.usage_credits SET used_amount = 5 WHERE user_id = $1", owner)
    ledger = Ledger(store, Lease(30))
    journals = [
        ClaimJournal(ledger, queue_id=w.queue_id, token=w.token, worker=hand.id)
        for w in (*waits, *goes)
    ]
    waiting = asyncio.create_task(intend(journals[0]))
    assert (await intend(journals[1])).fresh
    assert not waiting.done()
    await transaction.commit()
    with pytest.raises(NotAllowed, match="no video credits are left"):
        await waiting


async def test_a_refused_job_takes_nothing_from_a_budget(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(credits), await open_store(credits)
    await connection.execute("INSERT INTO rowmill.budgets (period, limit_cents) VALUES ('day', 25)")
    poor, rich = await customer(connection), await customer(connection, 5)
    hand, works = await renders(connection, store, poor, 2)
    await add(connection, "credits.renders", 3, user_id=rich)
    works += await hand.take(3)
    ledger = Ledger(store, Lease(30))
    journals = [
        ClaimJournal(ledger, queue_id=w.queue_id, token=w.token, worker=hand.id) for w in works
    ]
    made = await asyncio.gather(*[intend(j) for j in journals], return_exceptions=True)
    assert [type(m) for m in made] == [NotAllowed] * 2 + [NotNow] * 3
    assert made[2].after <= 1  # the room was taken by those who were refused
    spent = "SELECT used_cents FROM rowmill.budgets"
    assert await connection.fetchval(spent) == 0
    made = await asyncio.gather(*[intend(j) for j in journals[2:]], return_exceptions=True)
    assert [type(m) for m in made] == [Submission] * 2 + [NotNow]
    assert made[2].after > 1
    assert await connection.fetchval(spent) == 25
    assert await used(connection, rich) == [2]  # who is over budget holds nothing meanwhile


async def test_settling_and_asking_at_once_leave_no_leak(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    """Four workers, three customers, every end: what is used is what succeeded."""
    connection = await connect(credits)
    owners = [await customer(connection, 3, 3, 200) for _ in range(3)]
    for owner in owners:
        await add(connection, "credits.renders", 40, user_id=owner)
    ends = ("succeed", "fail", "cancel", "drop")

    async def work(number: int) -> int:
        store = await open_store(credits)
        hand, done = await Hand.hire(store), 0
        own = await connect(credits)
        while works := await hand.take(5):
            assert all(passed(await asked(store, hand, works)))
            for place, one in enumerate(works):
                end = ends[(place + number) % 4]
                if end == "drop":
                    await own.execute("DELETE FROM credits.renders WHERE id = $1", one.key)
                    continue
                decide = {
                    "succeed": lambda: hand.settle([one], lambda _: SUCCESS),  # noqa: B023 - at once
                    "fail": lambda: hand.fail([one]),  # noqa: B023
                    "cancel": lambda: hand.cancel([one]),  # noqa: B023
                }[end]
                assert (await decide()) == {one.key: "settled"}
                done += end == "succeed"
        return done

    done = sum(await asyncio.gather(*[work(n) for n in range(4)]))
    await (await open_store(credits)).reclaim("renders")
    assert await held(connection) == []
    assert sum([sum(await used(connection, owner)) for owner in owners]) == done
    counted = "SELECT count(*) FROM credits.renders WHERE state = 'done'"
    assert await connection.fetchval(counted) == done


async def test_a_rule_that_does_not_answer_fails_its_job_alone(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(credits), await open_store(credits)
    await connection.execute("INSERT INTO credits.users VALUES ($1)", new_keys(1)[0])
    owner, odd = await customer(connection, 5), await customer(connection, 5)
    hand, works = await renders(connection, store, odd)
    await add(connection, "credits.renders", user_id=owner)
    works += await hand.take()
    # Corrupt credits: they break the table's own CHECK as soon as they are touched.
    await connection.execute(
        "ALTER TABLE credits.usage_credits DROP CONSTRAINT usage_credits_check;"
        "ALTER TABLE credits.usage_credits ADD CONSTRAINT few CHECK (used_amount < 1 OR amount < 5)"
        " NOT VALID"
    )
    await connection.execute(
        "UPDATE credits.usage_credits SET amount = 4 WHERE user_id = $1", owner
    )
    ledger = Ledger(store, Lease(30))
    journals = [
        ClaimJournal(ledger, queue_id=w.queue_id, token=w.token, worker=hand.id) for w in works
    ]
    made = await asyncio.gather(*[intend(j) for j in journals], return_exceptions=True)
    assert [type(m).__name__ for m in made] == ["Refused", "Submission"]
    assert "few" in str(made[0])


# --------------------------------------------------------------------------- coming and going


async def test_detaching_gives_all_back_and_leaves_nothing(
    credits: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(credits), await open_store(credits)
    owner = await customer(connection, 3)
    hand, works = await renders(connection, store, owner, 3)
    assert passed(await asked(store, hand, works)) == [True] * 3
    await detach(credits, "credits")
    assert await used(connection, owner) == [0]
    assert await held(connection) == []
    functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE '%\\_renders'"
    assert await connection.fetchval(functions) == 0


async def test_a_map_without_the_rule_any_more_gives_all_back(
    credits: str, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    connection, store = await connect(credits), await open_store(credits)
    owner = await customer(connection, 1)
    hand, works = await renders(connection, store, owner, 2)
    assert passed(await asked(store, hand, works)) == [True, False]
    (tmp_path / "map.toml").write_text((CREDITS / "map.toml").read_text())
    await attach(credits, maps.load(str(tmp_path / "map.toml")))
    assert await used(connection, owner) == [0]
    assert passed(await asked(store, hand, works)) == [True, True]
    await hand.settle(works, lambda _: SUCCESS)
    assert await held(connection) == []


def test_a_release_rule_needs_a_reserve_rule(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text((CREDITS / "map.toml").read_text())
    (tmp_path / "renders.release.sql").write_text("SELECT 1;")
    with pytest.raises(maps.MapError, match=r"renders\.release\.sql: it gives back what"):
        maps.load(str(tmp_path / "map.toml"))
