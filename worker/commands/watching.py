"""rowmill watch."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from worker.commands import completing
from worker.commands.common import configured_providers, dsn, who


def watch(
    lane: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Show only lanes whose name holds this; / changes it.",
            autocompletion=completing.lanes,
        ),
    ] = "",
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, max=3600, help="Between two questions.")
    ] = 1.0,
) -> None:
    """
    The fleet, live, on the whole screen: lanes, running jobs, workers, what needs a person.

    One light query a second at most, so it may stay open. ? shows the keys: / filters, p pauses or
    resumes a lane, d drains a worker, Enter opens a job (c cancels it, r retries it), q quits.

    rowmill watch

    rowmill watch --lane openai --every 5
    \f

    It shows what `rowmill status` tells, and progress bars of the running jobs whose table has a
    column for progress; of the others, how long they run. Providers and budgets are folded to a
    line where there is little room, until the cursor goes there.

    | key | what it does |
    |---|---|
    | Tab, Shift-Tab | from panel to panel; the one with the cursor gets more room |
    | arrows, `j`, `k`, PgUp, PgDn, Home, End | up and down |
    | `/` | show only lanes, jobs and workers whose name holds a text; Esc shows all again |
    | `s` | sort the panel by something else |
    | Enter | of a lane: what comes next there, and what it holds; of a job: its story |
    | `p` | pause the lane (asks for a reason), or resume it |
    | `d` | drain the worker |
    | `c`, `r` | in a job's story: cancel it, let it run again; `u` looks again |
    | `?` | help |
    | Ctrl-Z | suspend: nothing is asked until `fg` |
    | `q` | quit |

    Whatever changes something asks first, and is recorded in `rowmill.actions` like the command of
    the same name. The report and the running jobs are asked for in turns, `--every` seconds apart
    or more: a statement at a time, ended by the server after ten seconds, and after a slow answer
    a rest as long. What a key asks for (a job, what a lane does next, an act) comes on top. While
    the database doesn't answer, the last picture stays, with since when and why; nothing needs to
    be started again.

    It draws with the terminal's own sixteen colours, or none where `NO_COLOR` is set, doesn't take
    the mouse, and sends only what changed. The exit code is 0 after `q`, 2 where there is no
    terminal to draw on, and 128 + its number after a signal; the terminal is left as it was.
    """
    from worker.watch.available import missing

    why_not = missing()
    if why_not is not None:
        typer.echo(f"rowmill: {why_not}", err=True)
        raise typer.Exit(2)
    from worker.watch.terminal import show

    code = asyncio.run(
        show(dsn(), every=every, text=lane or "", who=who(), providers=configured_providers())
    )
    raise typer.Exit(code)
