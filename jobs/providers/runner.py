"""One paid call, from the intent to the result: the only code that decides to spend money.

call ── check, estimate (nothing is paid yet) ── the door, for what will be sent
  └ journal.intend
      ├ fresh ── strays? may_pay? ── POST ─┬ refused: failed, cost 0
      │                                    ├ accepted: journaled with its id ── follow ── conclude
      │                                    ├ answered at once: conclude
      │                                    └ nobody knows: unknown ── settle
      └ there is one already
          ├ finished: its result, without a request
          ├ accepted: follow ── conclude
          └ intent, unknown ── settle: ask the provider, else send again where that is cheap,
                               else hold for a person
conclude (ending.py) ── outputs into our storage ── journaled with the cost ── result

A submission is sent by exactly one caller, the one whose `intend` came back fresh. All the rest
is about never losing what that one sending brought. A cancelled `call` just stops: what was
accepted stays accepted, and is resumed by the next `call` or ended by `abandon`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal

import httpx

from jobs import failpoints
from jobs.contract import CallResult, Failure, FailureKind, Job, Task
from jobs.outputs import OutputStore
from jobs.providers import results
from jobs.providers.adapter import Ref, State
from jobs.providers.charges import Charges
from jobs.providers.door import Door, Open
from jobs.providers.ending import Call, Ending, through
from jobs.providers.errors import HeldForPerson, ProviderError, invalid
from jobs.providers.journal import Journal, LostClaim, Submission
from jobs.providers.journal import State as Step
from jobs.providers.orphans import Orphans, ref_of
from jobs.providers.reconcile import chance_left, search, unsettled
from jobs.providers.registry import Provider
from jobs.providers.strays import Strays
from jobs.providers.texts import tokens_of
from jobs.providers.wire import PATIENCE, Sleep, Wire

LAST_WORD = 10.0
"""Seconds that a job which is stopped waits for the answer to its intent; a commit takes none."""
SENDINGS = 2
"""How often one `call` sends at most; then the job goes back, and comes again later."""


class Runner:
    def __init__(
        self,
        providers: Mapping[str, Provider],
        client: httpx.AsyncClient,
        outputs: OutputStore,
        *,
        lease_seconds: float,
        resubmit_up_to_cents: Decimal = Decimal(1),
        charges: Charges | None = None,
        door: Door | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._providers = providers
        self._lease = lease_seconds
        self._resubmit_up_to = resubmit_up_to_cents
        self._charges = charges or Charges()
        self._door = door or Open()
        self._wire = Wire(client, sleep=sleep, door=self._door)
        self._ending = Ending(self._wire, outputs, self._charges)
        self._orphans = Orphans(providers, self._wire, self._charges)
        self._strays = Strays(self._wire, lease_seconds)

    async def call(
        self,
        journal: Journal,
        job: Job,
        step: str,
        provider: str,
        task: Task,
        *,
        progress: Callable[[float], None],
    ) -> CallResult:
        """Raises `ProviderError`, `HeldForPerson`, `LostClaim` or `NotNow`."""
        holder, model, estimate = self._checked(provider, task)
        call = Call(journal, job, step, holder, task, model, estimate, progress)
        fingerprint = _fingerprint(call)
        for _ in range(SENDINGS):
            await self._enter(call)
            failpoints.reached("intent.due")
            submission = await self._intended(call, fingerprint)
            if submission.fresh:
                failpoints.reached("intent.committed")
                result = await self._pay(call, submission, fingerprint)
            else:
                result = await self._resume(call, submission)
            if result is not None:
                return result
        raise unsettled(holder, "sent twice without a clear answer", None)

    def check(self, provider: str, task: Task) -> None:
        """Raises `ProviderError` where `call` would, before anything is sent."""
        self._checked(provider, task)

    async def abandon(self, journal: Journal, submission: Submission) -> bool:
        """The job was cancelled: end its task at the provider, and record what that bills."""
        return await self._orphans.abandon(journal, submission)

    async def settle_orphan(self, journal: Journal, submission: Submission) -> bool:
        """Look once at a task nobody waits for; record what it bills if it has ended."""
        return await self._orphans.settle(journal, submission)

    def _checked(self, name: str, task: Task) -> tuple[Provider, str, Decimal]:
        """The provider, the model and the estimate, if this can be made at all."""
        provider = self._providers.get(name)
        if provider is None:
            known = ", ".join(sorted(self._providers)) or "none"
            message = f"provider {name!r} is not configured; there are: {known}"
            raise invalid(name, message, "unknown_provider")
        return provider, *self._charges.estimate(provider, task)

    async def _enter(self, call: Call) -> None:
        """Before the intent, so that whoever waits or goes back leaves nothing in doubt."""
        if not self._door.guards(call.provider.name, call.job):
            return
        if await call.journal.begun(call.step):
            return  # what is there already needs no POST
        await self._door.enter(call.provider.name, call.job, tokens_of(call.task))

    async def _intended(self, call: Call, fingerprint: str) -> Submission:
        """Whoever is stopped meanwhile takes it back: nobody will send it, or know that."""
        asked = asyncio.ensure_future(
            call.journal.intend(
                call.step,
                provider=call.provider.name,
                account=call.provider.account.name,
                model=call.model,
                estimate_cents=call.estimate,
                fingerprint=fingerprint,
            )
        )
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            await asyncio.wait([asked], timeout=LAST_WORD)
            if not asked.done():  # it waits for its turn or for the database; a lease settles it
                asked.cancel()
            elif not asked.cancelled() and asked.exception() is None and asked.result().fresh:
                await self._take_back(call, asked.result())
            raise

    async def _take_back(self, call: Call, submission: Submission) -> None:
        await through(call.journal.written_off(submission.id, "it was never sent", unpaid=True))

    # ---------------------------------------------------------------- a fresh submission

    async def _pay(self, call: Call, submission: Submission, fingerprint: str) -> CallResult | None:
        """None: it was written off, and the call may intend again."""
        try:
            strays = await self._strays.like(call.journal, call.provider, submission, fingerprint)
        except BaseException:
            await self._take_back(call, submission)
            raise
        for task in strays:
            if await _owned(call, submission.id, task.ref, task.external_id):
                state = State("unknown", ref=task.ref, external_id=task.external_id)
                return await self._follow(call, submission.id, state)

        def still_ours() -> None:
            if not call.journal.may_pay():
                raise LostClaim("too long since the last heartbeat to spend money")

        # A job that is stopped now waits for the answer: what was bought is written down first.
        sent = await through(self._sent(call, submission, still_ours))
        if isinstance(sent, ProviderError):
            return await self._unpaid(call, submission, sent)
        if isinstance(sent, CallResult):
            return sent
        return await self._follow(call, submission.id, sent)

    async def _sent(
        self, call: Call, submission: Submission, still_ours: Callable[[], None]
    ) -> State | CallResult | ProviderError:
        """The request and the journal of its answer, as one step."""
        request = call.provider.adapter.submit(call.task, call.provider.account)

        async def again() -> float:
            return await self._door.again(call.provider.name, call.job, tokens_of(call.task))

        try:
            state = await self._wire.pay(call.provider, request, still_ours, again)
        except ProviderError as error:
            failpoints.reached("post.answered")
            return error
        except LostClaim:
            await self._take_back(call, submission)
            raise
        failpoints.reached("post.answered")
        if state.ref is None:
            return await self._ending.conclude(call, submission.id, state)
        assert state.external_id, "what has a reference has an id"
        if await _owned(call, submission.id, state.ref, state.external_id):
            return state
        message = "the provider answered with a task that another submission owns"
        failure = Failure(FailureKind.UNKNOWN, message, "not_ours", accepted="unknown")
        return ProviderError(failure)

    async def _unpaid(
        self, call: Call, submission: Submission, error: ProviderError
    ) -> CallResult | None:
        failure = error.failure
        if failure.accepted == "no":
            await through(call.journal.failed(submission.id, failure, cost_cents=Decimal(0)))
            failpoints.reached("failed.committed")
            raise error
        await through(call.journal.unknown(submission.id, failure))
        failpoints.reached("unknown.committed")
        submission = replace(submission, state=Step.UNKNOWN)
        if self._may_ask(call.provider) or not self._is_cheap(call, submission):
            return await self._settle(call, submission)
        wait = failure.retry_after if failure.retry_after is not None else 1.0
        if wait > PATIENCE:
            raise error  # the next call finds it unknown, and sends it again then
        await self._wire.sleep(wait)
        return await self._settle(call, submission)

    # ---------------------------------------------------------------- an earlier submission

    async def _resume(self, call: Call, submission: Submission) -> CallResult | None:
        finished, value = submission.state is Step.FINISHED, submission.result or {}
        if submission.state is Step.FAILED:  # billed, and whoever got it died before it could tell
            raise ProviderError(results.failure_from_json(value))
        if finished and results.is_kept(value):
            return results.from_json(value)
        if finished and results.has_files(value):
            return await self._ending.reopened(call, submission.id, value)
        call = replace(call, provider=self._holder(call, submission), model=submission.model)
        ref = ref_of(call.provider, submission)
        if ref is not None:
            call = replace(call, ended=value if finished else None)
            return await self._follow(call, submission.id, State("unknown", ref=ref))
        if submission.state is Step.ACCEPTED:
            raise HeldForPerson(
                f"{submission.external_id!r} can't be asked for at {call.provider.name}: "
                f"`rowmill resolve {call.job.key}` in another way"
            )
        return await self._settle(call, submission)

    def _holder(self, call: Call, submission: Submission) -> Provider:
        """Only the provider and account that got the request can tell about it."""
        found = self._providers.get(submission.provider)
        if found is None or found.account.name != submission.account:
            raise HeldForPerson(
                f"submission {submission.id} went to account {submission.account!r} of "
                f"{submission.provider}, which is not configured here: configure it and "
                f"`rowmill retry {call.job.key}`, or `rowmill cancel {call.job.key}`"
            )
        return found

    async def _settle(self, call: Call, submission: Submission) -> CallResult | None:
        """Nobody knows whether this submission was accepted. Find out, or decide without."""
        left = chance_left(self._lease, call.provider, submission)
        mute = self._mute(call, submission)
        if mute is not None:
            # What is cheap and can't be asked about is sent again at once. All else waits: a worker
            # that was only slow may have its answer yet, and a person should not be asked for it.
            waits = self._may_ask(call.provider) or not self._is_cheap(call, submission)
            if waits and submission.state is Step.INTENT and left > 0:
                raise unsettled(call.provider, "whoever sent it may still get its answer", left)
            await self._decide(call, submission, mute)
            return None
        failpoints.reached("search.due")
        sent = _fingerprint(call)
        found = await search(self._wire, call.journal, call.provider, sent, submission)
        for task in found.candidates:
            failpoints.reached("search.found")
            if await _owned(call, submission.id, task.ref, task.external_id):
                state = State("unknown", ref=task.ref, external_id=task.external_id)
                return await self._follow(call, submission.id, state)
        if left > 0:
            raise unsettled(call.provider, "the provider doesn't list it so far", left)
        if found.doubtful:
            await self._decide(call, submission, "what it lists no longer tells enough")
            return None
        await call.journal.written_off(submission.id, "the provider never had it", unpaid=True)
        failpoints.reached("written_off.committed")
        return None

    async def _decide(self, call: Call, submission: Submission, why: str) -> None:
        if self._is_cheap(call, submission):
            reason = f"sent again without knowing: at most {self._resubmit_up_to} cents are at risk"
            await call.journal.written_off(submission.id, reason, unpaid=False)
            failpoints.reached("written_off.committed")
            return
        raise HeldForPerson(
            f"submission {submission.id} (about {submission.estimate_cents:f} cents) may or may "
            f"not have been accepted by {call.provider.name}, and {why}: look there, then "
            f"`rowmill resolve {call.job.key}` with --external-id, --resubmit or --fail"
        )

    def _mute(self, call: Call, submission: Submission) -> str | None:
        """Why the provider's list can't tell about it."""
        if not self._may_ask(call.provider):
            return "it can't be asked for lost requests"
        if submission.fingerprint not in (None, _fingerprint(call)):
            return "its row was changed since, so its request can't be recognized there"
        return None

    def _may_ask(self, provider: Provider) -> bool:
        return provider.adapter.find(provider.account) is not None

    def _is_cheap(self, call: Call, submission: Submission) -> bool:
        return max(call.estimate, submission.estimate_cents) <= self._resubmit_up_to

    async def _follow(self, call: Call, submission: int, state: State) -> CallResult:
        if not state.done:
            ref = state.ref
            assert ref is not None, "only tasks with a reference are followed"
            first = 0.0 if state.phase == "unknown" else _first_poll(call.provider, state)
            state = await self._ending.followed(call, submission, ref, first)
        return await self._ending.conclude(call, submission, state)


def _first_poll(provider: Provider, state: State) -> float:
    return provider.poll_seconds if state.poll_after is None else state.poll_after


def _fingerprint(call: Call) -> str:
    account = call.provider.account
    return call.provider.adapter.submit(call.task, account).fingerprint(account)


async def _owned(call: Call, submission: int, ref: Ref, external_id: str) -> bool:
    """Journal the provider's task as ours, before anything else can happen."""
    taken = await through(call.journal.accepted(submission, ref=ref, external_id=external_id))
    failpoints.reached("accepted.committed")
    return taken
