"""Named places between the intent to pay and the settled job, where a process can be made to die.

`reached(name)` stands before and after every await on that way. It does nothing, unless the process
was started to die: `arm` is called by `bench.doomed` alone, an entry of its own for the proof that
nothing is paid twice. No setting, variable or message leads there.
"""

from __future__ import annotations

import os
import signal

import structlog

POINTS = {
    "intent.due": "nothing is written yet",
    "intent.committed": "the ledger knows what will be paid",
    "post.due": "the last look at the heartbeat is done",
    "post.answered": "the provider has answered, and only this process knows what",
    "accepted.committed": "the task's id is in the ledger",
    "unknown.committed": "the ledger knows that nobody knows",
    "search.due": "the provider will be asked for a lost request",
    "search.found": "a task that may be the lost one is known to this process",
    "written_off.committed": "the lost request is written off, and may be sent again",
    "poll.due": "a task will be looked at",
    "poll.ended": "the task has ended, and only this process knows how",
    "answer.away": "files of an answer are put away, and the ledger doesn't know of them",
    "outputs.due": "what the task made is still with the provider",
    "outputs.stored": "what the task made is in our storage, and not in the ledger",
    "finished.committed": "result and cost are in the ledger",
    "kept.committed": "the ledger knows where the outputs are",
    "failed.committed": "a failure and its cost are in the ledger",
    "outcome.known": "the handler has returned",
    "settle.due": "the batch will be sent to the database",
    "settle.committed": "the batch is committed, and this process hasn't acted on it",
}

UNLOCK = "this process may die at any moment"
"""What `arm` must be told, so that no call of it is a slip."""

_armed: dict[str, int] = {}
"""Point → how many times more it is passed before the process dies there."""


def reached(point: str) -> None:
    if _armed and point in _armed:
        _armed[point] -= 1
        if _armed[point] == 0:
            _die(point)


def arm(point: str, passes: int, unlock: str) -> None:
    """Let this process die the `passes`-th time that it gets there."""
    if unlock != UNLOCK:
        raise PermissionError("failpoints are for the proof of bench money alone")
    if point not in POINTS or passes < 1:
        raise ValueError(f"no failpoint {point!r}; there are: {', '.join(POINTS)}")
    _armed[point] = passes


def _die(point: str) -> None:
    """As a power cut would have it: nothing is flushed, closed or said but the place itself."""
    job = structlog.contextvars.get_contextvars()
    os.write(2, f"failpoint {point} {job.get('source')}/{job.get('key')}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
