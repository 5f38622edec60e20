"""Predictions and how they move: starting → processing → succeeded, failed, canceled, aborted.

Nothing runs in the background. How far a prediction is follows from the time that has passed, or
from the number of polls, so that tests can walk it step by step.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from jobs.sandbox.media import SUFFIX, Picture, size_for
from jobs.sandbox.text import dice

STARTED_AT = 10  # percent: below it a prediction is still starting
STALLED_AT = 90
DONE_AT = 100
MILLISECOND = Decimal("0.001")  # run times are told to it, so that a float carries them exactly

# medium → predict_time in seconds: for any, and for each second of the output (each image)
RUN_TIME = {
    "video": (Decimal("0.5"), Decimal("0.4")),
    "audio": (Decimal("0.2"), Decimal("0.1")),
    "image": (Decimal(0), Decimal("0.4")),
}

ERRORS = {
    "fail": "Prediction failed: CUDA out of memory",
    "policy": "The input or output was flagged as sensitive. Please try again with different "
    "inputs. (E005)",
}
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for."""

    medium: str
    aspect_ratio: str
    seconds: Decimal
    items: int

    @property
    def predict_time(self) -> Decimal:
        """Follows from the order alone, so that its price can be foretold."""
        base, rate = RUN_TIME[self.medium]
        amount = self.items if self.medium == "image" else self.seconds
        return (base + rate * amount).quantize(MILLISECOND)


@dataclass(frozen=True, slots=True)
class Ask:
    """A submission that passed all checks."""

    key: str
    model: str
    version: str
    input: dict[str, Any]
    words: str
    order: Order


@dataclass(frozen=True, slots=True)
class Pace:
    """A prediction takes so many seconds or, when `steps` is set, so many polls."""

    seconds: float
    steps: int | None = None

    def percent(self, born: float, polls: int, twist: str | None) -> int:
        """How far something is that was made then and looked at so often."""
        if self.steps is not None:
            done = DONE_AT * polls // self.steps
        elif self.seconds > 0:
            done = int(DONE_AT * (time.monotonic() - born) / self.seconds)
        else:
            done = DONE_AT
        return min(done, STALLED_AT if twist == "stall" else DONE_AT)


def new_id() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(26))


def stamp(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z" if moment else None


@dataclass(slots=True)
class Prediction:
    id: str
    number: int
    ask: Ask
    charge_id: str
    twist: str | None
    pace: Pace
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    born: float = field(default_factory=time.monotonic)
    polls: int = 0
    percent: int = 0
    """How far it was when last observed: one answer must not mix two moments."""
    started: datetime | None = None
    completed: datetime | None = None
    stopped: str | None = None
    predict_time: Decimal | None = None
    """Set when it is over and something is billed for it."""

    @property
    def status(self) -> str:
        if self.stopped is not None:
            return self.stopped
        if self.percent < STARTED_AT:
            return "starting"
        if self.percent < DONE_AT:
            return "processing"
        return "failed" if self.twist in ERRORS else "succeeded"

    @property
    def over(self) -> bool:
        return self.status not in {"starting", "processing"}

    def observe(self) -> None:
        """Bring the state up to now; whoever reads it calls this first."""
        if not self.over:
            self.percent = self._progress()
        now = datetime.now(UTC)
        if self.started is None and self.status not in {"starting", "aborted"}:
            self.started = now
        if self.completed is None and self.over:
            self.completed = now
            if self.status == "succeeded":
                self.predict_time = self.ask.order.predict_time

    def stop(self) -> bool:
        """Cancel, unless it is over: half the run time is billed if it ran, else nothing."""
        self.observe()
        if self.over:
            return False
        ran = self.status == "processing"
        self.stopped = "canceled" if ran else "aborted"
        if ran and self.twist not in ERRORS:
            self.predict_time = (self.ask.order.predict_time / 2).quantize(MILLISECOND)
        self.observe()
        return True

    def _progress(self) -> int:
        return self.pace.percent(self.born, self.polls, self.twist)

    def files(self) -> list[str]:
        suffix = SUFFIX[self.ask.order.medium]
        return [f"{self.ask.order.medium}-{n}.{suffix}" for n in range(self.ask.order.items)]

    def delivered(self) -> list[str]:
        """The names of the files there are by now."""
        self.observe()
        return self.files() if self.status == "succeeded" else []

    def picture(self, name: str, seed: int) -> Picture:
        """What the file of that name shows: the same for the same input and seed."""
        width, height = size_for(self.ask.order.aspect_ratio)
        look = dice(seed, self.ask.model, self.ask.words, name).randrange(6)
        return Picture(self.ask.order.medium, width, height, self.ask.order.seconds, look)

    def logs(self) -> str:
        """Progress as models print it (and as the official SDK reads it)."""
        if self.status in {"starting", "aborted"}:
            return ""
        seed = f"Using seed: {dice(self.ask.words).randrange(1 << 16)}\n"
        shown = range(0, self.percent + 1, 10)
        return seed + "".join(f"{p:3d}%|{'█' * (p // 10):<10}| {p}/100\n" for p in shown)

    def as_json(self, base: str, *, with_logs: bool = True) -> dict[str, Any]:
        self.observe()
        url = f"{base}/replicate/v1/predictions/{self.id}"
        body = {
            "id": self.id,
            "model": self.ask.model,
            "version": self.ask.version,
            "input": self.ask.input,
            "output": self._output(base),
            "error": ERRORS.get(self.twist or "") if self.status == "failed" else None,
            "status": self.status,
            "source": "api",
            "data_removed": False,
            "created_at": stamp(self.created),
            "started_at": stamp(self.started),
            "completed_at": stamp(self.completed),
            "metrics": {}
            if self.predict_time is None
            else {"predict_time": float(self.predict_time)},
            "urls": {"get": url, "cancel": f"{url}/cancel"},
        }
        return body | {"logs": self.logs()} if with_logs else body

    def _output(self, base: str) -> str | list[str] | None:
        """One URL for a video or a sound, a list of them for images: as the models differ."""
        if self.status != "succeeded":
            return None
        urls = [f"{base}/replicate/files/{self.id}/{name}" for name in self.files()]
        return urls if self.ask.order.medium == "image" else urls[0]


class Predictions:
    """All predictions, each visible to the key that made it."""

    def __init__(self) -> None:
        self._all: dict[str, Prediction] = {}
        self._numbers = itertools.count(1)

    def next_number(self) -> int:
        return next(self._numbers)

    def add(self, prediction: Prediction) -> None:
        self._all[prediction.id] = prediction

    def remove(self, prediction: Prediction) -> None:
        del self._all[prediction.id]

    def get(self, name: str, key: str | None = None) -> Prediction | None:
        found = self._all.get(name)
        return found if found is not None and key in (None, found.ask.key) else None

    def newest_first(self, key: str) -> Iterator[Prediction]:
        return (item for item in reversed(self._all.values()) if item.ask.key == key)
