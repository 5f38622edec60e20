"""How much waits, for machines: right, bounded, and not to be blown up by what rows say."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.database.support import Connect, OpenStore
from worker.metrics import OTHER, Metrics, Now
from worker.store import Store
from worker.store.depth import lane_states, waiting
from worker.tallies import Tally

HOSTILE = 'evil"}\n# HELP x y\nrowmill_slots 1e9'

SERVED = ("openai", "replicate")

_WORKER = """
SELECT rowmill.register(1, 'a', '1', ARRAY['openai', 'replicate'], 10, 30)
"""
_QUEUED = """
INSERT INTO rowmill.queue (source, row_key, lane, rank, ready_at, state)
SELECT s.id, gen_random_uuid()::text, $1, 1 + n % 20,
       clock_timestamp() - n * interval '1 second', $3::text::rowmill.queue_state
  FROM rowmill.sources s, generate_series(1, $4::integer) n WHERE s.name = $2
"""
_MANY_LANES = """
INSERT INTO rowmill.queue (source, row_key, lane, rank, ready_at, state)
SELECT s.id, 'n' || n, 'lane ' || n, 10, clock_timestamp(), 'ready'
  FROM rowmill.sources s, generate_series(1, 10000) n WHERE s.name = 'generation_jobs'
"""


@pytest.fixture
async def db(both: str, connect: Connect) -> Any:
    connection = await connect(both)
    await connection.execute(_WORKER)
    return connection


@pytest.fixture
async def store(both: str, open_store: OpenStore) -> Store:
    return await open_store(both)


async def told(store: Store) -> dict[tuple[str, str, str], int]:
    return {(w.lane, w.source, w.state): w.jobs for w in await waiting(store)}


async def test_what_is_told_is_what_is_there(db: Any, store: Store) -> None:
    assert await told(store) == {}
    expected = {
        ("openai", "ai_generations", "ready"): 7,
        ("replicate", "generation_jobs", "ready"): 40,
        ("replicate", "generation_jobs", "scheduled"): 5,
        ("replicate", "generation_jobs", "held"): 3,
        ("nobody's", "background_jobs", "ready"): 4,
        (HOSTILE, "background_jobs", "ready"): 2,
        (HOSTILE, "background_jobs", "scheduled"): 1,
        ("nobody's", "background_jobs", "held"): 1,
    }
    for (lane, source, state), count in expected.items():
        await db.execute(_QUEUED, lane, source, state, count)
    assert await told(store) == {
        **{
            entry: count for entry, count in expected.items() if entry[0] in ("openai", "replicate")
        },
        ("", "background_jobs", "ready"): 6,
        ("", "background_jobs", "scheduled"): 1,
        ("", "background_jobs", "held"): 1,
    }
    waits = {w.lane: w.oldest_wait for w in await waiting(store) if w.oldest_wait is not None}
    assert {lane: int(wait / 10) for lane, wait in waits.items()} == {
        "openai": 0,
        "replicate": 4,
        "": 0,
    }


async def test_lanes_closed_by_hand_and_by_failures(db: Any, store: Store) -> None:
    await db.execute(
        "INSERT INTO rowmill.lanes (lane, source, paused_at, broken_until) VALUES"
        " ('replicate', '*', now(), NULL), ('openai', '*', NULL, now() + interval '1 hour'),"
        " ('nobody''s', '*', now(), NULL)"
    )
    states = {state.lane: (state.paused, state.broken) for state in await lane_states(store)}
    assert states == {"openai": (False, True), "replicate": (True, False)}
    await db.execute("INSERT INTO rowmill.lanes (lane, source, paused_at) VALUES ('*', '*', now())")
    assert all(state.paused for state in await lane_states(store))


async def test_no_row_makes_a_label(db: Any, store: Store) -> None:
    """Ten thousand lanes, and one that would write lines of its own."""
    metrics = Metrics(["openai", "replicate"])
    render = metrics.rendered(lambda: now(store))

    def series() -> dict[str, Metric]:
        return {f.name: f for f in text_string_to_metric_families(render().decode())}

    await db.execute(_QUEUED, "replicate", "generation_jobs", "ready", 1)
    await db.execute(_QUEUED, HOSTILE, "background_jobs", "ready", 1)
    await metrics.fleet.read(store)
    before = series()
    await db.execute(_MANY_LANES)
    with metrics.calling(HOSTILE):
        pass
    metrics.spent(HOSTILE, Decimal("1.5"))
    await metrics.fleet.read(store)
    after = series()
    assert len(after["rowmill_queue_jobs"].samples) == 4 + len(before["rowmill_queue_jobs"].samples)
    values = {
        value
        for family in after.values()
        for sample in family.samples
        for name, value in sample.labels.items()
        if name in {"lane", "source", "provider"}
    }
    known = {"openai", "replicate", "generation_jobs", "background_jobs"}
    assert values == {*known, OTHER}
    assert [sample.value for sample in after["rowmill_slots"].samples] == [10]


def now(store: Store) -> Now:
    """A worker with jobs of ten thousand lanes of ten thousand sources."""
    tallies = {(f"source {n}", f"lane {n}"): Tally(started=1) for n in range(10_000)}
    return Now(
        tallies=tallies,
        lanes=["openai", "replicate"],
        sources=["generation_jobs", "background_jobs"],
        slots=10,
        slots_used=0,
        heartbeat_age=0.0,
        settlements_pending=0,
        ready=True,
        traffic=store.traffic,
    )
