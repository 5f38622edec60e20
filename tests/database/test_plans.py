"""No statement of the hot path reads a table from end to end, whatever the planner believes of it.

Functions hide their plans, so this counts what they do: within one transaction Postgres tells how
many rows were read by sequential scans and fetched by index scans, exactly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.database.conftest import attached
from tests.database.platform_samples import CloneDatabase, run, user
from tests.database.support import (
    LANES,
    Connect,
    Hand,
    Work,
    add_background,
    add_texts,
    add_videos,
    connection_to,
    fell_silent,
    has_lived,
)
from worker.store import Store

JOBS = ("public.generation_jobs", "ai_processing.ai_generations", "system.background_jobs")
WATCHED = ("rowmill.queue", "rowmill.submissions", "rowmill.allowances", *JOBS)
BATCH = 12
OURS = "rowmill."
"""How a producer's own statement reads its own table is its own business."""
FETCHES = 150
"""Rows of a watched table that one statement may fetch for each job of its batch, at most."""

_COUNTS = """
SELECT schemaname || '.' || relname AS name, coalesce(seq_tup_read, 0) AS scanned,
       coalesce(idx_tup_fetch, 0) AS fetched
  FROM pg_stat_xact_user_tables WHERE schemaname || '.' || relname = ANY ($1)
"""


@dataclass(slots=True)
class Watch:
    """What each statement read, by its name and table: (rows scanned, rows fetched)."""

    connection: Any
    scanned: dict[str, int] = field(default_factory=dict)
    fetched: dict[str, int] = field(default_factory=dict)

    async def counts(self) -> dict[str, tuple[int, int]]:
        rows = await self.connection.fetch(_COUNTS, list(WATCHED))
        return {row["name"]: (row["scanned"], row["fetched"]) for row in rows}

    @asynccontextmanager
    async def on(self, statement: str, tables: str = "") -> AsyncIterator[None]:
        before = await self.counts()
        yield
        for table, (scanned, fetched) in (await self.counts()).items():
            if not table.startswith(tables):
                continue
            was_scanned, was_fetched = before.get(table, (0, 0))
            name = f"{statement}: {table}"
            self.scanned[name] = max(self.scanned.get(name, 0), scanned - was_scanned)
            self.fetched[name] = max(self.fetched.get(name, 0), fetched - was_fetched)

    def assert_small(self) -> None:
        assert {name: rows for name, rows in self.scanned.items() if rows > 0} == {}
        assert {name: n for name, n in self.fetched.items() if n > FETCHES * BATCH} == {}
        assert any(self.fetched.values())


# --------------------------------------------------------------------------- databases of a size

_VIDEOS = """
WITH project AS (
    INSERT INTO public.video_projects (user_id)
    SELECT $2::uuid FROM generate_series(1, $1::integer / 10) RETURNING id)
INSERT INTO public.generation_jobs (project_id, user_id, generation_service, priority)
SELECT p.id, $2::uuid, (ARRAY['replicate', 'runway'])[1 + n % 2], 3
  FROM project p, generate_series(1, 10) n
"""


_READERS = """
INSERT INTO users.users (email, username)
SELECT 'reader' || n || '@example.com', 'reader-' || n FROM generate_series(1, 1000) n
"""

_TEXTS = """
INSERT INTO ai_processing.ai_generations (user_id, model_id, prompt)
SELECT u.id, 'e2000000-0000-4000-8000-000000000001', 'Write.'
  FROM users.users u, generate_series(1, $1::integer / 1000 + 1)
 WHERE u.username LIKE 'reader-%' LIMIT $1
"""


async def quiet(dsn: str) -> None:
    """Customers, but no jobs; and nobody else renews the statistics of these."""
    switches = (f"ALTER TABLE {table} SET (autovacuum_enabled = off)" for table in WATCHED)
    await run(dsn, *switches, _READERS, "ANALYZE users.users")


async def load(dsn: str, rows: int) -> None:
    """That many queue rows, half of them videos; as many calls and allowances; and jobs done."""
    async with connection_to(dsn) as connection:
        await connection.execute(_VIDEOS, rows // 2, user(8))
        await connection.execute(_TEXTS, rows // 4)
        await add_background(connection, rows // 4)
        await add_background(connection, rows // 4, status="completed")
        await connection.execute(
            "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
            " account, model, state, external_id, estimate_cents)"
            " SELECT s.name, q.row_key, 1, 'earlier', q.lane, 1, 'replicate', 'main', 'm',"
            " 'accepted', q.row_key, 1 FROM rowmill.queue q"
            " JOIN rowmill.sources s ON s.id = q.source"
        )
        await connection.execute(
            "INSERT INTO rowmill.allowances (source, row_key, run, tenant, amount)"
            " SELECT source, row_key, run + 1, 'customer ' || id % 1000, 1 FROM rowmill.queue"
        )


async def analyze(connection: Any) -> None:
    await connection.execute(f"ANALYZE {', '.join(WATCHED)}")


# --------------------------------------------------------------------------- the hot path


@dataclass(slots=True)
class Rounds:
    """The life of a batch, again and again, on one connection and in its open transaction."""

    connection: Any
    hand: Hand
    other: Hand
    watch: Watch

    @classmethod
    async def begin(cls, connection: Any, dsn: str) -> Rounds:
        # A connection has all of a pool that a store asks for; and it is the claims' own line, too.
        store = Store(connection, pooled=False, dsn=dsn)
        store._line._connection = connection
        await connection.execute(
            "INSERT INTO rowmill.lanes (max_running) VALUES (100000) ON CONFLICT DO NOTHING"
        )
        return cls(connection, await Hand.hire(store), await Hand.hire(store), Watch(connection))

    async def run(self) -> None:
        """Often enough for cached plans to become generic ones."""
        ends = (self.hand.succeed, self.hand.retry, self.hand.yield_, self.hand.release)
        for end in (*ends, self.hand.fail, self.hand.hold, self.hand.cancel, *ends):
            await self._round(end)
            await self._drop()
        await self._others()

    async def _drop(self) -> None:
        """Paid jobs are cancelled by the platform: the next payment gives back what they hold."""
        await add_videos(self.connection, 2, priority=10)
        works = await self.hand.take(2)
        await self._pay(works)
        cancel = "UPDATE public.generation_jobs SET status = 'cancelled' WHERE id::text = ANY ($1)"
        await self.connection.execute(cancel, [work.key for work in works])
        assert set((await self.hand.succeed(works)).values()) & {"superseded", "lost"}

    async def _round(self, end: Callable[[list[Work]], Awaitable[dict[str, str]]]) -> None:
        store, watch = self.hand.store, self.watch
        await self._produce()
        async with watch.on("scan"):
            heads = await store.scan(LANES)
        async with watch.on("claim at heads"):
            claims = await self.hand.claim(BATCH // 2, heads)
        async with watch.on("claim"):
            claims += await self.hand.claim(BATCH // 2)
        assert len(claims) == BATCH
        works: list[Work] = []
        for token in {c.token for c in claims}:
            async with watch.on("start"):
                works += await self.hand.start([c for c in claims if c.token == token])
        assert len(works) == BATCH
        await self._pay(works)
        async with watch.on("progress"):
            await self._progress(works)
        async with watch.on("heartbeat"):
            await store.heartbeat(self.hand.id, running=BATCH, draining=False)
        async with watch.on(f"settle: {end.__name__}"):
            assert set((await end(works)).values()) == {"settled"}

    async def _produce(self) -> None:
        """Twelve of the highest rank, of all tables, come; what else producers do, they do too."""
        async with self.watch.on("insert", OURS):
            keys = await add_videos(self.connection, BATCH // 3 + 2, priority=10)
            await add_texts(self.connection, BATCH // 3, of=4)
            await add_background(self.connection, BATCH // 3, priority=9)
        one = "public.generation_jobs SET {} WHERE id = $1"
        async with self.watch.on("move", OURS):
            await self.connection.execute("UPDATE " + one.format("priority = 9"), keys[0])
        async with self.watch.on("cancel", OURS):
            await self.connection.execute("UPDATE " + one.format("status = 'cancelled'"), keys[0])
        async with self.watch.on("requeue", OURS):
            await self.connection.execute("UPDATE " + one.format("status = 'queued'"), keys[0])
        async with self.watch.on("delete", OURS):
            gone = "DELETE FROM public.generation_jobs WHERE id = ANY ($1)"
            await self.connection.execute(gone, keys[:2])

    async def _pay(self, works: list[Work]) -> None:
        store = self.hand.store
        intents = [
            {
                "queue_id": w.queue_id,
                "token": w.token,
                "worker": self.hand.id,
                "step": "main",
                "provider": "replicate",
                "account": "main",
                "model": "m",
                "estimate_cents": "2",
            }
            for w in works
        ]
        async with self.watch.on("intend"):
            rows = await store.intend(intents)
        assert {row["verdict"] for row in rows} <= {"fresh", "exists"}
        for state in ("accepted", "finished"):
            entries = [{"id": row["id"], "state": state, "cost_cents": "2"} for row in rows]
            async with self.watch.on("journal"):
                await store.journal(entries)

    async def _progress(self, works: list[Work]) -> None:
        for source in {w.source for w in works}:
            entries = [
                {"queue_id": w.queue_id, "token": w.token, "key": w.key, "progress": 50}
                for w in works
                if w.source == source
            ]
            await self.hand.store.progress(source, entries)

    async def _others(self) -> None:
        store = self.hand.store
        await has_lived(self.connection, self.hand)
        for _ in range(7):
            lost = await self.other.claim(BATCH)
            async with self.watch.on("hand back"):
                some = lost[: BATCH // 2]
                await store.hand_back([c.queue_id for c in some], [c.token for c in some])
            async with self.watch.on("promote"):
                await store.value("SELECT rowmill.promote()")
            async with self.watch.on("rescue of nobody"):
                assert await store.rescue(self.hand.id) == 0
            await fell_silent(self.connection, self.other)
            async with self.watch.on("rescue"):
                assert await store.rescue(self.hand.id) == BATCH // 2
            self.other = await Hand.hire(store)
            await self.other.claim(BATCH)
            async with self.watch.on("retire"):
                assert await store.retire(self.other.id) == BATCH
            self.other = await Hand.hire(store)


@asynccontextmanager
async def rolled_back(connection: Any) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


@pytest.fixture(params=[1_000, 200_000])
async def loaded(request: pytest.FixtureRequest, clone_database: CloneDatabase) -> str:
    """Both platforms with so many rows waiting, and no statistics of them."""
    rows = int(request.param)

    async def build(dsn: str) -> None:
        await attached("photomemory", "ebook")(dsn)
        await quiet(dsn)
        await load(dsn, rows)

    return await clone_database(f"loaded-{rows}", build)


@pytest.mark.parametrize("statistics", ["none", "fresh"])
async def test_the_hot_path_reads_by_index_alone(
    loaded: str, connect: Connect, statistics: str
) -> None:
    connection = await connect(loaded)
    if statistics == "fresh":
        await analyze(connection)
    async with rolled_back(connection):
        rounds = await Rounds.begin(connection, loaded)
        await rounds.run()
    rounds.watch.assert_small()


@pytest.mark.parametrize("analyzed", [False, True], ids=["never seen", "seen empty"])
async def test_plans_made_for_an_empty_queue_hold_for_a_full_one(
    both: str, connect: Connect, analyzed: bool
) -> None:
    """A worker that rests plans its statements for nothing; then a producer comes with 200,000."""
    await quiet(both)
    connection = await connect(both)
    if analyzed:
        await analyze(connection)
    async with rolled_back(connection):
        rounds = await Rounds.begin(connection, both)
        await rounds.run()
    await load(both, 200_000)
    async with rolled_back(connection):
        rounds = await Rounds.begin(connection, both)
        await rounds.run()
    rounds.watch.assert_small()
