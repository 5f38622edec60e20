"""What an operator does to one job: retry, requeue, cancel, priority, resolve.

Each is one statement (sql/functions/acts.sql, ledger.sql), so the act and its line in
`rowmill.actions` commit together, behind any pooler.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from worker.maps import Platform, Source
from worker.store.finding import Found
from worker.store.store import SourceInfo, Store, to_json


class WrongPriority(Exception):
    """A table's jobs can't have that one; the message says which they can."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an operator was shown of a job and agreed to; what is otherwise by then isn't touched."""

    states: tuple[str, ...]
    version: str | None = None
    """Of the job, as rowmill.about_<source>() tells it."""
    doubts: tuple[str, ...] | None = None
    """The ids of its calls in doubt, where those are meant."""

    @property
    def as_json(self) -> str:
        given = {"states": self.states, "version": self.version, "doubts": self.doubts}
        return to_json({name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Did:
    verdict: str
    state: str | None = None
    """How far the job was before."""
    rank: int | None = None
    ranked: int | None = None
    """Its rank before and now, while it is queued."""


async def retry(store: Store, source: str, key: str, who: str, seen: Seen | None = None) -> str:
    """Let it run again: a finished row starts over with no tries spent, a held one goes on.

    Returns requeued | released | hastened, or why not: missing | changed | running | the status.
    """
    return (await act(store, "retry", Found(source, key), who, seen=seen)).verdict


async def cancel(store: Store, source: str, key: str, who: str, seen: Seen | None = None) -> str:
    """Returns cancelled, or why not: missing | changed | the finished row's status."""
    return (await act(store, "cancel", Found(source, key), who, seen=seen)).verdict


async def requeue(
    store: Store, source: str, key: str, who: str, *, anew: bool = False, seen: Seen | None = None
) -> str:
    """Ask for new work of a finished row, in a new run. `anew` drops an undelivered paid result.

    Returns requeued, or why not: missing | changed | waiting | running | held | the status of a
    row nobody queued yet, and in_doubt | open | undelivered; see rowmill.owed().
    """
    job, given = Found(source, key), {"anew": anew}
    return (await act(store, "requeue", job, who, given=given, seen=seen)).verdict


async def prioritise(
    store: Store, source: str, key: str, to: str, who: str, *, seen: Seen | None = None
) -> Did:
    """Write the row's priority, or set its rank where its table has none: `priority_value`.

    The verdict is moved | noted (it runs: for when it comes back), or why not: missing | changed |
    unqueued | the finished row's status.
    """
    return await act(store, "priority", Found(source, key), who, given={"to": to}, seen=seen)


async def resolve(
    store: Store,
    job: Found,
    *,
    how: str,
    who: str,
    step: str | None = None,
    external_id: str | None = None,
    seen: Seen | None = None,
) -> str:
    """Say what became of a call nobody could find out about; see rowmill.resolve()."""
    if seen is not None:
        given = {"how": how, "step": step, "external_id": external_id}
        return (await act(store, "resolve", job, who, given=given, seen=seen)).verdict
    return str(
        await store.value(
            "SELECT rowmill.resolve($1, $2, $3, $4, $5, $6)",
            *(job.source, job.key, step, how, external_id, who),
        )
    )


async def act(
    store: Store,
    action: str,
    job: Found,
    who: str,
    *,
    given: dict[str, Any] | None = None,
    seen: Seen | None = None,
) -> Did:
    """`action` is retry, cancel, requeue, priority or resolve; see rowmill.act()."""
    answer = await store.value(
        "SELECT rowmill.act($1, $2, $3, $4::jsonb, $5::jsonb, $6)",
        job.source,
        job.key,
        action,
        None if given is None else to_json(given),
        None if seen is None else seen.as_json,
        who,
    )
    return Did(**json.loads(answer))


# --------------------------------------------------------------------------- priorities


def priority_value(info: SourceInfo, text: str) -> str:
    """What is written for this table's jobs, by its map's scale; raises `WrongPriority`."""
    platform = Platform.from_definition(info.definition)
    (source,) = [s for s in platform.map.sources if s.name == info.name]
    scale = _scale(source)
    if isinstance(scale, range):
        if not _is_integer(text) or int(text) not in scale:
            raise WrongPriority(
                f"{info.name}: {text!r} is no {_called(source)}: it takes {scale[0]} to {scale[-1]}"
            )
        return str(int(text))
    if text not in scale:
        raise WrongPriority(
            f"{info.name}: {text!r} is no {_called(source)}: it takes {', '.join(scale)}"
        )
    return text


_INTEGERS = range(-(2**31), 2**31)
_RANKS = range(1, 21)


def _scale(source: Source) -> range | tuple[str, ...]:
    priority = source.priority
    if priority is None or priority.column is None:
        return _RANKS
    if priority.scale == "words":
        return tuple(priority.words)
    return range(1, 11) if priority.scale == "1-10" else _INTEGERS


def _called(source: Source) -> str:
    column = source.priority.column if source.priority else None
    return f"priority ({column})" if column else "rank (it has no priority of its own)"


def _is_integer(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return text.isascii()
