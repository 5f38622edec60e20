"""rowmill jobs --follow."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from worker.commands.common import as_json_text, dsn
from worker.commands.filters import checked

if TYPE_CHECKING:
    from worker.store.listing import Filter
    from worker.store.reading import Row

PAUSE = 1.0


def follow_jobs(first: Filter, which: Filter, asked: dict[str, Any], *, as_json: bool) -> None:
    """`first` is of the jobs that are there, `which` of changes.

    Ends by the signal that ends it, so that a shell sees it as it does with other programs.
    """
    try:
        asyncio.run(_follow(first, which, asked, as_json=as_json))
    except KeyboardInterrupt:
        _die(signal.SIGINT)
    except BrokenPipeError:
        _die(signal.SIGPIPE)


def _die(by: signal.Signals) -> None:
    signal.signal(by, signal.SIG_DFL)
    os.kill(os.getpid(), by)


async def _follow(first: Filter, which: Filter, asked: dict[str, Any], *, as_json: bool) -> None:
    from worker.store import Store, Unavailable, listing
    from worker.store.listing.following import Follower

    store = await Store.open(dsn(), size=2)
    try:
        first, which = await checked(store, first), await checked(store, which)
        follower = Follower(store, which)
        await follower.begin()
        page = await listing.listed(store, first, **asked)
        _print(page.jobs, as_json=as_json)
        silent = False
        while True:
            await asyncio.sleep(PAUSE)
            _check_reader()
            try:
                _print(await follower.changes(), as_json=as_json)
            except Unavailable as error:
                if not silent:
                    typer.echo(f"rowmill: the database is away: {error}; trying again", err=True)
                silent = True
            else:
                silent = False
    finally:
        await store.close()


def _check_reader() -> None:
    """Whoever read our lines may be gone while there is nothing to print."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    if any(event & (select.POLLERR | select.POLLNVAL) for _, event in watch.poll(0)):
        raise BrokenPipeError


def _print(jobs: list[Row], *, as_json: bool) -> None:
    from worker.text.jobs import line

    now = datetime.now(UTC).strftime("%H:%M:%S")
    for job in jobs:
        said = as_json_text(job) if as_json else line(job, now)
        sys.stdout.write(f"{said}\n")
    sys.stdout.flush()
