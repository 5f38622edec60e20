"""The SELECTs of a listing: one for each state of each table, in the order that is asked for.

Unfinished jobs are read from the queue by its partial indexes, finished ones from the platform's
table, and where errors matter from the record of failures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from worker.generate.lists import (
    FINISHED,
    NEVER,
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
    tenant_is,
    when,
)
from worker.generate.words import LANE_LENGTH, ident, literal, mirrors_kind
from worker.store.listing.filter import Filter, Sort
from worker.store.listing.tables import Table

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

Bound = Callable[[str], str]
"""A value of a cursor, as SQL of text → as what a select is sorted by."""


@dataclass(frozen=True, slots=True)
class Order:
    value: str
    """What jobs are sorted by."""
    bound: Bound
    told: str
    """`value` as cursors tell it, and as several selects are merged: a moment or a number."""
    type: str = "timestamptz"
    conditions: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Select:
    name: str
    """The same on every page."""
    state: str
    source: str
    """The id of the job's source, as SQL."""
    key: str
    """Its row's key."""
    rows: str
    """What stands behind FROM."""
    conditions: tuple[str, ...]
    order: Order
    tie: str
    """Tells jobs of the same value apart, as `tie_type`."""
    tie_type: str
    ranked: bool = False
    """Ready jobs in the order of claims: by rank first."""
    heads: bool = False
    """Read by their own index, which has them by lane, table and rank."""


@dataclass(slots=True)
class Selects:
    """What a filter and a sort make of these tables."""

    which: Filter
    sort: Sort
    tables: Sequence[Table]
    now: datetime
    """What ages are measured from."""
    arguments: Arguments = field(default_factory=Arguments)

    def all(self) -> list[Select]:
        wanted = self.which.wanted_states
        made = [one for state in UNFINISHED if state in wanted for one in self._queued(state)]
        for table in self.tables:
            if table.usable:
                made += [
                    one for state in FINISHED if state in wanted for one in self._over(table, state)
                ]
        return made

    # ----------------------------------------------------------------- unfinished jobs

    def _queued(self, state: str) -> list[Select]:
        """All tables at once, unless a kind is asked for: only the rows themselves tell it."""
        if not self.which.kinds:
            return [self._in_queue(state, self.tables, f"queue:{state}")] if self.tables else []
        made = []
        for table in self.tables:
            kinds = kind_is(table.target, self.which.kinds, self.arguments)
            if kinds == NEVER or not table.usable:
                continue
            source = table.target.source
            rows = ""
            if kinds.conditions:
                on = f"t.{ident(source.key)} = q.row_key::{table.target.key_type}"
                rows = f" JOIN {table.target.table} t ON {on} {' '.join(kinds.joins)}"
            if mirrors_kind(source):
                lanes = [kind[:LANE_LENGTH] for kind in self.which.kinds]
                kinds += Joined((f"q.lane = ANY ({self.arguments.add(lanes, 'text[]')})",))
            name = f"queue:{state}:{table.info.name}"
            made.append(self._in_queue(state, [table], name, kinds.conditions, rows))
        return made

    def _in_queue(
        self,
        state: str,
        tables: Sequence[Table],
        name: str,
        conditions: Sequence[str] = (),
        rows: str = "",
    ) -> Select:
        which, add = self.which, self.arguments.add
        sources = add([table.info.id for table in tables], "smallint[]")
        asked = [f"q.state = '{UNFINISHED[state]}'", f"q.source = ANY ({sources})", *conditions]
        if which.lanes:
            asked.append(f"q.lane = ANY ({add(list(which.lanes), 'text[]')})")
        if which.tenant is not None:
            asked.append(f"q.tenant = ANY ({add(spellings(which.tenant), 'text[]')})")
        asked += self._aged("q.enqueued_at")
        joined, ranked = "rowmill.queue q" + rows, state == "ready" and self.sort == "order"
        if self._reads_failures:
            joined += (
                " JOIN rowmill.sources s ON s.id = q.source"
                " JOIN rowmill.failures f ON f.source = s.name AND f.row_key = q.row_key"
            )
            asked += [*self._errors(), _last("q.row_key")]
        return Select(
            name,
            state,
            "q.source",
            "q.row_key",
            joined,
            tuple(asked),
            self._order_in_queue(state),
            "q.id",
            "bigint",
            ranked=ranked,
            heads=ranked and not self._selective,
        )

    def _order_in_queue(self, state: str) -> Order:
        match self.sort:
            case "order":
                at = {"running": "q.claimed_at", "scheduled": "q.ready_at", "ready": "q.ready_at"}
                return _by_moment(at.get(state, "q.enqueued_at"))
            case "failure":
                return _by_moment("f.at")
            case "cost":
                name = "(SELECT p.name FROM rowmill.sources p WHERE p.id = q.source)"
                return _by_number(paid(name, "q.row_key"))
            case "longest" if state == "running":
                now = self.arguments.add(self.now, "timestamptz")
                return _by_number(f"extract(epoch FROM {now} - q.claimed_at)")
            case "longest":
                return _by_number("-1::numeric")
        return _by_moment("q.enqueued_at")

    # ----------------------------------------------------------------- finished jobs

    def _over(self, table: Table, state: str) -> list[Select]:
        target = table.target
        named = self._named(table)
        if "false" in named.conditions:
            return []
        asked = [is_finished(target, state), *named.conditions]
        rows = f"{target.table} t"
        if self._reads_failures:
            on = f"t.{ident(target.source.key)} = f.row_key::{target.key_type}"
            rows = f"rowmill.failures f JOIN {rows} ON {on}"
            asked += [
                f"f.source = {literal(table.info.name)}",
                *self._errors(),
                _last("f.row_key"),
            ]
        if shares_a_word(target, state):
            asked.append(f"{'NOT ' if state == 'failed' else ''}{cancelled_before(target)}")
        return [
            Select(
                f"{table.info.name}:{state}{order.name}",
                state,
                f"{table.info.id}::smallint",
                f"t.{ident(target.source.key)}",
                f"{rows} {' '.join(named.joins)}",
                (*asked, *order.conditions),
                order,
                f"t.{ident(target.source.key)}",
                target.key_type,
            )
            for order in self._orders(table, state)
        ]

    def _named(self, table: Table) -> Joined:
        which, target, made = self.which, table.target, Joined()
        if which.kinds:
            made += kind_is(target, which.kinds, self.arguments)
        if which.lanes:
            made += lane_is(target, which.lanes, self.arguments)
        if which.tenant is not None:
            made += tenant_is(target, spellings(which.tenant), table.ends, self.arguments)
        return made

    def _orders(self, table: Table, state: str) -> list[Order]:
        ends = _ends(table, state)
        if self.sort not in {"newest", "oldest"}:
            whole, order = _whole(table, state), self._order_over(table, state)
            return [replace(order, conditions=tuple(self._aged(whole.value)))]
        return [
            replace(end, conditions=(*end.conditions, *self._aged(end.value, end.bound)))
            for end in ends
        ]

    def _order_over(self, table: Table, state: str) -> Order:
        target = table.target
        if self.sort == "failure":
            return _by_moment("f.at")
        if self.sort == "cost":
            return _by_number(paid(literal(table.info.name), key_text(target)))
        started, ended = started_at(target), ended_at(target, state)
        if started is None or ended is None:
            return _by_number("-1::numeric")
        begun, over = when(target, started).moment, when(target, ended).moment
        # Not their difference: infinite times have none.
        took = f"extract(epoch FROM {over}) - extract(epoch FROM {begun})"
        known = f"isfinite({over}) AND isfinite({begun})"
        return _by_number(f"coalesce(CASE WHEN {known} THEN {took} END, -1)")

    # ----------------------------------------------------------------- what a filter asks

    @property
    def _selective(self) -> bool:
        """Whether few jobs may be meant, which no order would find."""
        which = self.which
        return which.tenant is not None or which.newer_than is not None or self._reads_failures

    @property
    def _reads_failures(self) -> bool:
        return self.which.of_errors or self.sort == "failure"

    def _errors(self) -> list[str]:
        conditions = []
        if self.which.error_kind is not None:
            conditions.append(f"f.kind = {self.arguments.add(self.which.error_kind, 'text')}")
        if self.which.error_text is not None:
            text = self.arguments.add(self.which.error_text, "text")
            conditions.append(f"strpos(lower(f.message), lower({text})) > 0")
        return conditions

    def _aged(self, value: str, bound: Bound = lambda moment: moment) -> list[str]:
        conditions = []
        for age, sign in ((self.which.older_than, "<="), (self.which.newer_than, ">")):
            if age is not None:
                then = self.arguments.add(_before(self.now, age), "timestamptz")
                conditions.append(f"{value} {sign} {bound(then)}")
        return conditions


def _ends(table: Table, state: str) -> list[Order]:
    """When jobs were over, by the bare column where that may help: so that its index is of use.

    Those without a time in it are a select of their own then.
    """
    column = ended_at(table.target, state) or created_at(table.target)
    helps = column in table.indexed | table.required
    if column is None or not helps or _recorded(table, state):
        return [_whole(table, state)]
    at = when(table.target, column)
    bare = Order(at.value, lambda told: at.bound(_moment(told)), at.moment)
    if column in table.required:
        return [bare]
    some, none = f"t.{ident(column)} IS NOT NULL", f"t.{ident(column)} IS NULL"
    rest = _whole(table, state, but=column)
    return [
        replace(bare, conditions=(some,)),
        replace(rest, conditions=(none,), name=":without"),
    ]


def _recorded(table: Table, state: str) -> bool:
    """Whether the table doesn't say when such a job was over, but the record of failures does."""
    target = table.target
    return ended_at(target, state) is None and (state == "failed" or shares_a_word(target, state))


def _whole(table: Table, state: str, but: str | None = None) -> Order:
    """When a job was over; where nothing says that, when it was made."""
    target = table.target
    columns = (ended_at(target, state), created_at(target))
    moments = [when(target, c).moment for c in columns if c is not None and c != but]
    if _recorded(table, state):
        moments.insert(
            0,
            "(SELECT l.at FROM rowmill.failures l WHERE l.source = "
            f"{literal(table.info.name)} AND l.row_key = {key_text(target)}"
            " ORDER BY l.id DESC LIMIT 1)",
        )
    return _by_moment(f"coalesce({', '.join([*moments, _NEVER])})" if moments else _NEVER)


_NEVER = "'-infinity'::timestamptz"


def _last(key: str) -> str:
    """That failure `f` is the last one of its job.

    One probe for each: as NOT EXISTS it would become a join that reads them all. By the key of a
    row that `f` is joined with, only failures of such rows are probed.
    """
    return (
        "f.id = (SELECT g.id FROM rowmill.failures g WHERE g.source = f.source"
        f" AND g.row_key = {key} ORDER BY g.id DESC LIMIT 1)"
    )


def paid(source: str, key: str) -> str:
    """What the ledger knows a job to have cost, in cents."""
    return (
        "coalesce((SELECT sum(u.cost_cents) FROM rowmill.submissions u"
        f" WHERE u.source = {source} AND u.row_key = {key}), 0)"
    )


def _by_moment(value: str) -> Order:
    return Order(value, _moment, value)


def _by_number(value: str) -> Order:
    return Order(value, lambda told: f"{told}::numeric", value, "numeric")


def _moment(text: str) -> str:
    return f"{text}::timestamptz"


def _before(now: datetime, age: timedelta) -> datetime:
    try:
        return now - age
    except OverflowError:
        return datetime.min.replace(tzinfo=now.tzinfo)


def spellings(tenant: str) -> list[str]:
    """People write the same uuid in several ways, the queue in one."""
    return sorted({tenant, tenant.lower()}) if _UUID.fullmatch(tenant) else [tenant]
