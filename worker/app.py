"""A worker, put together: settings in, running loops out.

Worker.open()    connects and builds; Worker.start() registers and starts the loops
Worker.drain()   stops claiming, finishes or hands back, says good-bye

Whoever starts a worker drains it: when told to stop, or when `Worker.asked_to_leave` is set.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Coroutine, Mapping
from typing import Any

import httpx
import structlog

from jobs import registry as kinds
from jobs.compute import Compute
from jobs.contract import Cancelled, Failed, Failure, FailureKind, Job, Outcome
from jobs.mail import Mailer
from jobs.network import HostPolicy
from jobs.outputs import OutputStore
from jobs.providers.registry import Provider
from jobs.providers.runner import Runner
from jobs.providers.transport import Client
from jobs.storage import open_storage
from worker import __version__, transitions
from worker.attached import Attached
from worker.breaker import Breaker
from worker.consumer import Consumer
from worker.coordination import Coordination
from worker.executor import Executor, PaidCalls, Running, Services
from worker.introducing import endpoint_of
from worker.ledger import ClaimJournal, Lease, Ledger, boottime
from worker.logs import about
from worker.maintenance import Maintenance
from worker.metrics import Metrics
from worker.paying import charges_of, providers_of
from worker.pulse import PulseLoop
from worker.rates import Rates
from worker.settings import Settings, database_url
from worker.settler import Settler
from worker.store import Claimed, Started, Store, Unavailable
from worker.store.bell import Bell
from worker.transitions import Settlement, Try
from worker.turns import Turns
from worker.vitals import Turns as LoopTurns
from worker.vitals import Vitals

log = structlog.get_logger()

FILES_PER_PROCESS = 4
"""One is computed, the others are on their way."""


class Worker:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        registry: kinds.Registry,
        providers: Mapping[str, Provider],
        client: httpx.AsyncClient,
        runner: PaidCalls,
        policy: HostPolicy,
        rates: Rates,
        coordination: Coordination,
        outputs: OutputStore,
    ) -> None:
        self.settings = settings
        self.store = store
        self.registry = registry
        self.id = secrets.randbits(63)
        self.name = settings.name
        self.registered = False
        self.draining = False
        self.asked_to_leave = asyncio.Event()
        """An operator said `rowmill drain`."""
        self._providers = providers
        self._client = client
        self._coordination = coordination
        self._compute = Compute(settings.compute_processes, settings.compute_memory_mb)
        self.rates = rates
        self.attached = Attached(store, registry, providers, settings.lanes, worker=lambda: self.id)
        self._inflight: dict[tuple[int, int], Running | None] = {}
        self._idle = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.lease = Lease(settings.lease_seconds)
        self.metrics = Metrics(providers)
        self.turns = LoopTurns()
        self.ledger = Ledger(store, self.lease, spent=self.metrics.spent)
        self._build(runner, policy, outputs)

    def _build(self, runner: PaidCalls, policy: HostPolicy, outputs: OutputStore) -> None:
        settings, store = self.settings, self.store
        self.breaker = Breaker(store)
        self.maintenance = Maintenance(
            store,
            runner,
            self.ledger,
            worker=lambda: self.id,
            platforms=lambda: self.attached.platforms,
            accounts=[(name, its.account.name) for name, its in self._providers.items()],
            breaker=self.breaker,
            rates=self.rates,
            reload=self.attached.load,
            lease=settings.lease_seconds,
            sweep_seconds=settings.sweep_seconds,
        )
        self.settler = Settler(
            store,
            batch=settings.settle_batch,
            settled=self._settled,
            make_partitions=self.maintenance.make_partitions,
            turns=self.turns,
            settling=self.metrics.settling,
        )
        self.executor = Executor(
            self.registry,
            Services(
                runner,
                self._client,
                policy,
                self.breaker,
                Turns(store),
                Mailer(settings.mail_server, settings.mail_from),
                outputs,
                self._compute,
                room=asyncio.Semaphore(FILES_PER_PROCESS * settings.compute_processes),
                calling=self.metrics.calling,
            ),
            max_yields=settings.max_yields,
            put=self.settler.put,
            dropped=self._dropped,
        )
        self.consumer = Consumer(
            store,
            worker=lambda: self.id,
            lanes=self._open_lanes,
            free_slots=self.free_slots,
            source_name=self.attached.name_of,
            launch=self._launch,
            stop=self._stop,
            refuse=self._refuse,
            rested=self._idle.set,
            batch=settings.claim_batch,
            poll=settings.poll_seconds,
            turns=self.turns,
            claiming=self.metrics.claiming,
        )
        self.pulse = PulseLoop(
            store,
            self.lease,
            worker=lambda: self.id,
            jobs=lambda: [job for job in self._inflight.values() if job is not None],
            holds=self._holds,
            draining=lambda: self.draining,
            drain=self._leave_when_asked,
            given_up=self._begin_again,
            stoppable=self.attached.stoppable,
            seconds=min(settings.pulse_seconds, settings.lease_seconds / 5),
            turns=self.turns,
        )
        self.vitals = Vitals(
            self.turns,
            stuck_seconds=settings.stuck_seconds,
            database_answers=store.answers,
            lagged=self.metrics.lagged,
        )
        self.endpoint = endpoint_of(self)

    @classmethod
    async def open(
        cls,
        settings: Settings,
        *,
        registry: kinds.Registry | None = None,
        runner: PaidCalls | None = None,
    ) -> Worker:
        """Connect to everything a worker needs; what is wrong in settings shows before that."""
        registry = registry or kinds.load(settings.handlers)
        providers, charges = providers_of(settings), charges_of(settings)
        store = await Store.open(database_url(settings))
        client = Client(limit=settings.slots + 50)
        policy = HostPolicy(settings.allow_private_hosts)
        storage = open_storage(settings.storage_url, settings.public_base_url)
        outputs = OutputStore(storage, client, policy, max_bytes=settings.max_output_bytes)
        coordination = Coordination.of(settings.redis_url)
        rates = Rates(store, providers, coordination.counters())
        runner = runner or Runner(
            providers,
            client,
            outputs,
            resubmit_up_to_cents=settings.resubmit_up_to_cents,
            lease_seconds=settings.lease_seconds,
            charges=charges,
            door=rates,
        )
        return cls(
            settings,
            store,
            registry=registry,
            providers=providers,
            client=client,
            runner=runner,
            policy=policy,
            rates=rates,
            coordination=coordination,
            outputs=outputs,
        )

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Raises `endpoint.PortTaken`, before anyone knows of this worker."""
        if self.settings.http_port is not None:
            await self.endpoint.open(self.settings.http_host, self.settings.http_port)
            self._run(self.vitals.run())
        await self.attached.load()
        await self._register()
        # Before the first claim: one heartbeat, so that `may_pay` rests on an acknowledged one.
        await self.pulse.run_once()
        await self.rates.refresh()
        if self.settings.http_port is not None:
            self._run(self.metrics.fleet.run(self.store))
        self._run(self.settler.run())
        self._run(self.pulse.run())
        self._run(self.maintenance.run())
        self._run(self.consumer.run())
        if not self.store.pooled:
            bell = Bell(self.store.dsn, self._heard)
            self._run(bell.run(lambda: f"rowmill_{self.id}"))
        log.info(
            "worker.started",
            worker=self.name,
            slots=self.settings.slots,
            lanes=self.attached.lanes,
            pooler=self.store.pooled,
        )
        unserved = sorted(set(self.settings.lanes).difference(self.attached.lanes))
        if unserved or not self.attached.lanes:
            log.warning(
                "worker.lanes_unserved",
                lanes=unserved,
                hint="no provider, handler or attached table has these lanes"
                if unserved
                else "nothing is attached that this worker could serve: see `rowmill doctor`",
            )

    def _run(self, loop: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(loop)
        task.add_done_callback(self._loop_ended)
        self._tasks.append(task)

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        """A loop that dies takes the worker down: half a worker holds claims and does nothing."""
        if not task.cancelled() and task.exception() is not None:
            log.critical("worker.broken", exc_info=task.exception())
            os._exit(70)

    async def _register(self) -> None:
        self.lease.acknowledged = boottime()
        await self.store.register(
            self.id,
            name=self.name,
            version=__version__,
            lanes=self.attached.lanes,
            slots=self.settings.slots,
            lease=self.settings.lease_seconds,
            host=socket.gethostname(),
        )
        self.registered = True

    async def _begin_again(self) -> None:
        """This incarnation was given up: what it held is someone else's. Start as a new one."""
        self.registered = False
        for job in list(self._inflight.values()):
            if job is not None:
                job.stop(lost=True)
        self.id = secrets.randbits(63)
        await self._register()
        log.warning("worker.registered_again", worker=self.name)

    def _leave_when_asked(self) -> None:
        """Nothing is claimed from here on, whenever its host comes to call `drain`."""
        if not self.draining:
            log.info("worker.asked_to_leave", worker=self.name)
        self.draining = True
        self.asked_to_leave.set()

    async def drain(self) -> None:
        """Stop claiming, finish or hand back within the grace period, leave."""
        self.draining = True
        log.info("worker.draining", running=len(self._inflight))
        await self._until_idle(self.settings.grace_seconds)
        for job in list(self._inflight.values()):
            if job is not None:
                job.stop(draining=True)
        await self._until_idle(max(5.0, self.settings.grace_seconds))
        await self._leave()

    async def _leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            back = await self.store.retire(self.id)
            log.info("worker.stopped", worker=self.name, handed_back=back)
        except Unavailable as error:
            log.warning("worker.stopped_silently", error=str(error))
        await self._compute.close()
        await self._client.aclose()
        await self._coordination.close()
        await self.store.close()
        await self.endpoint.close()

    async def until_done(self) -> None:
        """For --burst: return once nothing is ready, running, or waiting for its next try."""
        while True:
            await self._until_idle(3600)
            if not self._inflight and not await self.store.value(_UNDONE, self.attached.lanes):
                return
            await asyncio.sleep(self.settings.poll_seconds)

    async def _until_idle(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._inflight or self.consumer.busy:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass

    # ------------------------------------------------------------------ jobs

    def free_slots(self) -> int:
        return 0 if self.draining else self.settings.slots - len(self._inflight)

    @property
    def slots_used(self) -> int:
        return len(self._inflight)

    def _open_lanes(self) -> list[str]:
        return [lane for lane in self.attached.lanes if not self.rates.closed(lane)]

    def progress(self) -> list[tuple[str, str, float]]:
        """(source, key, percent) of the jobs in hand."""
        jobs = [job for job in self._inflight.values() if job is not None]
        return [(job.attempt.source, job.attempt.key, job.percent) for job in jobs]

    def _holds(self, queue_id: int, token: int) -> bool:
        return (queue_id, token) in self._inflight or queue_id in self.consumer.starting

    def _launch(self, source: str, claim: Claimed, started: Started) -> None:
        attempt = _try(source, claim, started.kind, started.tries, started.max_retries)
        job = Job(
            source=attempt.source,
            key=attempt.key,
            kind=attempt.kind,
            lane=attempt.lane,
            run=attempt.run,
            tries=attempt.tries,
            max_retries=attempt.max_retries,
            tenant=claim.tenant,
            input=started.input,
        )
        journal = ClaimJournal(
            self.ledger, queue_id=claim.queue_id, token=claim.token, worker=self.id
        )
        running = Running(attempt, job, journal, time.monotonic(), claim.waited_ms, claim.age_ms)
        self._inflight[claim.queue_id, claim.token] = running
        self.pulse.statistics.started(running)
        self.executor.launch(running)

    def _refuse(self, source: str, claim: Claimed, message: str) -> None:
        """Its input can't even be read: the row fails alone, with what the database said."""
        failure = Failure(FailureKind.INVALID, f"its input can't be read: {message}", "input")
        self._end(claim, _try(source, claim, "unknown", 0, 0), Failed(failure))

    def _stop(self, source: str, claim: Claimed, started: Started) -> None:
        """The platform's stop rule says that it must not run: nothing of it was begun."""
        attempt = _try(source, claim, started.kind, started.tries, started.max_retries)
        message = str(started.input["message"])
        if started.verdict == "cancel":
            self._end(claim, attempt, Cancelled(message))
        else:
            failure = Failure(FailureKind.ALLOWANCE, message, code="stopped")
            self._end(claim, attempt, Failed(failure))

    def _end(self, claim: Claimed, attempt: Try, outcome: Outcome) -> None:
        self._inflight[claim.queue_id, claim.token] = None
        policy = kinds.RetryPolicy()
        self.settler.put(
            transitions.settle(outcome, attempt, policy=policy, max_yields=1, chance=0)
        )

    def _settled(self, settlement: Settlement, verdict: str) -> None:
        claim = (settlement.queue_id, settlement.token)
        held = self._inflight.get(claim)
        if verdict == "settled":
            self.pulse.statistics.settled(settlement, held.age if held else None)
            _tell(settlement)
        else:
            self.pulse.statistics.lost(settlement.source, settlement.lane)
            log.info("job.not_settled", **about(settlement), verdict=verdict)
        if settlement.verb == "cancel" and held is not None and held.journal.open:
            self.executor.leave(held)  # its slot is free once that is done
        else:
            self._free(claim)

    def _dropped(self, running: Running) -> None:
        if running.settlement is None:
            self.pulse.statistics.lost(running.attempt.source, running.attempt.lane)
        self._free((running.attempt.queue_id, running.attempt.token))

    def _free(self, claim: tuple[int, int]) -> None:
        self._inflight.pop(claim, None)
        self.consumer.slot_freed.set()
        self.consumer.bell.set()  # a limit may admit the next one now
        self._idle.set()

    def _heard(self, payload: str) -> None:
        if payload.startswith("lost "):
            queue_id = int(payload.removeprefix("lost "))
            for (held, _), job in list(self._inflight.items()):
                if held == queue_id and job is not None:
                    job.stop(lost=True)
        else:
            self.consumer.bell.set()


def _try(source: str, claim: Claimed, kind: str, tries: int, max_retries: int) -> Try:
    return Try(
        queue_id=claim.queue_id,
        token=claim.token,
        source=source,
        key=claim.key,
        lane=claim.lane,
        kind=kind,
        run=claim.run,
        tries=tries,
        max_retries=max_retries,
        yields=claim.yields,
    )


TOLD = {"fail": "job.failed", "hold": "job.held", "retry": "job.retried"}
"""Successes are many and say nothing new; these someone may look for."""


def _tell(settlement: Settlement) -> None:
    event = TOLD.get(settlement.verb)
    if event is not None:
        tell = log.info if settlement.verb == "retry" else log.warning
        kind, code = settlement.error_kind, settlement.error_code
        told = {"error": settlement.error, "error_kind": kind, "error_code": code}
        tell(event, **about(settlement), **told)


_UNDONE = """
SELECT EXISTS (SELECT FROM rowmill.queue
                WHERE lane = ANY ($1)
                  AND (state = 'ready' OR (state = 'scheduled' AND tries + yields > 0)))
"""
