"""The `rowmill` command.

The commands live in worker/commands, one module per group. Those modules import nothing but typer
until one of their commands runs: `rowmill --help` must not wait for a database driver.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

import typer

from worker import reference
from worker.commands import (
    acts,
    budgets,
    completion,
    database,
    develop,
    exits,
    fleet,
    gates,
    health,
    job,
    jobs,
    mapping,
    overview,
    providers,
    pruning,
    reconciling,
    trying,
    watching,
    workers,
)

app = typer.Typer(
    name="rowmill",
    callback=overview.main,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, which may hold keys
    help=(
        "Runs the AI jobs in your Postgres tables: no job lost, no provider paid twice.\n\n"
        "ROWMILL_DATABASE_URL names the database; every setting is in docs/configuration.md.\n\n"
        "First steps: rowmill demo. With your own database: rowmill migrate, rowmill attach "
        "PLATFORM, rowmill run. With a table of your own: rowmill map new, docs/adopt.md.\n\n"
        f"{exits.IN_SHORT}."
    ),
)

RUNNING, LOOKING, ACTING, SETTING_UP = (
    "Run a fleet",
    "Look at it",
    "Act on it",
    "Set up a database",
)

app.command(rich_help_panel=RUNNING)(fleet.run)
app.command(rich_help_panel=RUNNING)(fleet.demo)
app.command(rich_help_panel=RUNNING)(fleet.sandbox)
app.command(rich_help_panel=LOOKING)(overview.status)
app.command(rich_help_panel=LOOKING)(watching.watch)
app.command(rich_help_panel=LOOKING)(workers.workers)
app.command(rich_help_panel=LOOKING)(providers.providers)
app.command(rich_help_panel=LOOKING)(health.doctor)
app.command(rich_help_panel=LOOKING)(jobs.jobs)
app.add_typer(job.app, name="job", rich_help_panel=LOOKING)
app.command(rich_help_panel=ACTING)(gates.pause)
app.command(rich_help_panel=ACTING)(gates.resume)
app.command(rich_help_panel=ACTING)(gates.limit)
app.command(rich_help_panel=ACTING)(workers.drain)
app.command(rich_help_panel=ACTING)(acts.retry)
app.command(rich_help_panel=ACTING)(acts.requeue)
app.command(rich_help_panel=ACTING)(acts.cancel)
app.command(rich_help_panel=ACTING)(acts.priority)
app.command(rich_help_panel=ACTING)(acts.resolve)
app.command(rich_help_panel=ACTING)(reconciling.reconcile)
app.command(rich_help_panel=ACTING)(pruning.prune)
app.add_typer(budgets.app, name="budget", rich_help_panel=ACTING)
app.command(rich_help_panel=SETTING_UP)(database.migrate)
app.command(rich_help_panel=SETTING_UP)(database.attach)
app.command(rich_help_panel=SETTING_UP)(database.detach)
app.command(rich_help_panel=SETTING_UP)(database.platforms)
app.add_typer(mapping.app, name="map", rich_help_panel=SETTING_UP)
app.command("try", rich_help_panel=SETTING_UP)(trying.try_)
app.command(rich_help_panel=SETTING_UP)(completion.completion)
app.add_typer(develop.app, name="dev", rich_help_panel="Work on Rowmill itself")
app.command(rich_help_panel="Work on Rowmill itself")(overview.version)


UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def command() -> Any:
    """All of it as one command, whose help fits any terminal."""
    root = typer.main.get_command(app)
    for entry in reference.entries(root):
        entry.command.help = reference.reflowed(reference.texts(entry.command)[0])
    return root


def main() -> None:
    """Run a command; what can go wrong outside of us is one clear line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every terminal has every character
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            command()()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)  # else what is left of the output is tried, and told, once more
        typer.echo(f"rowmill: can't write the output: {error.strerror}", err=True)
        sys.exit(exits.NOT_DONE)
    except Exception as error:
        from worker.commands.problems import explain  # noqa: PLC0415 - imports what commands do

        problem = explain(error)
        if problem is None:
            raise
        typer.echo(f"rowmill: {problem.message}", err=True)
        sys.exit(problem.exit_code)


if __name__ == "__main__":
    main()
