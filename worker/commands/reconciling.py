"""rowmill reconcile."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.common import NOT_DONE, OK, AsJson, print_json, who, with_store

if TYPE_CHECKING:
    from worker.store import Store

UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def reconcile(
    provider: Annotated[
        str | None, typer.Argument(help="Only this one; default: all that are configured here.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Compare from then on: 90m, 24h (default), 7d, or ISO."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write down what was found out; sends nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Compare the ledger with the providers' own lists of tasks, where they have one.

    Calls in doubt, also of jobs that are over, are looked for there; tasks that the ledger doesn't
    know, and calls that ended otherwise, are listed. Without --apply nothing is changed. Exits with
    1 while something is left to apply, or to be looked at by a person.

    rowmill reconcile

    rowmill reconcile replicate --since 7d --apply
    """
    from worker import logs
    from worker.commands.problems import PlainError, a_wrong_setting
    from worker.paying import charges_of, providers_of
    from worker.settings import Settings

    settings, start = Settings(), _moment(since) if since else None
    logs.configure("warning", settings.log_format)
    with a_wrong_setting():
        providers, charges = providers_of(settings), charges_of(settings)
    if provider is not None and provider not in providers:
        known = ", ".join(sorted(providers)) or "none"
        variable = f"ROWMILL_PROVIDERS__{provider.upper()}__API_KEY"
        raise PlainError(
            f"provider {provider!r} has no key here (there are: {known}): set {variable}"
        )

    async def work(store: Store) -> dict[str, Any]:
        import httpx

        from jobs.providers.transport import AiohttpTransport
        from jobs.providers.wire import Wire
        from worker.ledger import ClaimJournal, Lease, Ledger
        from worker.reconciling import Reconciler

        ledger = Ledger(store, Lease(settings.lease_seconds))
        async with httpx.AsyncClient(transport=AiohttpTransport(limit=10)) as client:
            reconciler = Reconciler(
                store=store,
                journal=ClaimJournal(ledger, queue_id=0, token=0, worker=0),
                providers=providers,
                wire=Wire(client),
                charges=charges,
                lease=settings.lease_seconds,
                resubmit_up_to=settings.resubmit_up_to_cents,
                who=who(),
            )
            return await reconciler.run(provider, start, apply=apply)

    report = with_store(work)
    if as_json:
        print_json(report)
    else:
        from worker.text.reconciling import print_reconciled

        print_reconciled(report)
    raise typer.Exit(NOT_DONE if report["left"] else OK)


def _moment(text: str) -> datetime:
    ago = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if ago:
        return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither like 24h nor an ISO 8601 time") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
