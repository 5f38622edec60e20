"""What an act may cost, from the ledger: what these jobs have, what such jobs cost, what is left to spend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from worker.forecast import Forecast, Group, History, forecast, group_of, history_of
from worker.store.aims import Aim
from worker.store.budgets import budgets
from worker.store.reading import stored_query
from worker.store.store import Store


async def forecast_of(
    store: Store,
    aims: Sequence[Aim],
    *,
    buys: bool,
    anew: bool = False,
    resubmits: bool = False,
) -> Forecast:
    """`buys`, `anew`, `resubmits`: see worker.forecast."""
    if not buys:
        return forecast(aims, {}, buys=False)
    groups = dict.fromkeys(group_of(aim) for aim in aims)
    return forecast(
        aims,
        await _histories(store, groups),
        buys=True,
        anew=anew,
        resubmits=resubmits,
        budgets=await _left(store, {lane for _, lane, _ in groups}),
    )


async def _histories(store: Store, groups: Iterable[Group]) -> dict[Group, History | None]:
    found: dict[Group, History | None] = dict.fromkeys(groups)
    for source, lane in dict.fromkeys((source, lane) for source, lane, _ in found):
        rows = await store.fetch(stored_query("paid_lately"), source, lane)
        jobs: dict[tuple[str, int], dict[str, Decimal]] = defaultdict(dict)
        for row in rows:
            jobs[row["key"], row["run"]][row["step"]] = row["cents"]
        kinds = await _kinds(store, source, {key for key, _ in jobs})
        by_kind: dict[str, list[dict[str, Decimal]]] = defaultdict(list)
        for (key, _), steps in jobs.items():
            if key in kinds:
                by_kind[kinds[key]].append(steps)
        for group in found:
            if group[:2] == (source, lane):
                found[group] = history_of(by_kind[group[2]])
    return found


async def _kinds(store: Store, source: str, keys: set[str]) -> dict[str, str]:
    """Of those whose row is still there, and says that it was completed."""
    if not keys:
        return {}
    rows = await store.fetch(
        f"SELECT key, kind FROM rowmill.about_{source}($1) WHERE state = 'completed'", sorted(keys)
    )
    return {row["key"]: row["kind"] for row in rows}


async def _left(store: Store, lanes: set[str]) -> list[dict[str, Any]]:
    """What these lanes may still spend."""
    return [
        {
            "lane": b["lane"],
            "period": b["period"],
            "limit_cents": b["limit_cents"],
            "left_cents": f"{max(Decimal(b['limit_cents']) - Decimal(b['used_cents']), Decimal(0)):f}",
        }
        for b in await budgets(store)
        if b["lane"] in lanes or b["lane"] == "*"
    ]
