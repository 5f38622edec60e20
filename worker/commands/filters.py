"""Which jobs: the options that `jobs` and everything that acts on many jobs at once share."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import completing
from worker.commands.common import configured_providers

if TYPE_CHECKING:
    from worker.store import Store
    from worker.store.listing import Filter

PANEL = "Which jobs"

Lanes = Annotated[
    list[str] | None,
    typer.Option(
        "--lane",
        metavar="LANE",
        rich_help_panel=PANEL,
        help="In this lane; `status` lists them. May be given again, as the next three.",
        autocompletion=completing.lanes,
    ),
]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="TABLE",
        rich_help_panel=PANEL,
        help="Of this table.",
        autocompletion=completing.tables,
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind", metavar="KIND", rich_help_panel=PANEL, help="Of this kind, such as media:video."
    ),
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        rich_help_panel=PANEL,
        help="ready, scheduled, running, held, completed, failed or cancelled; or unfinished, "
        "finished, all.",
        autocompletion=completing.states,
    ),
]
Tenant = Annotated[
    str | None,
    typer.Option(metavar="ID", rich_help_panel=PANEL, help="Of this customer."),
]
OlderThan = Annotated[
    str | None,
    typer.Option(
        metavar="AGE",
        rich_help_panel=PANEL,
        help="Queued longer ago than this, or over for longer: 90s, 30m, 2h, 7d.",
    ),
]
NewerThan = Annotated[
    str | None,
    typer.Option(metavar="AGE", rich_help_panel=PANEL, help="Queued, or over, since then."),
]
ErrorKind = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        rich_help_panel=PANEL,
        help="Whose last failed try was of this kind: rate_limit, transient, quota, auth, invalid, "
        "policy, allowance, gone, cancelled or unknown.",
        autocompletion=completing.error_kinds,
    ),
]
ErrorText = Annotated[
    str | None,
    typer.Option(
        "--error", metavar="TEXT", rich_help_panel=PANEL, help="Whose last error contains this."
    ),
]

_AGE = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def chosen(
    *,
    lane: Sequence[str] | None = None,
    source: Sequence[str] | None = None,
    kind: Sequence[str] | None = None,
    state: Sequence[str] | None = None,
    tenant: str | None = None,
    older_than: str | None = None,
    newer_than: str | None = None,
    error_kind: str | None = None,
    error: str | None = None,
) -> Filter:
    """What the options say; names of lanes and tables are looked at by `checked`."""
    from worker.store.listing import Filter

    return Filter(
        lanes=tuple(dict.fromkeys(lane or ())),
        sources=tuple(dict.fromkeys(source or ())),
        kinds=tuple(dict.fromkeys(kind or ())),
        states=_states(state or ()),
        tenant=tenant,
        older_than=None if older_than is None else age(older_than, "--older-than"),
        newer_than=None if newer_than is None else age(newer_than, "--newer-than"),
        error_kind=_error_kind(error_kind),
        error_text=error or None,
    )


async def checked(store: Store, which: Filter) -> Filter:
    """The same with every table by its own name; raises `UnknownName` for what isn't there."""
    from dataclasses import replace

    from worker.store import gates, listing

    sources = [await gates.known_source(store, source) for source in which.sources]
    await listing.know_lanes(store, which.lanes, configured_providers())
    return replace(which, sources=tuple(dict.fromkeys(sources)))


def _states(given: Sequence[str]) -> tuple[str, ...]:
    from worker.generate.lists import STATE_WORDS, STATES

    found = set[str]()
    for word in given:
        if word not in STATE_WORDS:
            known = ", ".join(STATE_WORDS)
            raise typer.BadParameter(f"--state {word}: there is no such state; there are {known}")
        found.update(STATE_WORDS[word])
    return tuple(state for state in STATES if state in found)


def age(text: str, option: str) -> timedelta:
    match = _AGE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(
            f"{option} {text}: say a number and a unit, as in 90s, 30m, 2h, 7d"
        )
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        return timedelta.max


def _error_kind(word: str | None) -> str | None:
    from jobs.contract import FailureKind

    known = [kind.value for kind in FailureKind]
    if word is not None and word not in known:
        raise typer.BadParameter(
            f"--error-kind {word}: there is no such kind; there are {', '.join(known)}"
        )
    return word
