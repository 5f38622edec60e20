"""rowmill job show, retry and cancel."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.common import NOT_DONE, OK, AsJson, print_json, who, with_store

if TYPE_CHECKING:
    from worker.store import Store
    from worker.store.operators import Found

app = typer.Typer(no_args_is_help=True, help="Look at single jobs.")

Id = Annotated[
    str, typer.Argument(metavar="ID", help="The row's key, or TABLE/KEY where two tables share it.")
]

DONE = {
    "requeued": "is queued again, with no tries spent",
    "released": "goes on: it is ready again",
    "hastened": "was waiting already; it is ready now",
    "cancelled": "is cancelled",
}


@app.command()
def show(job_id: Id, as_json: AsJson = False) -> None:
    """
    The whole story of a job: why it waits, its tries, what was paid, who did what.

    rowmill job show 9e0f06a0-22a3-4071-9831-b02b6524d6af

    rowmill job show generation_jobs/9e0f06a0-22a3-4071-9831-b02b6524d6af --json
    """
    from worker.store import operators, reports

    async def work(store: Store) -> dict[str, object]:
        job = await operators.find_one(store, job_id)
        return await reports.job(store, job.source, job.key)

    story = with_store(work)
    if as_json:
        print_json(story)
    else:
        from worker.commands.tables import print_job

        print_job(story)


def retry(job_id: Id, as_json: AsJson = False) -> None:
    """
    Let a failed, cancelled or held job run again.

    A finished row starts over: its error is cleared, its tries are given back. A held one goes on
    with what it has. What a provider still works on is taken up again, not paid anew.

    rowmill retry 9e0f06a0-22a3-4071-9831-b02b6524d6af
    """
    from worker.store import operators

    async def work(store: Store) -> tuple[Found, str]:
        job = await operators.find_one(store, job_id)
        return job, await operators.retry(store, job.source, job.key, who())

    _answer(*with_store(work), as_json=as_json, wanted=("requeued", "released", "hastened"))


def cancel(job_id: Id, as_json: AsJson = False) -> None:
    """
    Cancel a job, also while it runs; its provider's task is cancelled too where that is possible.

    rowmill cancel 9e0f06a0-22a3-4071-9831-b02b6524d6af
    """
    from worker.store import operators

    async def work(store: Store) -> tuple[Found, str]:
        job = await operators.find_one(store, job_id)
        return job, await operators.cancel(store, job.source, job.key, who())

    _answer(*with_store(work), as_json=as_json, wanted=("cancelled",))


def _answer(job: Found, verdict: str, *, as_json: bool, wanted: tuple[str, ...]) -> None:
    done = verdict in wanted
    if as_json:
        print_json({"source": job.source, "key": job.key, "verdict": verdict, "done": done})
    elif done:
        typer.echo(f"{job.subject} {DONE[verdict]}")
    else:
        typer.echo(f"rowmill: {job.subject}: nothing was changed: {_why_not(verdict)}", err=True)
    raise typer.Exit(OK if done else NOT_DONE)


def _why_not(verdict: str) -> str:
    if verdict == "missing":
        return "its row is gone"
    if verdict == "running":
        return "it is running; `rowmill cancel` first, to start it over"
    return f"its status is {verdict}"
