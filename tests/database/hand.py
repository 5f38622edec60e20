"""A worker at store level: it claims, starts and settles when a test says so.

Its results are made by the same `worker.transitions` as a real worker's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from jobs.contract import (
    Cancelled,
    Failed,
    Failure,
    FailureKind,
    Held,
    Outcome,
    Output,
    RetryLater,
    Succeeded,
    Yield,
)
from jobs.registry import RetryPolicy
from worker.store import Claimed, Head, Started, Store, to_json
from worker.transitions import Settlement, Try, release, settle

LANES = (
    "replicate",
    "runway",
    "openai",
    "background:webhook_delivery",
    "background:content_statistics",
    "background:embed_content",
    "background:generate_from_template",
)
LEASE = 600.0
AT_ONCE = RetryPolicy(base=0.0, factor=1.0, cap=0.0, jitter=0.0)


@dataclass(frozen=True, slots=True)
class Work:
    """A job that a hand has started."""

    source: str
    claimed: Claimed
    started: Started

    @property
    def key(self) -> str:
        return self.claimed.key

    @property
    def queue_id(self) -> int:
        return self.claimed.queue_id

    @property
    def token(self) -> int:
        return self.claimed.token

    def as_try(self) -> Try:
        c, s = self.claimed, self.started
        return Try(
            queue_id=c.queue_id,
            token=c.token,
            source=self.source,
            key=c.key,
            lane=c.lane,
            kind=s.kind,
            run=c.run,
            tries=s.tries,
            max_retries=s.max_retries,
            yields=c.yields,
        )


def result_of(work: Work) -> Succeeded:
    """A success that the work's table takes, with a file or text of its own."""
    if work.started.kind.startswith("media:"):
        return Succeeded(
            outputs=(video_file(f"{work.key}-{work.claimed.run}"),),
            cost_cents=Decimal("12.5"),
            provider="replicate",
            model="tests/video",
            external_id=f"task-{work.key}",
        )
    return Succeeded(text="Rows wait in their line.", tokens=12, cost_cents=Decimal("0.4"))


def video_file(name: str) -> Output:
    return Output(
        role="main",
        key=f"generated/{name}.mp4",
        url=f"https://files.example.com/generated/{name}.mp4",
        mime_type="video/mp4",
        file_type="video",
        size=120_000,
        sha256="0" * 64,
        filename=f"{name}.mp4",
        width=1280,
        height=720,
        duration_seconds=2.0,
    )


def failure(message: str = "it broke", kind: FailureKind = FailureKind.UNKNOWN) -> Failure:
    return Failure(kind, message, provider="replicate")


Decide = Callable[[Work], Outcome]


class Hand:
    """One worker incarnation, moved by the test."""

    def __init__(self, store: Store, lanes: Sequence[str] = LANES) -> None:
        self.store = store
        self.lanes = lanes
        self.id = secrets.randbits(62)
        self._sources: dict[int, str] = {}

    @property
    def channel(self) -> str:
        return f"rowmill_{self.id}"

    @classmethod
    async def hire(
        cls, store: Store, lanes: Sequence[str] = LANES, *, lease: float = LEASE
    ) -> Hand:
        """A registered worker that serves these lanes."""
        hand = cls(store, lanes)
        await store.register(
            hand.id, name="hand", version="test", lanes=lanes, slots=100, lease=lease
        )
        return hand

    async def claim(self, want: int = 1, heads: Sequence[Head] | None = None) -> list[Claimed]:
        return await self.store.claim(self.id, secrets.randbits(63), self.lanes, want, heads)

    async def start(self, claims: Sequence[Claimed], *, wait: bool = True) -> list[Work]:
        """Those that may run; the others are no longer this hand's."""
        started = await self.verdicts(claims, wait=wait)
        return [
            Work(await self.source_of(c), c, started[c.key])
            for c in claims
            if c.key in started and started[c.key].verdict == "run"
        ]

    async def verdicts(self, claims: Sequence[Claimed], *, wait: bool = True) -> dict[str, Started]:
        """What start said of each row, by its key; of a claim that is lost it says nothing."""
        found: dict[str, Started] = {}
        batches: dict[tuple[str, int], dict[int, str]] = {}
        for c in claims:
            batches.setdefault((await self.source_of(c), c.token), {})[c.queue_id] = c.key
        for (source, token), keys in batches.items():
            for row in await self.store.start(source, token, list(keys), wait=wait):
                found[keys[row.queue_id]] = row
        return found

    async def take(self, want: int = 1) -> list[Work]:
        return await self.start(await self.claim(want))

    async def source_of(self, claimed: Claimed) -> str:
        if claimed.source not in self._sources:
            self._sources = {s.id: s.name for s in await self.store.sources()}
        return self._sources[claimed.source]

    async def settle(
        self, works: Sequence[Work], decide: Decide, *, policy: RetryPolicy = AT_ONCE
    ) -> dict[str, str]:
        """Verdicts by row key."""
        made = [
            settle(
                decide(w), w.as_try(), policy=policy, max_yields=50, chance=0.0, duration_ms=1500
            )
            for w in works
        ]
        return await self.write(made)

    async def write(
        self, settlements: Sequence[Settlement], *, wait: bool = True
    ) -> dict[str, str]:
        """Hand in results as they are; one batch per source."""
        said: dict[str, str] = {}
        for source in dict.fromkeys(s.source for s in settlements):
            mine = [s for s in settlements if s.source == source]
            keys = {s.queue_id: s.key for s in mine}
            rows = to_json([s.row() for s in mine])
            verdicts = await self.store.settle(source, rows, wait=wait)
            said |= {keys[queue_id]: verdict for queue_id, verdict in verdicts.items()}
        return said

    async def succeed(self, works: Sequence[Work]) -> dict[str, str]:
        return await self.settle(works, result_of)

    async def fail(self, works: Sequence[Work]) -> dict[str, str]:
        return await self.settle(works, lambda _: Failed(failure()))

    async def retry(self, works: Sequence[Work], after: float = 0.0) -> dict[str, str]:
        policy = RetryPolicy(base=after, factor=1.0, cap=after, jitter=0.0)
        return await self.settle(works, lambda _: RetryLater(failure()), policy=policy)

    async def yield_(self, works: Sequence[Work], after: float = 0.0) -> dict[str, str]:
        return await self.settle(works, lambda _: Yield("not now", after))

    async def cancel(self, works: Sequence[Work]) -> dict[str, str]:
        return await self.settle(works, lambda _: Cancelled())

    async def hold(self, works: Sequence[Work]) -> dict[str, str]:
        return await self.settle(works, lambda _: Held("someone has to look"))

    async def release(self, works: Sequence[Work]) -> dict[str, str]:
        return await self.write([release(w.as_try()) for w in works])
