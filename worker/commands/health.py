"""rowmill doctor."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.common import AsJson, print_json, who, with_store
from worker.findings import FINDINGS, RESULT, reference

if TYPE_CHECKING:
    from worker.store import Store

HELP = """
Look for what is wrong or may go wrong: settings, the server, tables, workers, money, the network.

Each finding comes with its evidence and what to do about it, the worst first. Nothing is changed
without --repair, which does what is safe: what workers do by themselves, and what loses nothing.
Providers, storage, Redis and the mail server are asked from here, for free; --offline asks the
database alone. Exits with 0 if all is well or only worth knowing, with 1 for warnings, with 2 for
errors, of what is left.

rowmill doctor

rowmill doctor --repair

rowmill doctor --only tables --only rights

rowmill doctor --json | jq '.findings[] | select(.severity == "error")'
"""

REFERENCE = f"""
With `--json`:

    {{"findings": [{{"id", "severity", "subject", "evidence", "fix", "repairable"}}], "worst",
     "repaired": [{{"id", "subject", "did", "failed"}}]}}

The worst come first. `repairable` ones are what `--repair` mends; `repaired` says what it did, and
`failed` why not, null where it did. After that it looks again: `findings`, `worst` and the exit
code are of what is left. What it did is recorded in `rowmill.actions` (`repair`). `--only` takes
beginnings of ids (`tables`, `bloat.dead`) and can be repeated.

One check that fails, or takes longer than five seconds, hides no other: it becomes `doctor.failed`.
Of large tables a sample is looked at. Rights are those of the role that workers are connected as,
where that can be seen, and else of this command's own. What is said of this shell
(`environment.…`) and of the network holds for here; a worker's machine may differ.
Providers are asked for what costs nothing (their models, the account); where there is no such
request, only their host is. In the storage `rowmill-doctor/…` is written, read and deleted.

{reference()}
"""


def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is safe to, then look again.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="ID", help="Findings whose id begins so; repeatable."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody but the database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    from worker.doctor import Plan, examine
    from worker.doctor import repair as mend
    from worker.settings import Settings

    beginnings = tuple(only or ())
    for word in beginnings:
        if not any(name.startswith(word) for name in FINDINGS):
            raise typer.BadParameter(f"no finding's id begins with {word!r}", param_hint="--only")
    settings = Settings()

    async def work(store: Store) -> dict[str, Any]:
        with _progress() as tell:
            plan = Plan(only=beginnings, network=not offline, tell=tell)
            if repair:
                return await mend(store, settings, plan, who())
            return await examine(store, settings, plan)

    report = with_store(work)
    if as_json:
        print_json(report)
    else:
        from worker.text.doctor import print_report

        print_report(report)
    raise typer.Exit(RESULT[report["worst"]])


doctor.__doc__ = f"{HELP}\n\f\n{REFERENCE}"


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One line that changes, for people alone."""
    if not sys.stderr.isatty():
        yield lambda _what: None
        return
    from rich.console import Console

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    with console.status("looking") as status:
        yield status.update
