"""rowmill reconcile."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands import completing
from worker.commands.common import NOT_DONE, OK, AsJson, print_json, who, with_store

if TYPE_CHECKING:
    from worker.store import Store

UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def reconcile(
    provider: Annotated[
        str | None,
        typer.Argument(
            help="Only this one; default: all that are configured here.",
            autocompletion=completing.providers,
        ),
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
    \f
    All providers of this configuration are asked, or one. It reads; only with `--apply` does it write down what it found, and it never sends anything. `--since` (`90m`, `24h`, `7d`, or an ISO 8601 time) is how far back
    tasks are compared; calls in doubt are looked for as far back as they go. With `--json`:

        {"at", "applied", "left",
         "providers": [{"provider", "account", "asked", "why", "since", "tasks", "left",
                        "in_doubt":    [{"submission", "job", "step", "queued", "intended_at", "estimate_cents",
                                         "verdict", "why", "external_id", "done"}],
                        "strangers":   {"count", "tasks": [{"external_id", "created_at", "models", "phase"}]},
                        "ended":       {"count", "calls": [{"submission", "job", "step", "external_id", "phase"}]},
                        "differences": {"count", "calls": [{"submission", "job", "step", "external_id", "what", "ours", "theirs"}]}}]}

    `asked` is `listed`, `no_list` (it has none), `silent` (it doesn't answer now) or `not_configured`. `in_doubt` holds calls that may have been accepted, also of jobs that were
    cancelled, failed or deleted; each has a verdict:

    | verdict | what it means | what `--apply` does |
    |---|---|---|
    | `found` | the provider has it | records its id: the job resumes it; of a job that is over, maintenance ends it or delivers it late |
    | `absent` | the provider never had it, and whoever sent it can't hear of it any more | writes it off, unpaid |
    | `dropped` | nobody can be asked, its job is over, and it costs at most `ROWMILL_RESUBMIT_UP_TO_CENTS` | writes it off, its cost unknown |
    | `waits` | its job runs or will run, and decides; or it is too early to say | nothing |
    | `person` | nobody can be asked, and it is dear | nothing: `rowmill resolve` |
    | `unasked` | its provider or account isn't configured here, or doesn't answer | nothing |

    A held job whose calls are all known after that goes on. `strangers` are tasks that the ledger doesn't know: spent by others with the same account, or calls whose journal was lost.
    `ended` are accepted calls that are over there: a worker takes them up. `differences` are calls that ended here, and otherwise (`what` is `state` or `cost_cents`, by the prices of
    this configuration) or not at all (`task`) in the list. At most a hundred of each are told. The exit code is 1 while `left` isn't 0: strangers, differences, a silent provider, and
    calls in doubt that neither wait nor were written down.
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
