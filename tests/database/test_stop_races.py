"""A job that is stopped while other things end it: one settlement or none, whatever comes first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from jobs.contract import Failure, FailureKind, Job, Outcome, Succeeded
from jobs.network import HostPolicy
from jobs.providers.errors import ProviderError
from jobs.providers.journal import Journal, Submission
from jobs.registry import Registry, kind
from tests.database.journaling import intend
from tests.database.platform_samples import NewDatabase
from tests.database.studio import built, written
from tests.database.support import Connect, Hand, OpenStore, Work, add
from tests.process.fleet import until_sql
from worker.executor import Executor, Running, Services
from worker.ledger import ClaimJournal, Lease, Ledger
from worker.pulse import PulseLoop
from worker.store.attaching import attach
from worker.transitions import Settlement

KIND = "background:make_video"
Handle = Callable[[], Awaitable[Outcome]]


class Provider:
    """Its tasks take as long to be given up as the test says."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.go_on = asyncio.Event()
        self.given_up: list[int] = []

    async def abandon(self, _journal: Journal, submission: Submission) -> bool:
        self.told.set()
        await self.go_on.wait()
        self.given_up.append(submission.id)
        return True


class Bench:
    """A real executor with one started job of the studio."""

    def __init__(self, hand: Hand, work: Work) -> None:
        self.hand, self.work = hand, work
        self.put: list[Settlement] = []
        self.dropped: list[Running] = []
        self.provider = Provider()
        self.began = asyncio.Event()
        ledger = Ledger(hand.store, Lease(30))
        self.journal = ClaimJournal(
            ledger, queue_id=work.queue_id, token=work.token, worker=hand.id
        )
        attempt = work.as_try()
        job = Job(
            source=attempt.source,
            key=attempt.key,
            kind=attempt.kind,
            lane=attempt.lane,
            run=attempt.run,
            tries=attempt.tries,
            max_retries=attempt.max_retries,
            tenant=None,
            input={},
        )
        self.running = Running(attempt, job, self.journal, time.monotonic(), 0)

    async def run(self, handle: Handle, *, meanwhile: Callable[[Running], None]) -> None:
        """Say it while the handler runs, and wait for the job's end."""
        registry = Registry()

        async def handler(_job: Job, _context: Any) -> Outcome:
            self.began.set()
            return await handle()

        kind(KIND, registry=registry)(handler)
        self.executor = self._executor(registry)
        self.executor.launch(self.running)
        await self.began.wait()
        meanwhile(self.running)
        assert self.running.task is not None
        await self.running.task

    def _executor(self, registry: Registry) -> Executor:
        nobody = cast("Any", None)
        services = Services(
            runner=cast("Any", self.provider),
            client=httpx.AsyncClient(),
            policy=HostPolicy(""),
            health=nobody,
            turns=nobody,
            mailer=nobody,
            outputs=nobody,
            compute=nobody,
            room=nobody,
        )
        return Executor(
            registry, services, max_yields=5, put=self.put.append, dropped=self.dropped.append
        )

    @property
    def verbs(self) -> list[str]:
        return [settlement.verb for settlement in self.put]


@pytest.fixture
async def bench(
    new_database: NewDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> Bench:
    dsn = await built(await new_database(), written(tmp_path))
    await add(await connect(dsn), "public.shoots")
    hand = await Hand.hire(await open_store(dsn))
    (work,) = await hand.take(1)
    return Bench(hand, work)


async def for_ever() -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


async def done_all_the_same() -> Outcome:
    try:
        return await for_ever()
    except asyncio.CancelledError:
        return Succeeded(text="it was there already")


async def broken_by_it() -> Outcome:
    try:
        return await for_ever()
    except asyncio.CancelledError:
        raise ProviderError(Failure(FailureKind.INVALID, "hung up")) from None


def says(*words: dict[str, Any]) -> Callable[[Running], None]:
    def say(running: Running) -> None:
        for word in words:
            running.stop(**word)

    return say


STOP, LOST, DRAIN = {"why": "closed"}, {"lost": True}, {"draining": True}


@pytest.mark.parametrize(
    ("handle", "words", "verbs"),
    [
        (for_ever, (STOP,), ["cancel"]),
        (for_ever, (STOP, STOP), ["cancel"]),
        (for_ever, (STOP, DRAIN), ["cancel"]),
        (for_ever, (DRAIN, STOP), ["cancel"]),
        (for_ever, (DRAIN,), ["release"]),
        (for_ever, (STOP, LOST), []),
        (for_ever, (LOST, STOP), []),
        (for_ever, (LOST, STOP, DRAIN), []),
        (done_all_the_same, (STOP,), ["succeed"]),
        (broken_by_it, (STOP,), ["fail"]),
    ],
)
async def test_whatever_comes_first(
    handle: Handle, words: tuple[dict[str, Any], ...], verbs: list[str], bench: Bench
) -> None:
    await bench.run(handle, meanwhile=says(*words))
    assert bench.verbs == verbs
    assert len(bench.dropped) == (not verbs)  # its slot is freed by the one or by the other
    if verbs == ["cancel"]:
        assert bench.put[0].error == "closed"


async def test_a_stop_that_comes_too_late(bench: Bench) -> None:
    async def at_once() -> Outcome:
        return Succeeded(text="done")

    def nothing(_: Running) -> None: ...

    await bench.run(at_once, meanwhile=nothing)
    bench.running.stop(why="closed")
    await asyncio.sleep(0)
    assert bench.verbs == ["succeed"]
    assert await bench.hand.write(bench.put) == {bench.work.key: "settled"}


async def test_what_is_given_up_is_given_up_to_the_end(bench: Bench) -> None:
    """The next pulse finds the claim gone: that must not keep the provider's task alive."""
    await intend(bench.journal)
    await bench.run(for_ever, meanwhile=says(STOP))
    assert await bench.hand.write(bench.put) == {bench.work.key: "settled"}
    bench.executor.leave(bench.running)
    await bench.provider.told.wait()
    bench.running.stop(lost=True)
    bench.running.stop(draining=True)
    assert bench.dropped == []
    bench.provider.go_on.set()
    assert bench.running.task is not None
    await bench.running.task
    assert len(bench.provider.given_up) == 1
    assert bench.dropped == [bench.running]


SLOW = """
SELECT s.id AS key, 'cancel' AS verdict, 'too late' AS message FROM public.shoots AS s
 WHERE s.id = ANY (rowmill_keys) AND s.state = 'busy' AND pg_sleep(30) IS NOT NULL;
"""


async def test_a_rule_that_takes_long_costs_no_heartbeat(
    bench: Bench, connect: Connect, tmp_path: Path
) -> None:
    """A job is taken from a worker that is silent for its lease: no rule may make it so."""
    store = bench.hand.store
    await attach(store.dsn, written(tmp_path, shoots__stop=SLOW))
    connection = await connect(store.dsn)
    pulse = PulseLoop(
        store,
        Lease(30),
        worker=lambda: bench.hand.id,
        jobs=lambda: [bench.running],
        holds=lambda *_: True,
        draining=lambda: False,
        drain=lambda: None,
        given_up=lambda: None,
        stoppable=lambda _: True,
        seconds=0.5,
    )
    began = time.monotonic()
    await pulse.run_once()
    await pulse.run_once()
    assert time.monotonic() - began < 10
    assert bench.running.stopped is None
    await until_sql(
        connection,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%stops_shoots%'"
        " AND state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()",
    )


async def test_a_word_before_the_giving_up_begins(bench: Bench) -> None:
    """In the same turn of the loop: what was never begun would keep its slot for ever."""
    await intend(bench.journal)
    await bench.run(for_ever, meanwhile=says(STOP))
    assert await bench.hand.write(bench.put) == {bench.work.key: "settled"}
    bench.provider.go_on.set()
    bench.executor.leave(bench.running)
    bench.running.stop(lost=True)
    assert bench.running.task is not None
    await asyncio.wait([bench.running.task])
    assert len(bench.provider.given_up) == 1
    assert bench.dropped == [bench.running]


async def test_of_a_job_that_others_have_now_nothing_is_given_up(bench: Bench) -> None:
    """The cancel came too late for its claim: the task is the next worker's to follow."""
    await intend(bench.journal)
    await bench.run(for_ever, meanwhile=says(STOP))
    bench.executor.leave(bench.running)  # the settlement was lost; its queue row is there
    assert bench.running.task is not None
    await bench.running.task
    assert bench.provider.given_up == []
    assert bench.dropped == [bench.running]
