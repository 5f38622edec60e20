"""Changes of jobs as they happen, found by looking once a second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from worker.store.listing.filter import Filter, Place
from worker.store.listing.pages import MOST, found, tell
from worker.store.listing.selecting import spellings
from worker.store.listing.telling import GONE
from worker.store.reading import Row
from worker.store.store import Store

NEW = 5000
"""Of the newest queue rows, so many are looked at each time: a late commit brings an older id."""

WATCHED = 10_000

_COLUMNS = """s.name AS source, m.row_key AS key, m.lane, m.tenant, m.state = 'claimed' AS running,
       (m.state, m.tries, m.yields, m.run, m.claimed_at)::text AS mark"""

_WAITING = f"""
SELECT m.id, {_COLUMNS}
  FROM unnest($1::text[], $2::text[]) AS w (source, key)
  JOIN rowmill.sources s ON s.name = w.source
  JOIN rowmill.queue m ON m.source = s.id AND m.row_key = w.key
 WHERE m.state <> 'claimed'
"""

# Each by an index: the newest rows, those that run, and those that are watched.
_LOOK = f"""
WITH mine AS (
    (SELECT q.* FROM rowmill.queue q WHERE q.id > $1 ORDER BY q.id DESC LIMIT $2)
    UNION
    (SELECT q.* FROM rowmill.queue q WHERE q.state = 'claimed')
    UNION
    (SELECT q.* FROM rowmill.queue q WHERE q.id = ANY ($3::bigint[]))
)
SELECT m.id, {_COLUMNS}
  FROM mine m JOIN rowmill.sources s ON s.id = m.source
 WHERE (cardinality($4::text[]) = 0 OR m.lane = ANY ($4))
   AND (cardinality($5::text[]) = 0 OR s.name = ANY ($5))
 ORDER BY m.id
"""


@dataclass(frozen=True, slots=True)
class _Watched:
    source: str
    key: str
    lane: str
    tenant: str | None
    running: bool
    mark: str
    """What changes with its state, or with a try that begins anew."""


class Follower:
    """Tells jobs of a filter that are new, or whose state isn't what it was.

    It watches what it has seen, in the order of claims no more than MOST of those that wait; of
    others it hears once they run. What begins and ends between two looks is told once it is over
    if it was watched, and missed if not.
    """

    def __init__(self, store: Store, which: Filter) -> None:
        self._store = store
        self._which = which
        self._watched: dict[int, _Watched] = {}
        self._floors = [0] * 10
        """The highest id of the last looks: rows of a transaction that took so long are seen."""
        self._more = True

    async def begin(self) -> None:
        """From now on."""
        self._floors = [
            await self._store.value("SELECT coalesce(max(id), 0) FROM rowmill.queue")
        ] * 10
        await self._look()

    async def changes(self) -> list[Row]:
        changed = {(one.source, one.key): one for one in await self._look()}
        if not changed:
            return []
        told = await tell(self._store, [Place(source, key, "") for source, key in changed])
        for job in told:
            if job["state"] == GONE:  # nothing else knows what it was
                was = changed[job["source"], job["key"]]
                job |= {"lane": was.lane, "tenant": was.tenant}
        return [job for job in told if matches(self._which, job)]

    async def _look(self) -> list[_Watched]:
        """Those that are new, changed or not in the queue any more."""
        watched = self._watched
        await self._watch_more()
        which = self._which
        rows = await self._store.fetch(
            _LOOK, self._floors[0], NEW, list(watched), list(which.lanes), list(which.sources)
        )
        now = {row["id"]: _watched(row) for row in rows}
        self._floors = [*self._floors[1:], max([self._floors[-1], *now])]
        left = [one for id_, one in watched.items() if id_ not in now]
        changed = [
            one for id_, one in now.items() if id_ not in watched or watched[id_].mark != one.mark
        ]
        self._watched = self._few(now)
        return [*left, *changed]

    def _few(self, now: dict[int, _Watched]) -> dict[int, _Watched]:
        """After an INSERT of a million, the oldest: the others are told once they run."""
        waiting = [id_ for id_, one in now.items() if not one.running]
        if len(waiting) <= WATCHED:
            return now
        self._floors = [self._floors[-1]] * len(self._floors)
        self._more = True
        left_out = set(sorted(waiting)[WATCHED:])
        return {id_: one for id_, one in now.items() if id_ not in left_out}

    async def _watch_more(self) -> None:
        """The next ones to run, once half of those that were watched have begun."""
        if not self._more or len(self._watched) > MOST // 2:
            return
        waiting = replace(
            self._which,
            states=("ready", "scheduled", "held"),
            error_kind=None,
            error_text=None,
            older_than=None,
        )
        places, cursor = await found(self._store, waiting, sort="order")
        self._more = cursor is not None
        rows = await self._store.fetch(
            _WAITING, [place.source for place in places], [place.key for place in places]
        )
        for row in rows:
            self._watched.setdefault(row["id"], _watched(row))


def _watched(row: Mapping[str, Any]) -> _Watched:
    return _Watched(**{name: row[name] for name in _Watched.__slots__})


def matches(which: Filter, job: Row) -> bool:
    """Whether a job, as it is told, is one that is meant."""
    error: Row = job["error"] or {}
    text = which.error_text
    return (
        _one_of(which.sources, job["source"])
        and _one_of(which.lanes, job["lane"])
        and _one_of(which.kinds, job["kind"])
        and _one_of(which.states, job["state"])
        and (which.tenant is None or job["tenant"] in spellings(which.tenant))
        and (which.error_kind is None or error.get("kind") == which.error_kind)
        and (text is None or text.lower() in error.get("message", "").lower())
        and (which.older_than is None or _age(job) >= which.older_than.total_seconds())
        and (which.newer_than is None or _age(job) < which.newer_than.total_seconds())
    )


def _one_of(wanted: Iterable[str], word: Any) -> bool:
    return not wanted or word in wanted


def _age(job: Row) -> float:
    return float(job["age_s"] or 0.0)
