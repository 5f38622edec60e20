"""What can go wrong between us and Postgres, in the words the rest of the worker acts on.

StoreError
 ├── Unavailable        connection lost, server starting, deadlock, serialization, a right or a
 │    │                 table that is missing: nothing the row can help; repeat as is
 │    └── LockTimeout   someone holds a row for long: repeat without waiting
 ├── DeadWorker         this incarnation was given up: register anew
 ├── MissingPartition   a month has no partition yet: make it, repeat
 └── Refused            the data is at fault: bisect, so that one bad row fails alone
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import asyncpg


class StoreError(Exception):
    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Unavailable(StoreError):
    pass


class LockTimeout(Unavailable):
    pass


class DeadWorker(StoreError):
    pass


class MissingPartition(StoreError):
    pass


class Refused(StoreError):
    pass


NO_FUNCTION = "42883"
"""What is asked of a source's own functions comes to after it was detached."""

NAMES = {
    Unavailable: "unavailable",
    LockTimeout: "lock_timeout",
    DeadWorker: "dead_worker",
    MissingPartition: "missing_partition",
    Refused: "refused",
}

_DATA_CLASSES = ("21", "22", "23", "38", "39", "44", "54", "P0")
"""Cardinality, data, integrity, routines, check options, limits, RAISE: the row's own fault."""

_NO_ANSWER: tuple[type[Exception], ...] = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement on a connection that was just being cut
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
)


@dataclass(slots=True)
class Traffic:
    """What a store's statements met with, for those who count it."""

    errors: Counter[str] = field(default_factory=Counter)
    """By the name of ours."""
    connections: int = 0
    """Made since the beginning."""


@contextmanager
def translated(traffic: Traffic | None = None) -> Iterator[None]:
    """Turn asyncpg's errors into ours."""
    try:
        yield
    except (asyncpg.PostgresError, ValueError, *_NO_ANSWER) as error:
        ours = _ours(error)
        if traffic is not None:
            traffic.errors[NAMES[type(ours)]] += 1
        raise ours from error


def _ours(error: Exception) -> StoreError:
    if isinstance(error, asyncpg.PostgresError):
        return _translate(error)
    if isinstance(error, ValueError):  # a parameter asyncpg can't encode; also an InterfaceError
        return Refused(str(error))
    return Unavailable(f"{type(error).__name__}: {error}")


def _translate(error: asyncpg.PostgresError) -> StoreError:
    state = error.sqlstate or ""
    message = str(error)
    if state == "55P03":
        return LockTimeout(message, state)
    if state == "RM001":
        return DeadWorker(message, state)
    if not state.startswith(_DATA_CLASSES):
        return Unavailable(message, state)
    # A row no partition takes is a check_violation without a constraint.
    if state == "23514" and not getattr(error, "constraint_name", None):
        return MissingPartition(message, state)
    return Refused(message, state)
