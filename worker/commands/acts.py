"""rowmill retry, requeue, cancel, priority and resolve: one job, several, or all that a filter finds."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import completing, filters
from worker.commands.carrying_out import go
from worker.commands.choosing import Chosen, upon_jobs
from worker.commands.planning import always

if TYPE_CHECKING:
    from worker.acting import Act
    from worker.store import Store
    from worker.store.finding import Found


@upon_jobs
def retry(chosen: Chosen) -> None:
    """
    Let failed, cancelled and held jobs run again, with what is paid for already.

    A finished row starts over: its error is cleared, its tries are given back. A held one goes on, and
    one that waits for its next try becomes ready at once. Calls that a provider still works on are
    taken up again, finished steps that were never delivered are read back: neither is paid for anew.
    New work for a finished row is `rowmill requeue`.

    By options it looks for failed and held jobs, and those that wait for their next try; it tells how
    many there are and what they may cost, and asks. Cancelled ones it leaves alone, unless asked for
    them by --state cancelled.

    rowmill retry 9e0f06a0-22a3-4071-9831-b02b6524d6af

    rowmill retry --lane replicate --error-kind transient --newer-than 2h --dry-run

    rowmill retry --source generation_jobs --state held --yes
    \f
    A running or completed job is refused. With `--state scheduled` those go at once, too, that wait for a time of their own.

    **Acts upon jobs**: `retry`, `requeue`, `cancel`, `priority` and `resolve` take one ID, several, or the options of `rowmill jobs`. Each job is a transaction of its own, in which the act and its
    line in `rowmill.actions` (when, who as user@host, what, and what was there before) are written; a few are done at a time. One that fails or is refused doesn't stop the others.

    - `--dry-run` tells which jobs, what would keep each from it, and what it may cost. It changes nothing.
    - One ID is done at once; `requeue` and `resolve --resubmit`, which may pay again, ask first if there is a terminal. Several, or options, are always asked for: how many jobs, of which tables and lanes, at what
      cost. Without a terminal they need `--yes`. No job and no option is wrong usage, and so is an option that leaves every job in.
    - A job that changed between the question and its turn (its state, its row where it was over, its calls in doubt; or others let it go on) is told, and left as it is.
    - Ctrl-C or SIGTERM ends it between two jobs, says how far it came, and exits with 130 or 143. Killed in the middle, each job is as it was, or done and recorded.
    - The exit code is 0 if all was done (also where no job matches), 1 if one wasn't or the answer was no, 2 for wrong usage.

    With `--json`, the same for all of them:

        {"action", "dry_run", "matched", "done",
         "forecast": {"jobs", "running", "lanes": [{"source", "lane", "jobs"}],
                      "used": {"results", "cents"}, "open": {"calls", "cents"}, "in_doubt": {"calls", "cents"},
                      "buys": [{"source", "lane", "kind", "jobs", "cents", "mean_cents", "basis"}],
                      "cents", "unknown",
                      "budgets": [{"lane", "period", "limit_cents", "left_cents"}]},
         "jobs": [{"source", "key", "verdict", "done", "message"}]}

    `matched` and `done` are numbers. The forecast is of those of them that can be acted on: `used` are results that are paid for and were never delivered, `open` calls that providers work on, `in_doubt` calls that
    nobody knows of, each with what they cost or were expected to. `buys` is what must be bought beside that: what jobs of the same table, lane and kind cost, step by step, that were delivered lately (`basis`: at most
    200, among the ledger's last 20,000 calls). Where there were none, `cents` is null there, and `unknown` counts the jobs. `cents` is the sum of what is known. Money is a decimal string of US cents.

    | verdict | |
    |---|---|
    | `requeued`, `released`, `hastened` | done: a finished row is queued again; a held job goes on; a waiting one is ready |
    | `cancelled` | done by `cancel` |
    | `moved`, `noted` | done by `priority`: it has its new place; it runs, and has it once it comes back |
    | `failed`, `recorded` | done by `resolve`: the job has failed; it was over, and the ledger knows |
    | `changed` | not what it was when it was looked at |
    | `missing`, `running`, `waiting`, `held`, `unqueued` | why not; as is the status of a row that is over |
    | `in_doubt`, `open`, `undelivered` | why not `requeue`: something of it is paid for, or may be |
    | `none`, `several`, `taken` | why not `resolve` |
    | `error` | the database refused it, as `message` says |
    | null | not come to; or not done because of `--dry-run` |
    """
    from worker.acting import retrying

    go(chosen, always(retrying()))


@upon_jobs
def requeue(
    chosen: Chosen,
    drop_paid: Annotated[
        bool,
        typer.Option(
            "--drop-paid", help="Also where a paid result was never delivered: it is given up."
        ),
    ] = False,
) -> None:
    """
    Ask for new work of finished jobs, completed ones too: a new run, paid for anew.

    It never pays a second time for what is there: a job is refused while a call of it is in doubt or
    open, or has a paid result that was never delivered. `rowmill retry` uses those.

    What a completed job delivered stays until the new result is there; its customer may be charged
    once more.

    rowmill requeue 9e0f06a0-22a3-4071-9831-b02b6524d6af

    rowmill requeue --source ai_generations --state completed --newer-than 1d --limit 20 --dry-run
    \f
    It is what an `UPDATE` of a finished row to its ready word asks for, with its error cleared, its tries given back, and those refusals. `--drop-paid` lets an undelivered result go; calls in doubt or open are never
    dropped: `rowmill resolve`, or wait for their end. With options, `--state` must say which: completed, failed, cancelled. Unfinished ones are refused: `retry` hastens them and lets held ones go on.
    """
    from worker.acting import requeueing

    go(chosen, always(requeueing(anew=drop_paid)), risky=True)


@upon_jobs
def cancel(chosen: Chosen) -> None:
    """
    Cancel jobs, also while they run; their providers' tasks are cancelled too where that is possible.

    By options it looks for running, ready, scheduled and held jobs.

    rowmill cancel 9e0f06a0-22a3-4071-9831-b02b6524d6af

    rowmill cancel --lane replicate --state ready --older-than 1d --dry-run
    \f
    What calls that are open cost may have to be paid all the same; the forecast says how much that is, and which paid results nobody will get.
    """
    from worker.acting import cancelling

    go(chosen, always(cancelling()))


@upon_jobs
def priority(
    chosen: Chosen,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="PRIORITY",
            help="As its table has it: a number, or a word; where it has none, a rank, 1 to 20.",
        ),
    ],
) -> None:
    """
    Give unfinished jobs another priority: they run before others, or after them.

    Where the table has a priority of its own, that column is written, and its rank follows; where it
    has none, the job's rank is set, 1 to 20, higher first. A running job has it once it comes back.

    rowmill priority 9e0f06a0-22a3-4071-9831-b02b6524d6af --to 10

    rowmill priority --source generation_jobs --state ready --older-than 1h --to 9 --dry-run
    \f
    A priority must be one of its map's scale (`rowmill map check` shows them): 1 to 10, any integer, or one of its words; else nothing is done, and the exit code is 2. A rank that was set lasts until the job is over, or
    until someone changes the row's status, schedule, lane or tenant. By options it looks for running, ready, scheduled and held jobs.
    """
    from worker.acting import prioritising
    from worker.store import acts

    async def making(store: Store, jobs: Sequence[Found]) -> Act:
        tables = {job.source for job in jobs}
        known = [info for info in await store.sources() if info.name in tables]
        return prioritising({info.name: acts.priority_value(info, to) for info in known})

    go(chosen, making)


@upon_jobs
def resolve(
    chosen: Chosen,
    *,
    external_id: Annotated[
        str | None,
        typer.Option(metavar="X", help="The provider has it, as X: go on from there. One job."),
    ] = None,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Send it again, paid twice or not.")
    ] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Give the job up.")] = False,
    step: Annotated[
        str | None, typer.Option(help="Which call, where several of the job are in doubt.")
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=filters.PANEL,
            help="Only with a call of this provider in doubt.",
            autocompletion=completing.providers,
        ),
    ] = None,
) -> None:
    """
    Say what became of paid calls that nobody could find out about.

    Look at the provider's dashboard first: `rowmill job show ID` tells when the request was sent
    and what it was for. By options it looks for held jobs with such calls.

    rowmill resolve 9e0f06a0-22a3-4071-9831-b02b6524d6af --external-id k3mjsd8zy1rmc0cs8gvs

    rowmill resolve 9e0f06a0-22a3-4071-9831-b02b6524d6af --resubmit

    rowmill resolve --provider replicate --fail --dry-run
    \f
    The provider has it, as X, and the job goes on from there; or it is sent again, at the risk of paying twice; or the job fails. Of a job that is over, only the ledger changes (`--state failed`, `cancelled` or
    `completed` looks for those). A job that a worker claims at that moment is told to be running, and nothing is changed.
    """
    from worker.acting import resolving

    if (external_id is not None) + resubmit + fail != 1:
        raise typer.BadParameter("say one of --external-id X, --resubmit and --fail")
    if external_id is not None and not chosen.single:
        raise typer.BadParameter("--external-id is one job's: name it")
    how = "accepted" if external_id is not None else "resubmit" if resubmit else "fail"
    act = resolving(how, external_id=external_id, step=step)
    go(chosen, always(act), risky=resubmit, provider=provider)
