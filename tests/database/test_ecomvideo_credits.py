"""EcomVideo's credits: taken, spent and given back, whatever happens; and times without a zone."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import Cancelled, Failed
from jobs.providers.journal import NotAllowed, Submission
from tests.database.settling import until
from tests.database.shop import (
    SOURCE,
    add_job,
    add_video,
    begin,
    film,
    follow_ups,
    hire,
    job_row,
    may_pay,
    pay,
    set_credits,
    shopper,
    status_of,
    tick,
    used,
    video_row,
)
from tests.database.support import Connect, OpenStore, Work, failure, new_keys, queued
from worker.ledger import ClaimJournal, Lease, Ledger


async def test_a_video_takes_what_its_row_says_of_those_that_expire_first(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 3, 2, 9, 4, days=(None, 10, -1, 20))
    video, work = await begin(connection, hand, generation_cost_credits=5)
    assert await may_pay(store, hand, work)
    # By expiry: one that has expired, 2 of 10 days, 4 of 20 days, 3 for ever.
    assert await used(connection, 2) == [0, 2, 3, 0]
    await pay(store, hand, work, "video")  # the second call of the run is paid for
    assert await used(connection, 2) == [0, 2, 3, 0]
    await hand.settle([work], film)
    assert await used(connection, 2) == [0, 2, 3, 0]
    assert (await video_row(connection, video))["generation_cost_credits"] == 5
    plain, work = await begin(connection, hand)
    assert await may_pay(store, hand, work)
    await hand.settle([work], film)
    assert await used(connection, 2) == [0, 2, 4, 0]
    assert (await video_row(connection, plain))["generation_cost_credits"] == 1


@pytest.mark.parametrize(
    "columns", [{"credit_type": "PremiumFeature"}, {"is_active": False}, {"used_amount": 10}]
)
async def test_credits_that_do_not_count(
    columns: dict[str, Any], ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 10, **columns)
    _, work = await begin(connection, hand)
    with pytest.raises(NotAllowed, match="not enough video credits: 1 needed, 0 left"):
        await pay(store, hand, work)


@pytest.mark.parametrize("end", ["fail", "cancel", "expired", "deleted"])
async def test_what_came_to_nothing_is_given_back_to_where_it_came_from(
    end: str, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 2, 4)
    _, work = await begin(connection, hand, generation_cost_credits=5)
    assert await may_pay(store, hand, work)
    assert await used(connection, 2) == [2, 3]
    if end == "expired":
        await connection.execute(
            "UPDATE public.usage_credits SET expires_at = '2020-01-01' WHERE amount = 2"
        )
    if end == "deleted":
        await connection.execute("DELETE FROM public.background_jobs WHERE id = $1", work.key)
        assert await store.reclaim(SOURCE) == 1
    else:
        outcome = Cancelled() if end == "cancel" else Failed(failure())
        assert await hand.settle([work], lambda _: outcome) == {work.key: "settled"}
    assert await used(connection, 2) == [0, 0]


async def test_one_that_needs_too_much_is_in_nobodys_way(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 3)
    works = [(await begin(connection, hand, generation_cost_credits=n))[1] for n in (2, 5, 1, 1)]
    ledger = Ledger(store, Lease(30))
    made = await asyncio.gather(
        *[_intend(ledger, hand.id, w) for w in works], return_exceptions=True
    )
    assert [type(m) for m in made] == [Submission, NotAllowed, Submission, NotAllowed]
    assert await used(connection, 2) == [3]


async def test_never_below_zero_however_many_ask_at_once(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    """Four workers, real connections, two users; jobs name videos, never users."""
    connection = await connect(ecomvideo)
    stores = [await open_store(ecomvideo) for _ in range(4)]
    hand = await hire(stores[0])
    await set_credits(connection, 2, 3, 2, 4)
    await set_credits(connection, 3, 30)
    works = []
    for n in range(30):
        video = await add_video(connection, 2 + n % 2)
        await add_job(connection, {"videoId": video})
    works = await hand.take(40)
    ledgers = [Ledger(store, Lease(30)) for store in stores]
    made = await asyncio.gather(
        *[_intend(ledgers[n % 4], hand.id, w) for n, w in enumerate(works)], return_exceptions=True
    )
    assert [type(m).__name__ for m in made].count("Submission") == 9 + 15
    assert [type(m).__name__ for m in made].count("NotAllowed") == 6
    assert await used(connection, 2) == [3, 2, 4]
    assert await used(connection, 3) == [15]


async def _intend(ledger: Ledger, worker: int, work: Work) -> Submission:
    journal = ClaimJournal(ledger, queue_id=work.queue_id, token=work.token, worker=worker)
    return await journal.intend(
        "image",
        provider="freepik",
        account="acct",
        model="m",
        estimate_cents=Decimal(1),
        fingerprint="f",
    )


async def test_whose_job_it_is_stays_known_while_it_runs(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    """A change of its priority comes by the trigger, which knows no owner."""
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    _, work = await begin(connection, hand, 3)
    await connection.execute(
        "UPDATE public.background_jobs SET priority = 7 WHERE id = $1", work.key
    )
    row = (await queued(connection))[work.key]
    assert (row["rank"], row["tenant"]) == (17, shopper(3))


async def test_a_job_of_nobody_is_not_paid_for(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await add_job(connection, {})
    (work,) = await hand.take()
    with pytest.raises(NotAllowed, match="nobody can be charged"):
        await pay(store, hand, work)


async def test_an_operators_cancel_gives_credits_back_and_a_retry_takes_them_again(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 4)
    video, work = await begin(connection, hand, generation_cost_credits=3)
    assert await may_pay(store, hand, work)
    # Its price changes meanwhile: what it took counts.
    await connection.execute("UPDATE public.videos SET generation_cost_credits = 4")
    assert await store.value(f"SELECT rowmill.cancel_{SOURCE}($1)", work.key) == "cancelled"
    assert await store.reclaim(SOURCE) == 1
    assert await used(connection, 2) == [0]
    await connection.execute("UPDATE public.videos SET status = 'Pending' WHERE id = $1", video)
    assert await store.value(f"SELECT rowmill.retry_{SOURCE}($1)", work.key) == "requeued"
    (again,) = await hand.take()
    assert await may_pay(store, hand, again)
    await connection.execute("UPDATE public.videos SET generation_cost_credits = 9")
    assert await used(connection, 2) == [4]
    await hand.settle([again], film)
    assert await used(connection, 2) == [4]
    assert (await video_row(connection, video))["generation_cost_credits"] == 4


async def test_what_the_application_makes_pending_again_is_charged_once_for_each_run(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 9)
    video, work = await begin(connection, hand, generation_cost_credits=2)
    again = "UPDATE public.background_jobs SET status = 'Pending' WHERE id = $1"
    assert await may_pay(store, hand, work)
    await connection.execute(again, work.key)  # while it runs: the same run goes on
    (work,) = await hand.take()
    assert await may_pay(store, hand, work)
    assert await used(connection, 2) == [2]
    await hand.fail([work])
    assert await used(connection, 2) == [0]
    await connection.execute(
        "UPDATE rowmill.submissions SET state = 'failed', cost_cents = 0, ended_at = now()"
    )
    await connection.execute(again, work.key)
    (work,) = await hand.take()
    assert await may_pay(store, hand, work)
    await hand.settle([work], film)
    assert await used(connection, 2) == [2]
    assert await status_of(connection, video) == "Completed"
    kinds = [
        (kind, payload.get("type"))
        for kind, payload in await follow_ups(connection, but=[work.key])
    ]
    assert kinds == [
        ("generate_thumbnail", None),
        ("send_notification", "VideoFailed"),
        ("send_notification", "VideoCompleted"),
    ]
    row = await job_row(connection, work.key)
    assert row["attempts"] <= row["max_attempts"]


async def test_credits_that_are_switched_off_just_now_are_not_taken(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    """Whoever locks a row sees it as it is by then, not as it was when it was looked up."""
    connection, holder = await connect(ecomvideo), await connect(ecomvideo)
    store = await open_store(ecomvideo)
    hand = await hire(store)
    await set_credits(connection, 2, 3)
    _, work = await begin(connection, hand)
    # The statement has its snapshot when it waits here; the row changes; then it goes on.
    await connection.execute(
        """
        CREATE FUNCTION public.slow(p_id uuid) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
        BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN true; END $$;
        """
    )
    rule = await connection.fetchval(
        "SELECT pg_get_functiondef('rowmill.reserve_video_jobs(bigint[])'::regprocedure)"
    )
    await connection.execute(
        rule.replace(
            "locked AS MATERIALIZED",
            "halt AS MATERIALIZED (SELECT id, public.slow(id) AS ok"
            " FROM usable), locked AS MATERIALIZED",
        ).replace("SELECT usable.id FROM usable)", "SELECT halt.id FROM halt WHERE halt.ok)", 1)
    )
    await holder.execute("SELECT pg_advisory_lock(4711)")
    asked = asyncio.create_task(may_pay(store, hand, work))
    await until(
        connection,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'advisory')",
    )
    await holder.execute("UPDATE public.usage_credits SET is_active = false")
    await holder.execute("SELECT pg_advisory_unlock(4711)")
    assert await asked is False
    assert await used(connection, 2) == [0]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
async def test_whatever_zone_the_server_has_all_is_written_and_read_as_utc(
    zone: str, ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    admin = await connect(ecomvideo)
    database = await admin.fetchval("SELECT quote_ident(current_database())")
    await admin.execute(f"ALTER DATABASE {database} SET timezone = '{zone}'")
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    assert await connection.fetchval("SHOW timezone") == zone
    assert await store.value("SHOW timezone") == zone
    hand = await hire(store)
    await set_credits(connection, 2, 1, 1, days=(-1, 1))
    utc = "(now() AT TIME ZONE 'UTC')"
    await connection.execute(
        f"UPDATE public.usage_credits SET expires_at = {utc} + interval '1 hour'"
        f" * sign(extract(epoch FROM expires_at - {utc}))"
    )
    soon, later = [await add_video(connection, 2) for _ in range(2)]
    keys = []
    for video, minutes in ((soon, -1), (later, 1)):
        job = new_keys(1)[0]
        keys.append(job)
        await connection.execute(
            "INSERT INTO public.background_jobs (id, job_type, job_data, scheduled_at, created_at)"
            f" VALUES ($1, 'GenerateVideo', $2, {utc} + interval '1 min' * $3, {utc})",
            *(job, json.dumps({"videoId": video}), minutes),
        )
    (work,) = await hand.take(5)
    assert work.key == keys[0]
    assert await may_pay(store, hand, work)
    assert await used(connection, 2) == [0, 1]  # the one that has expired isn't taken
    await tick(store, work)
    await hand.settle([work], film)
    stamps = await connection.fetchrow(
        f"""
        SELECT array_agg(abs(extract(epoch FROM stamp - {utc}))) AS off FROM (
          SELECT unnest(ARRAY[j.started_at, j.completed_at, j.updated_at,
                              v.completed_at, v.updated_at])
            FROM public.background_jobs j, public.videos v WHERE j.id = $1 AND v.id = $2
          UNION ALL SELECT unnest(ARRAY[f.created_at, f.scheduled_at])
            FROM public.background_jobs f WHERE f.id <> ALL ($3::uuid[])
          UNION ALL SELECT c.updated_at FROM public.usage_credits c WHERE c.used_amount > 0
        ) AS all_of (stamp)
        """,
        *(work.key, soon, keys),
    )
    assert len(stamps["off"]) == 5 + 4 + 1
    assert max(stamps["off"]) < 60
    assert len(await hand.take(5)) == 2  # what follows is due at once
