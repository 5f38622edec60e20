"""rowmill workers and drain."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands import completing
from worker.commands.common import NOT_DONE, OK, AsJson, print_json, who, with_store

if TYPE_CHECKING:
    from worker.store import Store
    from worker.store.draining import Asked

LOOK = 1.0
"""Seconds between two looks of --wait."""

SILENT = 10
"""Looks after which a silent worker is given up: after an outage all are silent for a moment."""

UNHEARD = 10.0
"""Seconds after which a worker that was asked should have heard: it hears every two."""


def workers(
    every: Annotated[
        bool, typer.Option("--all", help="Also those that stopped within the last week.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Who works: where, since when, with which version, for which lanes, and how much.

    rowmill workers

    rowmill workers --all

    rowmill workers --json | jq -r '.workers[] | select(.state == "silent") | .name'
    \f
    With `--json`:

        {"workers": [{"id", "name", "host", "version", "lanes", "slots", "running", "state", "heartbeat_age_s", "alive", "draining",
                      "started_at", "stopped_at", "drain_asked_at", "drain_asked_age_s", "drain_asked_by", "drain_reason"}]}

    | state | meaning |
    |---|---|
    | `working` | it claims jobs |
    | `asked` | `rowmill drain` asked it to leave; it hears of it with its next heartbeat |
    | `draining` | it claims nothing more and finishes what runs |
    | `silent` | no heartbeat for a lease: it hangs, is gone, or can't reach the database; its jobs go to others |
    | `stopped` | it left, or was given up |

    `running` is what it said with its last heartbeat; `host` is null for a worker of a version that doesn't say.
    """
    from worker.store.fleet import workers as read

    async def work(store: Store) -> list[dict[str, Any]]:
        return await read(store, stopped=every)

    rows = with_store(work)
    if as_json:
        print_json({"workers": rows})
    else:
        from worker.text.workers import print_workers

        print_workers(rows)


def drain(  # noqa: PLR0917 - typer gives them by name
    worker: Annotated[
        str | None,
        typer.Argument(
            help="A worker's name, or the start of its id; `workers` lists them.",
            autocompletion=completing.workers,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All workers, or all of --host.")] = False,
    host: Annotated[
        str | None, typer.Option(help="Only on this machine.", autocompletion=completing.hosts)
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until they are gone; tells how many jobs are left.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Shown by `workers` and recorded.")] = None,
    as_json: AsJson = False,
) -> None:
    """
    Ask a worker to leave, as SIGTERM does: no new claims, running jobs are finished.

    What isn't done within its ROWMILL_GRACE_SECONDS is handed back, and the process exits with 0.
    It hears of it with its next heartbeat, within two seconds. There is no way back, and whatever
    keeps the process running (systemd, Kubernetes) starts it again: if nothing should run, use
    `rowmill pause` instead.

    rowmill drain render-7

    rowmill drain render-7 --wait --reason "new kernel"

    rowmill drain --all --host render-7.internal
    \f
    Two workers may have one name (on several hosts, or one that was started again): then name the one you mean by the start of its id, four digits at
    least. Of those that share a name only the living count. A worker that is silent or stopped can't be asked; it is said so, and the exit code is 1.
    Workers of a version before this command don't hear it: they stay `asked`, send them SIGTERM.

    A signal still works beside it: the first SIGTERM to a draining worker changes nothing, the second one ends it at once.

    The exit code is 0 if all that were named leave; with `--wait`, once they have left; 1 if one didn't (it fell silent: its jobs go to others). With `--json`, printed at the end:

        {"workers": [{"id", "name", "host", "verdict", "state", "running"}], "left"}

    `verdict` is `asked`, `asked before`, `draining` (already), `silent` or `stopped`; `state` and `running` are as at the end, `left` is how many haven't stopped.
    """
    from worker.store import draining

    if every == (worker is not None):
        raise typer.BadParameter("name a worker, or --all (with --host: all of that machine)")

    async def work(store: Store) -> tuple[list[Asked], list[dict[str, Any]]]:
        if worker is None:
            asked = await draining.drain_all(store, who(), host=host, reason=reason)
        else:
            asked = [await draining.drain(store, worker, who(), host=host, reason=reason)]
        for one in asked:
            typer.echo(_said(one), err=as_json)
        rows = [one.worker for one in asked]
        return asked, await _until_gone(store, rows) if wait else rows

    asked, now = with_store(work)
    if not asked:
        typer.echo("no worker runs", err=as_json)
    if as_json:
        print_json(_as_json(asked, now))
    left = wait and any(row["state"] != "stopped" for row in now)
    raise typer.Exit(OK if all(one.leaves for one in asked) and not left else NOT_DONE)


def _said(one: Asked) -> str:
    from worker.text.values import duration, on_one_line

    row = one.worker
    name = on_one_line(row["name"])
    jobs = f"{row['running']} running" if row["running"] else "nothing runs"
    asker = on_one_line(row["drain_asked_by"] or "a signal")
    return {
        "asked": f"worker {name} is asked to leave; {jobs}",
        "asked before": f"worker {name} was asked already, by {asker}; {jobs}",
        "draining": f"worker {name} is leaving already, because of {asker}; {jobs}",
        "silent": f"worker {name} is silent for {duration(row['heartbeat_age_s'])} and can't be "
        "asked: its jobs go to others after its lease; end its process where it runs",
        "stopped": f"worker {name} has stopped already",
    }[one.verdict]


async def _until_gone(store: Store, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as they are once each has left or stays silent. An outage is waited out."""
    from collections import Counter

    from worker.store import Unavailable
    from worker.store.fleet import workers as read

    ids, said = [int(row["id"]) for row in rows], ""
    silent = Counter(row["id"] for row in rows if row["state"] == "silent" for _ in range(SILENT))
    while left := [row for row in rows if row["state"] != "stopped" and silent[row["id"]] < SILENT]:
        line = _progress(left)
        if line != said:
            typer.echo(line, err=True)
            said = line
        await asyncio.sleep(LOOK)
        try:
            rows = await read(store, stopped=True, ids=ids)
            for row in rows:
                silent[row["id"]] = silent[row["id"]] + 1 if row["state"] == "silent" else 0
        except Unavailable:
            said = "the database doesn't answer; still waiting"
            typer.echo(said, err=True)
    gone = sum(row["state"] == "stopped" for row in rows)
    typer.echo(f"{gone} of {len(rows)} gone", err=True)
    return rows


def _progress(left: list[dict[str, Any]]) -> str:
    from worker.text.values import on_one_line

    parts = []
    for row in left:
        deaf = row["state"] == "asked" and row["drain_asked_age_s"] > UNHEARD
        hint = f", doesn't hear (version {row['version']}): send it SIGTERM" if deaf else ""
        parts.append(f"{on_one_line(row['name'])}: {row['running']} running{hint}")
    return f"{len(left)} left: {'; '.join(parts)}"


def _as_json(asked: list[Asked], now: list[dict[str, Any]]) -> dict[str, Any]:
    verdicts = {one.worker["id"]: one.verdict for one in asked}
    names = ("id", "name", "host", "state", "running")
    return {
        "workers": [
            {**{name: row[name] for name in names}, "verdict": verdicts[row["id"]]} for row in now
        ],
        "left": sum(row["state"] != "stopped" for row in now),
    }
