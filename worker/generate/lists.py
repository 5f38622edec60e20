"""A source's jobs as conditions and values of SELECTs: what a listing of jobs is made of.

Nothing of this is kept in the database: a view over a platform's table would be in the way of its
next ALTER TABLE. Where a condition can be said of the bare column it is, so that the platform's own
indexes help.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from worker.generate.rules import statements
from worker.generate.words import CANCELLED, Target, ident, lane_of, literal, mirrors_kind, value_of
from worker.maps import Value, parse_path

UNFINISHED = {"running": "claimed", "ready": "ready", "scheduled": "scheduled", "held": "held"}
"""States of jobs in the queue, in the order in which they are told, by the queue's own word."""
FINISHED = ("failed", "completed", "cancelled")
STATES = (*UNFINISHED, *FINISHED)
STATE_WORDS = {state: (state,) for state in STATES} | {
    "all": STATES,
    "unfinished": tuple(UNFINISHED),
    "finished": FINISHED,
}
"""What people may call them, alone or together."""

_CREATED = (
    *("createdat", "created", "createdon", "datecreated", "creationdate", "insertedat"),
    *("queuedat", "enqueuedat", "requestedat", "submittedat"),
)
"""Maps don't say when a row was made, since no job needs it; people want to know. In small letters."""
_ZONED, _LOCAL, _DAY = "timestamp with time zone", "timestamp without time zone", "date"
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_INTEGERS = {"smallint": 16, "integer": 32, "bigint": 64}
_STAMPS = ("now", "first_now")


class Arguments:
    """The values of one statement, numbered as they are named."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self._casts: list[str] = []

    def add(self, value: object, type_: str) -> str:
        self.values.append(value)
        self._casts.append(f"${len(self.values)}::{type_}")
        return self._casts[-1]

    @property
    def named(self) -> str:
        """Before a statement: Postgres asks of every value that it is named somewhere."""
        return f"WITH given AS (SELECT {', '.join(self._casts)})\n" if self._casts else ""


@dataclass(frozen=True, slots=True)
class Joined:
    """Conditions on row `t`, and the joins they need."""

    conditions: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()

    def __add__(self, other: Joined) -> Joined:
        joins = tuple(dict.fromkeys(self.joins + other.joins))
        return Joined(self.conditions + other.conditions, joins)


NEVER = Joined(("false",))


@dataclass(frozen=True, slots=True)
class When:
    """A time of row `t`: as the table keeps it, and a moment as the table would keep it."""

    value: str
    bound: Callable[[str], str]
    moment: str
    """The same as a `timestamptz`."""


# --------------------------------------------------------------------------- states


def word_of(target: Target, state: str) -> str | None:
    """The table's own word for a finished state; one without a word for cancelled says failed."""
    status = target.source.status
    words = {"completed": status.succeeded, "failed": status.failed, "cancelled": status.cancelled}
    return words[state] or status.failed


def shares_a_word(target: Target, state: str) -> bool:
    """Whether only the record of failures tells this state from another one."""
    return target.source.status.cancelled is None and state in {"failed", "cancelled"}


def is_finished(target: Target, state: str) -> str:
    """Of row `t`, as its own index has it."""
    status, word = target.source.status, word_of(target, state)
    column = f"t.{ident(status.column)}"
    # By way of unknown, so that a column of any type is compared as it is, never as text.
    at = f"{column} = {literal(word or '')}"
    return f"({at} OR {column} IS NULL)" if word == status.default else at


def cancelled_before(target: Target) -> str:
    """That the last end of row `t` was a cancel, in a table without a word for that."""
    return (
        "coalesce((SELECT f.final AND f.kind = "
        f"{literal(CANCELLED)} FROM rowmill.failures f WHERE f.source = {literal(target.source.name)}"
        f" AND f.row_key = {key_text(target)} ORDER BY f.id DESC LIMIT 1), false)"
    )


def key_text(target: Target) -> str:
    return f"t.{ident(target.source.key)}::text"


# --------------------------------------------------------------------------- what a filter names


def kind_is(target: Target, kinds: Collection[str], arguments: Arguments) -> Joined:
    value = target.source.kind
    return _is(value, kinds, "kind", type_of(target, value), arguments)


def lane_is(target: Target, lanes: Collection[str], arguments: Arguments) -> Joined:
    """Of finished rows; the queue knows the lanes of the others."""
    value = target.source.lane
    if value.constant is not None or mirrors_kind(target.source):
        return _is(value, lanes, "lane", type_of(target, value), arguments)
    at, joins = lane_of(target, "t")
    return Joined((f"{at} = ANY ({arguments.add(list(lanes), 'text[]')})",), tuple(joins))


def tenant_is(
    target: Target, tenants: Sequence[str], ends: Mapping[str, str], arguments: Arguments
) -> Joined:
    """`ends` are the types at the ends of paths."""
    value, rule = target.source.tenant, target.rule("tenant")
    if rule is not None:
        asked = arguments.add(list(tenants), "text[]")
        return Joined((f"({tenant_by_rule(target, rule)}) = ANY ({asked})",))
    if value is None:
        return NEVER
    type_ = ends.get(value.path, "text") if value.path else type_of(target, value)
    return _is(value, tenants, "tenant", type_, arguments)


def type_of(target: Target, value: Value) -> str:
    live = target.columns.get(value.column or "")
    return live.type if live else "text"


def tenant_by_rule(target: Target, rule: str) -> str:
    """The rule is about a set of rows; here it is asked about row `t` alone."""
    (asked,) = statements(rule)
    key = f"ARRAY[t.{ident(target.source.key)}]"
    return f"SELECT told.tenant FROM ({_about(asked, key)}) AS told LIMIT 1"


def _about(rule: str, keys: str) -> str:
    return rule.replace("rowmill_keys", keys)


def _is(
    value: Value, wanted: Collection[str], alias: str, type_: str, arguments: Arguments
) -> Joined:
    if value.constant is not None:
        return Joined() if value.prefix + value.constant in wanted else NEVER
    _, joins = value_of(value, "t", alias)
    words = sorted({spelling for word in wanted for spelling in _spellings(value, word)})
    if value.column is not None:
        column = f"t.{ident(value.column)}"
    else:
        path = value.path or ""
        column = f"{alias}{len(parse_path(path)[1]) - 1}.{ident(parse_path(path)[1][-1].column)}"
    found = _one_of(column, type_, words, arguments)
    if value.default is not None and value.prefix + _said(value, value.default) in wanted:
        found = f"({found} OR {column} IS NULL OR {column}::text = '')"
    return Joined((found,), tuple(joins))


def _one_of(column: str, type_: str, words: list[str], arguments: Arguments) -> str:
    """Of the bare column, where every word can be a value of its type: its index helps then."""
    if type_ == "uuid":
        words = [word for word in words if _UUID.fullmatch(word)]
        return f"{column} = ANY ({arguments.add(words, 'text[]')}::uuid[])"
    if type_ in _INTEGERS:
        most = 2 ** (_INTEGERS[type_] - 1)
        words = [word for word in words if _NUMBER.fullmatch(word) and -most <= int(word) < most]
        return f"{column} = ANY ({arguments.add(words, 'text[]')}::{type_}[])"
    return f"{column}::text = ANY ({arguments.add(words, 'text[]')})"


def _said(value: Value, word: str) -> str:
    return value.words.get(word, word)


def _spellings(value: Value, wanted: str) -> list[str]:
    """What a column says where our word for it is this one."""
    if not wanted.startswith(value.prefix):
        return []
    word = wanted.removeprefix(value.prefix)
    theirs = [spelling for spelling, ours in value.words.items() if ours == word]
    own = [word] if word and word not in value.words else []
    return [*theirs, *own]


# --------------------------------------------------------------------------- times


def when(target: Target, column: str) -> When:
    at, zone = f"t.{ident(column)}", literal(target.platform.map.timezone)
    match target.columns[column].type:
        case _ if is_zoned(target, column):
            return When(at, lambda moment: moment, at)
        case type_ if type_ == _LOCAL:
            return When(
                at, lambda moment: f"({moment} AT TIME ZONE {zone})", f"({at} AT TIME ZONE {zone})"
            )
    moment = f"({at}::timestamp AT TIME ZONE {zone})"
    return When(moment, lambda bound: bound, moment)


def is_zoned(target: Target, column: str) -> bool:
    return target.columns[column].type == _ZONED


def ended_at(target: Target, state: str) -> str | None:
    """The column that says when a job came to this end, if the table has one."""
    sets = target.source.set
    groups = {"completed": sets.success, "failed": sets.failure, "cancelled": sets.cancel}
    stamped = [c for c, field in groups[state].items() if field == "now" and _is_time(target, c)]
    always = {c for g in (sets.start, sets.progress, sets.retry) for c in g}
    return next(iter([c for c in stamped if c not in always] or stamped), None)


def started_at(target: Target) -> str | None:
    """When it began; a column that every change stamps says something else."""
    sets = target.source.set
    stamped = [c for c, field in sets.start.items() if field in _STAMPS and _is_time(target, c)]
    return next((c for c in stamped if c not in sets.success and c not in sets.retry), None)


def created_at(target: Target) -> str | None:
    plain = {c.replace("_", "").lower(): c for c in target.columns if _is_time(target, c)}
    return next((plain[name] for name in _CREATED if name in plain), None)


def _is_time(target: Target, column: str) -> bool:
    live = target.columns.get(column)
    return live is not None and live.type in {_ZONED, _LOCAL, _DAY}
