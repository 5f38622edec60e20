"""rowmill pause, resume and limit."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import completing
from worker.commands.common import (
    NOT_DONE,
    AsJson,
    configured_providers,
    print_json,
    who,
    with_store,
)

if TYPE_CHECKING:
    from worker.store import Store, gates

MOST = 2**31 - 1

Lane = Annotated[
    str | None,
    typer.Argument(
        help="A lane, such as openai; `status` lists them.", autocompletion=completing.lanes
    ),
]
Table = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="TABLE",
        help="Only jobs of this table.",
        autocompletion=completing.tables,
    ),
]
All = Annotated[bool, typer.Option("--all", help="Everything.")]
PerMinute = Annotated[int | None, typer.Option(min=1, max=MOST, help="Of all workers together.")]
Reason = Annotated[str | None, typer.Option(help="Shown by `status` and `job show`.")]


def pause(
    lane: Lane = None,
    source: Table = None,
    every: All = False,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """
    Stop claiming from a lane, a table, one lane of one table, or everything.

    Jobs that already run are finished; new ones wait, in order, until `rowmill resume`. With --all
    running jobs make no new paid calls either.

    rowmill pause replicate --reason "credits used up"

    rowmill pause --source generation_jobs

    rowmill pause openai --source ai_generations

    rowmill pause --all
    \f
    `LANE` and `--source` together pause one lane of one table. A provider of the configuration is a lane, too, before anything waits there. A name that nobody knows is refused, with the nearest
    one that is known. With `--json`: `{"paused", "lane", "source"}`; `*` stands for all.
    """
    from worker.store import gates

    at, known = _gate(lane, source, every), configured_providers()

    async def work(store: Store) -> None:
        await gates.pause(
            store, lane=at[0], source=at[1], who=who(), reason=reason, providers=known
        )

    with_store(work)
    gate = gates.Gate(*at)
    if as_json:
        print_json({"paused": gate.subject, "lane": gate.lane, "source": gate.source})
    else:
        typer.echo(f"{gate.subject} is paused; what runs is finished")


def resume(
    lane: Lane = None,
    source: Table = None,
    every: All = False,
    as_json: AsJson = False,
) -> None:
    """
    Take back a pause: name the lane or table as it was paused.

    What a breaker or a used-up rate has closed is tried again at once. A pause on something else
    that also matches still holds, and is named.

    rowmill resume replicate

    rowmill resume --all
    \f
    The pauses that are left are named, those of a platform too; only the platform opens those. The exit code is 1 if there was nothing to take back. With `--json`: `{"resumed", "subject", "still_paused"}`.
    """
    from worker.store import gates

    at, known = _gate(lane, source, every), configured_providers()

    async def work(store: Store) -> tuple[bool, list[gates.Gate]]:
        resumed = await gates.resume(store, lane=at[0], source=at[1], who=who(), providers=known)
        return resumed, await gates.paused_gates(store)

    resumed, left = with_store(work)
    subject, still = gates.Gate(*at).subject, [gate.subject for gate in left]
    if as_json:
        print_json({"resumed": resumed, "subject": subject, "still_paused": still})
    else:
        typer.echo(f"{subject} is resumed" if resumed else f"{subject} was not paused")
        if still:
            typer.echo(f"still paused: {', '.join(still)}")
    if not resumed:
        raise typer.Exit(NOT_DONE)


def limit(
    lane: Lane = None,
    amount: Annotated[
        int | None, typer.Argument(metavar="N", min=1, max=MOST, help="As --running N.")
    ] = None,
    *,
    source: Table = None,
    every: All = False,
    running: Annotated[int | None, typer.Option(min=1, max=MOST, help="Jobs at a time.")] = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: PerMinute = None,
    none: Annotated[bool, typer.Option("--none", help="Take the limits set here away.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Limit how many jobs run at a time, and how fast providers are asked.

    A number alone is that of jobs at a time. Rates count paid requests, and their tokens as
    estimated. What isn't named stays as it is. Other limits that match hold too: of the
    configuration, of the platform, of other names.

    rowmill limit replicate 5

    rowmill limit openai --requests-per-minute 500 --tokens-per-minute 200000

    rowmill limit --source generation_jobs --running 20

    rowmill limit openai --none
    \f
    Limits hold for all workers together, within seconds. Limits of the configuration, of the platform and of other names that match hold beside them: the strictest wins. With `--json`, as they are now:
    `{"subject", "lane", "source", "max_running", "requests_per_minute", "tokens_per_minute"}`. See [rates](providers.md#rates).
    """
    from worker.store import gates

    lane, running = _of_how_many(lane, amount, running, named=every or source is not None)
    at = _gate(lane, source, every)
    values = (running, requests_per_minute, tokens_per_minute)
    given: dict[str, int | None] = dict.fromkeys(gates.LIMITS)
    if not none:
        named = zip(gates.LIMITS, values, strict=True)
        given = {name: value for name, value in named if value is not None}
    if not given or (none and any(values)):
        raise typer.BadParameter(
            "say how much: a number or --running, --requests-per-minute, --tokens-per-minute, or --none"
        )

    async def work(store: Store) -> dict[str, int | None]:
        return await gates.limit(store, given, lane=at[0], source=at[1], who=who())

    now, gate = with_store(work), gates.Gate(*at)
    if as_json:
        print_json({"subject": gate.subject, "lane": gate.lane, "source": gate.source, **now})
    else:
        said = [f"{value} {_LIMITED[name]}" for name, value in now.items() if value is not None]
        typer.echo(f"{gate.subject}: {', '.join(said) or 'no limit set here any more'}")


_LIMITED = {
    "max_running": "at a time",
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
}


def _of_how_many(
    lane: str | None, amount: int | None, running: int | None, *, named: bool
) -> tuple[str | None, int | None]:
    """Lane and limit; of what is named by an option, a number that stands alone is the limit."""
    if named and amount is None and lane and lane.isdecimal():
        amount, lane = int(lane), None
        if not 1 <= amount <= MOST:
            raise typer.BadParameter(f"{amount} is no number of jobs")
    if amount is not None and running is not None:
        raise typer.BadParameter("say the number of jobs once: as N or as --running N")
    return lane, running if amount is None else amount


def _gate(lane: str | None, source: str | None, every: bool) -> tuple[str, str]:
    if every == (lane is not None or source is not None):
        raise typer.BadParameter("name a lane, a table with --source, both, or --all")
    return lane or "*", source or "*"
