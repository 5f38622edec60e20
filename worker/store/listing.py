"""Jobs as a list: filtered, sorted, a page at a time; over all tables, unfinished and finished.

Each state of each table is a SELECT of its own, in its own order and of no more rows than a page
has, so that the indexes there are help and nothing is held in memory; here they are merged.
Unfinished jobs are read from the queue, finished ones from the platform's table, and where errors
matter from the record of failures. A page goes on after the last job of the one before, whatever
came, ended or went in between.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from worker.generate.lists import (
    FINISHED,
    STATES,
    UNFINISHED,
    Arguments,
    Joined,
    cancelled_before,
    created_at,
    ended_at,
    is_finished,
    key_text,
    kind_is,
    lane_is,
    shares_a_word,
    started_at,
    tenant_by_rule,
    tenant_is,
    when,
)
from worker.generate.words import Column, Target, ident, lane_of, literal, mirrors_kind, value_of
from worker.generate.words import name as quoted
from worker.maps import Platform, parse_path
from worker.store import gates
from worker.store.errors import Unavailable
from worker.store.finding import UnknownName
from worker.store.reading import Row, plain
from worker.store.store import SourceInfo, Store

Sort = Literal["order", "newest", "oldest", "longest", "cost", "failure"]
SORTS: tuple[Sort, ...] = ("order", "newest", "oldest", "longest", "cost", "failure")
MOST = 1000
"""Jobs on a page."""
PATIENCE = 10.0
"""Seconds that a statement may take."""

_CANCELED = "57014"
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class BadCursor(Exception):
    """A cursor that isn't one, or is another listing's."""


class BadSort(Exception):
    """An order that these jobs don't have."""


class TooSlow(Exception):
    """No index helped; the message says what would."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs; what is empty or None doesn't matter, and everything named has to hold."""

    lanes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    """Of STATES."""
    tenant: str | None = None
    older_than: timedelta | None = None
    """Of an unfinished job since it was queued, of a finished one since it ended."""
    newer_than: timedelta | None = None
    error_kind: str | None = None
    """Of its last failed try."""
    error_text: str | None = None
    """Part of that try's message, in capitals or not."""

    @property
    def of_errors(self) -> bool:
        return self.error_kind is not None or self.error_text is not None

    @property
    def wanted_states(self) -> tuple[str, ...]:
        return tuple(state for state in STATES if not self.states or state in self.states)

    def default_sort(self) -> Sort:
        """Jobs that wait are told in the order of claims; others, newest first."""
        unfinished = set(self.wanted_states) <= set(UNFINISHED)
        return "order" if unfinished and not self.of_errors else "newest"


@dataclass(frozen=True, slots=True)
class Place:
    """A job as a listing finds it."""

    source: str
    key: str
    state: str

    @property
    def subject(self) -> str:
        return f"{self.source}/{self.key}"


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
        places, cursor = await look.places(sort, reverse, limit, after)
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


async def know_lanes(store: Store, lanes: Sequence[str], configured: Sequence[str] = ()) -> None:
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


# --------------------------------------------------------------------------- the selects


@dataclass(frozen=True, slots=True)
class _Select:
    """The jobs of one state in their order, of one table or of all."""

    name: str
    """The same on every page."""
    state: str
    source: str
    """The id of its source, as SQL."""
    key: str
    """The row's key, as text."""
    rows: str
    """FROM …"""
    conditions: tuple[str, ...]
    value: str
    """What it is sorted by."""
    bound: Callable[[str], str]
    """What a cursor says, as `value` is."""
    number: str
    """`value` so that several selects compare."""
    tie: str
    tie_type: str
    heads: bool = False
    """Of ready jobs in the order of claims: by lane, table and rank first, as their index has it."""


@dataclass(frozen=True, slots=True)
class _Table:
    """A source, and what the live database says of its table."""

    info: SourceInfo
    target: Target
    ends: dict[str, str]
    """Types at the ends of foreign-key paths."""
    indexed: frozenset[str]

    @property
    def usable(self) -> bool:
        """Its table may be gone, or made anew without what its map names."""
        source = self.target.source
        return {source.key, source.status.column} <= self.target.columns.keys()


_COLUMNS = """
SELECT n.nspname || '.' || c.relname AS relation, a.attname AS name,
       CASE WHEN tn.nspname = 'pg_catalog' THEN format_type(a.atttypid, NULL)
            ELSE format('%I.%I', tn.nspname, ty.typname) END AS type,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
                  AND a.attnum = ANY (i.indkey)) AS indexed
  FROM unnest($1::text[]) AS asked (relation)
  JOIN pg_class c ON c.oid = to_regclass(asked.relation)
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type ty ON ty.oid = a.atttypid JOIN pg_namespace tn ON tn.oid = ty.typnamespace
"""


async def _tables(connection: Any, sources: Sequence[SourceInfo]) -> list[_Table]:
    maps = [Platform.from_definition(info.definition) for info in sources]
    mine = [
        next(s for s in platform.map.sources if s.name == info.name)
        for info, platform in zip(sources, maps, strict=True)
    ]
    ends = {
        source.tenant.path: parse_path(source.tenant.path)[1][-1]
        for source in mine
        if source.tenant is not None and source.tenant.path is not None
    }
    asked = {source.table for source in mine} | {hop.table for hop in ends.values()}
    columns: dict[str, dict[str, Column]] = {table: {} for table in asked}
    indexed: dict[str, set[str]] = {table: set() for table in asked}
    for row in await connection.fetch(_COLUMNS, [quoted(table) for table in asked]):
        columns[row["relation"]][row["name"]] = Column(row["type"])
        if row["indexed"]:
            indexed[row["relation"]].add(row["name"])
    types = {
        path: columns[hop.table][hop.column].type
        for path, hop in ends.items()
        if hop.column in columns[hop.table]
    }
    return [
        _Table(
            info,
            Target(platform, source, info.id, columns[source.table], partitioned=False),
            types,
            frozenset(indexed[source.table]),
        )
        for info, platform, source in zip(sources, maps, mine, strict=True)
    ]


@dataclass(slots=True)
class _Look:
    """One look at the database, at one moment."""

    connection: Any
    tables: dict[str, _Table]
    which: Filter
    now: datetime
    arguments: Arguments = field(default_factory=Arguments)

    @classmethod
    async def at(cls, connection: Any, sources: Sequence[SourceInfo], which: Filter) -> _Look:
        named = [s for s in sources if not which.sources or s.name in which.sources]
        tables = {table.info.name: table for table in await _tables(connection, named)}
        return cls(connection, tables, which, await connection.fetchval("SELECT clock_timestamp()"))

    # ----------------------------------------------------------------- pages

    async def places(
        self, sort: Sort | None, reverse: bool, limit: int, after: str | None
    ) -> tuple[list[Place], str | None]:
        by = sort or self.which.default_sort()
        if by == "order" and not set(self.which.wanted_states) <= set(UNFINISHED):
            raise BadSort("--sort order is of jobs that aren't over: name --state unfinished")
        last = _Cursor.read(after, self._listing(by, reverse)) if after else None
        if last is not None:
            self.now = last.now
        ascending = (by in {"order", "oldest"}) != reverse
        limit = min(limit, MOST)
        selects = self._selects(by)
        parts = [
            part for one in selects if (part := self._page(one, by, ascending, limit + 1, last))
        ]
        if not parts:
            return [], None
        rows = await self.connection.fetch(
            self.arguments.given + " UNION ALL ".join(parts), *self.arguments.values
        )
        branches: dict[str, list[Any]] = {}
        for row in rows:
            branches.setdefault(row["branch"], []).append(row)
        sign = 1 if ascending else -1
        # Of two tables with the same time, the one whose select's name comes first.
        turn = {name: sign * number for number, name in enumerate(sorted(branches))}
        merged = list(
            heapq.merge(
                *branches.values(), key=lambda row: (sign * row["number"], turn[row["branch"]])
            )
        )
        names = {table.info.id: name for name, table in self.tables.items()}
        places = [Place(names[r["source"]], r["key"], r["state"]) for r in merged[:limit]]
        if len(merged) <= limit:
            return places, None
        end = merged[limit - 1]
        cursor = _Cursor(
            self._listing(by, reverse),
            self.now,
            end["branch"],
            str(end["number"]),
            tuple(end["at"]),
            end["tie"],
        )
        return places, str(cursor)

    async def count(self, most: int) -> int:
        parts = [
            f"(SELECT FROM {one.rows} WHERE {' AND '.join(one.conditions)} LIMIT {most + 1})"
            for one in self._selects("newest")
        ]
        if not parts:
            return 0
        return int(
            await self.connection.fetchval(
                f"{self.arguments.given}SELECT count(*) FROM ({' UNION ALL '.join(parts)} LIMIT {most + 1}) AS one",
                *self.arguments.values,
            )
        )

    def _listing(self, by: Sort, reverse: bool) -> str:
        """What a cursor belongs to."""
        same = json.dumps([asdict(self.which), by, reverse], default=str)
        return hashlib.sha256(same.encode()).hexdigest()[:12]

    def _page(
        self, one: _Select, by: Sort, ascending: bool, limit: int, last: _Cursor | None
    ) -> str | None:
        conditions = list(one.conditions)
        if last is not None:
            beyond = self._beyond(one, by, ascending, last)
            if beyond is None:
                return None
            conditions.append(beyond)
        where = " AND ".join(conditions) or "true"
        way = "ASC" if ascending else "DESC"
        if one.heads:
            return self._by_heads(one, where, ascending, limit)
        return (
            f"(SELECT {literal(one.name)} AS branch, {literal(one.state)} AS state, "
            f"{one.source} AS source, {one.key} AS key, {one.number} AS number, "
            f"ARRAY[({one.value})::text] AS at, ({one.tie})::text AS tie\n"
            f"   FROM {one.rows}\n  WHERE {where}\n"
            f"  ORDER BY {one.value} {way}, {one.tie} {way} LIMIT {limit})"
        )

    def _beyond(self, one: _Select, by: Sort, ascending: bool, last: _Cursor) -> str | None:
        """The rows after the cursor; None where there can be none."""
        more = ">" if ascending else "<"
        tie = f"{self.arguments.add(last.tie, 'text')}::{one.tie_type}"
        if by == "order":
            if one.name != last.branch:
                place = list(UNFINISHED).index(one.state)
                return "true" if (place > Decimal(last.number)) == ascending else None
            if one.heads:
                rank, ready = last.at
                at = f"({self.arguments.add(int(rank), 'smallint')})"
                less = "<" if ascending else ">"
                moment = f"{self.arguments.add(ready, 'text')}::timestamptz"
                return f"(q.rank {less} {at} OR (q.rank = {at} AND (q.ready_at, q.id) {more} ({moment}, {tie})))"
        elif one.name != last.branch:
            value = one.bound(f"{self.arguments.add(last.at[0], 'text')}")
            equal = "=" if (one.name > last.branch) == ascending else ""
            return f"{one.value} {more}{equal} {value}"
        value = one.bound(f"{self.arguments.add(last.at[0], 'text')}")
        return f"({one.value}, {one.tie}) {more} ({value}, {tie})"

    def _by_heads(self, one: _Select, where: str, ascending: bool, limit: int) -> str:
        """Each lane, table and rank that has ready jobs is found by a probe of their index."""
        way, first = ("ASC", "DESC") if ascending else ("DESC", "ASC")
        lanes = self.arguments.add(list(self.which.lanes) or None, "text[]")
        sources = self.arguments.add([t.info.id for t in self.tables.values()], "smallint[]")
        return (
            "(WITH RECURSIVE head AS (\n"
            "   (SELECT q.lane, q.source, q.rank FROM rowmill.queue q WHERE q.state = 'ready'\n"
            "     ORDER BY q.lane, q.source, q.rank LIMIT 1)\n"
            "   UNION ALL\n"
            "   SELECT n.* FROM head h CROSS JOIN LATERAL (\n"
            "     SELECT q.lane, q.source, q.rank FROM rowmill.queue q WHERE q.state = 'ready'\n"
            "        AND (q.lane, q.source, q.rank) > (h.lane, h.source, h.rank)\n"
            "      ORDER BY q.lane, q.source, q.rank LIMIT 1) n)\n"
            f"SELECT {literal(one.name)} AS branch, {literal(one.state)} AS state, o.source,\n"
            f"       o.row_key AS key, {one.number} AS number,\n"
            "       ARRAY[o.rank::text, o.ready_at::text] AS at, o.id::text AS tie\n"
            "  FROM head h CROSS JOIN LATERAL (\n"
            f"    SELECT q.source, q.row_key, q.rank, q.ready_at, q.id FROM {one.rows}\n"
            "     WHERE q.lane = h.lane AND q.source = h.source AND q.rank = h.rank\n"
            f"       AND {where}\n"
            f"     ORDER BY q.ready_at {way}, q.id {way} LIMIT {limit}) o\n"
            f" WHERE ({lanes} IS NULL OR h.lane = ANY ({lanes})) AND h.source = ANY ({sources})\n"
            f" ORDER BY o.rank {first}, o.ready_at {way}, o.id {way} LIMIT {limit})"
        )

    # ----------------------------------------------------------------- what is selected

    def _selects(self, by: Sort) -> list[_Select]:
        wanted = self.which.wanted_states
        made = [one for state in UNFINISHED if state in wanted for one in self._queued(state, by)]
        for table in self.tables.values():
            if table.usable:
                made += [
                    one
                    for state in FINISHED
                    if state in wanted
                    for one in self._over(table, state, by)
                ]
        return made

    def _errors(self, at: str = "f") -> list[str]:
        conditions = []
        if self.which.error_kind is not None:
            conditions.append(f"{at}.kind = {self.arguments.add(self.which.error_kind, 'text')}")
        if self.which.error_text is not None:
            asked = self.arguments.add(self.which.error_text, "text")
            conditions.append(f"strpos(lower({at}.message), lower({asked})) > 0")
        return conditions

    def _queued(self, state: str, by: Sort) -> list[_Select]:
        """All tables at once, unless a kind is asked for: only the rows themselves tell it."""
        tables = list(self.tables.values())
        if not self.which.kinds:
            return self._in_queue(state, by, tables, Joined(), "")
        made: list[_Select] = []
        for table in tables:
            if not table.usable:
                continue
            kinds = kind_is(table.target, self.which.kinds, self.arguments)
            source = table.target.source
            if kinds.conditions == ("false",):
                continue
            rows = ""
            if kinds.conditions:
                key = f"t.{ident(source.key)}"
                rows = (
                    f" JOIN {table.target.table} t"
                    f" ON {key} = q.row_key::{table.target.key_type} " + " ".join(kinds.joins)
                )
            if mirrors_kind(source):
                lanes = self.arguments.add([kind[:200] for kind in self.which.kinds], "text[]")
                kinds += Joined((f"q.lane = ANY ({lanes})",))
            made += self._in_queue(state, by, [table], kinds, rows)
        return made

    def _in_queue(
        self, state: str, by: Sort, tables: list[_Table], more: Joined, rows: str
    ) -> list[_Select]:
        if not tables:
            return []
        which, arguments = self.which, self.arguments
        heads = state == "ready" and by == "order" and not which.of_errors
        conditions = [f"q.state = '{UNFINISHED[state]}'"]
        if not heads:
            conditions.append(
                f"q.source = ANY ({arguments.add([t.info.id for t in tables], 'smallint[]')})"
            )
            if which.lanes:
                conditions.append(f"q.lane = ANY ({arguments.add(list(which.lanes), 'text[]')})")
        elif rows:
            conditions.append(f"q.source = {tables[0].info.id}")
        if which.tenant is not None:
            conditions.append(
                f"q.tenant = ANY ({arguments.add(_spellings(which.tenant), 'text[]')})"
            )
        conditions += self._aged("q.enqueued_at", lambda moment: moment)
        conditions += more.conditions
        first = "rowmill.queue q" + rows
        if which.of_errors or by == "failure":
            first += (
                " JOIN rowmill.sources s ON s.id = q.source"
                " JOIN rowmill.failures f ON f.source = s.name AND f.row_key = q.row_key"
            )
            conditions += [*self._errors(), _LAST]
        value, bound, number = self._queue_value(state, by)
        name = f"queue:{state}" + (f":{tables[0].info.name}" if which.kinds else "")
        place = list(UNFINISHED).index(state)
        return [
            _Select(
                name,
                state,
                "q.source",
                "q.row_key",
                first,
                tuple(conditions),
                value,
                bound,
                f"{place}::numeric" if by == "order" else number,
                "q.id",
                "bigint",
                heads,
            )
        ]

    def _queue_value(self, state: str, by: Sort) -> tuple[str, Callable[[str], str], str]:
        if by == "order":
            at = {"running": "q.claimed_at", "scheduled": "q.ready_at"}.get(state, "q.enqueued_at")
            return at, _moment, "0::numeric"
        if by == "failure":
            return "f.at", _moment, _seconds("f.at")
        if by == "cost":
            paid = _paid(
                "(SELECT p.name FROM rowmill.sources p WHERE p.id = q.source)", "q.row_key"
            )
            return paid, _number, paid
        if by == "longest":
            now = f"{self.arguments.add(self.now, 'timestamptz')}"
            run = (
                f"extract(epoch FROM {now} - q.claimed_at)" if state == "running" else "-1::numeric"
            )
            return run, _number, run
        return "q.enqueued_at", _moment, _seconds("q.enqueued_at")

    def _aged(self, value: str, bound: Callable[[str], str]) -> list[str]:
        conditions = []
        for age, sign in ((self.which.older_than, "<="), (self.which.newer_than, ">")):
            if age is not None:
                then = self.arguments.add(_before(self.now, age), "timestamptz")
                conditions.append(f"{value} {sign} {bound(then)}")
        return conditions

    def _over(self, table: _Table, state: str, by: Sort) -> list[_Select]:
        """The finished jobs of one table in one state."""
        target, which = table.target, self.which
        failed = shares_a_word(target, state)
        if target.source.status.cancelled is None and state == "cancelled":
            pass
        named = self._named(table)
        if named is None:
            return []
        conditions = [is_finished(target, state), *named.conditions]
        rows = f"{target.table} t {' '.join(named.joins)}"
        if which.of_errors or by == "failure":
            rows = (
                f"rowmill.failures f JOIN {target.table} t"
                f" ON t.{ident(target.source.key)} = f.row_key::{target.key_type} {' '.join(named.joins)}"
            )
            conditions += [f"f.source = {literal(table.info.name)}", *self._errors(), _LAST]
        if failed:
            conditions.append(f"{'NOT ' if state == 'failed' else ''}{cancelled_before(target)}")
        made = []
        for name, more, value, bound, number in self._values(table, state, by):
            aged_value, aged_bound = value, bound
            made.append(
                _Select(
                    f"{table.info.name}:{state}{name}",
                    state,
                    f"{table.info.id}::smallint",
                    key_text(target),
                    rows,
                    (*conditions, *more),
                    aged_value,
                    aged_bound,
                    number,
                    f"t.{ident(target.source.key)}",
                    target.key_type,
                )
            )
        return made

    def _named(self, table: _Table) -> Joined | None:
        which, target, made = self.which, table.target, Joined()
        if which.kinds:
            made += kind_is(target, which.kinds, self.arguments)
        if which.lanes:
            made += lane_is(target, which.lanes, self.arguments)
        if which.tenant is not None:
            made += tenant_is(target, _spellings(which.tenant), table.ends, self.arguments)
        return None if "false" in made.conditions else made

    def _values(
        self, table: _Table, state: str, by: Sort
    ) -> list[tuple[str, list[str], str, Callable[[str], str], str]]:
        """What to sort by: (name, conditions, value, bound, number)."""
        target = table.target
        ended, created = ended_at(target, state), created_at(target)
        moments = [when(target, column) for column in (ended, created) if column is not None]
        if ended is None and state != "completed":
            recorded = (
                "(SELECT l.at FROM rowmill.failures l WHERE l.source = "
                f"{literal(table.info.name)} AND l.row_key = {key_text(target)}"
                " ORDER BY l.id DESC LIMIT 1)"
            )
            chain = ", ".join([recorded, *(m.moment for m in moments)])
        else:
            chain = ", ".join(m.moment for m in moments)
        whole = (
            f"coalesce({chain}, '-infinity'::timestamptz)" if chain else "'-infinity'::timestamptz"
        )
        aged = self._aged(whole, lambda moment: moment)
        if by == "failure":
            return [("", aged, "f.at", _moment, _seconds("f.at"))]
        if by == "cost":
            paid = _paid(literal(table.info.name), key_text(target))
            return [("", aged, paid, _number, paid)]
        if by == "longest":
            started = started_at(target)
            run = "-1::numeric"
            if started is not None and ended is not None:
                begun, over = when(target, started).moment, when(target, ended).moment
                run = f"coalesce(extract(epoch FROM {over} - {begun}), -1)"
            return [("", aged, run, _number, run)]
        return [("", aged, whole, _moment, _seconds(whole))]

    # ----------------------------------------------------------------- telling

    async def told(self, places: Sequence[Place]) -> list[Row]:
        by_source: dict[str, list[Place]] = {}
        for place in places:
            by_source.setdefault(place.source, []).append(place)
        rows: dict[tuple[str, str], Mapping[str, Any]] = {}
        for source, mine in by_source.items():
            sql = _story(self.tables[source])
            for row in await self.connection.fetch(sql, [place.key for place in mine]):
                rows[source, row["key"]] = row
        queued = [row["queue_id"] for row in rows.values() if row["queue_id"] is not None]
        waits: dict[int, dict[str, Any]] = {}
        if queued:
            for row in await self.connection.fetch(_WAITING, queued):
                waits[row["id"]] = json.loads(row["told"])
        return [
            self._job(place, rows[place.source, place.key], waits)
            for place in places
            if (place.source, place.key) in rows
        ]

    def _job(
        self, place: Place, row: Mapping[str, Any], waits: Mapping[int, dict[str, Any]]
    ) -> Row:
        table = self.tables[place.source]
        waiting = waits.get(row["queue_id"] or 0, {})
        tries, most = _tries(table.target, place.state, row)
        unfinished = place.state in UNFINISHED
        since = (
            row["enqueued_at"]
            if unfinished
            else row["finished_at"] or row["failed_at"] or row["created_at"]
        )
        error = None
        if row["error_kind"] is not None:
            error = {
                "kind": row["error_kind"],
                "code": row["error_code"],
                "message": row["error_message"],
                "provider": row["error_provider"],
                "at": row["error_at"],
            }
        started = row["claimed_at"] if place.state == "running" else None
        started = started or row["started_at"]
        told = {
            "source": place.source,
            "key": place.key,
            "platform": table.info.platform,
            "state": place.state,
            "status": row["status"],
            "kind": row["kind"],
            "lane": row["lane"],
            "tenant": row["tenant"],
            "rank": row["rank"],
            "priority": row["priority"],
            "run": row["run"],
            "tries": tries,
            "max_retries": most,
            "created_at": row["created_at"],
            "queued_at": row["enqueued_at"],
            "ready_at": row["ready_at"],
            "started_at": started,
            "finished_at": None if unfinished else row["finished_at"] or row["failed_at"],
            "age_s": None if since is None else max(0.0, (self.now - since).total_seconds()),
            "worker": row["worker"],
            "why": waiting.get("why"),
            "reason": waiting.get("reason"),
            "may_start_at": waiting.get("may_start_at"),
            "error": plain(error) if error else None,
            "cost_cents": row["cost_cents"],
        }
        return plain(told)


_WAITING = (
    "SELECT w.id, to_jsonb(w)::text AS told FROM rowmill.waiting w WHERE w.id = ANY ($1::bigint[])"
)

_LAST = (
    "f.id = (SELECT g.id FROM rowmill.failures g WHERE g.source = f.source"
    " AND g.row_key = f.row_key ORDER BY g.id DESC LIMIT 1)"
)
"""One probe for each: as NOT EXISTS it would become a join that reads them all."""


def _moment(text: str) -> str:
    return f"{text}::timestamptz"


def _number(text: str) -> str:
    return f"{text}::numeric"


def _seconds(moment: str) -> str:
    return f"extract(epoch FROM {moment})"


def _paid(source: str, key: str) -> str:
    return (
        "coalesce((SELECT sum(u.cost_cents) FROM rowmill.submissions u"
        f" WHERE u.source = {source} AND u.row_key = {key}), 0)"
    )


def _before(now: datetime, age: timedelta) -> datetime:
    try:
        return now - age
    except OverflowError:
        return datetime.min.replace(tzinfo=now.tzinfo)


def _spellings(tenant: str) -> list[str]:
    """People write the same uuid in several ways, the queue in one."""
    return sorted({tenant, tenant.lower()}) if _UUID.fullmatch(tenant) else [tenant]


def _clamped(moment: str) -> str:
    """In years that every client can read."""
    return f"least(greatest({moment}, timestamptz '1000-01-01'), timestamptz '9000-01-01')"


def _story(table: _Table) -> str:  # noqa: C901, PLR0912
    """What is told of jobs of one table, by their keys ($1)."""
    target, source = table.target, table.target.source
    name = literal(table.info.name)
    from_row: dict[str, str] = dict.fromkeys(
        (
            *("status", "kind", "row_lane", "row_tenant", "priority", "raw_tries", "raw_max"),
            *("created_at", "started_at", "finished_at"),
        ),
        "NULL",
    )
    for time in ("created_at", "started_at", "finished_at"):
        from_row[time] = "NULL::timestamptz"
    joins: list[str] = []
    if table.usable:
        key = f"t.{ident(source.key)}"
        joins.append(f"LEFT JOIN {target.table} t ON {key} = k.key::{target.key_type}")
        values = {"kind": value_of(source.kind, "t", "kind"), "row_lane": lane_of(target, "t")}
        if source.tenant is not None:
            values["row_tenant"] = value_of(source.tenant, "t", "tenant")
        for field_, (at, more) in values.items():
            from_row[field_] = at
            joins += more
        rule = target.rule("tenant")
        if rule is not None:
            from_row["row_tenant"] = f"({tenant_by_rule(target, rule)})"
        from_row["status"] = f"t.{ident(source.status.column)}::text"
        if source.priority is not None and source.priority.column in target.columns:
            from_row["priority"] = f"t.{ident(source.priority.column or '')}::text"
        elif source.priority is not None and source.priority.path is not None:
            column, hops = parse_path(source.priority.path)
            at = f"t.{ident(column)}"
            for number, hop in enumerate(hops):
                step = f"priority{number}"
                joins.append(
                    f"LEFT JOIN {quoted(hop.table)} {step} ON {step}.{ident(hop.key)} = {at}"
                )
                at = f"{step}.{ident(hop.column)}"
            from_row["priority"] = f"{at}::text"
        if (
            source.tries is not None
            and {source.tries.column, source.tries.max} <= target.columns.keys()
        ):
            from_row["raw_tries"] = f"t.{ident(source.tries.column)}::integer"
            from_row["raw_max"] = f"t.{ident(source.tries.max)}::integer"
        created, started = created_at(target), started_at(target)
        if created is not None:
            from_row["created_at"] = _clamped(when(target, created).moment)
        if started is not None:
            from_row["started_at"] = _clamped(when(target, started).moment)
        ends = []
        for state in FINISHED:
            ended = ended_at(target, state)
            if ended is not None:
                ends.append(
                    f"WHEN {is_finished(target, state)} THEN {_clamped(when(target, ended).moment)}"
                )
        if ends:
            from_row["finished_at"] = f"CASE {' '.join(dict.fromkeys(ends))} END"
    columns = from_row
    return f"""
SELECT k.key, q.id AS queue_id, q.state::text AS queue_state, coalesce(q.lane, {columns["row_lane"]}) AS lane,
       {columns["kind"]} AS kind, coalesce(q.tenant, {columns["row_tenant"]}) AS tenant, q.rank, q.ready_at, q.enqueued_at,
       q.claimed_at, q.tries AS queue_tries, coalesce(q.run, f.run) AS run, w.name AS worker,
       {columns["status"]} AS status, {columns["priority"]} AS priority,
       {columns["raw_tries"]} AS raw_tries, {columns["raw_max"]} AS raw_max,
       {columns["created_at"]} AS created_at, {columns["started_at"]} AS started_at,
       {columns["finished_at"]} AS finished_at,
       f.kind AS error_kind, f.code AS error_code, f.message AS error_message,
       f.provider AS error_provider, f.at AS error_at, f.try AS failed_tries,
       CASE WHEN f.final THEN f.at END AS failed_at,
       {_paid(name, "k.key")} AS cost_cents
  FROM unnest($1::text[]) AS k (key)
  LEFT JOIN rowmill.queue q ON q.source = {table.info.id} AND q.row_key = k.key
  LEFT JOIN rowmill.workers w ON w.id = q.worker
  LEFT JOIN LATERAL (SELECT * FROM rowmill.failures f WHERE f.source = {name} AND f.row_key = k.key
                      ORDER BY f.id DESC LIMIT 1) f ON true
  {" ".join(joins)}"""


def _tries(target: Target, state: str, row: Mapping[str, Any]) -> tuple[int, int]:
    """Failed tries so far, and how many of them are followed by another one."""
    tries = target.source.tries
    if tries is None:
        told = row["queue_tries"] if row["queue_tries"] is not None else row["failed_tries"]
        return told or 0, target.source.max_retries
    failed, most = row["raw_tries"] or 0, row["raw_max"]
    if tries.counts == "retries":
        return failed, tries.default_max if most is None else most
    this = state in {"running", "completed"}
    return max(failed - this, 0), max((tries.default_max + 1 if most is None else most) - 1, 0)


# --------------------------------------------------------------------------- cursors


@dataclass(frozen=True, slots=True)
class _Cursor:
    """The last job of a page: where, in what order, the next one goes on."""

    listing: str
    now: datetime
    """When the first page was read: what ages are measured from."""
    branch: str
    number: str
    at: tuple[str, ...]
    tie: str

    def __str__(self) -> str:
        told = [self.listing, self.now.isoformat(), self.branch, self.number, self.at, self.tie]
        packed = json.dumps(told, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    @staticmethod
    def read(text: str, listing: str) -> _Cursor:
        try:
            packed = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            mine, now, branch, number, at, tie = json.loads(packed)
            cursor = _Cursor(
                mine, datetime.fromisoformat(now), branch, str(Decimal(number)), tuple(at), tie
            )
        except (ValueError, TypeError, ArithmeticError, binascii.Error) as error:
            raise BadCursor(
                "--after is no cursor of a listing: take `next` as it was told"
            ) from error
        if mine != listing:
            raise BadCursor(
                "--after belongs to a listing with other filters or another sort: "
                "give the same ones, or leave it out"
            )
        return cursor
