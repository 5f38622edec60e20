"""Asking workers to leave: they hear of it with their next heartbeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.store.finding import UnknownName, names, nearest
from worker.store.fleet import workers
from worker.store.reading import Row
from worker.store.store import Store

FEWEST = 4
"""Characters of an id that a person may name it by."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of asking one worker."""

    worker: Row
    verdict: str
    """asked | asked before | draining | silent | stopped"""

    @property
    def leaves(self) -> bool:
        return self.verdict in {"asked", "asked before", "draining"}


# Who is silent can't hear: its jobs go to others after its lease, and if it lives it begins anew. A
# heartbeat holds its row for a moment; rows are locked in one order, so two operators can't meet.
_ASK = """
WITH before AS (
    SELECT w.id, w.name, w.host, w.running, w.lanes FROM rowmill.workers w
     WHERE w.id = ANY ($1) AND w.stopped_at IS NULL AND NOT w.draining
       AND w.drain_asked_at IS NULL AND w.heartbeat_at > clock_timestamp() - w.lease
     ORDER BY w.id FOR UPDATE
), asked AS (
    UPDATE rowmill.workers w SET drain_asked_at = clock_timestamp(), drain_asked_by = $2,
           drain_reason = $3
      FROM before b WHERE w.id = b.id
)
INSERT INTO rowmill.actions (who, action, subject, detail)
SELECT $2, 'drain', 'worker ' || b.name,
       jsonb_build_object('worker', b.id::text, 'reason', $3::text, 'before',
           jsonb_build_object('host', b.host, 'running', b.running, 'lanes', b.lanes))
  FROM before b ORDER BY b.id
RETURNING detail ->> 'worker' AS id
"""


async def drain(
    store: Store, worker: str, who: str, *, host: str | None = None, reason: str | None = None
) -> Asked:
    """Ask one worker, by its name or the start of its id; `UnknownName` unless it is just one."""
    chosen = await _chosen(store, worker, host)
    (asked,) = await _ask(store, [chosen], who, reason)
    return asked


async def drain_all(
    store: Store, who: str, *, host: str | None = None, reason: str | None = None
) -> list[Asked]:
    """Ask all that there are, or all of a host."""
    known = await workers(store)
    chosen = [row for row in known if host is None or row["host"] == host]
    if host is not None and not chosen:
        hosts = {row["host"] for row in known if row["host"]}
        raise UnknownName(
            f"no worker on host {host!r}; hosts: {names(hosts)}{nearest(host, hosts)}"
        )
    return await _ask(store, chosen, who, reason)


async def _ask(store: Store, chosen: Sequence[Row], who: str, reason: str | None) -> list[Asked]:
    ids = [int(row["id"]) for row in chosen]
    asked = {row["id"] for row in await store.fetch(_ASK, ids, who, reason)}
    now = await workers(store, stopped=True, ids=ids)
    return [Asked(row, _verdict(row["state"], asked=row["id"] in asked)) for row in now]


def _verdict(state: str, *, asked: bool) -> str:
    if asked:
        return "asked"
    return "asked before" if state == "asked" else state


async def _chosen(store: Store, worker: str, host: str | None) -> Row:
    known = [
        row for row in await workers(store, stopped=True) if host is None or row["host"] == host
    ]
    meant = [row for row in known if row["name"] == worker]
    if not meant and len(worker) >= FEWEST:
        meant = [row for row in known if row["id"].startswith(worker)]
    # A name outlives its worker: whoever lives is meant, and else the one that was seen last.
    living = [row for row in meant if row["alive"]]
    if len(living) > 1:
        choices = "; ".join(f"{row['id']} ({_where(row)})" for row in living)
        raise UnknownName(f"{worker!r} names {len(living)} workers: say which id: {choices}")
    if living or meant:
        return living[0] if living else min(meant, key=lambda row: row["heartbeat_age_s"])
    there = {row["name"] for row in known if row["alive"]}
    where = "" if host is None else f" on host {host!r}"
    raise UnknownName(f"no worker {worker!r}{where}; alive: {names(there)}{nearest(worker, there)}")


def _where(row: Row) -> str:
    on = f"on {row['host']}, " if row["host"] else ""
    return f"{on}since {row['started_at'][:19]}"
