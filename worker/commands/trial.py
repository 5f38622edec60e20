"""One real call through the whole path, for someone who sets up a provider: `rowmill try`.

plan    what would be bought, and what it will cost by this configuration; nothing is done yet
run     a row in rowmill.trials, run by whoever serves its lane; else by a worker in this process,
        which claims this row and no other
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from obstore.exceptions import BaseError as StorageError

from jobs.contract import MediaTask, Task, TextTask
from jobs.providers.errors import ProviderError
from jobs.providers.registry import Provider
from worker.app import Worker
from worker.commands.problems import PlainError, a_wrong_setting
from worker.paying import charges_of, providers_of
from worker.settings import Settings
from worker.store import Store, acts, gates, trials
from worker.store import inbox as rows
from worker.store.explaining import explain
from worker.store.finding import Found
from worker.store.gates import EVERY
from worker.store.trials import SOURCE, Trial

LOOK = 0.2
ANSWER = 1000
"""Tokens a text may take at most, so that its estimate is what it can cost."""
NOT_CLAIMING = ("turn", "no_worker", "unserved")
"""What is told of a job that only this process looks after: its worker claims nothing else."""

Medium = Literal["text", "image", "audio", "video"]
KINDS: Mapping[Medium, str] = {
    "text": "text",
    "image": "media:thumbnail",
    "audio": "media:audio",
    "video": "media:video",
}
"""In the order in which they are tried where nobody says which: the cheap ones first."""


@dataclass(frozen=True, slots=True)
class Plan:
    provider: Provider
    medium: Medium
    task: Task
    model: str
    estimate: Decimal

    @property
    def subject(self) -> str:
        return f"{self.medium} by {self.model} of {self.provider.name}"


def plan(
    settings: Settings, name: str, prompt: str, *, model: str | None, medium: Medium | None
) -> Plan:
    """Raises `PlainError` for what can't be made."""
    with a_wrong_setting():
        providers, charges = providers_of(settings), charges_of(settings)
    provider = providers.get(name)
    if provider is None:
        known = ", ".join(sorted(providers)) or "none"
        variable = f"ROWMILL_PROVIDERS__{name.upper()}__API_KEY"
        raise PlainError(f"provider {name!r} has no key here (there are: {known}): set {variable}")
    refused = []
    for one in (medium,) if medium else KINDS:
        if one == "text" and not model:
            refused.append("text: no model is named; give --model")
            continue
        task = _task(one, prompt, model)
        try:
            return Plan(provider, one, task, *charges.estimate(provider, task))
        except ProviderError as error:
            refused.append(f"{one}: {error}")
    raise PlainError(f"{name} can't make it: {'; '.join(refused)}")


def _task(medium: Medium, prompt: str, model: str | None) -> Task:
    if medium == "text":
        return TextTask(model or "", prompt, max_tokens=ANSWER)
    return MediaTask(medium, prompt, model=model)


# --------------------------------------------------------------------------- running it


async def run(
    store: Store, settings: Settings, planned: Plan, *, who: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Returns what became of it, as docs/cli.md has it."""
    lane = planned.provider.name
    await _not_paused(store, lane)
    await trials.prepare(store)
    async with _worker(store, settings, lane, say) as worker:
        limit = ANSWER if planned.medium == "text" else None
        task, kind = planned.task, KINDS[planned.medium]
        assert isinstance(task, TextTask | MediaTask), "as `plan` makes them"
        key = await trials.insert(store, lane, kind, task.prompt, planned.model, limit, who)
        say(f"{planned.subject}, about {planned.estimate:f} cents: {Found(SOURCE, key).subject}")
        try:
            trial, why = await _until_over(store, worker, key, who, say)
        except asyncio.CancelledError:
            await acts.cancel(store, SOURCE, key, who)
            raise
        return {
            "provider": lane,
            "medium": planned.medium,
            "model": planned.model,
            "job": Found(SOURCE, key).subject,
            "status": trial.status,
            "why": why,
            "text": trial.text,
            "outputs": await rows.outputs(store, SOURCE, key),
            "estimate_cents": f"{planned.estimate:f}",
            "cost_cents": None if trial.cost_cents is None else f"{trial.cost_cents:f}",
        }


async def _not_paused(store: Store, lane: str) -> None:
    for gate in await gates.paused_gates(store):
        if gate.source in (EVERY, SOURCE) and gate.lane in (EVERY, lane):
            raise PlainError(f"{gate.subject} is paused: `rowmill resume {gate.arguments}` first")


@asynccontextmanager
async def _worker(
    store: Store, settings: Settings, lane: str, say: Callable[[str], None]
) -> AsyncIterator[Worker | None]:
    """None where a live worker serves the lane: it is the one that has to work."""
    name = await trials.serving(store, lane)
    if name is not None:
        say(f"worker {name} serves lane {lane}: it runs this, with its own configuration")
        yield None
        return
    say(f"no live worker serves lane {lane}: this process runs it")
    with a_wrong_setting(StorageError):
        worker = await Worker.open(settings.model_copy(update={"lanes": (lane,), "slots": 1}))
    worker.draining = True  # it is handed its one job, claims none, and nobody may count on it
    await worker.start()
    try:
        yield worker
    finally:
        await worker.drain()


async def _until_over(
    store: Store, worker: Worker | None, key: str, who: str, say: Callable[[str], None]
) -> tuple[Trial, str | None]:
    """Where it ended or got stuck, and why. What would only wait for better times is cancelled."""
    said = ""
    while True:
        if worker is not None:
            await _hand_over(store, worker, key)
        trial = await trials.look(store, key)
        if trial.over:
            return trial, trial.error
        told = await explain(store, SOURCE, key)
        why = str(told["why"])
        if worker is not None:  # what stops the lane's other workers doesn't stop this one
            why = why.partition("; then: ")[0]
        if worker is not None and told["reason"] in NOT_CLAIMING:
            why = "waits for its turn under the limits of its lane: see `rowmill providers`"
        if trial.queue_state == "held":
            return trial, why
        if trial.queue_state == "scheduled" and trial.note and not trial.open:
            await acts.cancel(store, SOURCE, key, who)
            return await trials.look(store, key), f"not now: {trial.note}"
        if trial.status == "processing" and trial.progress:
            why = f"{why}, {trial.progress:.0f}%"
        if why != said:
            say(why)
            said = why
        await asyncio.sleep(LOOK)


async def _hand_over(store: Store, worker: Worker, key: str) -> None:
    """Under the limits of its lane, as any claim; it may have to wait for its turn."""
    head = await trials.head(store, key)
    if head is not None:
        token = secrets.randbits(63)
        await worker.consumer.start(await store.claim(worker.id, token, [head.lane], 1, [head]))
