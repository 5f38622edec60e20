"""rowmill retry, cancel and resolve."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.common import NOT_DONE, OK, AsJson, print_json, who, with_store
from worker.commands.job import Id

if TYPE_CHECKING:
    from worker.store import Store
    from worker.store.finding import Found


DONE = {
    "requeued": "is queued again, with no tries spent",
    "released": "goes on: it is ready again",
    "hastened": "was waiting already; it is ready now",
    "cancelled": "is cancelled",
    "failed": "has failed",
    "recorded": "is over; the ledger knows now",
}


def retry(job_id: Id, as_json: AsJson = False) -> None:
    """
    Let a failed, cancelled or held job run again.

    A finished row starts over: its error is cleared, its tries are given back. A held one goes on
    with what it has. What a provider still works on is taken up again, not paid anew.

    rowmill retry 9e0f06a0-22a3-4071-9831-b02b6524d6af
    """
    from worker.store import acts, finding

    async def work(store: Store) -> tuple[Found, str]:
        job = await finding.find_one(store, job_id)
        return job, await acts.retry(store, job.source, job.key, who())

    _answer(*with_store(work), as_json=as_json, wanted=("requeued", "released", "hastened"))


def cancel(job_id: Id, as_json: AsJson = False) -> None:
    """
    Cancel a job, also while it runs; its provider's task is cancelled too where that is possible.

    rowmill cancel 9e0f06a0-22a3-4071-9831-b02b6524d6af
    """
    from worker.store import acts, finding

    async def work(store: Store) -> tuple[Found, str]:
        job = await finding.find_one(store, job_id)
        return job, await acts.cancel(store, job.source, job.key, who())

    _answer(*with_store(work), as_json=as_json, wanted=("cancelled",))


def resolve(  # noqa: PLR0917 - typer gives them by name
    job_id: Id,
    external_id: Annotated[
        str | None, typer.Option(metavar="X", help="The provider has it, as X: go on from there.")
    ] = None,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Send it again, paid twice or not.")
    ] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Give the job up.")] = False,
    step: Annotated[
        str | None, typer.Option(help="Which call, where several of the job are open.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Say what became of a paid call that nobody could find out about.

    Look at the provider's dashboard first: `rowmill job show ID` tells when the request was sent
    and what it was for.

    rowmill resolve 9e0f06a0-22a3-4071-9831-b02b6524d6af --external-id k3mjsd8zy1rmc0cs8gvs

    rowmill resolve 9e0f06a0-22a3-4071-9831-b02b6524d6af --resubmit
    """
    from worker.store import acts, finding

    if (external_id is not None) + resubmit + fail != 1:
        raise typer.BadParameter("say one of --external-id X, --resubmit and --fail")
    how = "accepted" if external_id is not None else "resubmit" if resubmit else "fail"

    async def work(store: Store) -> tuple[Found, str]:
        job = await finding.find_one(store, job_id)
        verdict = await acts.resolve(
            store, job, how=how, who=who(), step=step, external_id=external_id
        )
        return job, verdict

    job, verdict = with_store(work)
    _answer(job, verdict, as_json=as_json, wanted=("released", "hastened", "failed", "recorded"))


def _answer(job: Found, verdict: str, *, as_json: bool, wanted: tuple[str, ...]) -> None:
    done = verdict in wanted
    if as_json:
        print_json({"source": job.source, "key": job.key, "verdict": verdict, "done": done})
    elif done:
        typer.echo(f"{job.subject} {DONE[verdict]}")
    else:
        typer.echo(f"rowmill: {job.subject}: nothing was changed: {_why_not(verdict)}", err=True)
    raise typer.Exit(OK if done else NOT_DONE)


WHY_NOT = {
    "missing": "its row is gone",
    "running": "it is running; `rowmill cancel` first, to start it over",
    "none": "none of its calls is in doubt",
    "several": "several of its calls are in doubt: name one with --step; see `rowmill job show`",
    "taken": "another job's call has that id at the provider",
}


def _why_not(verdict: str) -> str:
    return WHY_NOT.get(verdict, f"its status is {verdict}")
