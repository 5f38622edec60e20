"""The journal of paid calls: group commits over the store, bound to one claim at a time.

Entries that are asked for while a commit is under way go together in the next one; an idle worker
commits at once. Every caller returns after its own commit.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Any, Generic, TypeVar

from jobs.contract import Failure
from jobs.providers.journal import Gap, LostClaim, NotAllowed, NotNow, State, Submission
from jobs.providers.results import failure_to_json
from worker.store import LockTimeout, Refused, Store, Unavailable
from worker.store.budgets import OVER_BUDGET
from worker.transitions import clean

E = TypeVar("E")
R = TypeVar("R")
BATCH = 200
PAUSE = 0.02
OUTAGE_PAUSE = 0.2
PAUSED_SECONDS = 1.0
"""A gate keeps the job in the queue from then on; this is only how it gets there."""


def boottime() -> float:
    """Seconds that also count while the machine sleeps: a lease does."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class GroupCommit(Generic[E, R]):
    """Runs `write` on everything asked for since the last write; one write at a time.

    Entries of one `key` never share a write: they have an order, which a statement doesn't keep.
    """

    def __init__(self, write: Callable[[list[E]], Any], key: Callable[[E], Hashable] = id) -> None:
        self._write = write
        self._key = key
        self._waiting: list[tuple[E, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, entry: E) -> R:
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        if self._task is None or self._task.done():
            # It works for many: what it has to say is not about the job that came first.
            self._task = asyncio.create_task(self._drain(), context=Context())
        # A cancelled job must not tear a commit that others share; its own entry still happens.
        return await asyncio.shield(future)

    async def _drain(self) -> None:
        while self._waiting:
            size = self._size()
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            await self._commit(batch)

    def _size(self) -> int:
        keys: set[Hashable] = set()
        for size, (entry, _) in enumerate(self._waiting[:BATCH]):
            key = self._key(entry)
            if key in keys:
                return size
            keys.add(key)
        return min(BATCH, len(self._waiting))

    async def _commit(self, batch: list[tuple[E, asyncio.Future[R]]]) -> None:
        try:
            results = await self._write([entry for entry, _ in batch])
        except Refused as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            middle = len(batch) // 2
            await self._commit(batch[:middle])
            await self._commit(batch[middle:])
        except BaseException as error:
            for _, future in batch:
                _fail(future, error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: nobody may be waiting any more


@dataclass(slots=True)
class Lease:
    """When this incarnation's heartbeat was last acknowledged, and how long that is good for."""

    seconds: float
    acknowledged: float = field(default_factory=boottime)

    def young(self) -> bool:
        """Money may be sent only within half a lease: a rescue needs a whole one."""
        return boottime() - self.acknowledged <= self.seconds / 2


class Ledger:
    def __init__(
        self,
        store: Store,
        lease: Lease,
        spent: Callable[[str, Decimal], None] = lambda _provider, _cents: None,
    ) -> None:
        self._store = store
        self.lease = lease
        self.spent = spent
        """Told of each cost that was written down, with its provider."""
        self._intents: GroupCommit[dict[str, Any], dict[str, Any]] = GroupCommit(
            store.intend, key=itemgetter("queue_id")
        )
        self._entries: GroupCommit[dict[str, Any], bool] = GroupCommit(
            self._journal, key=itemgetter("id")
        )

    async def _journal(self, entries: list[dict[str, Any]]) -> list[bool]:
        taken = await self._store.journal(entries)
        return [entry["id"] in taken for entry in entries]

    async def intend(self, intent: dict[str, Any]) -> dict[str, Any]:
        # If the answer to a committed intent is lost, we ask again, and the nonce says it is ours
        # to send. Not for longer than half a lease: whoever has the job by then counts from the
        # first time.
        intent = {**intent, "nonce": secrets.randbits(63)}
        until = boottime() + self.lease.seconds / 2
        while True:
            try:
                row = await self._intents.ask(intent)
            except Unavailable:
                if boottime() > until:
                    raise
                await asyncio.sleep(OUTAGE_PAUSE)
                continue
            if row["verdict"] != "busy":
                return row
            await asyncio.sleep(PAUSE)

    async def write(self, **entry: Any) -> bool:
        """Record what happened at a provider."""
        return await self._surely(partial(self._entries.ask, clean(entry)))

    async def park(
        self, submission: int, intended_at: datetime | None, contents: Sequence[bytes]
    ) -> None:
        await self._surely(partial(self._store.park, submission, intended_at, contents))

    async def parked(self, submission: int) -> list[bytes]:
        return await self._store.parked(submission)

    async def kept(
        self, submission: int, intended_at: datetime | None, result: Mapping[str, Any]
    ) -> None:
        await self._surely(partial(self._store.kept, submission, intended_at, clean(result)))

    async def spoiled(
        self, submission: int, intended_at: datetime | None, failure: Failure
    ) -> None:
        told = clean(failure_to_json(failure))
        await self._surely(partial(self._store.spoiled, submission, intended_at, told))

    async def _surely(self, write: Callable[[], Awaitable[R]]) -> R:
        """What was paid for is written down, however long that takes."""
        while True:
            try:
                return await write()
            except LockTimeout:
                continue
            except Unavailable:
                await asyncio.sleep(OUTAGE_PAUSE)

    async def begun(self, queue_id: int, token: int, step: str) -> bool:
        return await self._store.begun(queue_id, token, step)

    async def known(self, provider: str, account: str, ids: Sequence[str]) -> set[str]:
        return await self._store.known(provider, account, ids)

    async def nobodys(self, submissions: Sequence[int]) -> set[int]:
        return await self._store.nobodys(submissions)


class ClaimJournal:
    """One claim's view of the ledger: the `Journal` a runner works with."""

    def __init__(self, ledger: Ledger, *, queue_id: int, token: int, worker: int) -> None:
        self._ledger = ledger
        self._queue_id = queue_id
        self._token = token
        self._worker = worker
        self._costs: dict[int, Decimal] = {}
        self.wasted = Decimal(0)
        """The part of it that brought nothing."""
        self.open: dict[int, Submission] = {}
        """Submissions the provider may still be working on."""
        self.providers: dict[int, str] = {}
        self.times: dict[int, datetime] = {}
        """When each was intended: after a failover that lost commits a number may come again."""
        self.external_id: str | None = None
        """The latest task a provider accepted; written to the row for others to see."""

    async def intend(
        self,
        step: str,
        *,
        provider: str,
        account: str,
        model: str,
        estimate_cents: Decimal,
        fingerprint: str,
    ) -> Submission:
        row = await self._ledger.intend(
            {
                "queue_id": self._queue_id,
                "token": self._token,
                "worker": self._worker,
                "step": step,
                "provider": provider,
                "account": account,
                "model": model,
                "estimate_cents": estimate_cents,
                "fingerprint": fingerprint,
            }
        )
        if row["verdict"] == "lost":
            raise LostClaim(f"the claim on queue row {self._queue_id} is gone")
        if row["verdict"] == "paused":
            raise NotNow("everything is paused", PAUSED_SECONDS)
        if row["verdict"] == "over":
            raise NotNow(OVER_BUDGET, row["wait_seconds"])
        if row["verdict"] == "refused":
            raise NotAllowed(row["message"] or "the customer's allowance is used up")
        submission = submission_of(row, fresh=row["verdict"] == "fresh")
        self.times[submission.id] = submission.intended_at
        self.providers[submission.id] = submission.provider
        if submission.state is State.FAILED:
            self.wasted += submission.cost_cents or 0
        elif submission.state is not State.FINISHED:
            self.open[submission.id] = submission
        return submission

    async def begun(self, step: str) -> bool:
        return await self._ledger.begun(self._queue_id, self._token, step)

    @property
    def spent(self) -> Decimal:
        """What calls of this claim cost, whatever became of them."""
        return sum(self._costs.values(), Decimal(0))

    def may_pay(self) -> bool:
        return self._ledger.lease.young()

    async def accepted(self, submission: int, *, ref: Mapping[str, Any], external_id: str) -> bool:
        try:
            taken = await self._write(
                submission, state="accepted", ref=ref, external_id=external_id
            )
        except Refused as error:
            if error.sqlstate == "23505":
                return False
            raise
        if taken and submission in self.open:
            self.external_id = external_id
            self.open[submission] = replace(self.open[submission], state=State.ACCEPTED, ref=ref)
        return taken

    async def unknown(self, submission: int, failure: Failure) -> None:
        await self._write(submission, state="unknown", error=failure.message)

    async def finished(
        self, submission: int, *, result: Mapping[str, Any], cost_cents: Decimal
    ) -> None:
        self._ended(submission, cost_cents)
        if await self._write(submission, state="finished", result=result, cost_cents=cost_cents):
            self._spent(submission, cost_cents)

    async def failed(self, submission: int, failure: Failure, *, cost_cents: Decimal) -> None:
        self._ended(submission, cost_cents)
        self.wasted += cost_cents
        if await self._write(
            submission,
            state="failed",
            error=failure.message,
            cost_cents=cost_cents,
            result=failure_to_json(failure),
        ):
            self._spent(submission, cost_cents)

    async def cancelled(self, submission: int, *, cost_cents: Decimal) -> None:
        self._ended(submission, cost_cents)
        if await self._write(submission, state="cancelled", cost_cents=cost_cents):
            self._spent(submission, cost_cents)

    async def written_off(self, submission: int, reason: str, *, unpaid: bool) -> bool:
        self.open.pop(submission, None)
        cost = Decimal(0) if unpaid else None
        return await self._write(submission, state="written_off", error=reason, cost_cents=cost)

    async def park(self, submission: int, contents: Sequence[bytes]) -> None:
        await self._ledger.park(submission, self.times.get(submission), contents)

    async def parked(self, submission: int) -> list[bytes]:
        return await self._ledger.parked(submission)

    async def kept(self, submission: int, *, result: Mapping[str, Any]) -> None:
        await self._ledger.kept(submission, self.times.get(submission), result)

    async def spoiled(self, submission: int, failure: Failure, *, cost_cents: Decimal) -> None:
        self._ended(submission, cost_cents)
        self.wasted += cost_cents
        await self._ledger.spoiled(submission, self.times.get(submission), failure)

    async def known(self, provider: str, account: str, external_ids: Sequence[str]) -> set[str]:
        return await self._ledger.known(provider, account, external_ids)

    async def abandoned(self) -> list[Submission]:
        """What is open of a job that nobody has any more: cancelled, deleted, finished by someone.

        Of a job that another worker has now, it is that worker's to follow.
        """
        nobodys = await self._ledger.nobodys(list(self.open)) if self.open else set()
        return [submission for submission in self.open.values() if submission.id in nobodys]

    async def _write(self, submission: int, **entry: Any) -> bool:
        when = self.times.get(submission)
        return await self._ledger.write(id=submission, intended_at=when, **entry)

    def _ended(self, submission: int, cost_cents: Decimal) -> None:
        self.open.pop(submission, None)
        self._costs[submission] = cost_cents

    def _spent(self, submission: int, cost_cents: Decimal) -> None:
        """Once for each: what is spoiled later had finished, and was told then."""
        self._ledger.spent(self.providers.get(submission, ""), cost_cents)


def submission_of(row: Mapping[str, Any], *, fresh: bool) -> Submission:
    """A row of rowmill.submissions as the runner sees it."""
    intended: datetime = row["intended_at"]
    gap_since = row.get("gap_since")
    return Submission(
        id=row["id"],
        state=State(row["state"]),
        provider=row["provider"],
        account=row["account"],
        model=row["model"],
        estimate_cents=row["estimate_cents"],
        cost_cents=row["cost_cents"],
        external_id=row["external_id"],
        fingerprint=row["fingerprint"],
        ref=row["ref"],
        result=row["result"],
        age_seconds=row["age_seconds"],
        intended_at=intended,
        fresh=fresh,
        gap=Gap(gap_since, row["gap_until"], row["gap_age"]) if gap_since else None,
    )
