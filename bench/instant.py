"""An instant provider in the worker's own process: everything of a job but the provider's time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from jobs.contract import CallResult, Context, Job, MediaTask, Outcome, Output, Succeeded, Task
from jobs.providers.journal import Journal, Submission
from jobs.registry import Registry, kind

COST = Decimal("6.5")


def output_of(job: Job, step: str) -> Output:
    key = f"{job.source}/{job.key}/{job.run}/{step}/0.mp4"
    return Output(
        role="main",
        key=key,
        url=f"https://cdn.example.com/{key}",
        mime_type="video/mp4",
        file_type="video",
        size=123_456,
        sha256=hashlib.sha256(key.encode()).hexdigest(),
        filename="video.mp4",
        width=1920,
        height=1080,
        duration_seconds=5.0,
    )


class InstantRunner:
    """Stands where the runner stands; with `paid` it journals each call as the runner does."""

    def __init__(self, *, paid: bool) -> None:
        self._paid = paid

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
        del task, progress  # there is nothing to make, and no time to tell of
        outputs = (output_of(job, step),)
        external_id = f"{job.key}-{job.run}"
        if self._paid:
            submission = await journal.intend(
                step,
                provider=provider,
                account="default",
                model="instant",
                estimate_cents=COST,
                fingerprint=job.key,
            )
            if not journal.may_pay():
                raise RuntimeError("the heartbeat is too old to pay")
            await journal.accepted(submission.id, ref={"id": external_id}, external_id=external_id)
            await journal.finished(submission.id, result={"url": outputs[0].url}, cost_cents=COST)
        return CallResult(provider, "instant", external_id, COST, outputs=outputs)

    def check(self, provider: str, task: Task) -> None:
        """It can make anything."""

    async def abandon(self, journal: Journal, submission: Submission) -> bool:
        await journal.cancelled(submission.id, cost_cents=Decimal(0))
        return True

    async def settle_orphan(self, journal: Journal, submission: Submission) -> bool:
        return await self.abandon(journal, submission)


def registry(started: Callable[[str], Any] = lambda _: None) -> Registry:
    instant = Registry()

    @kind("media:video", registry=instant)
    async def video(job: Job, context: Context) -> Outcome:
        """A video, at once."""
        started(job.key)
        task = MediaTask("video", job.input["prompt"])
        result = await context.call("main", job.lane, task)
        return Succeeded(
            outputs=result.outputs,
            metadata={"provider": result.provider, "model": result.model},
            cost_cents=result.cost_cents,
            provider=result.provider,
            model=result.model,
            external_id=result.external_id,
        )

    return instant
