"""rowmill status and version."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from typing import Annotated

import typer

from worker.commands.common import NOT_DONE, OK, AsJson, print_json, with_store


def status(as_json: AsJson = False) -> None:
    """
    The fleet at a glance: what waits, runs and fails, in which lane, and who works.

    Exits with 1 when something needs a person, and says what to do; a pause doesn't, it is meant.

    rowmill status

    rowmill status --json | jq .needs_person
    """
    from worker.store import reports

    report = with_store(reports.status)
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
