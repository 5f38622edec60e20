"""rowmill prune."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import filters
from worker.commands.common import AsJson, print_json, who, with_store

if TYPE_CHECKING:
    from worker.store import Store
    from worker.store.pruning import Pruned

LEAST = timedelta(days=35)
"""Budgets and reports of spend go back to the beginning of a month."""
MOST = timedelta(days=36500)


def _age(text: str) -> timedelta:
    age = filters.age(text, "--older-than")
    if age < LEAST:
        raise typer.BadParameter(f"at least {LEAST.days}d: budgets need the calls of their month")
    if age > MOST:
        raise typer.BadParameter(f"at most {MOST.days}d")
    return age


def prune(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="In days or weeks: 90d, 26w; at least 35d.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell how much it would be; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Take away what is known of jobs whose rows are gone: paid calls, failed tries; and old actions.

    Nothing goes of a row that still exists: which run comes next is known from its calls, and with
    it that nothing is paid twice. Nor of what is unfinished, in flight, in doubt, or paid and never
    delivered, whatever its age.

    rowmill prune --older-than 90d --dry-run

    rowmill prune --older-than 26w
    \f
    A platform's own retention takes its old rows away (see [platforms](platforms.md)); this is what follows. It works in pages of a thousand jobs, each in a transaction of its own, may be interrupted at any time, and runs
    beside a working fleet. Tables that are detached or missing keep everything: nobody can say which of their rows are gone. With row-level security the role needs BYPASSRLS; it is refused otherwise.

    Afterwards `rowmill reconcile --since` that goes back further than AGE calls the provider's tasks of that time strangers, and reports of spend lack them. A row that is inserted again under a key of then begins with run 1; its
    files take the place of those that had that key.

    With `--json`: `{"dry_run", "older_than_days", "submissions", "failures", "actions"}`, how many of each.
    """
    from worker.store import pruning

    age = _age(older_than)

    async def work(store: Store) -> Pruned:
        return await pruning.prune(store, age, who(), dry_run=dry_run)

    pruned = with_store(work)
    counts = {
        "submissions": pruned.submissions,
        "failures": pruned.failures,
        "actions": pruned.actions,
    }
    if as_json:
        print_json({"dry_run": dry_run, "older_than_days": age.days, **counts})
    else:
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        typer.echo(f"{'would take' if dry_run else 'took'} away {said}")
