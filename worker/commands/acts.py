"""rowmill retry, requeue, cancel, priority and resolve: one job, several, or all that a filter finds."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands import filters
from worker.commands.common import NOT_DONE, OK, AsJson, print_json, who, with_store

if TYPE_CHECKING:
    from worker.acting import Act, Result
    from worker.forecast import Forecast
    from worker.store import Store
    from worker.store.acts import Seen
    from worker.store.aims import Aim
    from worker.store.finding import Found
    from worker.store.listing import Filter

MANY = 10
"""Jobs for which there is a progress bar."""


# --------------------------------------------------------------------------- what all of them take


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which jobs, and how they are gone about."""

    ids: tuple[str, ...]
    which: Filter | None
    """None where jobs are named."""
    limit: int | None
    dry_run: bool
    yes: bool
    as_json: bool

    @property
    def single(self) -> bool:
        return len(self.ids) == 1


def _shared(
    *,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Rows' keys; TABLE/KEY where two tables share one."),
    ] = None,
    lane: filters.Lanes = None,
    source: filters.Sources = None,
    kind: filters.Kinds = None,
    state: filters.States = None,
    tenant: filters.Tenant = None,
    older_than: filters.OlderThan = None,
    newer_than: filters.NewerThan = None,
    error_kind: filters.ErrorKind = None,
    error: filters.ErrorText = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=filters.PANEL, help="At most so many of them."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell which jobs and what cost; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """The options of every act."""


_SHARED = inspect.signature(_shared, eval_str=True).parameters


def upon_jobs(command: Callable[..., None]) -> Callable[..., None]:
    """A command over chosen jobs: its own options, and those that choose."""

    def call(**given: Any) -> None:
        shared = {name: given.pop(name) for name in _SHARED}
        narrowed = given.get("provider") is not None
        command(_chosen(command.__name__, narrowed=narrowed, **shared), **given)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in (_SHARED["ids"], *own, *_SHARED.values())
    ]
    unique = {p.name: p for p in parameters}
    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__module__ = command.__module__
    call.__annotations__ = {name: p.annotation for name, p in unique.items()}
    call.__signature__ = inspect.Signature(list(unique.values()))  # type: ignore[attr-defined]
    return call


def _chosen(
    name: str,
    *,
    narrowed: bool,
    ids: list[str] | None,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **filtered: Any,
) -> Chosen:
    from worker.store.listing import Filter

    which = filters.chosen(**filtered)
    if ids and (narrowed or which != Filter() or limit is not None):
        raise typer.BadParameter("name jobs, or say which by options: not both")
    if not ids and not narrowed and which == Filter():
        raise typer.BadParameter(
            f"which jobs? Name them, or narrow it down:\n\n  rowmill {name} ID\n\n"
            f"  rowmill {name} --lane replicate --newer-than 2h --dry-run\n\n"
            f"rowmill {name} --help lists all options"
        )
    chosen = Chosen(
        tuple(dict.fromkeys(ids or ())), None if ids else which, limit, dry_run, yes, as_json
    )
    if not chosen.single and not dry_run and not yes and not _asks():
        raise typer.BadParameter(
            "more than one job, and no terminal to ask on: add --yes, or look first with --dry-run"
        )
    return chosen


def _asks() -> bool:
    """Whether someone can be asked: what they answer is read, what they are asked is seen."""
    return sys.stdin.isatty() and sys.stderr.isatty()


# --------------------------------------------------------------------------- the commands


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
    - A job that changed between the question and its turn (its state, its row where it was over, its calls in doubt) is told, and left as it is.
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

    _go(chosen, _always(retrying()))


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

    _go(chosen, _always(requeueing(anew=drop_paid)), risky=True)


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

    _go(chosen, _always(cancelling()))


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

    _go(chosen, making)


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
            rich_help_panel=filters.PANEL, help="Only with a call of this provider in doubt."
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
    _go(chosen, _always(act), risky=resubmit, provider=provider)


# --------------------------------------------------------------------------- how it goes

Making = Callable[["Store", "Sequence[Found]"], Awaitable["Act"]]


def _always(act: Act) -> Making:
    async def making(_store: Store, _jobs: Sequence[Found]) -> Act:
        return act

    return making


@dataclass(frozen=True, slots=True)
class Plan:
    act: Act
    aims: list[Aim]
    refused: dict[Found, str]
    """Those of the aims that can't be acted on, and the verdict why."""
    forecast: Forecast
    states: tuple[str, ...]
    """Those that were asked for; none where jobs were named."""
    more: bool
    """More match than were let in."""

    @property
    def able(self) -> list[Aim]:
        return [aim for aim in self.aims if aim.job not in self.refused]


def _go(
    chosen: Chosen, making: Making, *, risky: bool = False, provider: str | None = None
) -> None:
    """Look, tell what it means, ask where it matters, do it, tell what became of it."""
    from worker.text import acts as text

    async def planning(store: Store) -> Plan:
        return await _plan(store, chosen, making, provider)

    plan = with_store(planning)
    if chosen.dry_run:
        _tell_plan(chosen, plan)
        raise typer.Exit(OK if plan.able or not plan.aims else NOT_DONE)
    asked = not chosen.yes and bool(plan.able) and (not chosen.single or (risky and _asks()))
    if asked:
        for line in text.foretold(
            plan.act, plan.forecast, refused=len(plan.refused), more=plan.more
        ):
            typer.echo(line, err=True)
        if not typer.confirm("Go on?", default=False, err=True):
            typer.echo("rowmill: nothing was changed", err=True)
            raise typer.Exit(NOT_DONE)
    # Who named one job and wasn't asked has seen nothing of it: it is acted on as it is by then.
    blindly = chosen.single and not asked
    results, interrupted = _carry_out(plan, plan.aims if blindly else plan.able, blindly=blindly)
    _tell(chosen, plan, results)
    _leave(plan.aims, results, interrupted)


async def _plan(store: Store, chosen: Chosen, making: Making, provider: str | None) -> Plan:
    from worker.store import aims as looking
    from worker.store import finding, forecasts

    states: tuple[str, ...] = ()
    if chosen.which is None:
        jobs, more = [await finding.find_one(store, named) for named in chosen.ids], False
        act = await making(store, jobs)
    else:
        act = await making(store, ())
        states = _states(chosen.which, act, narrowed=provider is not None)
        which = await filters.checked(store, replace(chosen.which, states=states))
        jobs, more = await _matching(store, which, chosen.limit)
        act = await making(store, jobs)
    aims = await looking.aims(store, jobs)
    if chosen.which is not None:
        named = chosen.which.states
        # What has changed since it was found is no match either.
        aims = [aim for aim in aims if aim.state in states and act.meant(aim, named)]
    if provider is not None:
        aims = [aim for aim in aims if provider in aim.calls.doubt_providers]
    refused = {aim.job: why for aim in aims if (why := act.refusal(aim)) is not None}
    forecast = await forecasts.forecast_of(
        store,
        [aim for aim in aims if aim.job not in refused],
        buys=act.buys,
        anew=act.anew,
        resubmits=act.resubmits,
    )
    return Plan(act, aims, refused, forecast, states, more)


def _states(which: Filter, act: Act, *, narrowed: bool) -> tuple[str, ...]:
    """Those asked for in which the act can do something; all of these where none is named."""
    from worker.store.listing import Filter

    states = tuple(state for state in which.states if state in act.reach) or act.states
    if which.states and not set(which.states) & set(act.reach):
        raise typer.BadParameter(
            f"{act.name} is for jobs that are {', '.join(act.reach)}: "
            f"not for --state {', '.join(which.states)}"
        )
    if not states:
        raise typer.BadParameter(
            f"which of them? --state {', --state '.join(act.reach)}: {act.name} pays for all of them"
        )
    every = set(states) >= set(act.states or act.reach)
    if every and not narrowed and replace(which, states=()) == Filter():
        raise typer.BadParameter(
            f"that is every job {act.name} is for: narrow it down, by --lane or --source at least"
        )
    return states


async def _matching(store: Store, which: Filter, limit: int | None) -> tuple[list[Found], bool]:
    from worker.store import listing
    from worker.store.finding import Found

    jobs: list[Found] = []
    after: str | None = None
    while limit is None or len(jobs) < limit:
        page = listing.MANY if limit is None else min(listing.MANY, limit - len(jobs))
        places, after = await listing.found(store, which, limit=page, after=after)
        jobs += [Found(place.source, place.key) for place in places]
        if after is None:
            break
    return jobs, after is not None


def _carry_out(
    plan: Plan, aims: Sequence[Aim], *, blindly: bool
) -> tuple[dict[Found, Result], signal.Signals | None]:
    from worker.acting import AT_A_TIME, Stopping, carry_out

    stopping, caught = Stopping(), list[signal.Signals]()

    def seen(aim: Aim) -> Seen | None:
        of_doubts = plan.act.name == "resolve"
        return None if blindly else aim.seen(plan.states, of_doubts=of_doubts)

    async def work(store: Store) -> list[Result]:
        loop = asyncio.get_running_loop()

        def stop(number: signal.Signals) -> None:
            stopping.asked = True
            caught.append(number)
            loop.remove_signal_handler(number)  # a second one ends us at once

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        with _progress(plan.act, len(aims)) as advance:
            return await carry_out(
                store, plan.act, aims, who(), seen=seen, stopping=stopping, told=advance
            )

    if not aims:
        return {}, None
    results = with_store(work, size=AT_A_TIME)
    come_to = {result.aim.job: result for result in results if result.verdict is not None}
    return come_to, caught[0] if caught else None


@contextmanager
def _progress(act: Act, jobs: int) -> Iterator[Callable[[Result], None]]:
    """A bar, for who looks on while it takes a while."""
    if jobs <= MANY or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(act.name, total=jobs)
        yield lambda _: bar.advance(task)


def _tell_plan(chosen: Chosen, plan: Plan) -> None:
    from worker.text import acts as text
    from worker.text.values import on_one_line

    act, refused = plan.act, plan.refused
    if chosen.as_json:
        jobs = [
            text.job_json(aim, refused.get(aim.job), done=False, said=text.would(act, aim, refused))
            for aim in plan.aims
        ]
        print_json(text.as_json(act, jobs, plan.forecast, dry_run=True))
        return
    for aim in plan.aims:
        typer.echo(f"{on_one_line(aim.job.subject)}: {text.would(act, aim, refused)}")
    for line in text.foretold(act, plan.forecast, refused=len(refused), more=plan.more):
        typer.echo(line)
    typer.echo("nothing was changed (--dry-run)")


def _tell(chosen: Chosen, plan: Plan, results: Mapping[Found, Result]) -> None:
    from worker.acting import Result
    from worker.text import acts as text

    act = plan.act
    told = [
        results.get(aim.job) or Result(aim, plan.refused.get(aim.job), done=False)
        for aim in plan.aims
    ]
    if chosen.as_json:
        jobs = [
            text.job_json(r.aim, r.verdict, done=r.done, said=text.message(act, r)) for r in told
        ]
        print_json(text.as_json(act, jobs, plan.forecast, dry_run=False))
    elif not told:
        typer.echo(f"{act.name}: no job matches")
    else:
        out, err = text.one(act, told[0]) if chosen.single else text.outcome(act, told)
        for line in err:
            typer.echo(line, err=True)
        for line in out:
            typer.echo(line)


def _leave(
    aims: Sequence[Aim], results: Mapping[Found, Result], interrupted: signal.Signals | None
) -> None:
    from worker.commands.exits import UNREACHABLE
    from worker.commands.problems import explain

    if interrupted is not None and len(results) < len(aims):
        raise typer.Exit(128 + interrupted)
    errors = [r.error for r in results.values() if r.error is not None]
    problems = [problem for error in errors if (problem := explain(error)) is not None]
    if any(problem.exit_code == UNREACHABLE for problem in problems):
        raise typer.Exit(UNREACHABLE)
    done = all(results[aim.job].done for aim in aims if aim.job in results)
    raise typer.Exit(OK if done and len(results) == len(aims) else NOT_DONE)
