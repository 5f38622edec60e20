"""The statements of the hot path: one method, one round trip. Holds no policy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from worker.store.errors import Traffic, translated
from worker.store.pool import STATEMENT_SECONDS, Line, Pool, answers, open_pool


@dataclass(frozen=True, slots=True)
class SourceInfo:
    id: int
    name: str
    platform: str
    relation: str
    definition: dict[str, Any]
    unserved: dict[str, str]


@dataclass(frozen=True, slots=True)
class Head:
    """A (lane, source, rank) that has ready rows, and the ready time to look from."""

    lane: str
    source: int
    rank: int
    ready_from: datetime


@dataclass(frozen=True, slots=True)
class Claimed:
    """A queue row that is ours, as claim() returned it."""

    queue_id: int
    token: int
    source: int
    key: str
    lane: str
    rank: int
    run: int
    yields: int
    tenant: str | None
    ready_at: datetime
    waited_ms: int
    age_ms: int
    """Since its row was enqueued: a schedule, earlier tries and their pauses are part of it."""


@dataclass(frozen=True, slots=True)
class Started:
    queue_id: int
    verdict: str  # run | busy | gone; refuse | cancel by the stop rule, the message in `input`
    kind: str
    tries: int
    max_retries: int
    input: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pulse:
    alive: bool
    claims: dict[int, int]
    """Queue id → token of everything that is still ours."""
    drain: bool
    """An operator wants this worker to leave."""


@dataclass(frozen=True, slots=True)
class LaneRate:
    """What one row of rowmill.lanes says about its pace."""

    lane: str
    source: str
    requests: int | None
    """A minute, of the whole fleet."""
    tokens: int | None
    slow: float | None
    """Seconds until it is claimed from again."""


def to_json(value: Any) -> str:
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)  # a JSON string casts to numeric exactly; a float would not
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | frozenset):
        return list(value)
    return str(value)


# Whether it was asked to drain is read beside the function, whose result older workers read, too.
# Also of an incarnation that was given up before it heard.
_HEARTBEAT = """
SELECT h.alive, h.queue_ids, h.tokens,
       (SELECT w.drain_asked_at IS NOT NULL FROM rowmill.workers w WHERE w.id = $1) AS drain
  FROM rowmill.heartbeat($1, $2, $3) h
"""


class Store:
    def __init__(
        self, pool: Pool, *, pooled: bool, dsn: str, traffic: Traffic | None = None
    ) -> None:
        self.traffic = traffic or Traffic()
        self._pool = pool
        self._line = Line(dsn, pooled=pooled, traffic=self.traffic)
        self.pooled = pooled
        self.dsn = dsn

    @classmethod
    async def open(
        cls, dsn: str, size: int = 8, *, name: str = "rowmill", within: float = STATEMENT_SECONDS
    ) -> Self:
        """`name` is what the server's own views call us, `within` the seconds a statement may take."""
        traffic = Traffic()
        pool, pooled = await open_pool(dsn, size, traffic, name=name, within=within)
        return cls(pool, pooled=pooled, dsn=dsn, traffic=traffic)

    async def answers(self) -> bool:
        """Whether the database does, on a connection that nobody else has or waits for."""
        return await answers(self.dsn)

    async def close(self) -> None:
        self._line.close()
        self._pool.terminate()

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        with translated(self.traffic):
            return list(await self._pool.fetch(sql, *args))

    async def value(self, sql: str, *args: Any) -> Any:
        with translated(self.traffic):
            return await self._pool.fetchval(sql, *args)

    @asynccontextmanager
    async def look(self, seconds: float) -> AsyncIterator[Any]:
        """A connection that only reads, all of one moment, and gives up what takes too long.

        Rows that row-level security would hide are an error, and times are told in UTC.
        """
        with translated():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                await connection.execute(
                    f"SET LOCAL statement_timeout = {int(seconds * 1000)};"
                    "SET LOCAL row_security = off; SET LOCAL jit = off;"
                    "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'"
                )
                yield connection

    async def script(self, sql: str) -> None:
        """Several statements without parameters."""
        with translated(self.traffic):
            await self._pool.execute(sql)

    # ------------------------------------------------------------------ workers

    async def register(
        self,
        worker: int,
        *,
        name: str,
        version: str,
        lanes: Sequence[str],
        slots: int,
        lease: float,
        host: str | None = None,
    ) -> None:
        await self.value(
            "SELECT rowmill.register($1, $2, $3, $4, $5, $6, $7)",
            worker,
            name,
            version,
            list(lanes),
            slots,
            lease,
            host,
        )

    async def heartbeat(self, worker: int, *, running: int, draining: bool) -> Pulse:
        (row,) = await self.fetch(_HEARTBEAT, worker, running, draining)
        claims = dict(zip(row["queue_ids"] or (), row["tokens"] or (), strict=True))
        return Pulse(row["alive"], claims, bool(row["drain"]))

    async def rescue(self, worker: int) -> int:
        return int(await self.value("SELECT rowmill.rescue($1)", worker))

    async def retire(self, worker: int) -> int:
        return int(await self.value("SELECT rowmill.retire($1)", worker))

    async def hand_back(self, queue_ids: Sequence[int], tokens: Sequence[int]) -> None:
        """Claims that exist in the database alone: their answer never reached us."""
        await self.value("SELECT rowmill.hand_back($1, $2)", list(queue_ids), list(tokens))

    async def set_lanes(self, worker: int, lanes: Sequence[str]) -> None:
        await self.value(
            "UPDATE rowmill.workers SET lanes = $2 WHERE id = $1 AND lanes <> $2",
            worker,
            list(lanes),
        )

    # ------------------------------------------------------------------ the queue

    async def scan(self, lanes: Sequence[str]) -> list[Head]:
        rows = await self.fetch(
            "SELECT h.* FROM rowmill.scan($1) s, unnest(s.lanes, s.sources, s.ranks, s.ready_from)"
            " AS h (lane, source, rank, ready_from)",
            list(lanes),
        )
        return [Head(r["lane"], r["source"], r["rank"], r["ready_from"]) for r in rows]

    async def claim(
        self,
        worker: int,
        token: int,
        lanes: Sequence[str],
        want: int,
        heads: Sequence[Head] | None = None,
    ) -> list[Claimed]:
        rows = await self._line.fetch(
            "SELECT * FROM rowmill.claim($1, $2, $3, $4, $5, $6, $7, $8)",
            worker,
            token,
            list(lanes),
            want,
            None if heads is None else [h.lane for h in heads],
            None if heads is None else [h.source for h in heads],
            None if heads is None else [h.rank for h in heads],
            None if heads is None else [h.ready_from for h in heads],
        )
        return [
            Claimed(
                queue_id=r["queue_id"],
                token=token,
                source=r["source"],
                key=r["row_key"],
                lane=r["lane"],
                rank=r["rank"],
                run=r["run"],
                yields=r["yields"],
                tenant=r["tenant"],
                ready_at=r["ready_at"],
                waited_ms=r["waited_ms"],
                age_ms=r["age_ms"],
            )
            for r in rows
        ]

    async def start(
        self, source: str, token: int, queue_ids: Sequence[int], *, wait: bool = True
    ) -> list[Started]:
        rows = await self._line.fetch(
            f"SELECT * FROM rowmill.start_{source}($1, $2, $3)",
            token,
            list(queue_ids),
            wait,
        )
        return [
            Started(
                queue_id=r["queue_id"],
                verdict=r["verdict"],
                kind=r["kind"] or "",
                tries=r["tries"],
                max_retries=r["max_retries"],
                input=json.loads(r["input"]) if r["input"] else {},
            )
            for r in rows
        ]

    async def settle(self, source: str, results: str, *, wait: bool = True) -> dict[int, str]:
        rows = await self.fetch(
            f"SELECT queue_id, verdict FROM rowmill.settle_{source}($1, $2)",
            results,
            wait,
        )
        return {r["queue_id"]: r["verdict"] for r in rows}

    async def holds_any(self, claims: Sequence[tuple[int, int]]) -> bool:
        """Whether one of these claims (queue id, token) is still there."""
        ids, tokens = [queue_id for queue_id, _ in claims], [token for _, token in claims]
        return bool(
            await self.value(
                "SELECT EXISTS (SELECT FROM rowmill.queue q JOIN unnest($1::bigint[], $2::bigint[])"
                " AS c (id, token) USING (id, token) WHERE q.id = ANY ($1))",
                ids,
                tokens,
            )
        )

    async def progress(self, source: str, entries: Sequence[Mapping[str, Any]]) -> None:
        await self.value(
            f"SELECT rowmill.progress_{source}($1)",
            to_json(list(entries)),
        )

    async def stops(self, source: str, entries: Sequence[Mapping[str, Any]]) -> dict[int, str]:
        """Queue ids of running jobs that the platform's stop rule cancels, and why."""
        rows = await self.fetch(
            f"SELECT queue_id, message FROM rowmill.stops_{source}($1)", to_json(list(entries))
        )
        return {r["queue_id"]: r["message"] for r in rows}

    async def sweep(self, source: str, limit: int = 5000) -> int:
        return int(await self.value(f"SELECT rowmill.sweep_{source}($1)", limit))

    async def reclaim(self, source: str) -> int:
        return int(await self.value(f"SELECT rowmill.reclaim_{source}()"))

    async def add_pulses(self, rows: Sequence[Mapping[str, Any]]) -> None:
        await self.value(
            "INSERT INTO rowmill.pulses (worker, source, lane, started, succeeded, failed, retried,"
            " yielded, waits, runs, arrived) SELECT worker, source, lane, started, succeeded, failed,"
            " retried, yielded, waits, runs, coalesce(arrived, '{}') FROM jsonb_to_recordset($1::jsonb) AS r (worker bigint,"
            " source text, lane text, started integer, succeeded integer, failed integer,"
            " retried integer, yielded integer, waits integer[], runs integer[], arrived integer[])",
            to_json(list(rows)),
        )

    # ------------------------------------------------------------------ breakers

    async def trip(self, lane: str, why: str, seconds: float) -> datetime | None:
        """Until when the lane is left alone; None where it was already."""
        until: datetime | None = await self.value(
            "SELECT rowmill.trip($1, $2, $3)", lane, why, seconds
        )
        return until

    async def heal(self, lane: str) -> None:
        await self.value("SELECT rowmill.heal($1)", lane)

    async def broken_lanes(self) -> set[str]:
        rows = await self.fetch(
            "SELECT lane FROM rowmill.lanes WHERE source = '*' AND broken_until IS NOT NULL"
        )
        return {row["lane"] for row in rows}

    # ------------------------------------------------------------------ rates

    async def rates(self) -> list[LaneRate]:
        rows = await self.fetch(
            "SELECT lane, source, least(requests_per_minute, platform_requests_per_minute) AS"
            " requests, least(tokens_per_minute, platform_tokens_per_minute) AS tokens,"
            " greatest(0, extract(epoch FROM slow_until - clock_timestamp()))::double precision"
            " AS slow FROM rowmill.lanes"
        )
        return [LaneRate(**dict(row)) for row in rows]

    async def alive_by_lane(self) -> dict[str, int]:
        """How many live workers serve each lane."""
        rows = await self.fetch(
            "SELECT lane, count(*) AS workers FROM rowmill.workers, unnest(lanes) AS lane"
            " WHERE stopped_at IS NULL AND heartbeat_at > clock_timestamp() - lease GROUP BY lane"
        )
        return {row["lane"]: row["workers"] for row in rows}

    async def slow(self, lane: str, source: str, seconds: float, admits: int | None) -> None:
        await self.value("SELECT rowmill.slow($1, $2, $3, $4)", lane, source, seconds, admits)

    # ------------------------------------------------------------------ the ledger

    async def begun(self, queue_id: int, token: int, step: str) -> bool:
        """Whether this claim's step has a submission that intend() would return."""
        return bool(await self.value("SELECT rowmill.begun($1, $2, $3)", queue_id, token, step))

    async def intend(self, intents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        # One statement: what it tells of lost commits is of the server that has the intents.
        rows = await self.fetch(
            "SELECT i.*, g.* FROM rowmill.intend($1) i CROSS JOIN rowmill.gap(false) g ORDER BY i.n",
            to_json(list(intents)),
        )
        return [
            {
                **dict(r),
                "ref": json.loads(r["ref"]) if r["ref"] else None,
                "result": json.loads(r["result"]) if r["result"] else None,
            }
            for r in rows
        ]

    async def journal(self, entries: Sequence[Mapping[str, Any]]) -> set[int]:
        rows = await self.fetch("SELECT id FROM rowmill.journal($1)", to_json(list(entries)))
        return {r["id"] for r in rows}

    async def park(
        self, submission: int, intended_at: datetime | None, contents: Sequence[bytes]
    ) -> None:
        await self.value(
            "INSERT INTO rowmill.parked (submission, nth, content)"
            " SELECT u.id, c.nth - 1, c.content FROM rowmill.submissions u,"
            " unnest($3::bytea[]) WITH ORDINALITY c (content, nth)"
            " WHERE u.id = $1 AND u.intended_at = coalesce($2, u.intended_at)"
            " ON CONFLICT (submission, nth) DO NOTHING",
            submission,
            intended_at,
            list(contents),
        )

    async def parked(self, submission: int) -> list[bytes]:
        rows = await self.fetch(
            "SELECT content FROM rowmill.parked WHERE submission = $1 ORDER BY nth", submission
        )
        return [r["content"] for r in rows]

    async def kept(
        self, submission: int, intended_at: datetime | None, result: Mapping[str, Any]
    ) -> None:
        await self.value(
            "WITH kept AS (UPDATE rowmill.submissions SET result = $3 WHERE id = $1"
            " AND intended_at = coalesce($2, intended_at) AND state = 'finished' RETURNING id)"
            " DELETE FROM rowmill.parked p USING kept k WHERE p.submission = k.id",
            submission,
            intended_at,
            to_json(dict(result)),
        )

    async def mark_timeline(self) -> None:
        """What is committed before this, whoever has this has too."""
        await self.value("SELECT gap_since FROM rowmill.gap(true)")

    async def spoiled(
        self, submission: int, intended_at: datetime | None, failure: Mapping[str, Any]
    ) -> None:
        """Its cost is known and counted already; only what it was good for changes."""
        await self.value(
            "WITH spoiled AS (UPDATE rowmill.submissions SET state = 'failed', result = $3,"
            " error = $3::jsonb ->> 'message' WHERE id = $1"
            " AND intended_at = coalesce($2, intended_at) AND state = 'finished'"
            " AND result ->> 'kept' = 'false' RETURNING id)"
            " DELETE FROM rowmill.parked p USING spoiled s WHERE p.submission = s.id",
            submission,
            intended_at,
            to_json(dict(failure)),
        )

    async def known(self, provider: str, account: str, external_ids: Sequence[str]) -> set[str]:
        rows = await self.fetch(
            "SELECT external_id FROM rowmill.submissions "
            "WHERE provider = $1 AND account = $2 AND external_id = ANY ($3)",
            provider,
            account,
            list(external_ids),
        )
        return {r["external_id"] for r in rows}

    async def nobodys(self, submissions: Sequence[int]) -> set[int]:
        """Those of them whose job is in no queue any more."""
        rows = await self.fetch(
            "SELECT u.id FROM rowmill.submissions u WHERE u.id = ANY ($1) AND NOT EXISTS ("
            "SELECT FROM rowmill.queue q JOIN rowmill.sources s ON s.id = q.source "
            "WHERE s.name = u.source AND q.row_key = u.row_key AND q.run = u.run)",
            list(submissions),
        )
        return {r["id"] for r in rows}

    # ------------------------------------------------------------------ sources

    async def sources(self) -> list[SourceInfo]:
        rows = await self.fetch(
            "SELECT id, name, platform, relation, definition, unserved "
            "FROM rowmill.sources ORDER BY id"
        )
        return [
            SourceInfo(
                r["id"],
                r["name"],
                r["platform"],
                r["relation"],
                json.loads(r["definition"]),
                json.loads(r["unserved"]),
            )
            for r in rows
        ]
