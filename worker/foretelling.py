"""What a map will do, in words: `rowmill map check`. Pure.

A source is told from its map, and from what its table has now where a database could be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.guessing.table import Column, Table
from worker.maps import Priority, Source, Value
from worker.store.checking import Problem
from worker.store.previewing import Count, Found

NUMBERS = {"1-10": range(1, 11), "any": range(-9, 11)}
NO_PRIORITY = 10


@dataclass(frozen=True, slots=True)
class Rank:
    """A priority, as the row has it, and its place from 20, the first, to 1."""

    priority: str | None
    rank: int
    rows: int


@dataclass(frozen=True, slots=True)
class Told:
    source: Source
    states: list[dict[str, Any]]
    kinds: list[dict[str, Any]]
    lanes: list[dict[str, Any]]
    ranks: list[Rank]
    usual: Rank
    """What an INSERT that names no priority gets."""
    sampled: bool
    problems: list[Problem]


def foretell(source: Source, found: Found | None, handlers: Iterable[str]) -> Told:
    """`found` is None without a database; `handlers` are the kinds that have one."""
    table = found.table if found else None
    known = set(handlers)
    ranks = _ranks(source, found)
    return Told(
        source,
        states=_states(source, found.statuses if found else ()),
        kinds=_kinds(source, table, found.kinds if found else (), known),
        lanes=_lanes(found.kinds if found else ()),
        ranks=ranks,
        usual=_usual(source, table),
        sampled=bool(found and found.sampled),
        problems=[
            *_uncounted(source, found),
            *_words(source, table),
            *_priorities(source, ranks),
        ],
    )


# --------------------------------------------------------------------------- ranks


def rank_of(priority: Priority | None, value: str | None) -> int:
    """As the triggers reckon; see `worker.generate.words.rank_of`."""
    if priority is None:
        return NO_PRIORITY
    if priority.scale == "words":
        return priority.words.get(value or "", priority.default)
    number = priority.default if value is None else int(value)
    if priority.scale == "1-10":
        return 2 * min(10, max(1, number))
    return 10 + min(10, max(-9, number))


def _ranks(source: Source, found: Found | None) -> list[Rank]:
    """Found or possible, in the order in which they are claimed."""
    priority = source.priority
    if priority is None:
        return []
    rows = {c.values[0]: Rank(c.values[0], c.values[1], c.rows) for c in _counts(found)}
    for value in _possible(priority, _column(found, priority.column)):
        rows.setdefault(value, Rank(value, rank_of(priority, value), 0))
    return sorted(rows.values(), key=lambda r: (-r.rank, r.priority is None, _order(r.priority)))


def _counts(found: Found | None) -> Sequence[Count]:
    return found.priorities if found else ()


def _order(value: str | None) -> tuple[int, str]:
    number = (value or "").lstrip("-")
    return (-int(value or 0) if number.isdigit() else 0, value or "")


def _possible(priority: Priority, column: Column | None) -> list[str | None]:
    allowed: list[str | None] = list(column.words) if column and column.closed else []
    if priority.scale == "words":
        words: list[str | None] = [w for w in priority.words if not allowed or w in allowed]
        allowed = [*words, *(w for w in allowed if w not in words)]
    elif not allowed:
        low, high = (column.low, column.high) if column else (None, None)
        numbers = NUMBERS[priority.scale]
        allowed = [
            str(number)
            for number in numbers
            if (low is None or number >= low) and (high is None or number <= high)
        ]
    return allowed if column and column.required else [*allowed, None]


def _column(found: Found | None, name: str | None) -> Column | None:
    return found.table.column(name) if found and found.table and name else None


def _usual(source: Source, table: Table | None) -> Rank:
    priority = source.priority
    column = table.column(priority.column) if table and priority and priority.column else None
    value = column.default if column else None
    return Rank(value, rank_of(priority, value), 0)


# --------------------------------------------------------------------------- states, kinds, lanes


def _states(source: Source, counts: Sequence[Count]) -> list[dict[str, Any]]:
    status = source.status
    meanings = dict.fromkeys(status.ready, "ready")
    for meaning in ("running", "succeeded", "failed", "cancelled"):
        word = getattr(status, meaning)
        if word is not None:
            meanings[word] = meaning
    rows = {c.values[0]: c.rows for c in counts}
    words = [*meanings, *(word for word in rows if word not in meanings)]
    return [{"word": w, "means": meanings.get(w), "rows": rows.get(w, 0)} for w in words]


def _kinds(
    source: Source, table: Table | None, counts: Sequence[Count], handlers: set[str]
) -> list[dict[str, Any]]:
    rows: dict[str | None, int] = {}
    for count in counts:
        kind = count.values[0]
        rows[kind] = rows.get(kind, 0) + count.rows
    for kind in _possible_kinds(source.kind, table):
        rows.setdefault(kind, 0)
    return [
        {"kind": kind, "handler": kind in handlers, "rows": number}
        for kind, number in sorted(rows.items(), key=lambda item: (-item[1], item[0] or ""))
    ]


def _possible_kinds(kind: Value, table: Table | None) -> Iterable[str]:
    if kind.constant is not None:
        yield kind.prefix + kind.constant
    column = table.column(kind.column) if table and kind.column else None
    if column and column.closed:
        yield from (kind.prefix + kind.words.get(word, word) for word in column.words)


def _lanes(counts: Sequence[Count]) -> list[dict[str, Any]]:
    rows: dict[str, int] = {}
    for count in counts:
        rows[count.values[1]] = rows.get(count.values[1], 0) + count.rows
    return [{"lane": lane, "rows": number} for lane, number in rows.items()]


# --------------------------------------------------------------------------- words that can't be


def _uncounted(source: Source, found: Found | None) -> list[Problem]:
    if found is None or found.uncounted is None:
        return []
    return [Problem("warn", f"{source.name}: {found.uncounted}")]


def _words(source: Source, table: Table | None) -> list[Problem]:
    """What the map would write, and the table wouldn't take."""
    if table is None:
        return []
    return [*_states_refused(source, table), *_nulls_refused(source, table)]


def _states_refused(source: Source, table: Table) -> Iterable[Problem]:
    status = source.status
    column = table.column(status.column)
    if column is None or not column.closed or column.enum:  # an enum's are refused by attach
        return
    written = {
        "ready": status.ready[0],
        "running": status.running,
        "succeeded": status.succeeded,
        "failed": status.failed,
        "cancelled": status.cancelled,
    }
    for key, word in written.items():
        if word is not None and word not in column.words:
            yield Problem(
                "refuse",
                f"{source.name}: status.{key} = {word!r}: {source.table}.{column.name} allows "
                f"only {', '.join(map(repr, column.words))}",
            )


def _nulls_refused(source: Source, table: Table) -> Iterable[Problem]:
    for group in type(source.set).model_fields:
        assigned: Mapping[str, str] = getattr(source.set, group)
        for name, field in assigned.items():
            column = table.column(name)
            if column and column.generated:
                yield Problem(
                    "refuse",
                    f"{source.name}: set.{group}.{name}: {source.table}.{name} is generated by "
                    "the database: leave it out",
                )
            elif column and column.required and field == "null":
                yield Problem(
                    "refuse",
                    f'{source.name}: set.{group}.{name} = "null": {source.table}.{name} is '
                    "NOT NULL: leave it out",
                )


def _priorities(source: Source, ranks: list[Rank]) -> list[Problem]:
    """Words the map doesn't know, in rows or allowed by the column."""
    priority = source.priority
    if priority is None or priority.scale != "words":
        return []
    unknown = [r for r in ranks if r.priority is not None and r.priority not in priority.words]
    if not unknown:
        return []
    words = ", ".join(repr(r.priority) for r in unknown)
    return [
        Problem(
            "warn",
            f"{source.name}: priority.words has no rank for {words}: such rows get rank "
            f"{priority.default}, the default",
        )
    ]
