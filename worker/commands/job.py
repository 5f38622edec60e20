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
        help="The row's key, or TABLE/KEY where two tables share it.",
        autocompletion=completing.jobs,
    ),
]


@app.command()
def show(job_id: Id, as_json: AsJson = False) -> None:
    """
    The whole story of a job: why it waits, its tries, what was paid, who did what.

    rowmill job show 9e0f06a0-22a3-4071-9831-b02b6524d6af

    rowmill job show generation_jobs/9e0f06a0-22a3-4071-9831-b02b6524d6af --json
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
