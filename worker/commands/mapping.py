"""rowmill map new and map check."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands import completing
from worker.commands.common import NOT_DONE, OK, AsJson, dsn, print_json

if TYPE_CHECKING:
    from worker.foretelling import Told
    from worker.guessing import Proposal
    from worker.maps import Platform
    from worker.store.previewing import Look

app = typer.Typer(
    name="map",
    no_args_is_help=True,
    help="Make a map of your own tables, and see what it will do.",
)


@app.command()
def new(
    table: Annotated[
        list[str], typer.Option("--table", help="A job table, as schema.table; may be repeated.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="The file to write, such as shop/map.toml.")
    ] = None,
    platform: Annotated[
        str | None, typer.Option(help="What to call these tables together.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Look at a live table and propose its map: a commented map.toml, to be read and corrected.

    Changes nothing in the database, and reads a bounded number of rows. Lines that need a person
    are marked UNSURE. Exits with 1 where the table lacks something that no map can do without.

    rowmill map new --table public.my_jobs

    rowmill map new --table shop.renders --table shop.mails --output shop/map.toml
    \f
    It prints on standard output, or writes a file, which it doesn't overwrite without `--force`. It reads the catalog, and where no enum, CHECK or domain names a column's words, a bounded number
    of rows and the server's statistics. Guesses marked `UNSURE` are listed on standard error. What keeps a table from being attached (no status column, no unique index over one column, a name with more than letters, digits and
    underscores, a state that its type has no word for) is said there, too; views, foreign tables and single partitions are refused. See [adopt](adopt.md). With `--json`:

        {"map", "sources": [{"name", "table", "notes", "lacking", "guesses": [{"key", "value", "confidence", "why"}]}]}

    `map` is the file's text, null where a table can't be one; `confidence` is `sure`, `likely` or `unsure`; `value` is null where nothing is proposed.
    """
    from worker.commands.problems import PlainError
    from worker.guessing import propose, render
    from worker.store.catalog import describe

    _check_name(platform)
    if output is not None and output.exists() and not force:
        raise PlainError(f"{output} exists: give another --output, or --force to overwrite it")
    tables = asyncio.run(describe(dsn(), table))
    proposals = [propose(one, _handlers()) for one in tables]
    _name_apart(proposals)
    text = None
    if all(proposal.usable for proposal in proposals):
        zoneless = any(c.type == "timestamp without time zone" for t in tables for c in t.columns)
        text = render(platform or _platform_name(proposals), proposals, zoneless=zoneless)
        assert tomllib.loads(text), "as everything that is rendered"
    if text is not None and output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"map": text, "sources": [_as_json(proposal) for proposal in proposals]})
    elif text is not None and output is None:
        typer.echo(text, nl=False)
    _say(proposals, output if text is not None else None)
    lacking = any(proposal.lacking for proposal in proposals)
    raise typer.Exit(NOT_DONE if lacking else OK)


def _handlers() -> list[str]:
    """Of the kinds that come with Rowmill; an adopter's own may not exist yet."""
    from jobs import registry

    return registry.load().names()


def _name_apart(proposals: list[Proposal]) -> None:
    """Tables of one name in two schemas are two sources."""
    for proposal in proposals:
        if sum(other.name == proposal.name for other in proposals) > 1:
            from worker.guessing.propose import source_name

            proposal.name = source_name(proposal.table)


def _check_name(platform: str | None) -> None:
    from worker.commands.problems import PlainError
    from worker.guessing.propose import source_name

    if platform is not None and source_name(platform) != platform:
        raise PlainError(
            f"--platform {platform}: give it small letters, digits and underscores, at most 40"
        )


def _platform_name(proposals: list[Proposal]) -> str:
    from worker.guessing.propose import source_name

    schemas = {proposal.table.split(".")[0] for proposal in proposals} - {"public"}
    return source_name(min(schemas)) if schemas else proposals[0].name


def _as_json(proposal: Proposal) -> dict[str, Any]:
    return {
        "name": proposal.name,
        "table": proposal.table,
        "guesses": [
            {
                "key": f"{section.name}.{guess.key}".removeprefix("."),
                "value": guess.value,
                "confidence": guess.confidence,
                "why": guess.why,
            }
            for section in proposal.sections
            for guess in section.guesses
        ],
        "notes": proposal.notes,
        "lacking": proposal.lacking,
    }


def _say(proposals: list[Proposal], output: Path | None) -> None:
    for proposal in proposals:
        for problem in proposal.lacking:
            typer.echo(f"rowmill: {problem}", err=True)
        if proposal.usable and proposal.unsure:
            typer.echo(f"{proposal.table}: UNSURE of {', '.join(proposal.unsure)}", err=True)
    if output is not None:
        typer.echo(f"wrote {output}: read it, then `rowmill map check {output}`", err=True)


# --------------------------------------------------------------------------- map check


@app.command()
def check(
    platform: Annotated[
        str,
        typer.Argument(
            help="A map file (….toml), or a platform's name.", autocompletion=completing.platforms
        ),
    ],
    schema: Annotated[
        str | None, typer.Option(help="Where its tables are, if not where the map says.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Check the file alone, without a database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Tell everything that is wrong with a map, and what it will do: states, kinds, ranks, writes.

    Changes nothing. Exits with 1 if `rowmill attach` would refuse the map, or jobs would fail.

    rowmill map check shop/map.toml

    rowmill map check photomemory --offline
    \f
    It tells every problem by file, key, table and column; which words of the status mean what, which kinds of work have a handler here (with `ROWMILL_HANDLERS`), the rank of each priority that is there or could be, in the order of
    claims, how often a job is retried, and what is written when. Rows are counted (of a large table, in its first 200,000). `--offline` asks no database, and says what it couldn't check. With `--json`:

        {"map", "ok", "offline", "problems": [{"severity", "message"}],
         "sources": [{"source", "table", "key",
                      "states": [{"word", "means", "rows"}], "kinds": [{"kind", "handler", "rows"}], "lanes": [{"lane", "rows"}],
                      "ranks": [{"priority", "rank", "rows"}], "without_priority": {"priority", "rank"},
                      "retries", "writes", "sampled"}]}

    `severity` is `refuse` or `warn`.
    """
    from worker.commands import foretold
    from worker.foretelling import foretell
    from worker.maps import MapError
    from worker.store.checking import Problem

    try:
        loaded = _load(platform, schema)
    except MapError as error:
        problems = [Problem("refuse", line) for line in str(error).splitlines()]
        _report(platform, problems, [], offline=offline, as_json=as_json)
        raise typer.Exit(NOT_DONE) from None
    handlers, unread = _own_handlers()
    look = None if offline else _look(loaded)
    told = [
        foretell(source, look.found.get(source.name) if look else None, handlers)
        for source in loaded.map.sources
    ]
    problems = [*unread, *(look.problems if look else ()), *(p for t in told for p in t.problems)]
    _report(platform, problems, told, offline=offline, as_json=as_json)
    if not as_json:
        foretold.show(loaded, told, offline=offline)
    refused = any(problem.severity == "refuse" for problem in problems)
    raise typer.Exit(NOT_DONE if refused else OK)


def _load(reference: str, schema: str | None) -> Platform:
    from worker.maps import load

    return load(reference, schema=schema) if schema else load(reference)


def _look(platform: Platform) -> Look:
    from worker.store.previewing import look

    return asyncio.run(look(dsn(), platform))


def _own_handlers() -> tuple[list[str], list[Any]]:
    """All kinds with a handler here; a module that can't be imported is one of the problems."""
    from jobs import registry
    from worker.settings import Settings
    from worker.store.checking import Problem

    try:
        return registry.load(Settings().handlers).names(), []
    except ImportError as error:
        return registry.REGISTRY.names(), [Problem("refuse", str(error))]


def _report(
    reference: str, problems: list[Any], told: list[Told], *, offline: bool, as_json: bool
) -> None:
    from worker.commands import foretold

    if as_json:
        print_json(
            {
                "map": reference,
                "ok": all(problem.severity != "refuse" for problem in problems),
                "offline": offline,
                "problems": [{"severity": p.severity, "message": p.message} for p in problems],
                "sources": [foretold.as_json(one) for one in told],
            }
        )
        return
    for problem in problems:
        word = "problem" if problem.severity == "refuse" else "warning"
        typer.echo(f"{word}: {problem.message}", err=True)
