"""What test_compute lets a child do: importable there, as a handler's own work must be."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path


def whereabouts() -> tuple[int, int, int]:
    """Its process, niceness and limit of memory."""
    return os.getpid(), os.nice(0), resource.getrlimit(resource.RLIMIT_AS)[0]


def crunch(seconds: float, started: Path | None = None) -> int:
    """Pure Python, never asleep; its process id is in the file as soon as it began."""
    if started is not None:
        started.write_text(str(os.getpid()))
    until, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        rounds += sum(range(1000))
    return rounds


def fail(message: str) -> None:
    raise ValueError(message)


class Odd(Exception):
    """It can be pickled, and never unpickled."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def fail_oddly() -> None:
    raise Odd("this", "because")


def hog(megabytes: int) -> int:
    return len(bytearray(megabytes * 1024**2))


def end(number: int) -> None:
    """As a decoder's bug or the machine would end it."""
    os.kill(os.getpid(), number)
    time.sleep(10)


def leave(code: int) -> None:
    os._exit(code)
