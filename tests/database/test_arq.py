"""arq as door and clock: messages in, answers out, whatever becomes of Redis."""

from __future__ import annotations

import pickle
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.jobs import DeserializationError, Job, SerializationError
from arq.worker import Worker as ArqWorker
from redis.asyncio import Redis

from tests.database.arq_hosting import maintenance_of, send, serving, video
from tests.database.redis_servers import (
    KINDS,
    WAIT,
    FakeRedis,
    some_redis,
    until,
)
from tests.database.support import Connect, Hand, OpenStore, add_videos, new_keys, queued
from worker import arq_host
from worker.coordination import ConnectionPool, Coordination
from worker.inbox import serialize
from worker.store import Store


@pytest.fixture
async def store(both: str, open_store: OpenStore) -> Store:
    return await open_store(both)


@pytest.fixture
async def db(both: str, connect: Connect) -> Any:
    return await connect(both)


# --------------------------------------------------------------------------- the door


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_by_messages_alone(store: Store, db: Any, kind: str) -> None:
    (key,) = new_keys(1)
    job = {"ok": True, "source": "generation_jobs", "id": key}
    async with some_redis(kind) as pool, serving(store, pool):
        sender = arq_host.producer(pool)
        submitted = {"source": "generation_jobs", "row": video(key)}
        assert await send(sender, "submit", **submitted) == {**job, "created": True}
        assert await send(sender, "submit", **submitted) == {**job, "created": False}
        assert list(await queued(db)) == [key]
        assert (await send(sender, "get", id=key))["status"] == "queued"
        assert (await send(sender, "cancel", id=key))["ok"] is True
        assert (await send(sender, "get", id=key))["status"] == "cancelled"
        assert (await send(sender, "retry", id=key))["result"] == "requeued"
        hand = await Hand.hire(store)
        await hand.succeed(await hand.take())
        assert (await send(sender, "get", id=key))["row"]["status"] == "completed"
        wrong = await send(sender, "submit", source="nowhere", row={"id": 1})
        assert (wrong["ok"], "nowhere" in wrong["error"]) == (False, True)


class Burglar:
    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


async def test_a_pickle_gets_an_error_its_sender_can_read(
    store: Store, db: Any, tmp_path: Path
) -> None:
    pool, stolen = FakeRedis().pool(), tmp_path / "stolen"
    async with serving(store, pool):
        with pytest.raises(SerializationError, match="job_serializer=") as error:
            await send(ArqRedis(pool), "submit", source="generation_jobs", row=Burglar(stolen))
        assert not isinstance(error.value, DeserializationError), "the error itself was readable"
        assert not stolen.exists()
        pickle.loads(pickle.dumps(Burglar(stolen)))
        assert stolen.exists(), "whoever opens it is robbed"
        assert (await send(arq_host.producer(pool), "get", id="1"))["ok"] is False
    assert await queued(db) == {}


POISON: dict[str, tuple[bytes, str]] = {
    "garbage": (b"\x00\x01", "it isn't JSON"),
    "a list for a name": (serialize({"f": [], "a": [], "k": {}, "t": None, "et": 1}), "its shape"),
    "an impossible time": (
        serialize({"f": "get", "a": [], "k": {}, "t": None, "et": 10**40}),
        "its shape",
    ),
    "no such function": (
        serialize({"f": "os.system", "a": [], "k": {}, "t": None, "et": 1}),
        "not found",
    ),
    "an own context": (
        serialize({"f": "get", "a": [], "k": {"ctx": 1, "id": "1"}, "t": None, "et": 1}),
        "ctx",
    ),
}


@pytest.mark.parametrize(("message", "says"), POISON.values(), ids=POISON.keys())
async def test_poison_is_answered_and_the_door_stays_open(
    store: Store, message: bytes, says: str
) -> None:
    pool = FakeRedis().pool()
    raw, job_id = Redis(connection_pool=pool), secrets.token_hex(8)
    await raw.set(f"arq:job:{job_id}", message)
    await raw.zadd("arq:queue", {job_id: 1})
    sender = arq_host.producer(pool)
    poisoned = Job(job_id, sender, _deserializer=sender.job_deserializer)
    async with serving(store, pool) as host:
        try:
            answer = await poisoned.result(timeout=WAIT, poll_delay=0.02)
        except SerializationError as error:
            answer = {"ok": False, "error": str(error)}
        assert answer["ok"] is False
        assert says in answer["error"]
        assert await raw.zcard("arq:queue") == 0
        assert (await send(sender, "get", id="1"))["ok"] is False
        assert not host.done()


async def put_off(redis: Redis, job: Job, since: float | None) -> bool:
    return bool(await redis.zscore("arq:queue", job.job_id) != since)


async def test_a_message_waits_for_postgres(
    both: str, store: Store, open_store: OpenStore, db: Any
) -> None:
    """It stays in Redis, unanswered, while the database is away; then it is done, once."""
    pool, (key,) = FakeRedis().pool(), new_keys(1)
    sender, away = arq_host.producer(pool), await open_store(both)
    async with serving(away, pool):
        await away.close()
        job = await sender.enqueue_job("submit", source="generation_jobs", row=video(key))
        assert job is not None
        first = await sender.zscore("arq:queue", job.job_id)
        await until(lambda: put_off(sender, job, first))
    assert await job.result_info() is None
    await sender.zadd("arq:queue", {job.job_id: 1})  # its time has come
    async with serving(store, pool):
        answer = await job.result(timeout=WAIT, poll_delay=0.02)
    assert (answer["ok"], answer["created"]) == (True, True)
    assert list(await queued(db)) == [key]


# --------------------------------------------------------------------------- the clock


async def clock(store: Store, pool: ConnectionPool) -> ArqWorker:
    """A worker of arq's as the host makes it, moved by hand."""
    ctx = arq_host._ctx(store, await maintenance_of(store), Coordination(pool))
    options = arq_host._options(pool, "tests")
    return ArqWorker(ctx=ctx, handle_signals=False, burst=True, **options)


async def strike(worker: ArqWorker, hour: datetime) -> None:
    """Let the clock go from just before an hour to its end, in steps of a minute."""
    for minute in range(61):
        await worker.run_cron(hour + timedelta(minutes=minute), 30.0)


@pytest.mark.parametrize("kind", KINDS)
async def test_of_a_fleet_one_does_what_is_due(store: Store, db: Any, kind: str) -> None:
    await db.execute("ALTER TABLE public.generation_jobs DISABLE TRIGGER USER")
    (key,) = await add_videos(db)
    await db.execute("ALTER TABLE public.generation_jobs ENABLE TRIGGER USER")
    assert await queued(db) == {}
    hour = datetime(2001, 1, 1, secrets.randbelow(24), 59, tzinfo=UTC)
    async with some_redis(kind) as pool:
        one, two = await clock(store, pool), await clock(store, pool)
        await strike(one, hour)
        due = await one.pool.zcard("arq:queue")
        assert due >= 3, "the sweep, the partitions, the clean-up"
        await strike(two, hour)
        assert await two.pool.zcard("arq:queue") == due
        one.cron_jobs.clear()  # that hour is over
        two.cron_jobs.clear()
        await one.main()
        assert one.jobs_complete == due
        await two.main()
        assert two.jobs_complete == 0
        await one.close()
        await two.close()
    assert list(await queued(db)) == [key]
