"""Who is alive, who may say that others aren't, and what becomes of their claims."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.support import (
    LEASE,
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_background,
    add_videos,
    fell_silent,
    has_lived,
    heard_so_far,
    listening,
    queued,
)
from worker.store import DeadWorker, Store


async def beat(hand: Hand, *, draining: bool = False) -> bool:
    pulse = await hand.store.heartbeat(hand.id, running=0, draining=draining)
    return pulse.alive


async def stopped(connection: Any, hand: Hand) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT stopped_at IS NOT NULL FROM rowmill.workers WHERE id = $1", hand.id
        )
    )


# --------------------------------------------------------------------------- rescue


async def test_the_claims_of_a_silent_worker_are_rescued(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    admin, store = await connect(photomemory), await open_store(photomemory)
    living, dead = await Hand.hire(store), await Hand.hire(store)
    keys = await add_videos(await connect(photomemory, producer), 3)
    works = await dead.take(2)
    await living.claim(1)
    await fell_silent(admin, dead)
    await has_lived(admin, living)
    assert await store.rescue(living.id) == 2
    rows = await queued(admin, *keys[:2])
    assert {(r["state"], r["token"], r["yields"], r["tries"]) for r in rows.values()} == {
        ("ready", None, 1, 0)
    }
    assert await dead.succeed(works) == dict.fromkeys(keys[:2], "lost")
    assert [w.key for w in await living.take(5)] == keys[:2]


async def test_one_silent_for_less_than_its_lease_lives(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    admin, store = await connect(photomemory), await open_store(photomemory)
    living, slow = await Hand.hire(store), await Hand.hire(store, lease=10 * LEASE)
    await add_videos(await connect(photomemory, producer))
    works = await slow.take()
    await fell_silent(admin, slow, 5 * LEASE)
    await has_lived(admin, living, 20 * LEASE)
    assert await store.rescue(living.id) == 0
    assert set((await slow.succeed(works)).values()) == {"settled"}


@pytest.mark.parametrize("reason", ["young", "silent", "stopped", "unknown"])
async def test_only_a_gapless_lease_of_its_own_heartbeats_lets_a_worker_judge(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, reason: str
) -> None:
    admin, store = await connect(photomemory), await open_store(photomemory)
    judge, dead = await Hand.hire(store), await Hand.hire(store)
    await add_videos(await connect(photomemory, producer))
    await dead.claim()
    await fell_silent(admin, dead)
    await has_lived(admin, judge, LEASE / 2 if reason == "young" else 3 * LEASE)
    if reason == "silent":
        await fell_silent(admin, judge, 1.5 * LEASE)
    if reason == "stopped":
        await store.retire(judge.id)
    assert await store.rescue(12345 if reason == "unknown" else judge.id) == 0
    assert not await stopped(admin, dead)


async def test_after_an_outage_longer_than_a_lease_nobody_rescues_the_living(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    """Everyone was silent; the first one back sees only dead, and must not believe it."""
    admin, store = await connect(photomemory), await open_store(photomemory)
    first, second = await Hand.hire(store), await Hand.hire(store)
    await add_videos(await connect(photomemory, producer))
    works = await second.take()
    for hand in (first, second):
        await has_lived(admin, hand, 100 * LEASE)
        await fell_silent(admin, hand, 3 * LEASE)
    assert await beat(first)
    assert await store.rescue(first.id) == 0
    assert await beat(second)
    # A lease later, both having kept their heartbeats, there is still nobody to rescue.
    await has_lived(admin, first, LEASE)
    assert await store.rescue(first.id) == 0
    assert set((await second.succeed(works)).values()) == {"settled"}


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "not-heard-yet"])
async def test_an_outage_just_short_of_a_lease_makes_nobody_a_judge(
    photomemory: str, connect: Connect, open_store: OpenStore, heard: bool
) -> None:
    """One spoke a moment later before it than the other: that's luck, and no sign of life."""
    admin, store = await connect(photomemory), await open_store(photomemory)
    judge, other = await Hand.hire(store), await Hand.hire(store)
    await has_lived(admin, judge, 100 * LEASE)
    await fell_silent(admin, judge, 0.9 * LEASE)
    await fell_silent(admin, other, 1.1 * LEASE)
    if heard:
        assert await beat(judge)
    await store.rescue(judge.id)
    assert not await stopped(admin, other)


async def test_after_an_outage_a_short_lease_does_not_judge_a_long_one(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Who has a lease of ten may not have had its turn since, when one of one has lived for two."""
    admin, store = await connect(photomemory), await open_store(photomemory)
    short, long = await Hand.hire(store, lease=LEASE), await Hand.hire(store, lease=10 * LEASE)
    await fell_silent(admin, long, 15 * LEASE)
    await has_lived(admin, short, 2 * LEASE)
    await store.rescue(short.id)
    assert not await stopped(admin, long)
    await has_lived(admin, short, 10 * LEASE)
    await store.rescue(short.id)
    assert await stopped(admin, long)


async def test_after_an_outage_a_long_lease_does_not_judge_a_short_one(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """An outage longer than the short lease is no gap in the heartbeats of the long one."""
    admin, store = await connect(photomemory), await open_store(photomemory)
    short, long = await Hand.hire(store, lease=LEASE), await Hand.hire(store, lease=10 * LEASE)
    await has_lived(admin, long, 100 * LEASE)
    for hand in (short, long):
        await fell_silent(admin, hand, 3 * LEASE)
    assert await beat(long)
    await store.rescue(long.id)
    assert not await stopped(admin, short)
    await fell_silent(admin, short, 11 * LEASE)
    await store.rescue(long.id)
    assert await stopped(admin, short)


async def test_a_gapless_heartbeat_keeps_its_count_and_a_gap_starts_it_anew(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    admin = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    since = "SELECT alive_since FROM rowmill.workers WHERE id = $1"
    await has_lived(admin, hand, 5 * LEASE)
    before = await admin.fetchval(since, hand.id)
    await beat(hand)
    assert await admin.fetchval(since, hand.id) == before
    await fell_silent(admin, hand, 1.5 * LEASE)
    gap_end = await admin.fetchval("SELECT clock_timestamp()")
    await beat(hand)
    assert await admin.fetchval(since, hand.id) >= gap_end


async def test_claims_without_any_worker_row_are_rescued_in_portions(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    admin, store = await connect(ebook), await open_store(ebook)
    judge, gone = await Hand.hire(store), await Hand.hire(store)
    await add_background(await connect(ebook, producer), 1200)
    for _ in range(3):
        await gone.claim(400)
    await admin.execute("DELETE FROM rowmill.workers WHERE id = $1", gone.id)
    await has_lived(admin, judge)
    assert [await store.rescue(judge.id) for _ in range(4)] == [500, 500, 200, 0]


# --------------------------------------------------------------------------- the end of a life


async def give_up(admin: Any, store: Store, hand: Hand) -> Hand:
    """Rescued by another, which is returned."""
    judge = await Hand.hire(store)
    await fell_silent(admin, hand)
    await has_lived(admin, judge)
    await store.rescue(judge.id)
    return judge


async def test_a_dead_incarnation_can_not_claim_and_is_not_revived(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    admin, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    await add_videos(await connect(photomemory, producer))
    await give_up(admin, store, hand)
    assert not await beat(hand)
    with pytest.raises(DeadWorker):
        await hand.claim()
    assert await stopped(admin, hand)
    assert (await (await Hand.hire(store)).claim())[0].lane == "replicate"


async def test_one_that_was_silent_for_a_lease_must_be_heard_before_it_claims(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    """Its claim might be rescued before its next heartbeat."""
    admin = await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    await add_videos(await connect(photomemory, producer))
    await fell_silent(admin, hand)
    with pytest.raises(DeadWorker):
        await hand.claim()
    assert await beat(hand)
    assert len(await hand.claim()) == 1


async def test_an_unknown_worker_can_not_claim(photomemory: str, open_store: OpenStore) -> None:
    with pytest.raises(DeadWorker, match="register again"):
        await Hand(await open_store(photomemory)).claim()


async def test_a_stale_runner_starts_settles_and_intends_nothing(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    admin, store = await connect(photomemory), await open_store(photomemory)
    stale = await Hand.hire(store)
    await add_videos(await connect(photomemory, producer), 2)
    claims = await stale.claim(1)
    works = await stale.take(1)
    judge = await give_up(admin, store, stale)
    assert len(await judge.take(2)) == 2
    assert await stale.start(claims) == []
    assert await stale.succeed(works) == {works[0].key: "lost"}
    intent = {
        "queue_id": works[0].queue_id,
        "token": works[0].token,
        "worker": stale.id,
        "step": "main",
        "provider": "replicate",
        "account": "main",
        "model": "m",
        "estimate_cents": "5",
    }
    assert [row["verdict"] for row in await store.intend([intent])] == ["lost"]
    assert await admin.fetchval("SELECT count(*) FROM rowmill.submissions") == 0
    made = "SELECT count(*) FROM public.media_files WHERE folder_path = '/generated'"
    assert await admin.fetchval(made) == 0


async def test_a_worker_that_retires_hands_its_claims_back(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    admin, store = await connect(photomemory), await open_store(photomemory)
    leaving, staying = await Hand.hire(store), await Hand.hire(store)
    keys = await add_videos(await connect(photomemory, producer), 3)
    await leaving.claim(2)
    (kept,) = await staying.take(1)
    assert await store.retire(leaving.id) == 2
    assert not await beat(leaving)
    rows = await queued(admin)
    assert [rows[key]["state"] for key in keys] == ["ready", "ready", "claimed"]
    assert [rows[key]["yields"] for key in keys] == [0, 0, 0]
    assert await staying.succeed([kept]) == {keys[2]: "settled"}


async def test_retiring_waits_for_no_producer(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    """What it can't hand back now is rescued by another: it has stopped."""
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} SET lock_timeout = '100ms'")
    store = await open_store(photomemory)
    leaving, judge = await Hand.hire(store), await Hand.hire(store)
    keys = await add_videos(connection, 2)
    await leaving.claim(2)
    await has_lived(admin, judge)
    async with connection.transaction():
        await connection.execute(
            "UPDATE public.generation_jobs SET priority = 9 WHERE id = $1", keys[0]
        )
        assert await store.retire(leaving.id) == 1
        assert await store.rescue(judge.id) == 0
    assert await store.rescue(judge.id) == 1
    assert [c.key for c in await judge.claim(5)] == keys


async def test_strangers_are_handed_back_by_their_tokens_alone(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    """Claims whose answer never arrived: the heartbeat names them, and nobody works on them."""
    admin, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    keys = await add_videos(await connect(photomemory, producer), 3)
    known, lost, other = await hand.claim(3)
    pulse = await store.heartbeat(hand.id, running=1, draining=False)
    assert pulse.claims == {c.queue_id: c.token for c in (known, lost, other)}
    await store.hand_back([lost.queue_id, other.queue_id], [lost.token, other.token + 1])
    states = {key: row["state"] for key, row in (await queued(admin)).items()}
    assert states == {keys[0]: "claimed", keys[1]: "ready", keys[2]: "claimed"}
    assert await hand.start([lost]) == []
    pulse = await store.heartbeat(hand.id, running=1, draining=False)
    assert set(pulse.claims) == {known.queue_id, other.queue_id}


# --------------------------------------------------------------------------- the doorbell


async def test_the_bell_rings_one_idle_worker_that_serves_the_lane(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    store = await open_store(photomemory)
    hands = [await Hand.hire(store, ["replicate"]) for _ in range(3)]
    elsewhere = await Hand.hire(store, ["runway"])
    for hand in (*hands, elsewhere):
        assert await hand.claim() == []  # came back short, so it rests
    said = await rings(connect, admin, photomemory, connection, [*hands, elsewhere])
    assert sorted(said[:3]) == [[], [], [""]]
    assert said[3] == []


@pytest.mark.parametrize("state", ["busy", "draining", "silent", "stopped"])
async def test_the_bell_does_not_ring_for_who_will_not_come(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer, state: str
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    store = await open_store(photomemory)
    hand = await Hand.hire(store, ["replicate"])
    if state == "busy":
        await add_videos(connection, 2)
        assert len(await hand.claim(1)) == 1
    else:
        assert await hand.claim() == []
    if state == "draining":
        await beat(hand, draining=True)
    if state == "silent":
        await fell_silent(admin, hand)
    if state == "stopped":
        await store.retire(hand.id)
    assert await rings(connect, admin, photomemory, connection, [hand]) == [[]]


async def test_a_schedule_rings_nobody_and_a_move_does(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(ebook, producer), await connect(ebook)
    hand = await Hand.hire(await open_store(ebook))
    assert await hand.claim() == []
    async with listening(await connect(ebook), hand.channel) as heard:
        scheduled = await admin.fetchval("SELECT now() + interval '1 hour'")
        await add_background(connection, scheduled_at=scheduled)
        assert await heard_so_far(heard, hand.channel, admin) == []
        await connection.execute("UPDATE system.background_jobs SET scheduled_at = NULL")
        assert await heard_so_far(heard, hand.channel, admin) == [""]


async def rings(
    connect: Connect, admin: Any, dsn: str, producing: Any, hands: list[Hand]
) -> list[list[str]]:
    """What each of them hears of one INSERT."""
    listener = await connect(dsn)
    heard: list[list[str]] = [[] for _ in hands]
    for hand, words in zip(hands, heard, strict=True):
        await listener.add_listener(hand.channel, lambda *event, w=words: w.append(event[3]))
    await add_videos(producing, 5)
    async with listening(listener, "the_end") as end:
        await heard_so_far(end, "the_end", admin)
    return heard
