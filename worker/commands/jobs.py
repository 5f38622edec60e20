"""rowmill jobs: which there are, a page at a time or as they change."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.common import AsJson, print_json, with_store
from worker.commands.filters import (
    ErrorKind,
    ErrorText,
    Kinds,
    Lanes,
    NewerThan,
    OlderThan,
    Sources,
    States,
    Tenant,
    checked,
    chosen,
)

if TYPE_CHECKING:
    from worker.store import Store
    from worker.store.listing import Filter, Page

COUNTED = 10_000
"""How many jobs are counted; of more it is said that there are more."""


class Sort(StrEnum):
    order = "order"
    newest = "newest"
    oldest = "oldest"
    longest = "longest"
    cost = "cost"
    failure = "failure"


class Output(StrEnum):
    short = "short"
    wide = "wide"


def jobs(  # noqa: PLR0917 - typer gives them by name
    lane: Lanes = None,
    source: Sources = None,
    kind: Kinds = None,
    state: States = None,
    tenant: Tenant = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    error_kind: ErrorKind = None,
    error: ErrorText = None,
    sort: Annotated[
        Sort | None,
        typer.Option(
            help="order: as they run, are claimed, are due, are held. newest, oldest: since they "
            "were queued or over. longest: the time they run or ran. cost: what was paid. failure: "
            "the last failed try."
        ),
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Jobs on a page.")] = 50,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="The next page: `next` of the one before.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on, and print what changes, until Ctrl-C.")
    ] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="wide: all that fits on a line.")
    ] = Output.short,
    as_json: AsJson = False,
) -> None:
    """
    List jobs: those that wait or run, or those you name.

    Without --state these are the unfinished ones, in the order in which they run; with --error-kind
    or --error also those that failed, the last failure first. Everything named has to hold.

    rowmill jobs

    rowmill jobs --state failed --newer-than 1h --lane replicate

    rowmill jobs --error "out of credits" --json | jq -r '.jobs[].key'

    rowmill jobs --state running --sort longest

    rowmill jobs --state all --tenant 7c1f0d52-5d0e-4a7c-9a53-3c1c7d0f2f11 --follow
    \f
    States are the same for all tables:

    | state | what it means |
    |---|---|
    | `ready` | it waits its turn |
    | `scheduled` | it waits for a time: its schedule, or its next try |
    | `running` | a worker has it |
    | `held` | it waits for a person: `rowmill job show`, then `retry`, `resolve` or `cancel` |
    | `completed`, `failed`, `cancelled` | it is over; `status` is the table's own word |

    A table without a word for cancelled calls such rows failed; they are told apart by the
    record of failures.

    In a terminal, what is to be said of a job stands below it, or beside it where there is
    room. In a pipe each job is one line, aligned and not shortened, its key first. Without
    `--json`, what else there is, and how to see it, is told on standard error. Nothing found
    isn't an error: the exit code is 0. With `--json`:

        {"jobs": [{"source", "key", "platform", "state", "status", "kind", "lane", "tenant",
                   "rank", "priority", "run", "tries", "max_retries",
                   "created_at", "queued_at", "ready_at", "started_at", "finished_at",
                   "age_s", "ran_s", "worker", "why", "reason", "may_start_at",
                   "error": {"kind", "code", "message", "provider", "at"}, "cost_cents"}],
         "next"}

    `rank` is the place in the order of claims (20 comes first, null once a job is over),
    `priority` what the table has. `tries` counts failed ones. `age_s` is the time since it was
    queued, or since it was over; where the table doesn't say when that was, since it was made.
    `ran_s` is how long it runs, or ran. `error` is that of the last failed try, also of a job
    that goes on. `cost_cents` is what the ledger knows to be paid so far. `worker`, `why`,
    `reason` and `may_start_at` are of unfinished jobs. What isn't known is null.

    `next` is null on the last page; else `--after` takes it, with the same filters and sort. A
    job that stays what it is stands on exactly one page, whatever others do between two pages;
    one that moves in the order may be told twice, or not. Ages are measured from when the
    first page was read.

    `--follow` prints the first page and then each job that is new or whose state has changed,
    with `--json` as one line each, in the form above. A job whose row was deleted is `gone`.
    Of jobs that wait, the next thousand are watched; others are told once they run. It looks
    once a second, and ends as others do: by Ctrl-C with 130, by a closed pipe with 141.

    Unfinished jobs are read from the queue, others from their table. In a large table these
    are quick where an index begins with what is named, or holds the status and the time it was
    over, and sorting by cost is quick only of few. What takes longer than ten seconds is given
    up, and the error names the filters that would help.
    """
    which = chosen(
        lane=lane,
        source=source,
        kind=kind,
        state=state,
        tenant=tenant,
        older_than=older_than,
        newer_than=newer_than,
        error_kind=error_kind,
        error=error,
    )
    asked = {"sort": sort and sort.value, "reverse": reverse, "limit": limit, "after": after}
    if follow:
        from worker.commands.following import follow_jobs

        follow_jobs(_default(which), which, asked, as_json=as_json)
        return
    page, total = with_store(lambda store: _read(store, _default(which), asked, count=not as_json))
    if as_json:
        print_json({"jobs": page.jobs, "next": page.next})
        return
    if not page.jobs:
        typer.echo("no such jobs" if state or error or error_kind else _NONE, err=True)
        return
    from worker.text.jobs import print_jobs

    print_jobs(page.jobs, wide=output is Output.wide)
    if page.next is not None:
        typer.echo(f"{len(page.jobs)} of {_number(total)}; more: {_next(page.next)}", err=True)


_NONE = "no such jobs wait or run; `rowmill jobs --state all` shows those that are over, too"


def _default(which: Filter) -> Filter:
    """Without a state: unfinished jobs; of errors, those that failed as well."""
    from dataclasses import replace

    from worker.generate.lists import UNFINISHED

    if which.states:
        return which
    return replace(which, states=(*UNFINISHED, "failed") if which.of_errors else tuple(UNFINISHED))


async def _read(
    store: Store, which: Filter, asked: dict[str, Any], *, count: bool
) -> tuple[Page, int | None]:
    from worker.store import listing

    which = await checked(store, which)
    page = await listing.listed(store, which, **asked)
    if page.next is None or not count:
        return page, None
    try:
        return page, await listing.counted(store, which, COUNTED)
    except listing.TooSlow:
        return page, None


def _number(total: int | None) -> str:
    if total is None:
        return "many"
    return f"{total:,}" if total <= COUNTED else f"more than {COUNTED:,}"


def _next(cursor: str) -> str:
    """The same command, for the page that follows."""
    arguments, skip = [], False
    for argument in sys.argv[1:]:
        if not skip and argument != "--after" and not argument.startswith("--after="):
            arguments.append(argument)
        skip = argument == "--after"
    return shlex.join(["rowmill", *arguments, "--after", cursor])
