"""What an act would do: the jobs that it is upon, those it can't be done to, and what it may cost."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from worker.commands import filters
from worker.commands.choosing import Chosen

if TYPE_CHECKING:
    from worker.acting import Act
    from worker.forecast import Forecast
    from worker.store import Store
    from worker.store.aims import Aim
    from worker.store.finding import Found
    from worker.store.listing import Filter

Making = Callable[["Store", "Sequence[Found]"], Awaitable["Act"]]
"""An act may have to be made for the jobs' tables: a priority is a number here, a word there."""


def always(act: Act) -> Making:
    async def making(_store: Store, _jobs: Sequence[Found]) -> Act:
        return act

    return making


@dataclass(frozen=True, slots=True)
class Plan:
    act: Act
    aims: list[Aim]
    refused: dict[Found, str]
    """Those of the aims that can't be acted on, and the verdict why."""
    forecast: Forecast
    states: tuple[str, ...]
    """Those that were asked for; none where jobs were named."""
    more: bool
    """More match than were let in."""

    @property
    def able(self) -> list[Aim]:
        return [aim for aim in self.aims if aim.job not in self.refused]


async def planned(store: Store, chosen: Chosen, making: Making, provider: str | None) -> Plan:
    from worker.store import aims as looking
    from worker.store import finding, forecasts

    states: tuple[str, ...] = ()
    if chosen.which is None:
        jobs, more = [await finding.find_one(store, named) for named in chosen.ids], False
        act = await making(store, jobs)
    else:
        act = await making(store, ())
        states = _states(chosen.which, act, narrowed=provider is not None)
        which = await filters.checked(store, replace(chosen.which, states=states))
        jobs, more = await _matching(store, which, chosen.limit)
        act = await making(store, jobs)
    aims = await looking.aims(store, jobs)
    if chosen.which is not None:
        named = chosen.which.states
        # What has changed since it was found is no match either.
        aims = [aim for aim in aims if aim.state in states and act.meant(aim, named)]
    if provider is not None:
        aims = [aim for aim in aims if provider in aim.calls.doubt_providers]
    refused = {aim.job: why for aim in aims if (why := act.refusal(aim)) is not None}
    forecast = await forecasts.forecast_of(
        store,
        [aim for aim in aims if aim.job not in refused],
        buys=act.buys,
        anew=act.anew,
        resubmits=act.resubmits,
    )
    return Plan(act, aims, refused, forecast, states, more)


def _states(which: Filter, act: Act, *, narrowed: bool) -> tuple[str, ...]:
    """Those asked for in which the act can do something; all of these where none is named."""
    from worker.store.listing import Filter

    states = tuple(state for state in which.states if state in act.reach) or act.states
    if which.states and not set(which.states) & set(act.reach):
        raise typer.BadParameter(
            f"{act.name} is for jobs that are {', '.join(act.reach)}: "
            f"not for --state {', '.join(which.states)}"
        )
    if not states:
        raise typer.BadParameter(
            f"which of them? --state {', --state '.join(act.reach)}: {act.name} pays for all of them"
        )
    every = set(states) >= set(act.states or act.reach)
    if every and not narrowed and replace(which, states=()) == Filter():
        raise typer.BadParameter(
            f"that is every job {act.name} is for: narrow it down, by --lane or --source at least"
        )
    return states


async def _matching(store: Store, which: Filter, limit: int | None) -> tuple[list[Found], bool]:
    from worker.store import listing
    from worker.store.finding import Found

    jobs: list[Found] = []
    after: str | None = None
    while limit is None or len(jobs) < limit:
        page = listing.MANY if limit is None else min(listing.MANY, limit - len(jobs))
        places, after = await listing.found(store, which, limit=page, after=after)
        jobs += [Found(place.source, place.key) for place in places]
        if after is None:
            break
    return jobs, after is not None
