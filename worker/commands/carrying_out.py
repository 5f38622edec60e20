"""How an act goes: it is foretold, asked for, carried out, and told."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from worker.commands.choosing import Chosen, asks
from worker.commands.common import NOT_DONE, OK, print_json, who, with_store
from worker.commands.planning import Making, Plan, planned

if TYPE_CHECKING:
    from worker.acting import Act, Result
    from worker.store import Store
    from worker.store.acts import Seen
    from worker.store.aims import Aim
    from worker.store.finding import Found

MANY = 10
"""Jobs for which there is a progress bar."""


def go(chosen: Chosen, making: Making, *, risky: bool = False, provider: str | None = None) -> None:
    """Look, tell what it means, ask where it matters, do it, tell what became of it."""
    from worker.text import acts as text

    async def planning(store: Store) -> Plan:
        return await planned(store, chosen, making, provider)

    plan = with_store(planning)
    if chosen.dry_run:
        _tell_plan(chosen, plan)
        raise typer.Exit(OK if plan.able or not plan.aims else NOT_DONE)
    asked = not chosen.yes and bool(plan.able) and (not chosen.single or (risky and asks()))
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
