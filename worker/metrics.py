"""What a worker tells Prometheus, in a registry of its own; docs/metrics.md says what each means.

What is counted anyway (jobs, database errors) is read when it is asked for. What the whole fleet
shares (how much waits, which lanes are closed) is read from the database every `READ_SECONDS`,
never for a scrape, and left out while the database is away.

Labels are bounded: lanes, sources and providers of this worker's configuration and of what is
attached, and `other` for everything else. Rows choose none.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import accumulate

import prometheus_client as prometheus
import structlog
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jobs.contract import FailureKind
from jobs.providers.errors import HeldForPerson, ProviderError
from jobs.providers.journal import NotAllowed, NotNow
from worker import __version__
from worker.store import Store, StoreError
from worker.store.depth import LaneState, Waiting, lane_states, waiting
from worker.store.errors import NAMES, Traffic
from worker.tallies import BUCKETS, LOST, Tallies

log = structlog.get_logger()

READ_SECONDS = 15.0
READ_PATIENCE = 10.0
OTHER = "other"
MOST_VALUES = 200
"""Of one label, whatever is configured."""

OUTCOMES = {
    "succeed": "succeeded",
    "fail": "failed",
    "retry": "retried",
    "yield": "yielded",
    "wait": "yielded",
    "release": "released",
    "cancel": "cancelled",
    "hold": "held",
    LOST: "lost",
}
STATES = ("ready", "scheduled", "running", "held")
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LONG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SHOWN = range(3, BUCKETS, 2)
"""Of the tallies' buckets, every second one from 8 ms on: enough for quantiles, half the series."""


@dataclass(frozen=True, slots=True)
class Now:
    """What holds at the moment of a scrape."""

    tallies: Tallies
    lanes: Collection[str]
    sources: Collection[str]
    slots: int
    slots_used: int
    heartbeat_age: float | None
    settlements_pending: int
    ready: bool
    traffic: Traffic


class Labels:
    """A label's value for anything that may come: one of those known, or `other`."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = frozenset(sorted(known)[:MOST_VALUES])

    def __call__(self, value: str) -> str:
        return value if value in self._known else OTHER


class Metrics:
    def __init__(self, providers: Collection[str]) -> None:
        # Else each has a second series for its beginning.
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._provider = Labels(providers)
        self.fleet = FleetView()
        registry = self._registry = prometheus.CollectorRegistry()

        def histogram(
            name: str, says: str, buckets: Sequence[float], labels: Sequence[str] = ()
        ) -> prometheus.Histogram:
            return prometheus.Histogram(name, says, labels, buckets=buckets, registry=registry)

        def counter(name: str, says: str, *labels: str) -> prometheus.Counter:
            return prometheus.Counter(name, says, labels, registry=registry)

        self._claim = histogram("rowmill_claim_seconds", "A claim's statement.", SHORT)
        self._settle = histogram("rowmill_settle_seconds", "A settling commit.", SHORT)
        self._batch = histogram("rowmill_settle_batch_jobs", "Jobs per settling commit.", SIZES)
        self._lag = histogram(
            "rowmill_event_loop_lag_seconds", "How late a timer of the event loop was.", SHORT
        )
        calls = counter(
            "rowmill_provider_calls_total", "Paid calls that ended.", "provider", "outcome"
        )
        call_seconds = histogram(
            "rowmill_provider_call_seconds",
            "A paid call that succeeded or failed, from its intent to its outputs in the storage.",
            LONG,
            ("provider",),
        )
        self._failures = counter(
            "rowmill_provider_failures_total", "Paid calls that failed.", "provider", "kind"
        )
        spend = counter(
            "rowmill_provider_spend_cents_total",
            "US cents in the ledger, of calls this worker saw the end of.",
            "provider",
        )
        # Once for every job: finding a series by its labels costs more than counting.
        self._calls, self._call_seconds = cache(calls.labels), cache(call_seconds.labels)
        self._spend = cache(spend.labels)
        info = prometheus.Gauge("rowmill_build_info", "Always 1.", ("version",), registry=registry)
        info.labels(__version__).set(1)
        prometheus.ProcessCollector(registry=registry)

    def rendered(self, now: Callable[[], Now]) -> Callable[[], bytes]:
        """What `/metrics` answers."""
        self._registry.register(_Collected(now, self.fleet))
        return lambda: prometheus.generate_latest(self._registry)

    # ------------------------------------------------------------------ what is observed

    @contextmanager
    def claiming(self) -> Iterator[None]:
        with self._claim.time():
            yield

    @contextmanager
    def settling(self, jobs: int) -> Iterator[None]:
        self._batch.observe(jobs)
        with self._settle.time():
            yield

    def lagged(self, seconds: float) -> None:
        self._lag.observe(seconds)

    @contextmanager
    def calling(self, provider: str) -> Iterator[None]:
        label, began = self._provider(provider), time.perf_counter()
        outcome = "stopped"
        try:
            yield
            outcome = "succeeded"
        except ProviderError as error:
            outcome = "failed"
            self._failures.labels(label, FailureKind(error.failure.kind).value).inc()
            raise
        except HeldForPerson:
            outcome = "held"
            raise
        except NotNow:
            outcome = "put_off"
            raise
        except NotAllowed:
            outcome = "refused"
            raise
        finally:
            self._calls(label, outcome).inc()
            if outcome in {"succeeded", "failed"}:
                self._call_seconds(label).observe(time.perf_counter() - began)

    def spent(self, provider: str, cents: Decimal) -> None:
        self._spend(self._provider(provider)).inc(float(cents))


# --------------------------------------------------------------------------- the fleet


class FleetView:
    """What all workers see alike, read now and then; empty while it isn't known."""

    def __init__(self) -> None:
        self.waiting: Sequence[Waiting] = ()
        self.lanes: Sequence[LaneState] = ()
        self.known = False

    async def run(self, store: Store) -> None:
        while True:
            await self.read(store)
            # Spread out, so that a fleet doesn't ask all at once.
            await asyncio.sleep(READ_SECONDS * random.uniform(1.0, 1.3))

    async def read(self, store: Store) -> None:
        try:
            async with asyncio.timeout(READ_PATIENCE):
                self.waiting = await waiting(store)
                self.lanes = await lane_states(store)
                self.known = True
        except (StoreError, TimeoutError) as error:
            self.waiting, self.lanes, self.known = (), (), False
            log.warning("metrics.unknown", error=str(error) or "the queue can't be read in time")


# --------------------------------------------------------------------------- what is read


class _Collected(Collector):
    def __init__(self, now: Callable[[], Now], fleet: FleetView) -> None:
        self._now = now
        self._fleet = fleet

    def describe(self) -> list[Metric]:
        return []  # else it would be collected on registration, before there is anything to tell

    def collect(self) -> Iterator[Metric]:
        now = self._now()
        yield from _jobs(now)
        yield from _worker(now)
        if self._fleet.known:
            yield from _queue(self._fleet, now.sources)


def _jobs(now: Now) -> Iterator[Metric]:
    lane_of, source_of = Labels(now.lanes), Labels(now.sources)
    by_label: Tallies = {}
    for (source, lane), tally in now.tallies.items():
        labels = source_of(source), lane_of(lane)
        if labels in by_label:
            by_label[labels].add(tally)
        else:
            by_label[labels] = tally
    names = ("source", "lane")
    started = CounterMetricFamily("rowmill_jobs_started", "Jobs that began to run.", labels=names)
    ended = CounterMetricFamily(
        "rowmill_jobs_finished", "Runs of jobs that ended, and how.", labels=(*names, "outcome")
    )
    waits = HistogramMetricFamily(
        "rowmill_job_wait_seconds", "From when a job might run to its claim.", labels=names
    )
    runs = HistogramMetricFamily(
        "rowmill_job_run_seconds",
        "From a job's start to its outcome, if it succeeded.",
        labels=names,
    )
    for labels, tally in by_label.items():
        started.add_metric(labels, tally.started)
        outcomes: Counter[str] = Counter()
        for verb, count in tally.ended.items():
            outcomes[OUTCOMES[verb]] += count
        for outcome, count in outcomes.items():
            ended.add_metric((*labels, outcome), count)
        waits.add_metric(labels, _buckets(tally.waits), tally.waited_ms / 1000)
        runs.add_metric(labels, _buckets(tally.runs), tally.ran_ms / 1000)
    yield from (started, ended, waits, runs)


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    below = list(accumulate(counts))
    shown = [(str(2**n / 1000), float(below[n])) for n in SHOWN]
    return [*shown, ("+Inf", float(below[-1]))]


def _worker(now: Now) -> Iterator[Metric]:
    yield GaugeMetricFamily("rowmill_slots", "Jobs that may run here at once.", now.slots)
    yield GaugeMetricFamily("rowmill_slots_used", "Jobs in this worker's hands.", now.slots_used)
    yield GaugeMetricFamily("rowmill_ready", "1 while /readyz says so.", float(now.ready))
    yield GaugeMetricFamily(
        "rowmill_settlements_pending",
        "Outcomes that no statement carries yet.",
        now.settlements_pending,
    )
    if now.heartbeat_age is not None:
        yield GaugeMetricFamily(
            "rowmill_heartbeat_age_seconds",
            "Since the last acknowledged heartbeat was sent.",
            now.heartbeat_age,
        )
    errors = CounterMetricFamily(
        "rowmill_database_errors",
        "Statements that failed, by what we make of it.",
        labels=("kind",),
    )
    for kind in NAMES.values():
        errors.add_metric((kind,), now.traffic.errors[kind])
    yield errors
    yield CounterMetricFamily(
        "rowmill_database_connections_opened",
        "Connections made to Postgres; many of them are reconnections.",
        now.traffic.connections,
    )


def _queue(fleet: FleetView, sources: Collection[str]) -> Iterator[Metric]:
    source_of = Labels(sources)
    jobs: dict[tuple[str, str, str], int] = defaultdict(int)
    oldest: dict[tuple[str, str], float] = defaultdict(float)
    for entry in fleet.waiting:
        lane, source = entry.lane or OTHER, source_of(entry.source)
        jobs[lane, source, entry.state] += entry.jobs
        if entry.oldest_wait is not None:
            oldest[lane, source] = max(oldest[lane, source], entry.oldest_wait)  # never below 0
    depth = GaugeMetricFamily(
        "rowmill_queue_jobs",
        "Unfinished jobs of the whole fleet; large numbers are estimates.",
        labels=("lane", "source", "state"),
    )
    for lane, source in sorted({(lane, source) for lane, source, _ in jobs}):
        for state in STATES:
            depth.add_metric((lane, source, state), jobs[lane, source, state])
    yield depth
    waits = GaugeMetricFamily(
        "rowmill_queue_oldest_wait_seconds",
        "For how long the oldest ready job waits.",
        labels=("lane", "source"),
    )
    for labels, seconds in sorted(oldest.items()):
        waits.add_metric(labels, seconds)
    yield waits
    paused = GaugeMetricFamily(
        "rowmill_lane_paused", "1 while nothing is claimed.", labels=("lane",)
    )
    broken = GaugeMetricFamily(
        "rowmill_lane_broken", "1 while its provider is left alone.", labels=("lane",)
    )
    for lane_state in fleet.lanes:
        paused.add_metric((lane_state.lane,), float(lane_state.paused))
        broken.add_metric((lane_state.lane,), float(lane_state.broken))
    yield from (paused, broken)
