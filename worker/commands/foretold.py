"""What a map will do, as text and as JSON; see worker/foretelling.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

from worker.foretelling import Rank, Told
from worker.maps import Platform, Source, Value

SCALES = {
    "words": "words",
    "1-10": "1 to 10, doubled",
    "any": "10 and the number, between 1 and 20",
}
SHOWN = 40
LOOKED_AT = "a sample of its rows"


def as_json(told: Told) -> dict[str, Any]:
    source = told.source
    return {
        "source": source.name,
        "table": source.table,
        "key": source.key,
        "states": told.states,
        "kinds": told.kinds,
        "lanes": told.lanes,
        "ranks": [{"priority": r.priority, "rank": r.rank, "rows": r.rows} for r in told.ranks],
        "without_priority": {"priority": told.usual.priority, "rank": told.usual.rank},
        "retries": _retries(source),
        "writes": source.set.model_dump(exclude_defaults=True),
        "sampled": told.sampled,
    }


def show(platform: Platform, told: Iterable[Told], *, offline: bool) -> None:
    for one in told:
        for line in _lines(platform, one, offline=offline):
            typer.echo(line)
        typer.echo()
    if offline:
        typer.echo(
            "Not checked, without a database: whether tables, columns and unique indexes are "
            "there, whether the words may be written, what the rows hold."
        )


def _lines(platform: Platform, told: Told, *, offline: bool) -> Iterable[str]:
    source = told.source
    yield f"{source.table}, as source {source.name}; a job is named by {source.key}"
    yield from _states(told)
    yield "  kinds of work" + (" (rows)" if told.kinds else f": {_value(source.kind)}")
    for kind in told.kinds[:SHOWN]:
        handler = "has a handler" if kind["handler"] else "no handler here: see ROWMILL_HANDLERS"
        yield f"    {_quoted(kind['kind']):<34} {handler:<38} {kind['rows']}"
    lanes = ", ".join(f"{_plain(lane['lane'])} ({lane['rows']})" for lane in told.lanes[:SHOWN])
    yield f"  lanes: {lanes or _value(source.lane)}"
    yield from _priorities(platform, told)
    yield f"  tries: {_retries(source)}"
    if source.schedule:
        yield f"  not before: {source.schedule}"
    yield from _writes(source)
    if told.sampled and not offline:
        yield f"  (It is large: rows are counted in {LOOKED_AT}.)"


def _states(told: Told) -> Iterable[str]:
    yield f"  {told.source.status.column} (rows)"
    meanings = {
        "ready": "waits: an INSERT with it is an enqueue",
        "running": "runs",
        "succeeded": "is done",
        "failed": "has failed for good",
        "cancelled": "is cancelled, also by an UPDATE",
        None: "means nothing to the map: left alone",
    }
    for state in told.states[:SHOWN]:
        yield f"    {_quoted(state['word']):<34} {meanings[state['means']]:<38} {state['rows']}"
    if told.source.status.default:
        yield f"    NULL means {told.source.status.default!r}"


def _priorities(platform: Platform, told: Told) -> Iterable[str]:
    priority = told.source.priority
    if priority is None:
        yield f"  rank: {told.usual.rank} for every row, of 20 (first) to 1 (last)"
    else:
        at = priority.column or priority.path
        yield f"  ranks of {at} ({SCALES[priority.scale]}), in the order of claims (rows)"
        for rank in told.ranks[:SHOWN]:
            yield f"    rank {rank.rank:>2}   {_quoted(rank.priority):<24} {rank.rows:>6}"
        yield f"    an INSERT that names none gets {_usual(told.usual, priority.path)}"
    if platform.rule(told.source.name, "rank"):
        yield f"    {told.source.name}.rank.sql adds to these"


def _usual(usual: Rank, path: str | None) -> str:
    if path:
        return f"what its {path} leads to, else rank {usual.rank}"
    default = f" (its DEFAULT, {usual.priority!r})" if usual.priority is not None else " (NULL)"
    return f"rank {usual.rank}{default}"


def _retries(source: Source) -> str:
    tries = source.tries
    if tries is None:
        return f"{source.max_retries} retries for every row; failed tries are counted in the queue"
    return (
        f"{tries.column} counts {tries.counts}, {tries.max} is their most "
        f"({tries.default_max} retries where it is NULL)"
    )


def _writes(source: Source) -> Iterable[str]:
    words = {
        "start": ("at its start", source.status.running),
        "progress": ("while it runs", None),
        "success": ("at success", source.status.succeeded),
        "retry": ("when it will be retried", source.status.ready[0]),
        "failure": ("at failure", source.status.failed),
        "cancel": ("when cancelled", source.status.cancelled),
        "requeue": ("by `rowmill retry` and `requeue`", source.status.ready[0]),
    }
    for group, (when, word) in words.items():
        assigned = getattr(source.set, group)
        status = [f"{source.status.column} = {word!r}"] if word else []
        written = [*status, *(f"{column} = {field}" for column, field in assigned.items())]
        if written:
            yield f"  written {when}: {', '.join(written)}"


def _value(value: Value) -> str:
    if value.constant is not None:
        return value.prefix + value.constant
    at = value.column or value.path
    return f"{value.prefix}<{at}>" + (f", else {value.default}" if value.default else "")


def _quoted(text: str | None) -> str:
    return "NULL" if text is None else repr(text)


def _plain(text: str) -> str:
    return repr(text)[1:-1]
