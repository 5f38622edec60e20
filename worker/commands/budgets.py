"""rowmill budget: show, set, unset."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands import completing
from worker.commands.common import (
    NOT_DONE,
    AsJson,
    cents,
    configured_providers,
    print_json,
    who,
    with_store,
)

if TYPE_CHECKING:
    from worker.store import Store

app = typer.Typer(no_args_is_help=True, help="Limit what providers may be paid.")

Lane = Annotated[
    str | None, typer.Argument(help="A lane, such as openai.", autocompletion=completing.lanes)
]
All = Annotated[bool, typer.Option("--all", help="What is paid in all lanes together.")]
Cents = Annotated[str | None, typer.Option(metavar="CENTS", help="US cents.")]


@app.command()
def show(as_json: AsJson = False) -> None:
    """
    What may be spent, what is spent, and how many jobs wait for more.

    rowmill budget show

    rowmill budget show --json | jq '.budgets[] | select(.waiting > 0)'
    \f
    With `--json`: `{"budgets": [{"lane", "period", "limit_cents", "used_cents", "renewed_at", "waiting"}]}`.
    """
    from worker.store.budgets import budgets

    found = with_store(budgets)
    if as_json:
        print_json({"budgets": found})
    else:
        from worker.text.providers import print_budgets

        print_budgets(found)


@app.command("set")
def set_(
    lane: Lane = None,
    every: All = False,
    day: Cents = None,
    month: Cents = None,
    as_json: AsJson = False,
) -> None:
    """
    Limit a lane, or everything, per day or month of UTC.

    What a call is expected to cost is reserved before it is made, and settled when it ends. A job
    whose call would go over the limit waits for the next day or month, without losing a try.

    rowmill budget set replicate --day 5000

    rowmill budget set --all --day 10000 --month 200000
    \f
    The limit holds for any number of workers: what a call is expected to cost is reserved together with its intent. Waiting jobs go on at once when a limit is raised or gone.
    With `--json`: `{"lane", "limits": {"day", "month"}}`, of what was named; lane `*` is everything.
    """
    from worker.store.budgets import set_budget

    where, limits, known = _lane(lane, every), _limits(day, month), configured_providers()

    async def work(store: Store) -> None:
        for period, limit in limits.items():
            await set_budget(store, where, period, limit, who(), providers=known)

    with_store(work)
    if as_json:
        print_json({"lane": where, "limits": {p: f"{limit:f}" for p, limit in limits.items()}})
        return
    for period, limit in limits.items():
        typer.echo(f"{_called(where)}: at most {limit:f} cents a {period}")


@app.command()
def unset(lane: Lane = None, every: All = False, as_json: AsJson = False) -> None:
    """
    Take the limits of a lane, or of everything, away again.

    rowmill budget unset replicate
    \f
    With `--json`: `{"lane", "unset": ["day", "month"]}`, those that there were. The exit code is 1 if there was none.
    """
    from worker.store.budgets import unset_budget

    where = _lane(lane, every)

    async def work(store: Store) -> list[str]:
        return [p for p in ("day", "month") if await unset_budget(store, where, p, who())]

    gone = with_store(work)
    if as_json:
        print_json({"lane": where, "unset": gone})
    elif gone:
        typer.echo(f"{_called(where)}: no limit a {' or '.join(gone)} any more")
    else:
        typer.echo(f"{_called(where)} had no budget")
    if not gone:
        raise typer.Exit(NOT_DONE)


def _lane(lane: str | None, every: bool) -> str:
    if every == (lane is not None):
        raise typer.BadParameter("name a lane, or --all")
    return lane or "*"


def _called(lane: str) -> str:
    return "everything" if lane == "*" else f"lane {lane}"


def _limits(day: str | None, month: str | None) -> dict[str, Decimal]:
    given: dict[str, Any] = {"day": day, "month": month}
    limits = {period: cents(value) for period, value in given.items() if value is not None}
    if not limits:
        raise typer.BadParameter("say how much: --day CENTS, --month CENTS, or both")
    return limits
