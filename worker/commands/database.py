"""rowmill migrate, attach, detach and platforms."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands import completing
from worker.commands.common import AsJson, dsn, print_json, with_store

if TYPE_CHECKING:
    from worker.store import Store


def migrate(as_json: AsJson = False) -> None:
    """
    Make or bring up to date the schema `rowmill`; safe to repeat, and for many at once.

    Nothing of your own tables is touched. Old workers and new ones may run side by side meanwhile.

    rowmill migrate
    """
    from worker.store.migrations import migrate as apply

    applied = asyncio.run(apply(dsn()))
    if as_json:
        print_json({"applied": applied})
    else:
        typer.echo("applied: " + ", ".join(applied) if applied else "already up to date")


def attach(
    platform: Annotated[
        str,
        typer.Argument(
            help="A platform's name (`rowmill platforms`), or a map file (….toml).",
            autocompletion=completing.platforms,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the SQL, change nothing.")
    ] = False,
    schema: Annotated[
        str, typer.Option("--schema", help="Where the tables are that the map calls `public.`")
    ] = "public",
    as_json: AsJson = False,
) -> None:
    """
    Let the fleet run a platform's job tables: check its map, add triggers, queue what waits.

    Your tables get triggers and nothing else. Safe to repeat, after a change of the map too. A map
    that can't work is refused with file, key, table and column, and nothing is changed.

    rowmill attach photomemory

    rowmill attach maps/shop.toml --dry-run

    rowmill attach photomemory --schema photomemory
    \f
    `--dry-run` does all of the first part in a transaction that is rolled back, and prints the SQL. `--schema` names the schema that holds what the map and its rules call `public.`; it must exist. One platform is attached once
    in a database: to move it, detach it first. All that a map can't work with in this database is said together; what is only worth knowing (the platform's `attach.sql` says so, or a column without a time zone is filled
    in another one than the map's) is printed as `warning: …` on standard error. With `--json`: `{"platform", "schema", "tables", "dry_run", "warnings", "sql"}`.
    """
    from worker.generate.words import relation
    from worker.maps import load
    from worker.store.attaching import WARNING
    from worker.store.attaching import attach as apply

    loaded = load(platform, schema)
    warnings: list[str] = []

    def report(line: str) -> None:
        if line.startswith(WARNING):
            warnings.append(line.removeprefix(WARNING))
            typer.echo(line, err=True)
        elif not (dry_run or as_json):
            typer.echo(line)

    sql = asyncio.run(apply(dsn(), loaded, dry_run=dry_run, report=report))
    if as_json:
        tables = [relation(source.table) for source in loaded.map.sources]
        name = loaded.map.platform
        print_json(
            {
                "platform": name,
                "schema": loaded.schema,
                "tables": tables,
                "dry_run": dry_run,
                "warnings": warnings,
                "sql": sql,
            }
        )
    elif dry_run:
        typer.echo(";\n\n".join(sql) + ";")


def detach(
    platform: Annotated[
        str,
        typer.Argument(
            help="The name of an attached platform.", autocompletion=completing.attached
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """
    Stop running a platform's tables: triggers, functions and queue go, its rows stay as they are.

    Jobs that run now are abandoned where they are; drain the workers first. The record of what
    was paid stays.

    rowmill detach photomemory
    """
    from worker.commands.problems import PlainError
    from worker.store.attaching import detach as apply

    tables = asyncio.run(apply(dsn(), platform))
    if not tables:
        raise PlainError(f"platform {platform!r} is not attached: see `rowmill platforms`")
    if as_json:
        print_json({"platform": platform, "tables": tables})
    else:
        typer.echo(f"detached {', '.join(tables)}")


class File(StrEnum):
    SCHEMA = "schema"
    SAMPLE = "sample"


def platforms(
    platform: Annotated[
        str | None,
        typer.Argument(
            help="Only this one; needed by --show.",
            show_default=False,
            autocompletion=completing.platforms,
        ),
    ] = None,
    show: Annotated[
        File | None,
        typer.Option("--show", help="Print its tables, or its sample customers, as SQL for psql."),
    ] = None,
    schema: Annotated[
        str, typer.Option("--schema", help="With --show: the schema to put them in.")
    ] = "public",
    as_json: AsJson = False,
) -> None:
    """
    The platforms that come with Rowmill, and what is attached to the database.

    rowmill platforms

    rowmill platforms photomemory --show schema --schema shop | psql …
    \f
    It tells which of them `rowmill demo --platform NAME` can show. With `--show schema` or `--show sample` it prints that platform's tables, or customers to try it with, as SQL; `--schema` makes it that of another schema:

        rowmill platforms photomemory --show schema --schema shop | psql -v ON_ERROR_STOP=1 "$ROWMILL_DATABASE_URL"
        rowmill platforms photomemory --show sample --schema shop | psql -v ON_ERROR_STOP=1 "$ROWMILL_DATABASE_URL"
        rowmill attach photomemory --schema shop
    """
    from worker.settings import Settings

    if show is not None:
        typer.echo(_sql(platform, show, schema), nl=False)
        return
    configured = Settings().database_url is not None
    rows = _platforms(with_store(_attached) if configured else None)
    if platform is not None:
        rows = [row for row in rows if row["platform"] == platform]
        if not rows:
            from worker.commands.problems import PlainError

            raise PlainError(f"there is no platform {platform!r}: see `rowmill platforms`")
    if as_json:
        print_json(rows)
        return
    for row in rows:
        state = {True: "attached", False: "not attached", None: "no database is configured"}
        tables = ", ".join(row["tables"])
        demo = ", can be shown by rowmill demo" if row["demo"] else ""
        typer.echo(f"{row['platform']:<16} {state[row['attached']]:<14} {tables}{demo}")


def _sql(platform: str | None, file: File, schema: str) -> str:
    from worker.commands.problems import PlainError
    from worker.demo.platform import Shown
    from worker.maps import builtin_platforms, load
    from worker.relocating import quoted

    if platform not in builtin_platforms():
        raise PlainError(f"--show needs a platform: {', '.join(builtin_platforms())}")
    load(platform, schema)  # refuses names that can't be attached
    sql = Shown(platform, schema).sql(f"{file}.sql")
    if file is File.SCHEMA and sql != Shown(platform).sql(f"{file}.sql"):
        sql = f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)};\n\n{sql}"
    return sql


async def _attached(store: Store) -> list[dict[str, Any]]:
    from worker.store import reports

    return await reports.platforms(store)


def _platforms(attached: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """`attached` is None where there is no database to ask."""
    from worker.demo.platform import showable
    from worker.maps import builtin_platforms, load

    shown = showable()
    tables = {name: [s.table for s in load(name).map.sources] for name in builtin_platforms()}
    builtin = set(tables)
    live: dict[str, list[str]] = {}
    for row in attached or ():
        live.setdefault(row["platform"], []).append(row["relation"])
    return [
        {
            "platform": name,
            "builtin": name in builtin,
            "demo": name in shown,
            "attached": None if attached is None else name in live,
            "tables": live.get(name) or tables[name],
        }
        for name in sorted(builtin | live.keys())
    ]
