"""rowmill try."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from worker.commands import completing
from worker.commands.common import NOT_DONE, OK, AsJson, cents, print_json, who, with_store

if TYPE_CHECKING:
    from worker.store import Store


def try_(  # noqa: PLR0917 - typer gives them by name
    provider: Annotated[
        str,
        typer.Argument(
            help="A configured provider, such as openai.", autocompletion=completing.providers
        ),
    ],
    prompt: Annotated[str, typer.Argument(help="What to ask for.")],
    max_cents: Annotated[
        str, typer.Option(metavar="CENTS", help="Refuse if it is estimated to cost more.")
    ],
    model: Annotated[str | None, typer.Option(help="Default: the provider's, of media.")] = None,
    medium: Annotated[
        Literal["text", "image", "audio", "video"] | None,
        typer.Option(help="Default: the first of these that the provider makes."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Buy one thing from a provider, through the whole path: to see that it is set up well.

    It is a job like any other, but in a table of our own: budgets and limits hold, the ledger has
    it, no customer is charged. A live worker that serves the provider runs it; without one, this
    process does. Exits with 0 only if it succeeds; what can't be done now is cancelled.

    rowmill try openai "Say hello." --model gpt-4o-mini --max-cents 1

    rowmill try replicate "A boat at dawn" --medium image --max-cents 5 --json
    \f
    It is refused before anything is done if it can't be made, if its estimate is above `--max-cents`, or while its lane is paused. Its table is `rowmill.trials`, made and attached as platform `rowmill` when it is first used;
    `rowmill detach rowmill` takes it away. `rowmill job show` tells its story. A live worker that serves the provider's lane runs it with *its* keys; without one, this process runs it, and only it. Text needs `--model`, and is limited to 1000
    tokens. What could only wait for better times (a refused key, a rate limit, a budget) is cancelled; Ctrl-C cancels it too. What it costs in the end is the provider's to say: `--max-cents` holds for the estimate. Steps are told on
    standard error. With `--json`:

        {"provider", "medium", "model", "job", "status", "why", "text",
         "outputs": [{"role", "key", "url", "mime_type", "file_type", "size", "sha256", "filename", "width", "height", "duration_seconds"}],
         "estimate_cents", "cost_cents"}
    """
    from worker import logs
    from worker.commands import trial
    from worker.commands.problems import PlainError
    from worker.settings import Settings

    limit, settings = cents(max_cents), Settings()
    logs.configure("warning", settings.log_format)
    planned = trial.plan(settings, provider, prompt, model=model, medium=medium)
    if planned.estimate > limit:
        raise PlainError(
            f"{planned.subject} is estimated at {planned.estimate:f} cents, more than "
            f"{limit:f}: nothing was done; allow it with --max-cents"
        )

    def say(line: str) -> None:
        typer.echo(line, err=True)

    async def work(store: Store) -> dict[str, Any]:
        return await trial.run(store, settings, planned, who=who(), say=say)

    result = with_store(work)
    if as_json:
        print_json(result)
    else:
        _print(result)
    raise typer.Exit(OK if result["status"] == "completed" else NOT_DONE)


def _print(result: dict[str, Any]) -> None:
    if result["text"]:
        typer.echo(result["text"])
    for output in result["outputs"]:
        typer.echo(f"{output['role']}: {output['url']} ({output['mime_type']})")
    cost = "unknown so far" if result["cost_cents"] is None else f"{result['cost_cents']} cents"
    why = f": {result['why']}" if result["why"] else ""
    typer.echo(f"{result['status']}{why}; estimated {result['estimate_cents']} cents, cost {cost}")
    if result["status"] != "completed":
        typer.echo(f"rowmill: see `rowmill job show {result['job']}`", err=True)
