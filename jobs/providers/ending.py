"""The end of a call: what the provider made is kept, journaled with its cost, and handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

from jobs import failpoints
from jobs.contract import CallResult, Failure, FailureKind, Job, MediaTask, Output, Task
from jobs.outputs import STORAGE, OutputError, OutputStore
from jobs.providers import results
from jobs.providers.adapter import Ref, State
from jobs.providers.charges import Charges
from jobs.providers.errors import HeldForPerson, ProviderError
from jobs.providers.journal import Journal
from jobs.providers.keeping import Keeper
from jobs.providers.registry import Provider
from jobs.providers.safe import Safe
from jobs.providers.wire import NEVER_AGAIN, Wire

T = TypeVar("T")

OURS_TO_CHANGE = ("host_refused", "too_large")
"""Refused by this installation's own settings: the file itself may be fine."""


@dataclass(frozen=True, slots=True)
class Call:
    """Everything about one call of a handler."""

    journal: Journal
    job: Job
    step: str
    provider: Provider
    task: Task
    model: str
    estimate: Decimal
    progress: Callable[[float], None]
    ended: Mapping[str, Any] | None = None
    """What the ledger has as its result already; only the outputs were never brought here."""

    @property
    def key_prefix(self) -> str:
        return f"{self.job.source}/{self.job.key}/{self.job.run}/{self.step}"


async def through(write: Coroutine[Any, Any, T]) -> T:
    """Finish writing down what was paid, even while the job is being stopped."""
    task = asyncio.ensure_future(write)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class Ending:
    def __init__(self, wire: Wire, outputs: OutputStore, charges: Charges) -> None:
        self._wire = wire
        self._keeper = Keeper(outputs, wire.sleep)
        self._safe = Safe(outputs)
        self._charges = charges

    async def followed(self, call: Call, submission: int, ref: Ref, first: float) -> State:
        """The state in which the task ended. A task the provider has lost ends here."""
        try:
            return await self._wire.follow(call.provider, ref, first, call.progress)
        except ProviderError as error:
            if error.failure.kind not in NEVER_AGAIN:
                raise  # it stays accepted: another try resumes it
            await self._fail(call, submission, error.failure, call.estimate)

    async def conclude(self, call: Call, submission: int, state: State) -> CallResult:
        journal = call.journal
        if call.ended is not None:
            cost = results.cost_of(call.ended)
        else:
            cost = self._charges.cost(call.provider, call.model, state, call.task, call.estimate)
        if state.phase == "cancelled":
            message = f"the task was cancelled at {call.provider.name}"
            if call.ended is None:
                await through(journal.cancelled(submission, cost_cents=cost))
            raise ProviderError(
                Failure(FailureKind.CANCELLED, message, "cancelled", call.provider.name)
            )
        if state.failure is not None:
            await self._fail(call, submission, state.failure, cost)
        if isinstance(call.task, MediaTask) and not state.outputs:
            message = f"{call.provider.name} reports success, but no output"
            failure = Failure(FailureKind.UNKNOWN, message, "no_output", call.provider.name)
            await self._fail(call, submission, failure, cost)
        if call.ended is None and state.ref is None and state.outputs:
            ended = await through(
                self._safe.put(
                    journal, submission, state, _result(call, state, cost), call.key_prefix
                )
            )
            failpoints.reached("finished.committed")
            call = replace(call, ended=ended)
        failpoints.reached("outputs.due")
        outputs = await self._kept(call, submission, state, cost)
        failpoints.reached("outputs.stored")
        result = _result(call, state, cost, outputs)
        value = results.to_json(result)
        if call.ended is None:
            await through(journal.finished(submission, result=value, cost_cents=cost))
            failpoints.reached("finished.committed")
        else:
            await through(journal.kept(submission, result=value))
            failpoints.reached("kept.committed")
            await self._safe.drop(call.ended)
        return result

    async def reopened(self, call: Call, submission: int, ended: Mapping[str, Any]) -> CallResult:
        """From an answer whose files were put away, and never brought to their place."""
        try:
            state = await self._safe.state(call.journal, submission, ended)
        except OutputError as error:
            raise ProviderError(error.failure) from error
        return await self.conclude(replace(call, ended=ended), submission, state)

    async def _kept(
        self, call: Call, submission: int, state: State, cost: Decimal
    ) -> tuple[Output, ...]:
        try:
            return await self._keep(call, submission, state)
        except OutputError as error:
            failure = error.failure
            if failure.kind is FailureKind.TRANSIENT:
                # Our trouble, or a passing one: what is journaled stays, another try needs no POST.
                if failure.code == STORAGE and call.ended is None:
                    value = results.to_json(_result(call, state, cost), kept=False)
                    await through(call.journal.finished(submission, result=value, cost_cents=cost))
                raise ProviderError(failure) from error
            if failure.code in OURS_TO_CHANGE:
                raise HeldForPerson(
                    f"{failure.message}: allow it and `rowmill retry {call.job.key}` (the task is "
                    f"paid for and is not sent again), or `rowmill cancel {call.job.key}`"
                ) from error
            await self._fail(call, submission, failure, cost)

    async def _keep(self, call: Call, submission: int, state: State) -> tuple[Output, ...]:
        try:
            return await self._keeper.keep(state, call.task, call.key_prefix)
        except OutputError as error:
            if error.failure.kind is not FailureKind.GONE or state.ref is None:
                raise
            # Links expire; another look at the task may bring fresh ones.
            fresh = await self.followed(call, submission, state.ref, 0.0)
            if not fresh.outputs:
                raise
            return await self._keeper.keep(fresh, call.task, call.key_prefix)

    async def _fail(self, call: Call, submission: int, failure: Failure, cost: Decimal) -> NoReturn:
        if call.ended is None:
            await through(call.journal.failed(submission, failure, cost_cents=cost))
        else:
            cost = results.cost_of(call.ended)
            await through(call.journal.spoiled(submission, failure, cost_cents=cost))
            await self._safe.drop(call.ended)
        failpoints.reached("failed.committed")
        raise ProviderError(failure)


def _result(
    call: Call, state: State, cost: Decimal, outputs: tuple[Output, ...] = ()
) -> CallResult:
    # Its row may name another provider by now.
    ended = None if call.ended is None else results.from_json(call.ended)
    return CallResult(
        provider=ended.provider if ended else call.provider.name,
        model=ended.model if ended else call.model,
        external_id=state.external_id,
        cost_cents=cost,
        usage=state.usage,
        text=state.text,
        vectors=state.vectors,
        outputs=outputs,
        metadata=state.metadata,
    )
