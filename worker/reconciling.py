"""`rowmill reconcile`: the ledger beside what the providers say, and what is to be done about it.

A call in doubt is judged by the rules a worker has for it (jobs/providers/reconcile.py); only that
here nobody waits for the answer, so it is recorded, and nothing is ever sent.

    found      the provider has it: it becomes accepted; its job or maintenance goes on from there
    absent     the provider never had it: written off, unpaid
    dropped    nobody can be asked, its job is over, and it is cheap: written off
    waits      whoever sent it may still hear of it; or its job runs, or will run, and decides
    person     nobody can be asked, and it is dear: `rowmill resolve`
    unasked    its provider or account isn't configured here, or doesn't answer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from jobs.providers.adapter import Listed
from jobs.providers.charges import Charges
from jobs.providers.errors import ProviderError
from jobs.providers.journal import Submission
from jobs.providers.reconcile import CLOCK_SKEW, Listing, chance_left, tasks_since
from jobs.providers.registry import Provider
from jobs.providers.wire import Wire
from worker import comparing
from worker.comparing import MOST, Books, Row
from worker.ledger import ClaimJournal, submission_of
from worker.store import Store, acts, booked
from worker.store.finding import Found

Verdict = Literal["found", "absent", "dropped", "waits", "person", "unasked"]
USUALLY = timedelta(hours=24)
"""How far back is compared where nobody says."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A call in doubt, and where its job is."""

    call: Submission
    job: Found
    step: str
    queued: str | None
    """The state of its queue row; None where the job is over."""
    lease: float
    """Of the worker that sent it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    why: str
    task: Listed | None = None


Judged = Sequence[tuple[Doubt, Judgement]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking a provider for its tasks."""

    provider: Provider | None
    asked: Literal["listed", "no_list", "silent", "not_configured"]
    why: str | None = None
    listing: Listing | None = None


@dataclass(frozen=True, slots=True)
class Reconciler:
    store: Store
    journal: ClaimJournal
    providers: Mapping[str, Provider]
    wire: Wire
    charges: Charges
    lease: float
    resubmit_up_to: Decimal
    who: str

    async def run(self, only: str | None, since: datetime | None, *, apply: bool) -> Row:
        """The report of docs/cli.md. Calls in doubt are looked for as far back as they go."""
        at = await booked.now(self.store)
        doubts = [_doubt(row) for row in await booked.in_doubt(self.store)]
        names = self.providers.keys() | {doubt.call.provider for doubt in doubts}
        reports = []
        for name in sorted(names) if only is None else [only]:
            mine = [doubt for doubt in doubts if doubt.call.provider == name]
            back = min([since or at - USUALLY, *(d.call.intended_at - CLOCK_SKEW for d in mine)])
            reports.append(await self._provider(name, mine, back, at, apply=apply))
        left = sum(report["left"] for report in reports)
        return {"at": at.isoformat(), "applied": apply, "left": left, "providers": reports}

    async def _provider(
        self, name: str, doubts: Sequence[Doubt], since: datetime, at: datetime, *, apply: bool
    ) -> Row:
        answer = await self._ask(name, since)
        books = await self._books(answer.listing)
        judged = self._judge_all(answer, doubts, set(books))
        done = await self._apply(judged) if apply else set()
        report = {
            "provider": name,
            "account": answer.provider.account.name if answer.provider else None,
            "asked": answer.asked,
            "why": answer.why,
            "since": since.isoformat(),
            "in_doubt": [_told(d, j, done=d.call.id in done) for d, j in judged],
            **await self._compare(answer.listing, books, doubts, since, at),
        }
        undone = sum(d["verdict"] != "waits" and not d["done"] for d in report["in_doubt"])
        others = report["strangers"]["count"] + report["differences"]["count"]
        return report | {"left": undone + others + (answer.asked == "silent")}

    async def _ask(self, name: str, since: datetime) -> Answer:
        provider = self.providers.get(name)
        if provider is None:
            return Answer(None, "not_configured", "it has no key here")
        if provider.adapter.find(provider.account) is None:
            return Answer(provider, "no_list", "it can't be asked for its tasks")
        try:
            listing = await tasks_since(self.wire, provider, since)
        except ProviderError as error:
            return Answer(provider, "silent", str(error))
        why = None if listing.complete else "its list is longer than we read"
        return Answer(provider, "listed", why, listing)

    async def _books(self, listing: Listing | None) -> Books:
        if listing is None:
            return {}
        provider, ids = listing.provider, [task.external_id for task in listing.tasks]
        return await booked.known(self.store, provider.name, provider.account.name, ids)

    async def _compare(
        self,
        listing: Listing | None,
        books: Books,
        doubts: Sequence[Doubt],
        since: datetime,
        at: datetime,
    ) -> Row:
        if listing is None:
            return {
                "tasks": 0,
                "strangers": {"count": 0, "tasks": []},
                "ended": {"count": 0, "calls": []},
                "differences": {"count": 0, "calls": []},
            }
        in_doubt = {d.call.fingerprint for d in doubts if d.call.fingerprint}
        strangers = comparing.strangers(listing, books, in_doubt, at)
        ended = comparing.ended(listing, books)
        calls = comparing.differences(listing, books, self.charges)
        more = 0
        if listing.complete:
            account, ids = listing.provider.account.name, [t.external_id for t in listing.tasks]
            rows, more = await booked.absent(
                self.store, listing.provider.name, account, since + CLOCK_SKEW, at, ids, MOST
            )
            calls += [comparing.absent(row) for row in rows]
            more -= len(rows)
        return {
            "tasks": len(listing.tasks),
            "strangers": {"count": len(strangers), "tasks": strangers[:MOST]},
            "ended": {"count": len(ended), "calls": ended[:MOST]},
            "differences": {"count": len(calls) + more, "calls": calls[:MOST]},
        }

    # ------------------------------------------------------------------ calls in doubt

    def _judge_all(self, answer: Answer, doubts: Sequence[Doubt], owned: set[str]) -> Judged:
        """Of two that asked for the same, each gets a task of its own."""
        judged = []
        for doubt in doubts:
            judgement = self._judge(answer, doubt, owned)
            if judgement.task is not None:
                owned = owned | {judgement.task.external_id}
            judged.append((doubt, judgement))
        return judged

    def _judge(self, answer: Answer, doubt: Doubt, owned: set[str]) -> Judgement:
        call, provider, listing = doubt.call, answer.provider, answer.listing
        if doubt.queued == "claimed":
            return Judgement("waits", "its job runs, and whoever runs it asks")
        if provider is None or provider.account.name != call.account:
            return Judgement("unasked", f"account {call.account!r} isn't configured here")
        if answer.asked == "silent":
            return Judgement("unasked", "the provider doesn't answer")
        told = False
        if listing is not None and call.fingerprint is not None:
            found = listing.look_for(call, call.fingerprint, owned)
            if found.candidates:
                task = found.candidates[0]
                return Judgement("found", f"the provider has it, as {task.external_id}", task)
            told = not found.doubtful
        left = chance_left(max(self.lease, doubt.lease), provider, call)
        if left > 0:
            return Judgement("waits", f"whoever sent it may hear of it for {left:.0f} s more")
        if told:
            return Judgement("absent", "the provider never had it")
        return self._nobody_knows(
            doubt, "its list no longer tells" if listing else answer.why or ""
        )

    def _nobody_knows(self, doubt: Doubt, why: str) -> Judgement:
        if doubt.queued in ("ready", "scheduled"):
            return Judgement("waits", f"{why}; its job decides when it runs")
        if doubt.queued is None and doubt.call.estimate_cents <= self.resubmit_up_to:
            return Judgement("dropped", f"{why}, its job is over, and it is cheap")
        return Judgement("person", f"{why}: look there, then `rowmill resolve {doubt.job.subject}`")

    async def _apply(self, judged: Judged) -> set[int]:
        """What was written down. Only forward: of a worker that was quicker, its word stays."""
        done = set()
        for doubt, judgement in judged:
            call, task = doubt.call.id, judgement.task
            self.journal.times[call] = doubt.call.intended_at
            if task is not None:
                there = task.external_id
                if await self.journal.accepted(call, ref=task.ref, external_id=there):
                    done.add(call)
            elif judgement.verdict in ("absent", "dropped"):
                unpaid = judgement.verdict == "absent"
                if await self.journal.written_off(call, judgement.why, unpaid=unpaid):
                    done.add(call)
        held = {doubt.job for doubt, _ in judged if doubt.queued == "held"}
        undone = {doubt.job for doubt, _ in judged if doubt.call.id not in done}
        for job in held - undone:  # nothing keeps them any more
            await acts.retry(self.store, job.source, job.key, self.who)
        return done


def _doubt(row: Mapping[str, Any]) -> Doubt:
    job = Found(row["source"], row["row_key"])
    return Doubt(submission_of(row, fresh=False), job, row["step"], row["queued"], row["lease"])


def _told(doubt: Doubt, judgement: Judgement, *, done: bool) -> Row:
    return {
        "submission": str(doubt.call.id),
        "job": doubt.job.subject,
        "step": doubt.step,
        "queued": doubt.queued,
        "intended_at": doubt.call.intended_at.isoformat(),
        "estimate_cents": f"{doubt.call.estimate_cents:f}",
        "verdict": judgement.verdict,
        "why": judgement.why,
        "external_id": judgement.task.external_id if judgement.task else None,
        "done": done,
    }
