"""rowmill status and version."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands import completing
from worker.commands.common import (
    NOT_DONE,
    OK,
    AsJson,
    configured_providers,
    print_json,
    with_store,
)

if TYPE_CHECKING:
    from worker.store import Store


def status(
    lane: Annotated[
        str | None,
        typer.Option(help="Only this lane, such as openai.", autocompletion=completing.lanes),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Only this table.", autocompletion=completing.tables)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    The fleet at a glance: what waits, runs and fails, in which lane, and who works.

    Exits with 1 when something needs a person, and says what to do; a pause doesn't, it is meant.
    In a terminal there are colours (unless NO_COLOR is set), bars and sparklines, and as many columns
    as fit; in a pipe plain text with all of them, nothing cut off.

    rowmill status

    rowmill status --lane openai

    rowmill status --json | jq .needs_person
    \f
    With `--lane` or `--source` it tells only what concerns these, and of what needs a person everything.
    It costs the same however much waits, and needs the database alone. With `--json`:

        {"at", "version",
         "database":  {"name", "server_version", "pooler", "oldest_transaction_s"},
         "lanes":     [{"lane", "source", "ready", "scheduled", "running", "held",
                        "ready_estimated", "scheduled_estimated", "held_estimated",
                        "limit", "requests_per_minute", "tokens_per_minute", "slow_until",
                        "paused", "paused_by", "pause_reason", "broken_until", "broken_why",
                        "failed_last_hour", "oldest_wait_s", "per_minute_in", "per_minute_out", "out_history",
                        "wait_p50_ms", "wait_p95_ms", "run_p50_ms", "run_p95_ms", "spend_cents_today"}],
         "sources":   [{"source", "platform", "relation", "gone", "running", "limit", "paused", "missing_triggers", "unserved"}],
         "workers":   [{"id", "name", "host", "state", "version", "slots", "running", "claims", "started_at",
                        "heartbeat_age_s", "alive", "draining", "lanes"}],
         "providers": [{"provider", "lane", "state", "why", "spend_cents_today", "open_calls", "failed_last_hour"}],
         "budgets":   [{"lane", "period", "limit_cents", "used_cents", "renewed_at", "waiting"}],
         "unserved":  [{"source", "lane", "kind", "waiting", "estimated", "paused", "why"}],
         "history":   {"seconds", "started": [], "succeeded": [], "failed": [], "wait_p50_ms": []},
         "needs_person": [{"kind", "subject", "message", "commands"}],
         "notices":      [{"kind", "subject", "message", "commands"}]}

    One entry of `lanes` per lane and source (a lane that is only paused or limited, and idle, has
    source `*` or the one its gate names). `limit` is the lowest one that holds for it, and so are its
    rates; `slow_until` is when a used-up rate lets the lane be claimed from again. `paused` is true if
    any pause does, an operator's or a platform's. Percentiles are of the last hour, from histograms
    over powers of two milliseconds. Money is a decimal string of US cents; a day begins at midnight
    UTC. `oldest_transaction_s` is null where the role may not see other sessions.

    Counts are exact up to some hundreds or thousands, by how many lanes there are. Where
    `ready_estimated`, `scheduled_estimated` or `held_estimated` is true, much more is in the queue,
    and the count is what evenly spaced pages of it tell: within about a fifth for a lane that holds at
    least a hundredth of all. The view `rowmill.backlog` counts exactly, and takes its time.

    `per_minute_in` is how many rows were enqueued in the last minute, of those that are unfinished or
    were finished by a worker; it lags by the two seconds between a worker's reports. `per_minute_out`
    is how many jobs completed or finally failed in it. `out_history` is the same over the last hour,
    in 30 parts of two minutes, the oldest first, the last one up to now. `history` is of the whole
    fleet, in parts of so many `seconds`; `wait_p50_ms` is null where nothing started.

    `running` of a worker is how many of its slots are used, by its own last word, `claims` how many
    jobs it holds, by the queue. One that is gone is listed while it holds any. `host` is the machine it
    runs on, null of a version that didn't say.

    `providers` are those that live workers serve, that have a gate, or that were called lately, by
    the database alone (`rowmill providers` knows this shell's configuration, too). `state` is `ok`,
    `paused`, `broken` or `rate used up`, and `failed_last_hour` counts failed tries. `unserved` is what
    waits in a lane that no live worker serves, also while it is paused; `why` is what the database
    lacks for it, or null.

    `needs_person` is empty while all is well, and the exit code is 1 while it isn't:

    | kind | what it means | what to do |
    |---|---|---|
    | `missing_table` | an attached table is gone | make it again, or `rowmill detach` |
    | `missing_triggers` | an attached table lost a trigger: rows are only found by the slow sweep | `rowmill attach` again |
    | `unresolved_payment` | a call may have been paid, its worker is gone, and no job looks after it (the first five, then how many more) | `rowmill reconcile`; else look at the provider, then `rowmill resolve` or `retry` |
    | `no_workers` | jobs wait and no worker is alive | `rowmill run` |
    | `unserved` | jobs wait in a lane no live worker serves, with the reason where there is one | configure its provider or handler, or pause the lane |
    | `provider` | a provider refuses its key, or its account is empty | mend it there, then `rowmill resume` |
    | `held` | a job waits for a decision (the first five, then how many more, and why) | `rowmill job show`, then `retry` or `cancel`; `resolve` where it says that a call's fate is unknown |

    `notices` holds what is worth knowing and meant: pauses with work behind them (`paused`), lanes with
    work behind them that the platform's own tables close (`closed`; only the platform opens them
    again), lanes whose provider fails and is left alone (`breaker`), and budgets that jobs wait for
    (`budget`).
    """
    from worker.store import reports
    from worker.store.gates import EVERY, known_gate

    known = configured_providers() if lane else ()

    async def work(store: Store) -> dict[str, Any]:
        gate = await known_gate(store, lane or EVERY, source or EVERY, known)
        report = await reports.status(store)
        return reports.narrowed(report, lane=gate.lane, source=gate.source)

    report = with_store(work)
    if as_json:
        print_json(report)
    else:
        from worker.text.status import print_status

        print_status(report)
    raise typer.Exit(NOT_DONE if report["needs_person"] else OK)


def say_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


def main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=say_version, is_eager=True, help="The version of this program."
        ),
    ] = False,
) -> None:
    """Options that stand before any command."""


def version(as_json: AsJson = False) -> None:
    """
    The version of this program.

    rowmill version

    rowmill --version
    """
    from worker import __version__

    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(f"rowmill {__version__}")
