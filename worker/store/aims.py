"""The jobs that an act is meant for, as they are before it: what they are, and what the ledger has of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from worker.store.acts import Seen
from worker.store.finding import Found
from worker.store.reading import stored_query
from worker.store.store import Store

UNFINISHED = ("ready", "scheduled", "running", "held", "unqueued")
AT_ONCE = 2000
"""Jobs that one statement looks at."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What the ledger has of a job, in the run that it would go on with."""

    steps: frozenset[str] = frozenset()
    """Those that are bought or being bought, and need not be bought again."""
    in_doubt: int = 0
    in_doubt_cents: Decimal = Decimal(0)
    open: int = 0
    open_cents: Decimal = Decimal(0)
    undelivered: int = 0
    undelivered_cents: Decimal = Decimal(0)
    doubts: tuple[str, ...] = ()
    """The ids of calls that `resolve` is for, of any run, in order."""
    doubt_steps: frozenset[str] = frozenset()
    doubt_providers: frozenset[str] = frozenset()
    doubt_cents: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Aim:
    job: Found
    state: str
    """ready | scheduled | running | held | completed | failed | cancelled; `unqueued` where its row is
    unfinished and in no queue, `missing` where it is gone."""
    status: str = ""
    lane: str = ""
    kind: str = ""
    version: str = ""
    began: bool = False
    """Of a queued job: it ran before, and so waits for more than its own time."""
    calls: Calls = field(default_factory=Calls)

    def seen(self, states: Sequence[str], *, of_doubts: bool = False) -> Seen:
        """What somebody is shown who is shown this, and asked for jobs in these states."""
        return Seen(
            tuple(states) or (UNFINISHED if self.state in UNFINISHED else (self.state,)),
            self.version or None,
            self.calls.doubts if of_doubts else None,
        )


async def aims(store: Store, jobs: Sequence[Found]) -> list[Aim]:
    """In the same order, each once."""
    known: dict[Found, Aim] = {}
    asked = list(dict.fromkeys(jobs))
    attached = {info.name for info in await store.sources()}
    for source in dict.fromkeys(job.source for job in asked):
        keys = [job.key for job in asked if job.source == source]
        there = source in attached and await store.value(_THERE, source)
        for first in range(0, len(keys), AT_ONCE):
            some = keys[first : first + AT_ONCE]
            rows = await _about(store, source, some) if there else {}
            calls = await _calls(store, source, some, rows)
            for key in some:
                known[Found(source, key)] = _aim(Found(source, key), rows.get(key), calls)
    return [known[job] for job in asked]


_THERE = """
SELECT to_regclass(s.relation) IS NOT NULL FROM rowmill.sources s WHERE s.name = $1
"""


async def _about(store: Store, source: str, keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    rows = await store.fetch(f"SELECT * FROM rowmill.about_{source}($1)", list(keys))
    return {row["key"]: row for row in rows}


async def _calls(
    store: Store, source: str, keys: Sequence[str], rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, Calls]:
    found = {}
    for row in await store.fetch(stored_query("calls_of_jobs"), source, list(keys)):
        queued_run = rows[row["key"]]["run"] if row["key"] in rows else None
        found[row["key"]] = _of_run(row, queued_run)
    return found


def _of_run(row: Mapping[str, Any], queued_run: int | None) -> Calls:
    doubts = {
        "doubts": tuple(row["doubts"] or ()),
        "doubt_steps": frozenset(row["doubt_steps"] or ()),
        "doubt_providers": frozenset(row["doubt_providers"] or ()),
        "doubt_cents": row["doubt_cents"],
    }
    # The ledger's latest run goes on if something of it is in flight or was never delivered: the rule
    # of rowmill.run_of(). A job that is queued says itself which run it is in.
    goes_on = row["in_doubt"] or row["open"] or row["undelivered"]
    if (queued_run is None and not goes_on) or queued_run not in (None, row["run"]):
        return Calls(**doubts)
    return Calls(
        steps=frozenset(row["steps"] or ()),
        in_doubt=row["in_doubt"],
        in_doubt_cents=row["in_doubt_cents"],
        open=row["open"],
        open_cents=row["open_cents"],
        undelivered=row["undelivered"],
        undelivered_cents=row["undelivered_cents"],
        **doubts,
    )


def _aim(job: Found, row: Mapping[str, Any] | None, calls: Mapping[str, Calls]) -> Aim:
    mine = calls.get(job.key, Calls())
    if row is None:
        return Aim(job, "missing", calls=mine)
    return Aim(
        job,
        row["state"],
        status=row["status"] or "",
        lane=row["lane"],
        kind=row["kind"],
        version=row["version"],
        began=bool(row["began"]),
        calls=mine,
    )
