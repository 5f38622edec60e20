"""A page of jobs, whole or as a count.

Each state of each table is a SELECT of its own, in its own order and of no more rows than a page
has, so that the indexes that are there help and nothing is held in memory; here they are merged. A
page goes on after the last job of the one before it, whatever came, ended or went in between: a job
that stays what it is stands on exactly one page.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from worker.generate.lists import UNFINISHED
from worker.generate.words import literal
from worker.store import gates
from worker.store.errors import Unavailable
from worker.store.finding import UnknownName
from worker.store.listing.filter import Filter, Place, Sort
from worker.store.listing.selecting import Select, Selects
from worker.store.listing.tables import Table, tables
from worker.store.listing.telling import told
from worker.store.reading import Row
from worker.store.store import SourceInfo, Store

MOST = 1000
"""Jobs on a page."""
MANY = 20_000
"""The same where all are wanted, and only which they are: every page is a search of its own."""
PATIENCE = 10.0
"""Seconds that a statement may take."""

_CANCELED = "57014"


class BadCursor(Exception):
    """A cursor that isn't one, or is another listing's."""


class BadSort(Exception):
    """An order that these jobs don't have."""


class TooSlow(Exception):
    """No index helped; the message says what would."""


@dataclass(frozen=True, slots=True)
class Page:
    jobs: list[Row]
    next: str | None
    """Where the next page begins; None on the last one."""


async def listed(
    store: Store,
    which: Filter,
    *,
    sort: Sort | None = None,
    reverse: bool = False,
    limit: int = 50,
    after: str | None = None,
) -> Page:
    """One page of jobs, told as plain JSON."""
    async with _looking(store, which) as look:
        places, cursor = await look.places(sort, reverse, min(limit, MOST), after)
        return Page(await look.told(places), cursor)


async def found(
    store: Store,
    which: Filter,
    *,
    sort: Sort | None = None,
    reverse: bool = False,
    limit: int = MOST,
    after: str | None = None,
) -> tuple[list[Place], str | None]:
    """The same, but only which jobs they are."""
    async with _looking(store, which) as look:
        return await look.places(sort, reverse, limit, after)


async def counted(store: Store, which: Filter, most: int = 10_000) -> int:
    """How many there are; of more than `most`, one more than that."""
    async with _looking(store, which) as look:
        return await look.count(most)


async def tell(store: Store, places: Sequence[Place]) -> list[Row]:
    """These jobs as they are now."""
    async with _looking(store, Filter()) as look:
        return await look.told([place for place in places if place.source in look.tables])


async def know_lanes(store: Store, lanes: Sequence[str], configured: Collection[str] = ()) -> None:
    """Raises `UnknownName` for a lane that nothing ever ran in: it is misspelt."""
    if not lanes:
        return
    constants = {
        str(source["lane"].get("prefix", "") + source["lane"]["constant"])
        for info in await store.sources()
        for source in info.definition["map"]["sources"]
        if "constant" in source["lane"]
    }
    known = constants.union(await gates.known_lanes(store, configured))
    for lane in lanes:
        if lane not in known and not await counted(store, Filter(lanes=(lane,)), most=0):
            names = ", ".join(sorted(known)) or "none yet"
            raise UnknownName(f"no lane {lane!r}; known lanes: {names}")


@asynccontextmanager
async def _looking(store: Store, which: Filter) -> AsyncIterator[_Look]:
    sources = await store.sources()
    try:
        async with store.look(PATIENCE) as connection:
            yield await _Look.at(connection, sources, which)
    except Unavailable as error:
        if error.sqlstate == _CANCELED:
            raise TooSlow(_advice(which)) from error
        raise


def _advice(which: Filter) -> str:
    missing = {
        "--source": not which.sources,
        "--state": len(which.wanted_states) > 1,
        "--tenant": which.tenant is None,
        "--newer-than": which.newer_than is None,
    }
    options = ", ".join(option for option, free in missing.items() if free)
    add = f"add {options}; or " if options else ""
    return (
        f"no answer after {PATIENCE:.0f} seconds: no index of the table helps with this. "
        f"To narrow it, {add}give the table an index on its status and the time a job ended"
    )


# --------------------------------------------------------------------------- one look


@dataclass(slots=True)
class _Look:
    """The database at one moment."""

    connection: Any
    tables: dict[str, Table]
    which: Filter
    now: datetime

    @classmethod
    async def at(cls, connection: Any, sources: Sequence[SourceInfo], which: Filter) -> _Look:
        named = [s for s in sources if not which.sources or s.name in which.sources]
        live = {table.info.name: table for table in await tables(connection, named)}
        return cls(connection, live, which, await connection.fetchval("SELECT clock_timestamp()"))

    def _selects(self, sort: Sort) -> Selects:
        return Selects(self.which, sort, list(self.tables.values()), self.now)

    async def told(self, places: Sequence[Place]) -> list[Row]:
        return await told(self.connection, self.tables, places, self.now)

    async def count(self, most: int) -> int:
        selects = self._selects("newest")
        parts = [
            f"(SELECT FROM {one.rows} WHERE {' AND '.join(one.conditions)} LIMIT {most + 1})"
            for one in selects.all()
        ]
        if not parts:
            return 0
        # A SELECT around them: of a single part, the second LIMIT would be a part's second one.
        every = f"SELECT FROM ({' UNION ALL '.join(parts)}) AS part LIMIT {most + 1}"
        sql = f"SELECT count(*) FROM ({every}) AS one"
        given = selects.arguments
        return int(await self.connection.fetchval(given.named + sql, *given.values))

    async def places(
        self, sort: Sort | None, reverse: bool, limit: int, after: str | None
    ) -> tuple[list[Place], str | None]:
        by = sort or self.which.default_sort()
        if by == "order" and not set(self.which.wanted_states) <= set(UNFINISHED):
            raise BadSort("--sort order is of jobs that aren't over: name --state unfinished")
        ascending, listing = (by in {"order", "oldest"}) != reverse, self._listing(by, reverse)
        last = _Cursor.read(after, listing) if after else None
        if last is not None:
            self.now = last.now
        limit = max(1, limit)
        rows = await self._rows(self._selects(by), ascending, limit + 1, last)
        names = {table.info.id: name for name, table in self.tables.items()}
        places = [Place(names[row["source"]], row["key"], row["state"]) for row in rows[:limit]]
        if len(rows) <= limit:
            return places, None
        end = rows[limit - 1]
        at = (end["branch"], tuple(end["at"]), end["tie"])
        return places, str(_Cursor(listing, self.now, *at))

    async def _rows(
        self, selects: Selects, ascending: bool, limit: int, last: _Cursor | None
    ) -> list[Any]:
        parts = [
            part
            for one in selects.all()
            if (part := _page(selects, one, ascending, limit, last)) is not None
        ]
        if not parts:
            return []
        given = selects.arguments
        branches: dict[str, list[Any]] = {}
        for row in await self.connection.fetch(
            given.named + "\nUNION ALL\n".join(parts), *given.values
        ):
            branches.setdefault(row["branch"], []).append(row)
        return list(
            heapq.merge(*branches.values(), key=_merging(selects.sort, branches, ascending))
        )

    def _listing(self, by: Sort, reverse: bool) -> str:
        """What a cursor belongs to."""
        same = json.dumps([asdict(self.which), by, reverse], default=str)
        return hashlib.sha256(same.encode()).hexdigest()[:12]


def _merging(
    sort: Sort, branches: Collection[str], ascending: bool
) -> Callable[[Any], tuple[Any, ...]]:
    sign = 1 if ascending else -1
    if sort == "order":
        # One state after the other; all of them are queue rows, whose ids are one sequence.
        return lambda row: (
            *(sign * _turn(row["state"]), -sign * row["rank"]),
            *(sign * row["number"], sign * int(row["tie"])),
        )
    # Of two tables with the same time, the one whose select's name comes first.
    turn = {name: sign * number for number, name in enumerate(sorted(branches))}
    return lambda row: (sign * row["number"], turn[row["branch"]])


def _page(
    selects: Selects, one: Select, ascending: bool, limit: int, last: _Cursor | None
) -> str | None:
    """At most so many of a select's rows, beyond the cursor; None where there can be none."""
    where = " AND ".join(one.conditions)
    if last is not None:
        beyond = _beyond(selects, one, ascending, last)
        if beyond is None:
            return None
        where += f" AND {beyond}"
    if one.heads:
        return _by_heads(one, where, ascending, limit)
    way, value = "ASC" if ascending else "DESC", one.order.value
    order, rank, at = f"{value} {way}, {one.tie} {way}", "0::smallint", "o.told::text"
    if one.ranked:
        order, rank = f"q.rank {'DESC' if ascending else 'ASC'}, {order}", "q.rank"
        at = f"o.rank::text, {at}"
    # What is told of a job is made of those on the page alone.
    return (
        f"(SELECT {literal(one.name)} AS branch, {literal(one.state)} AS state, o.source,"
        f" o.key::text AS key, o.rank, {_AS_NUMBER[one.order.type]} AS number,"
        f" ARRAY[{at}] AS at, o.tie::text AS tie\n"
        f"   FROM (SELECT {one.source} AS source, {one.key} AS key, {rank} AS rank,\n"
        f"                {one.order.told} AS told, {one.tie} AS tie\n"
        f"           FROM {one.rows}\n          WHERE {where}\n"
        f"          ORDER BY {order} LIMIT {limit}) o)"
    )


_AS_NUMBER = {"timestamptz": "extract(epoch FROM o.told)", "numeric": "o.told"}


def _beyond(selects: Selects, one: Select, ascending: bool, last: _Cursor) -> str | None:
    more, add, order = ">" if ascending else "<", selects.arguments.add, selects.sort == "order"
    if order and one.state != last.state:
        return "true" if (_turn(one.state) > _turn(last.state)) == ascending else None
    if not order and one.name != last.branch:
        equal = "=" if (one.name > last.branch) == ascending else ""
        return f"{one.order.value} {more}{equal} {one.order.bound(add(last.at[0], 'text'))}"
    value, tie = (
        one.order.bound(add(last.at[-1], "text")),
        f"{add(last.tie, 'text')}::{one.tie_type}",
    )
    beyond = f"({one.order.value}, {one.tie}) {more} ({value}, {tie})"
    if one.ranked:
        rank, lower = f"{add(last.at[0], 'text')}::smallint", "<" if ascending else ">"
        return f"(q.rank {lower} {rank} OR (q.rank = {rank} AND {beyond}))"
    return beyond


def _turn(state: str) -> int:
    return list(UNFINISHED).index(state)


def _by_heads(one: Select, where: str, ascending: bool, limit: int) -> str:
    """Ready jobs in the order of claims.

    Each lane, table and rank that has some is found by one probe of their index, and then read by
    it: as many jobs as a page has, whatever waits behind them.
    """
    way, first = ("ASC", "DESC") if ascending else ("DESC", "ASC")
    return (
        f"(SELECT {literal(one.name)} AS branch, {literal(one.state)} AS state, o.source,\n"
        "       o.row_key AS key, o.rank, extract(epoch FROM o.ready_at) AS number,\n"
        "       ARRAY[o.rank::text, o.ready_at::text] AS at, o.id::text AS tie\n"
        "  FROM rowmill.scan(NULL) s\n"
        " CROSS JOIN unnest(s.lanes, s.sources, s.ranks) AS h (lane, source, rank)\n"
        " CROSS JOIN LATERAL (\n"
        f"    SELECT q.source, q.row_key, q.rank, q.ready_at, q.id FROM {one.rows}\n"
        "     WHERE q.lane = h.lane AND q.source = h.source AND q.rank = h.rank\n"
        f"       AND {where}\n"
        f"     ORDER BY q.ready_at {way}, q.id {way} LIMIT {limit}) o\n"
        f" ORDER BY o.rank {first}, o.ready_at {way}, o.id {way} LIMIT {limit})"
    )


# --------------------------------------------------------------------------- cursors


@dataclass(frozen=True, slots=True)
class _Cursor:
    """The last job of a page: where, in what order, the next one goes on."""

    listing: str
    now: datetime
    """When the first page was read: what ages are measured from."""
    branch: str
    """The select it was found by."""
    at: tuple[str, ...]
    tie: str

    @property
    def state(self) -> str:
        return self.branch.split(":")[1]

    def __str__(self) -> str:
        told = [self.listing, self.now.isoformat(), self.branch, self.at, self.tie]
        packed = json.dumps(told, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    @staticmethod
    def read(text: str, listing: str) -> _Cursor:
        try:
            packed = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            mine, now, branch, at, tie = json.loads(packed)
            cursor = _Cursor(
                str(mine), datetime.fromisoformat(now), str(branch), tuple(map(str, at)), str(tie)
            )
            _ = (cursor.state, cursor.at[0])
        except (ValueError, TypeError, IndexError) as error:
            raise BadCursor(
                "--after is no cursor of a listing: take `next` as it was told"
            ) from error
        if mine != listing:
            raise BadCursor(
                "--after belongs to a listing with other filters or another sort: "
                "give the same ones, or leave it out"
            )
        return cursor
