"""What `rowmill providers` tells: each provider of this configuration, and what its ledger says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.providers.registry import ADAPTERS, Provider
from worker.redaction import without_secrets
from worker.store import Store, calls, reports
from worker.store.budgets import budgets
from worker.store.gates import EVERY, Gate

Row = dict[str, Any]


async def report(store: Store, providers: Mapping[str, Provider]) -> list[Row]:
    """One row per provider of the configuration, then one per adapter that has none of its name."""
    spent, opened = await calls.spent(store), await calls.still_open(store)
    broken, gates, limits = (
        await calls.broken(store),
        await reports.gates_of(store),
        await budgets(store),
    )
    rows = []
    for name in [*sorted(providers), *sorted(ADAPTERS.keys() - providers.keys())]:
        provider = providers.get(name)
        mine = [gate for gate in gates if gate["lane"] in (EVERY, name)]
        state, why = _state(provider, mine, broken)
        adapter = provider.adapter if provider else ADAPTERS[name]
        account = provider.account if provider else None
        money, open_ = spent.get(name, calls.Spent()), opened.get(name, calls.Open())
        rows.append(
            {
                "provider": name,
                "adapter": adapter.name,
                "state": state,
                "why": without_secrets(why) if why else None,
                "account": account.name if account else None,
                "base_url": without_secrets(account.base_url if account else adapter.base_url),
                "models": dict(account.models if account else adapter.models),
                "limits": [*_configured(provider), *filter(_limits, map(_limit, mine))],
                "slow_until": max((g["slow_until"] for g in mine if g["slow_until"]), default=None),
                "budgets": [budget for budget in limits if budget["lane"] in (EVERY, name)],
                "spend_cents_today": f"{money.today:f}",
                "spend_cents_month": f"{money.month:f}",
                "open_calls": open_.calls,
                "open_cents": f"{open_.cents:f}",
            }
        )
    return rows


def _state(
    provider: Provider | None, gates: Sequence[Row], broken: Mapping[calls.Who, str]
) -> tuple[str, str | None]:
    """The first that holds. A pause comes before what it may have been made for."""
    if provider is None:
        return "not configured", None
    variable = f"ROWMILL_PROVIDERS__{provider.name.upper()}__API_KEY"
    if not provider.account.api_key:
        return "key missing", f"set {variable}"
    for gate in gates:
        if gate["paused"] and gate["source"] == EVERY:
            what = Gate(gate["lane"]).subject
            reason = f": {gate['pause_reason']}" if gate["pause_reason"] else ""
            return "paused", f"{what} is paused by {gate['paused_by']}{reason}"
    for gate in gates:
        if gate["closed_why"] and gate["lane"] == provider.name:
            what = Gate(gate["lane"], gate["source"]).subject
            return "paused", f"{what} is closed by its platform: {gate['closed_why']}"
    for gate in gates:
        if gate["broken"]:
            until = f"{gate['broken_until'][:19]}Z"
            return "broken", f"left alone until {until}: {gate['broken_why']}"
    why = broken.get((provider.name, provider.account.name))
    return ("broken", why) if why else ("configured", None)


RATES = ("requests_per_minute", "tokens_per_minute")


def _configured(provider: Provider | None) -> list[Row]:
    rates = {name: getattr(provider, name, None) for name in RATES}
    return (
        [{"of": "this configuration", "max_running": None, **rates}] if any(rates.values()) else []
    )


def _limit(gate: Row) -> Row:
    subject = Gate(gate["lane"], gate["source"]).subject
    return {"of": subject, "max_running": gate["most"], **{name: gate[name] for name in RATES}}


def _limits(limit: Row) -> bool:
    return any(limit[name] is not None for name in ("max_running", *RATES))
