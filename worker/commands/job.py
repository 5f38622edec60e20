"""rowmill job: one job's story."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import completing
from worker.commands.common import AsJson, print_json, with_store

if TYPE_CHECKING:
    from worker.store import Store

app = typer.Typer(no_args_is_help=True, help="Look at single jobs.")

Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The row's key; TABLE/KEY where two tables share it; how a uuid begins (six digits or "
        "more); or the id of its task at a provider.",
        autocompletion=completing.jobs,
    ),
]


@app.command()
def show(job_id: Id, as_json: AsJson = False) -> None:
    """
    The whole story of a job: why it waits, its tries, what was paid, who did what.

    Of a job that waits: the reason, how many are before it, when it may start at the earliest, an
    estimate of when it will, and the commands that change it. Exits with 1 if there is no such job.

    rowmill job show 9e0f06a0-22a3-4071-9831-b02b6524d6af

    rowmill job show 9e0f06a0

    rowmill job show generation_jobs/9e0f06a0-22a3-4071-9831-b02b6524d6af --json
    \f
    With `--json`:

        {"source", "key", "platform", "relation", "status", "progress", "error", "why", "ahead",
         "explanation": {"reason", "why", "subject", "ahead", "may_start_at",
                         "estimated_start_at", "commands"},
         "queue":       {"id", "state", "lane", "rank", "run", "tries", "yields", "ready_at",
                         "enqueued_at", "claimed_at", "worker", "heartbeat_age_s", "tenant",
                         "note"},
         "timings":     {"enqueued_at", "started_at", "ended_at", "waited_s", "ran_s"},
         "runs":        [{"run", "began_at", "ended_at", "ran_s", "calls", "failed_tries",
                          "cost_cents"}],
         "failures":    [{"at", "lane", "run", "try", "final", "kind", "code", "provider",
                          "message"}],
         "submissions": [{"id", "run", "step", "attempt", "provider", "account", "model", "state",
                          "external_id", "estimate_cents", "cost_cents", "error", "intended_at",
                          "accepted_at", "ended_at", "delivered_at", "took_s"}],
         "spent_cents", "open_cents",
         "outputs":     [{"role", "key", "url", "mime_type", "size", "sha256", …}],
         "delivered":   {COLUMN: VALUE},
         "actions":     [{"at", "who", "action", "detail"}],
         "row":         {COLUMN: VALUE}}

    `queue` is null once a job is over, `row` once its row is deleted. `status`, `progress` and
    `error` are what the row says, by its map. `timings` are of the latest run, as far as they
    are recorded: by the queue while it is unfinished, then by the row's own columns. `outputs`
    are the files that the latest run's paid calls brought, `delivered` the columns of the row
    that hold a result. `spent_cents` is what is known to have been paid, `open_cents` what calls
    that haven't ended are expected to cost, null where there are none.

    `explanation` is the same in arq's `get` (see [arq](arq.md)) and, without `commands`, in the
    view `rowmill.waiting`. `why` is in words, `subject` is what it is about (`lane replicate`,
    `worker a1`). `ahead` is how many ready jobs of its lane are taken before it, of all tables
    of the lane that are open; 10000 is that many or more; null unless it is ready.
    `may_start_at` is when it may start at the earliest, null where nobody knows.
    `estimated_start_at` is an estimate, from what its lane got done in the last quarter of an
    hour: null if that was nothing, and where someone has to do something first; where `ahead`
    is 10000, not before that. `commands` may change it; N, CENTS and PRIORITY are to be filled in.
    `reason` is one of:

    | reason | the job |
    |---|---|
    | `turn` | is ready, and waits for nothing but those before it |
    | `scheduled` | has a time of its own in its row |
    | `retry` | came back after a failure, its own or its provider's, and is tried again |
    | `budget` | waits until a used-up budget is renewed, or raised |
    | `rate` | waits: its provider was asked as often as it may be |
    | `breaker` | waits: its lane's provider fails, and is left alone or tried by one job |
    | `full` | waits: as many run as a limit allows |
    | `paused` | waits until somebody resumes what is paused |
    | `closed` | waits: the platform's own tables close its lane |
    | `unserved` | waits: no live worker serves its lane, or none may on this database |
    | `no_worker` | waits: no worker is running |
    | `locked` | waits half a second: its row was locked when it was to start |
    | `held` | is held for a person |
    | `running` | runs |
    | `worker_silent`, `worker_gone` | was running: another worker takes it back |
    | `unqueued` | is in no queue: a trigger was off, and the sweep finds it; or it says that it runs, and nobody here runs it |
    | `over`, `missing` | is over; its row is gone |
    """
    from worker.store import finding, story

    async def work(store: Store) -> dict[str, object]:
        job = await finding.find_one(store, job_id)
        return await story.job(store, job.source, job.key)

    told = with_store(work)
    if as_json:
        print_json(told)
    else:
        from worker.text.job import print_job

        print_job(told)
