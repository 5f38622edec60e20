"""rowmill providers and rowmill budget show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from rich.console import Console
from rich.text import Text

from worker.text.status import STATES, budget_columns, column, number
from worker.text.values import Row, dollars, fitted, money, new_console, on_one_line

PLAIN = {"configured": "green", "not configured": "dim"} | STATES


def print_budgets(budgets: Sequence[Row], console: Console | None = None) -> None:
    console = console or new_console()
    if budgets:
        console.print(fitted(console, "Budgets", budget_columns(console, budgets)))
    else:
        console.print("No budgets: spending isn't limited.")


def print_providers(providers: Sequence[Row], console: Console | None = None) -> None:
    """A line per provider, and below the table, in full, what keeps each back."""
    console = console or new_console()
    columns = [
        column("provider", providers, lambda r: r["provider"], 100),
        column("state", providers, _state, 95),
        column("today", providers, lambda r: money(r["spend_cents_today"]), 90, right=True),
        column("month", providers, lambda r: money(r["spend_cents_month"]), 85, right=True),
        column("open calls", providers, lambda r: number(r["open_calls"]), 80, right=True),
        column("account", providers, lambda r: r["account"] or "", 60),
        column("adapter", providers, lambda r: r["adapter"], 50),
        column("base URL", providers, lambda r: r["base_url"], 70),
        column("default models", providers, _models, 40),
    ]
    console.print(fitted(console, "Providers", columns))
    for row in providers:
        for line in _notes(row):
            console.print(on_one_line(line), soft_wrap=True)


def _state(row: Row) -> Text:
    return Text(row["state"], PLAIN.get(row["state"], "yellow"))


def _models(row: Row) -> str:
    return ", ".join(f"{medium} {model}" for medium, model in row["models"].items())


def _notes(row: Row) -> Iterator[str]:
    name = row["provider"]
    if row["why"]:
        yield f"{name} ({row['state']}): {row['why']}"
    if row["state"] == "not configured":
        return
    if row["slow_until"]:
        yield f"{name}: rate used up until {row['slow_until'][11:19]}Z"
    for limit in row["limits"]:
        told = [f"{limit[key]} {unit}" for key, unit in LIMITS if limit[key] is not None]
        yield f"{name}: at most {', '.join(told)} ({limit['of']})"
    for budget in row["budgets"]:
        used, most = (dollars(Decimal(budget[k])) for k in ("used_cents", "limit_cents"))
        of = "all lanes" if budget["lane"] == "*" else f"lane {budget['lane']}"
        yield f"{name}: {used} of {most} a {budget['period']} used (budget of {of})"


LIMITS = (
    ("max_running", "running"),
    ("requests_per_minute", "requests/min"),
    ("tokens_per_minute", "tokens/min"),
)
