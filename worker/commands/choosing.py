"""Which jobs an act is upon: the arguments and options that every act has."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands import completing, filters
from worker.commands.common import AsJson

if TYPE_CHECKING:
    from worker.store.listing import Filter


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which jobs, and how they are gone about."""

    ids: tuple[str, ...]
    which: Filter | None
    """None where jobs are named."""
    limit: int | None
    dry_run: bool
    yes: bool
    as_json: bool

    @property
    def single(self) -> bool:
        return len(self.ids) == 1


def _shared(
    *,
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help="Rows' keys; TABLE/KEY where two tables share one.",
            autocompletion=completing.jobs,
        ),
    ] = None,
    lane: filters.Lanes = None,
    source: filters.Sources = None,
    kind: filters.Kinds = None,
    state: filters.States = None,
    tenant: filters.Tenant = None,
    older_than: filters.OlderThan = None,
    newer_than: filters.NewerThan = None,
    error_kind: filters.ErrorKind = None,
    error: filters.ErrorText = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=filters.PANEL, help="At most so many of them."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell which jobs and what cost; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """The options of every act."""


_SHARED = inspect.signature(_shared, eval_str=True).parameters


def upon_jobs(command: Callable[..., None]) -> Callable[..., None]:
    """A command over chosen jobs: its own options, and those that choose."""

    def call(**given: Any) -> None:
        shared = {name: given.pop(name) for name in _SHARED}
        narrowed = given.get("provider") is not None
        command(_chosen(command.__name__, narrowed=narrowed, **shared), **given)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in (_SHARED["ids"], *own, *_SHARED.values())
    ]
    unique = {p.name: p for p in parameters}
    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__module__ = command.__module__
    call.__annotations__ = {name: p.annotation for name, p in unique.items()}
    call.__signature__ = inspect.Signature(list(unique.values()))  # type: ignore[attr-defined]
    return call


def _chosen(
    name: str,
    *,
    narrowed: bool,
    ids: list[str] | None,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **filtered: Any,
) -> Chosen:
    from worker.store.listing import Filter

    which = filters.chosen(**filtered)
    if ids and (narrowed or which != Filter() or limit is not None):
        raise typer.BadParameter("name jobs, or say which by options: not both")
    if not ids and not narrowed and which == Filter():
        raise typer.BadParameter(
            f"which jobs? Name them, or narrow it down:\n\n  rowmill {name} ID\n\n"
            f"  rowmill {name} --lane replicate --newer-than 2h --dry-run\n\n"
            f"rowmill {name} --help lists all options"
        )
    chosen = Chosen(
        tuple(dict.fromkeys(ids or ())), None if ids else which, limit, dry_run, yes, as_json
    )
    if not chosen.single and not dry_run and not yes and not asks():
        raise typer.BadParameter(
            "more than one job, and no terminal to ask on: add --yes, or look first with --dry-run"
        )
    return chosen


def asks() -> bool:
    """Whether someone can be asked: what they answer is read, what they are asked is seen."""
    return sys.stdin.isatty() and sys.stderr.isatty()
