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
from collections.abc import Coroutine, Mapping, Sequence
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
from worker.breaker import Breaker
from worker.consumer import Consumer
from worker.coordination import Coordination
from worker.executor import Executor, PaidCalls, Running, Services
from worker.generate.words import mirrors_kind
from worker.ledger import ClaimJournal, Lease, Ledger, boottime
from worker.maintenance import Maintenance
from worker.maps import MapError, Platform, Source
from worker.paying import charges_of, providers_of
from worker.pulse import PulseLoop
from worker.rates import Rates
from worker.settings import Settings, database_url
from worker.settler import Settler
from worker.store import Claimed, SourceInfo, Started, Store, Unavailable
from worker.store.bell import Bell
from worker.transitions import Settlement, Try
from worker.turns import Turns

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
        self.name = settings.worker_name or f"{socket.gethostname()}:{os.getpid()}"
        self.draining = False
        self.asked_to_leave = asyncio.Event()
        """An operator said `rowmill drain`."""
        self._providers = providers
        self._client = client
        self._coordination = coordination
        self._compute = Compute(settings.compute_processes, settings.compute_memory_mb)
        self.rates = rates
        self._sources: dict[int, SourceInfo] = {}
        self._platforms: dict[str, Platform] = {}
        self._lanes: list[str] = []
        self._inflight: dict[tuple[int, int], Running | None] = {}
        self._idle = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.lease = Lease(settings.lease_seconds)
        self.ledger = Ledger(store, self.lease)
        self._build(runner, policy, outputs)

    def _build(self, runner: PaidCalls, policy: HostPolicy, outputs: OutputStore) -> None:
        settings, store = self.settings, self.store
        self.breaker = Breaker(store)
        self.maintenance = Maintenance(
            store,
            runner,
            self.ledger,
            worker=lambda: self.id,
            platforms=lambda: list(self._platforms.values()),
            accounts=[(name, its.account.name) for name, its in self._providers.items()],
            breaker=self.breaker,
            rates=self.rates,
            reload=self.load_sources,
            lease=settings.lease_seconds,
            sweep_seconds=settings.sweep_seconds,
        )
        self.settler = Settler(
            store,
            batch=settings.settle_batch,
            settled=self._settled,
            make_partitions=self.maintenance.make_partitions,
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
            ),
            max_yields=settings.max_yields,
            put=self.settler.put,
            dropped=self._dropped,
        )
        self.consumer = Consumer(
            store,
            worker=lambda: self.id,
            lanes=lambda: [lane for lane in self._lanes if not self.rates.closed(lane)],
            free_slots=self.free_slots,
            source_name=self._source_name,
            launch=self._launch,
            stop=self._stop,
            refuse=self._refuse,
            rested=self._idle.set,
            batch=settings.claim_batch,
            poll=settings.poll_seconds,
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
            stoppable=self._stoppable,
            seconds=min(settings.pulse_seconds, settings.lease_seconds / 5),
        )

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
        await self.load_sources()
        await self._register()
        # Before the first claim: one heartbeat, so that `may_pay` rests on an acknowledged one.
        await self.pulse.run_once()
        await self.rates.refresh()
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
            lanes=self._lanes,
            pooler=self.store.pooled,
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
            lanes=self._lanes,
            slots=self.settings.slots,
            lease=self.settings.lease_seconds,
            host=socket.gethostname(),
        )

    async def _begin_again(self) -> None:
        """This incarnation was given up: what it held is someone else's. Start as a new one."""
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

    async def until_done(self) -> None:
        """For --burst: return once nothing is ready, running, or waiting for its next try."""
        while True:
            await self._until_idle(3600)
            if not self._inflight and not await self.store.value(_UNDONE, self._lanes):
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

    def progress(self) -> list[tuple[str, str, float]]:
        """(source, key, percent) of the jobs in hand."""
        jobs = [job for job in self._inflight.values() if job is not None]
        return [(job.attempt.source, job.attempt.key, job.percent) for job in jobs]

    def _holds(self, queue_id: int, token: int) -> bool:
        return (queue_id, token) in self._inflight or queue_id in self.consumer.starting

    def _launch(self, claim: Claimed, started: Started) -> None:
        attempt = self._try(claim, started.kind, started.tries, started.max_retries)
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

    def _refuse(self, claim: Claimed, message: str) -> None:
        """Its input can't even be read: the row fails alone, with what the database said."""
        failure = Failure(FailureKind.INVALID, f"its input can't be read: {message}", "input")
        self._end(claim, self._try(claim, "unknown", 0, 0), Failed(failure))

    def _stop(self, claim: Claimed, started: Started) -> None:
        """The platform's stop rule says that it must not run: nothing of it was begun."""
        attempt = self._try(claim, started.kind, started.tries, started.max_retries)
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

    def _stoppable(self, source: str) -> bool:
        return any(p.rule(source, "stop") is not None for p in self._platforms.values())

    def _try(self, claim: Claimed, kind: str, tries: int, max_retries: int) -> Try:
        return Try(
            queue_id=claim.queue_id,
            token=claim.token,
            source=self._sources[claim.source].name,
            key=claim.key,
            lane=claim.lane,
            kind=kind,
            run=claim.run,
            tries=tries,
            max_retries=max_retries,
            yields=claim.yields,
        )

    def _settled(self, settlement: Settlement, verdict: str) -> None:
        claim = (settlement.queue_id, settlement.token)
        held = self._inflight.get(claim)
        if verdict == "settled":
            self.pulse.statistics.settled(settlement, held.age if held else None)
        else:
            log.info(
                "job.not_settled", source=settlement.source, key=settlement.key, verdict=verdict
            )
        if settlement.verb == "cancel" and held is not None and held.journal.open:
            self.executor.leave(held)
        else:
            self._free(claim)

    def _dropped(self, running: Running) -> None:
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

    # ------------------------------------------------------------------ sources and lanes

    async def load_sources(self) -> None:
        """What is attached, and which lanes of it this worker can serve; read now and then."""
        attached = await self.store.sources()
        self._platforms = self._understood(attached)
        infos = [info for info in attached if self._source(info) is not None]
        self._sources = {info.id: info for info in infos}
        lanes = sorted({lane for info in infos for lane in self._served(info)})
        if self.settings.lanes:
            lanes = [lane for lane in lanes if lane in self.settings.lanes]
        if lanes != self._lanes:
            self._lanes = lanes
            await self.store.set_lanes(self.id, lanes)

    def _understood(self, infos: Sequence[SourceInfo]) -> dict[str, Platform]:
        """A map that only a newer version knows stops no worker: it goes on by the one it had."""
        platforms = {}
        for info in infos:
            try:
                platforms[info.platform] = Platform.from_definition(info.definition)
            except MapError as error:
                log.warning("platform.too_new", platform=info.platform, error=str(error))
                if known := self._platforms.get(info.platform):
                    platforms[info.platform] = known
        return platforms

    def _source(self, info: SourceInfo) -> Source | None:
        platform = self._platforms.get(info.platform)
        sources = platform.map.sources if platform else []
        return next((s for s in sources if s.name == info.name), None)

    def _served(self, info: SourceInfo) -> list[str]:
        source = self._source(info)
        possible = self._possible(source) if source else []
        return [lane for lane in possible if lane not in info.unserved]

    def _possible(self, source: Source) -> list[str]:
        if source.lane.constant is not None:
            return [source.lane.prefix + source.lane.constant]
        if mirrors_kind(source):
            return [n for n in self.registry.names() if n.startswith(source.kind.prefix)]
        return list(self._providers)

    def _source_name(self, source: int) -> str | None:
        info = self._sources.get(source)
        return info.name if info else None


_UNDONE = """
SELECT EXISTS (SELECT FROM rowmill.queue
                WHERE lane = ANY ($1)
                  AND (state = 'ready' OR (state = 'scheduled' AND tries + yields > 0)))
"""
