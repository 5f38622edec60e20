"""Customers' allowances: reserved before a run's first payment, spent or given back at its end."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from jobs.contract import Cancelled, Failed, Failure, FailureKind, Outcome
from jobs.providers.journal import NotAllowed, NotNow, Submission
from tests.database.allowing import (
    CREDITS,
    SUCCESS,
    answers,
    asked,
    build_shop,
    customer,
    held,
    of_free_user,
    passed,
    renders,
    set_state,
    used,
    waits_for_a_lock,
)
from tests.database.journaling import intend, journal_of
from tests.database.platform_samples import CloneDatabase
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add,
    failure,
    fell_silent,
    has_lived,
    new_keys,
    set_status,
)
from worker import maps
from worker.ledger import ClaimJournal, Lease, Ledger
from worker.store import Refused
from worker.store.attaching import attach, detach

OUTCOMES: dict[str, Outcome] = {
    "succeed": SUCCESS,
    "fail": Failed(failure()),
    "cancel": Cancelled(),
}


@pytest.fixture
async def shop(clone_database: CloneDatabase) -> str:
    """A platform that counts its customers' credits itself."""
    return await clone_database("credits", build_shop)


# --------------------------------------------------------------------------- one run


async def test_steps_tries_and_crashes_of_a_run_reserve_once(
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(shop), await open_store(shop)
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
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(shop), await open_store(shop)
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
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(shop)
    stores = [await open_store(shop) for _ in range(2)]
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
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection = await connect(shop)
    stores = [await open_store(shop) for _ in range(4)]
    owner = await customer(connection, 4, 3, 2, 9, days=(30, 10, 20, -1))
    rich = await customer(connection, 50)
    hand, works = await renders(connection, stores[0], owner, 20)
    await add(connection, "credits.renders", 20, user_id=rich)
    works += await hand.take(20)
    assert passed(await asked(stores[0], hand, works[:4])) == [True] * 4
    assert await used(connection, owner) == [0, 3, 1, 0]  # none that has expired
    made = await answers(stores, hand, works[4:])
    assert sorted(type(m).__name__ for m in made) == ["NotAllowed"] * 11 + ["Submission"] * 25
    assert await used(connection, owner) == [0, 3, 2, 4]
    assert await used(connection, rich) == [20]


async def test_failure_and_cancel_give_back_and_success_spends(
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(shop), await open_store(shop)
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
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(shop), await open_store(shop)
    owner = await customer(connection, 5)
    hand, works = await renders(connection, store, owner, 5)
    assert passed(await asked(store, hand, works)) == [True] * 5
    await set_state(connection, works[0].key, "cancelled")
    await connection.execute("DELETE FROM credits.renders WHERE id = $1", works[1].key)
    await set_state(connection, works[2].key, "done")  # by someone else: it was delivered
    stores = [await open_store(shop) for _ in range(3)]
    found = await asyncio.gather(*[one.reclaim("renders") for one in stores])
    assert sum(found) == 3
    assert await used(connection, owner) == [3]
    assert len(await held(connection)) == 2
    await connection.execute("TRUNCATE credits.renders")
    assert await store.reclaim("renders") == 2
    assert await used(connection, owner) == [1]


async def test_what_is_cancelled_has_room_for_the_next_at_once(
    shop: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Without waiting for maintenance: a customer who cancels one starts another."""
    connection, store = await connect(shop), await open_store(shop)
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
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    """Its call goes on in the same run; but what it held may be someone else's by now."""
    connection, store = await connect(shop), await open_store(shop)
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


async def test_what_is_just_being_given_back_is_not_held(
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, sweeper = await connect(shop), await connect(shop)
    store = await open_store(shop)
    owner = await customer(connection, 1)
    hand, works = await renders(connection, store, owner)
    assert passed(await asked(store, hand, works)) == [True]
    await set_state(connection, works[0].key, "cancelled")
    transaction = sweeper.transaction()
    await transaction.start()
    assert await sweeper.fetchval("SELECT rowmill.reclaim_renders()") == 1
    await set_state(connection, works[0].key, "new")
    (work,) = await hand.take()
    asking = asyncio.create_task(intend(journal_of(store, work, hand)))
    await waits_for_a_lock(connection, asking)
    await transaction.commit()
    assert not (await asking).fresh
    assert await held(connection) == [(work.key, 1, 1)]
    assert await used(connection, owner) == [1]


async def test_a_row_whose_key_is_changed_keeps_what_it_holds(
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(shop), await open_store(shop)
    owner = await customer(connection, 2)
    hand, (work,) = await renders(connection, store, owner)
    assert passed(await asked(store, hand, [work])) == [True]
    (key,) = new_keys(1)
    await connection.execute("UPDATE credits.renders SET id = $2 WHERE id = $1", work.key, key)
    assert await store.reclaim("renders") == 0
    assert await held(connection) == [(key, 1, 1)]
    (work,) = await hand.take()
    assert passed(await asked(store, hand, [work])) == [True]
    assert await used(connection, owner) == [1]
    assert await hand.fail([work]) == {key: "settled"}
    assert await used(connection, owner) == [0]


async def test_what_was_paid_is_delivered_though_nothing_is_left(
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(shop), await open_store(shop)
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
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, holder = await connect(shop), await connect(shop)
    store = await open_store(shop)
    owner, free = await customer(connection, 5), await customer(connection, 5)
    hand, waits = await renders(connection, store, owner)
    await add(connection, "credits.renders", user_id=free)
    goes = await hand.take()
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute(
        "UPDATE credits.usage_credits SET used_amount = 5 WHERE user_id = $1", owner
    )
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


async def test_credits_that_cannot_be_given_back_now_delay_only_their_customer(
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    """Three of another customer ask in the same statement; a lease later nothing has failed."""
    connection, holder = await connect(shop), await connect(shop)
    store = await open_store(shop)
    owner, free = await customer(connection, 5), await customer(connection, 5)
    hand, works = await renders(connection, store, owner, 2)
    assert passed(await asked(store, hand, works[:1])) == [True]
    await set_state(connection, works[0].key, "cancelled")
    await add(connection, "credits.renders", 3, user_id=free)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute(
        "UPDATE credits.usage_credits SET used_amount = 5 WHERE user_id = $1", owner
    )
    lease = Lease(0.2)
    ledger = Ledger(store, lease)
    journals = [
        ClaimJournal(ledger, queue_id=w.queue_id, token=w.token, worker=hand.id)
        for w in (works[1], *await hand.take(3))
    ]
    waiting, *others = [asyncio.create_task(intend(journal)) for journal in journals]
    assert [made.fresh for made in await asyncio.gather(*others)] == [True] * 3
    while lease.young():
        await store.value("SELECT pg_sleep(0.05)")
    again = await renders(connection, store, free)
    assert passed(await asked(store, *again)) == [True]
    assert not waiting.done()
    assert await used(holder, owner) == [5]
    await transaction.commit()
    assert (await waiting).fresh  # in the room of the cancelled one
    assert [key for key, _, _ in await held(connection) if key == works[0].key] == []
    assert await used(connection, owner) == [5]


async def test_a_refused_job_takes_nothing_from_a_budget(
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(shop), await open_store(shop)
    await connection.execute("INSERT INTO rowmill.budgets (period, limit_cents) VALUES ('day', 25)")
    poor, rich = await customer(connection), await customer(connection, 5)
    hand, works = await renders(connection, store, poor, 2)
    await add(connection, "credits.renders", 3, user_id=rich)
    works += await hand.take(3)
    made = await answers([store], hand, works)
    assert [type(m) for m in made] == [NotAllowed] * 2 + [NotNow] * 3
    assert made[2].after <= 1  # the room was taken by those who were refused
    spent = "SELECT used_cents FROM rowmill.budgets"
    assert await connection.fetchval(spent) == 0
    made = await answers([store], hand, works[2:])
    assert [type(m) for m in made] == [Submission] * 2 + [NotNow]
    assert made[2].after > 1
    assert await connection.fetchval(spent) == 25
    assert await used(connection, rich) == [2]  # who is over budget holds nothing meanwhile


async def test_settling_and_asking_at_once_leave_no_leak(
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    """Four workers, three customers, every end: what is used is what succeeded."""
    connection = await connect(shop)
    owners = [await customer(connection, 3, 3, 200) for _ in range(3)]
    for owner in owners:
        await add(connection, "credits.renders", 40, user_id=owner)
    ends = ("succeed", "fail", "cancel", "drop")

    async def work(number: int) -> int:
        store = await open_store(shop)
        hand, done = await Hand.hire(store), 0
        own = await connect(shop)
        while works := await hand.take(5):
            assert all(passed(await asked(store, hand, works)))
            for place, one in enumerate(works):
                end = ends[(place + number) % 4]
                if end == "drop":
                    await own.execute("DELETE FROM credits.renders WHERE id = $1", one.key)
                    continue
                outcome = OUTCOMES[end]
                said = await hand.settle([one], lambda _, outcome=outcome: outcome)  # type: ignore[misc]
                assert said == {one.key: "settled"}
                done += end == "succeed"
        return done

    done = sum(await asyncio.gather(*[work(n) for n in range(4)]))
    await (await open_store(shop)).reclaim("renders")
    assert await held(connection) == []
    assert sum([sum(await used(connection, owner)) for owner in owners]) == done
    counted = "SELECT count(*) FROM credits.renders WHERE state = 'done'"
    assert await connection.fetchval(counted) == done


@pytest.mark.parametrize(
    "trouble",
    [
        ("WHERE false", "has no answer for"),
        ("WHERE NOT breaks(row_id)", "breaks it"),
    ],
)
async def test_a_rule_in_trouble_fails_its_job_alone(
    trouble: tuple[str, str], shop: str, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    """Nothing is paid by those for whom it doesn't say yes."""
    answer, says = trouble
    connection, store = await connect(shop), await open_store(shop)
    owner = await customer(connection, 5)
    hand, works = await renders(connection, store, owner, 2)
    await connection.execute(
        "CREATE FUNCTION credits.breaks(uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        f" IF $1 = '{works[0].key}' THEN RAISE 'breaks it'; END IF; RETURN false; END $$"
    )
    (tmp_path / "map.toml").write_text((CREDITS / "map.toml").read_text())
    (tmp_path / "renders.reserve.sql").write_text(
        "SELECT row_id AS key, 'ok' AS verdict, NULL AS message, 1 AS amount, NULL::jsonb AS taken"
        f" FROM intent {answer.replace('breaks', 'credits.breaks')}"
        f" OR row_id <> '{works[0].key}' AND NOT credits.breaks(row_id)"
    )
    await attach(shop, maps.load(str(tmp_path / "map.toml")))
    ledger = Ledger(store, Lease(30))
    journals = [
        ClaimJournal(ledger, queue_id=w.queue_id, token=w.token, worker=hand.id) for w in works
    ]
    made = await asyncio.gather(*[intend(j) for j in journals], return_exceptions=True)
    assert [type(m) for m in made] == [Refused, Submission]
    assert says in str(made[0])
    assert [key for key, _, _ in await held(connection)] == [works[1].key]


# --------------------------------------------------------------------------- coming and going


async def test_detaching_gives_all_back_and_leaves_nothing(
    shop: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(shop), await open_store(shop)
    owner = await customer(connection, 3)
    hand, works = await renders(connection, store, owner, 3)
    assert passed(await asked(store, hand, works)) == [True] * 3
    await detach(shop, "credits")
    assert await used(connection, owner) == [0]
    assert await held(connection) == []
    functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE '%\\_renders'"
    assert await connection.fetchval(functions) == 0


async def test_a_map_without_the_rule_any_more_gives_all_back(
    shop: str, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    connection, store = await connect(shop), await open_store(shop)
    owner = await customer(connection, 1)
    hand, works = await renders(connection, store, owner, 2)
    assert passed(await asked(store, hand, works)) == [True, False]
    (tmp_path / "map.toml").write_text((CREDITS / "map.toml").read_text())
    await attach(shop, maps.load(str(tmp_path / "map.toml")))
    assert await used(connection, owner) == [0]
    assert passed(await asked(store, hand, works)) == [True, True]
    await hand.settle(works, lambda _: SUCCESS)
    assert await held(connection) == []


def test_a_release_rule_needs_a_reserve_rule(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text((CREDITS / "map.toml").read_text())
    (tmp_path / "renders.release.sql").write_text("SELECT 1;")
    with pytest.raises(maps.MapError, match=r"renders\.release\.sql: it gives back what"):
        maps.load(str(tmp_path / "map.toml"))


def test_a_reserve_rule_needs_to_know_whose_jobs_they_are(tmp_path: Path) -> None:
    text = (CREDITS / "map.toml").read_text().replace('tenant = { column = "user_id" }\n', "")
    (tmp_path / "map.toml").write_text(text)
    (tmp_path / "renders.reserve.sql").write_text("SELECT 1;")
    with pytest.raises(maps.MapError, match="doesn't say whose jobs these are"):
        maps.load(str(tmp_path / "map.toml"))
    (tmp_path / "renders.tenant.sql").write_text("SELECT 1;")
    assert maps.load(str(tmp_path / "map.toml")).rule("renders", "tenant")
    (tmp_path / "map.toml").write_text((CREDITS / "map.toml").read_text())
    with pytest.raises(maps.MapError, match=r"renders\.tenant\.sql: the map says already"):
        maps.load(str(tmp_path / "map.toml"))
