"""What keys do to the fleet. Each returns what came of it, in a line."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

from rich.console import Console

from worker.acting import Act, cancelling, retrying
from worker.store import Store, StoreError, acts, draining, gates, story
from worker.store.finding import UnknownName
from worker.text.acts import why_not
from worker.watch.kept import Row
from worker.watch.lines import clean


async def pause(
    store: Store, lane: str, *, reason: str | None, who: str, providers: Iterable[str]
) -> str:
    await gates.pause(store, lane=lane, who=who, reason=reason, providers=providers)
    return f"lane {clean(lane)} is paused"


async def resume(store: Store, lane: str, *, who: str, providers: Iterable[str]) -> str:
    """Takes the lane's own pause back; names the others that still hold it."""
    resumed = await gates.resume(store, lane=lane, who=who, providers=providers)
    left = [g for g in await gates.paused_gates(store) if g.lane in (gates.EVERY, lane)]
    said = f"lane {clean(lane)} " + ("is resumed" if resumed else "has no pause of its own")
    if left:
        said += "; still paused: " + ", ".join(clean(gate.subject) for gate in left)
    return said


async def drain(store: Store, worker: str, who: str) -> str:
    asked = await draining.drain(store, worker, who)
    name = clean(asked.worker["name"])
    return {
        "asked": f"{name} drains: it claims nothing more, and ends when its jobs are done",
        "asked before": f"{name} was asked already",
        "draining": f"{name} drains already",
    }.get(asked.verdict, f"{name} is {asked.verdict}: it can't hear; others take its jobs")


async def retry(store: Store, source: str, key: str, who: str) -> str:
    return _said(retrying(), f"{source}/{key}", await acts.retry(store, source, key, who))


async def cancel(store: Store, source: str, key: str, who: str) -> str:
    return _said(cancelling(), f"{source}/{key}", await acts.cancel(store, source, key, who))


def _said(act: Act, subject: str, verdict: str) -> str:
    if verdict in act.done:
        return f"{clean(subject)} {act.done[verdict]}"
    return f"{clean(subject)}: nothing was changed: {why_not(verdict, act)}"


def not_done(error: Exception) -> str:
    """A server that answers has changed nothing; one that is gone may have."""
    if isinstance(error, StoreError) and not error.sqlstate:
        return f"no answer, so look whether it was done: {clean(error)}"
    return f"not done: {clean(error)}"


# --------------------------------------------------------------------------- a job's story


async def told(store: Store, source: str, key: str, width: int) -> list[str]:
    """What `rowmill job show` prints, so wide, line by line."""
    if source not in {info.name for info in await store.sources()}:
        raise UnknownName(f"no attached table {source!r} any more")
    return as_lines(await story.job(store, source, key), width)


def as_lines(told: Row, width: int) -> list[str]:
    from worker.text.job import print_job  # noqa: PLC0415 - only who opens a job needs it

    page = StringIO()
    # No colours: what a row holds could not be told from our own.
    console = Console(
        file=page, width=width, color_system=None, markup=False, emoji=False, highlight=False
    )
    print_job(told, console)
    return [clean(line.rstrip()) for line in page.getvalue().split("\n")]
