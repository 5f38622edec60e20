"""One priority order over all tables, from evidence: who waited while whom was claimed.

A trigger of the demo's own on rowmill.queue writes down each row that becomes ready, is claimed or
leaves. Claims are made one after the other, under a lock that is held to their commit; numbers that
the trigger draws meanwhile are therefore in the order of the commits.

A claim is an inversion if a row of a higher rank was left waiting that it should have taken:

- in a lane the worker serves,
- behind open gates only, each with more room than jobs could have ended while the claim was made,
- ready since before the first worker came; or for longer than a worker may go on with what it saw
  in an earlier look at the queue, which is a second, and than a commit takes to be seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from worker.store import Store

SETTLED = timedelta(seconds=5)
"""A row that became ready so long before a claim was seen by whoever made it."""

WATCH = """
CREATE SCHEMA rowmill_demo;
CREATE TABLE rowmill_demo.moves (
    number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    batch   bigint NOT NULL,          -- the transaction: one claim's rows have one
    row     bigint NOT NULL,
    source  smallint NOT NULL,
    lane    text NOT NULL,
    rank    smallint NOT NULL,
    state   text NOT NULL,            -- ready, claimed, or anything else that isn't waiting
    worker  bigint
);
-- What each gate still admitted when a claim was made; one with a rate counts as shut.
CREATE TABLE rowmill_demo.gates (
    batch   bigint NOT NULL,
    gate    text NOT NULL,            -- 'lane/source', each of them '*' for any
    free    integer
);
CREATE FUNCTION rowmill_demo.watch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_row   rowmill.queue := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    v_state text := CASE TG_OP WHEN 'DELETE' THEN 'gone' ELSE NEW.state::text END;
    v_batch bigint := pg_current_xact_id()::text::bigint;
BEGIN
    INSERT INTO rowmill_demo.moves (batch, row, source, lane, rank, state, worker)
    VALUES (v_batch, v_row.id, v_row.source, v_row.lane, v_row.rank, v_state, v_row.worker);
    IF v_state = 'claimed' AND NOT EXISTS (SELECT FROM rowmill_demo.gates g WHERE g.batch = v_batch) THEN
        INSERT INTO rowmill_demo.gates (batch, gate, free)
        SELECT v_batch, g.name, g.free
          FROM rowmill.gates() AS shut, unnest(shut.names, shut.free) AS g (name, free)
        UNION ALL
        SELECT v_batch, l.lane || '/' || l.source, 0 FROM rowmill.lanes l
         WHERE num_nonnulls(l.requests_per_minute, l.tokens_per_minute,
                            l.platform_requests_per_minute, l.platform_tokens_per_minute) > 0
        UNION ALL SELECT v_batch, '', NULL;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER rowmill_demo_come AFTER INSERT OR DELETE ON rowmill.queue
    FOR EACH ROW EXECUTE FUNCTION rowmill_demo.watch();
CREATE TRIGGER rowmill_demo_move AFTER UPDATE ON rowmill.queue
    FOR EACH ROW WHEN ((OLD.state, OLD.token) IS DISTINCT FROM (NEW.state, NEW.token)
                       OR NEW.state = 'ready' AND (OLD.lane, OLD.rank) IS DISTINCT FROM (NEW.lane, NEW.rank))
    EXECUTE FUNCTION rowmill_demo.watch();
"""

_LATEST = "SELECT coalesce(max(number), 0) FROM rowmill_demo.moves"

_MOVES = """
SELECT m.number, m.at, m.batch, m.row, s.name AS source, s.platform, m.lane, m.rank, m.state, m.worker
  FROM rowmill_demo.moves m JOIN rowmill.sources s ON s.id = m.source ORDER BY m.number
"""
_GATES = "SELECT batch, gate, free FROM rowmill_demo.gates WHERE gate <> ''"
_WORKERS = "SELECT id, lanes, slots FROM rowmill.workers"


@dataclass(frozen=True, slots=True)
class Move:
    number: int
    at: datetime
    batch: int
    row: int
    source: str
    platform: str
    lane: str
    rank: int
    state: str
    worker: int | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """All that was written down."""

    moves: Sequence[Move]
    opened: int
    """The last move before the first worker came."""
    lanes: Mapping[int, Sequence[str]]
    """Worker → the lanes it serves."""
    gates: Mapping[int, Mapping[str, int | None]] = field(default_factory=dict)
    """Batch → gate → what it still admitted; null is no limit."""
    slots: int = 0
    """Of all workers together: no more jobs can end at any moment."""


@dataclass(frozen=True, slots=True)
class Order:
    claims: int
    platforms: int
    inversions: int
    compared: int
    """Claims that left something waiting which could have been claimed: the others prove nothing."""

    def row(self) -> dict[str, int]:
        return {
            "claims": self.claims,
            "platforms": self.platforms,
            "inversions": self.inversions,
        }


async def watch(store: Store) -> None:
    """Before anything is queued."""
    await store.script(WATCH)


async def latest(store: Store) -> int:
    return int(await store.value(_LATEST))


async def seen(store: Store, opened: int) -> Watched:
    gates: dict[int, dict[str, int | None]] = defaultdict(dict)
    for gate in await store.fetch(_GATES):
        gates[gate["batch"]][gate["gate"]] = _stricter(gates[gate["batch"]], gate)
    workers = await store.fetch(_WORKERS)
    return Watched(
        moves=[Move(**dict(row)) for row in await store.fetch(_MOVES)],
        opened=opened,
        lanes={worker["id"]: worker["lanes"] for worker in workers},
        gates=gates,
        slots=sum(worker["slots"] for worker in workers),
    )


def _stricter(known: Mapping[str, int | None], gate: Any) -> int | None:
    told = [free for free in (known.get(gate["gate"]), gate["free"]) if free is not None]
    return min(told, default=None)


def order(watched: Watched) -> Order:
    claims = [move for move in watched.moves if move.state == "claimed"]
    pairs = list(beside(watched))
    return Order(
        claims=len(claims),
        platforms=len({move.platform for move in claims}),
        inversions=sum(taken.rank < waiting.rank for taken, waiting in pairs),
        compared=len(pairs),
    )


def beside(watched: Watched) -> Iterable[tuple[Move, Move]]:
    """Each claimed row, and the highest one that waited although it could have been claimed."""
    waiting: dict[int, Move] = {}
    for claim in _claims_in_order(watched, waiting):
        lanes = watched.lanes.get(claim[0].worker or 0, ())
        could = [
            move
            for move in waiting.values()
            if move.lane in lanes
            and _known(watched, move, claim[0])
            and _admitted(watched, move, claim[0].batch)
        ]
        if could:
            highest = max(could, key=lambda move: move.rank)
            yield from ((taken, highest) for taken in claim)


def _claims_in_order(watched: Watched, waiting: dict[int, Move]) -> Iterable[list[Move]]:
    """Batch by batch; `waiting` then holds what was ready and stayed so.

    Whatever else happened beside a claim stands between its rows: the claim counts as its first.
    """
    claims: dict[int, list[Move]] = defaultdict(list)
    for move in watched.moves:
        if move.state == "claimed":
            claims[move.batch].append(move)
    for batch, together in groupby(watched.moves, lambda move: (move.state, move.batch)):
        moves = list(together)
        if batch[0] == "claimed" and (claim := claims.pop(batch[1], None)):
            for taken in claim:
                waiting.pop(taken.row, None)
            yield claim
        for move in moves if batch[0] != "claimed" else ():
            waiting.pop(move.row, None)
            if move.state == "ready":
                waiting[move.row] = move


def _known(watched: Watched, move: Move, claim: Move) -> bool:
    return move.number <= watched.opened or claim.at - move.at >= SETTLED


def _admitted(watched: Watched, move: Move, batch: int) -> bool:
    gates = watched.gates.get(batch, {})
    names = (f"{lane}/{source}" for lane in (move.lane, "*") for source in (move.source, "*"))
    free = [gates[name] for name in names if name in gates]
    return all(one is None or one > watched.slots for one in free)
