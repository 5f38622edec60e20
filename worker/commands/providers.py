"""rowmill providers."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from worker.commands.common import NOT_DONE, OK, AsJson, print_json, with_store

if TYPE_CHECKING:
    from worker.store import Store


def providers(as_json: AsJson = False) -> None:
    """
    Who can be paid: every provider of this configuration, whether it works, and what it costs.

    Exits with 1 when a configured one is broken: all its latest calls failed for reasons no task
    can help, such as a refused key or an empty account. Keys are never shown.

    rowmill providers

    rowmill providers --json | jq '.providers[] | select(.state == "broken")'
    """
    from jobs.providers.registry import build_providers
    from worker.commands.problems import a_wrong_setting
    from worker.providers import report
    from worker.settings import Settings

    with a_wrong_setting():
        built = build_providers(Settings().providers)

    async def work(store: Store) -> list[dict[str, Any]]:
        return await report(store, built)

    found = with_store(work)
    if as_json:
        print_json({"providers": found})
    else:
        from worker.text.providers import print_providers

        print_providers(found)
    raise typer.Exit(NOT_DONE if any(row["state"] == "broken" for row in found) else OK)
