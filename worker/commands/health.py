"""rowmill doctor."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from worker.commands.common import AsJson, print_json, with_store

if TYPE_CHECKING:
    from worker.store import Store


def doctor(as_json: AsJson = False) -> None:
    """
    Look for what could lose a job or pay twice: the database's settings, our tables, keys, money.

    Changes nothing. Exits with 0 if all is well or only worth knowing, with 1 for warnings, with 2
    for errors.

    rowmill doctor

    rowmill doctor --json | jq '.findings[] | select(.severity == "error")'
    """
    from worker.doctor import RESULT, examine
    from worker.settings import Settings

    settings = Settings()

    async def work(store: Store) -> dict[str, Any]:
        return await examine(store, settings)

    report = with_store(work)
    if as_json:
        print_json(report)
    else:
        for finding in report["findings"]:
            typer.echo(f"{finding['severity']}: {finding['subject']}: {finding['evidence']}")
            typer.echo(f"  {finding['id']}: {finding['fix']}")
        if not report["findings"]:
            typer.echo("Nothing found.")
    raise typer.Exit(RESULT[report["worst"]])
