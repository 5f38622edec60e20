"""rowmill providers and rowmill budget show."""

from __future__ import annotations

from collections.abc import Sequence

from worker.text.values import Row, money, new_console, table


def print_budgets(budgets: Sequence[Row]) -> None:
    columns = ("lane", "per", " limit", " used", " jobs waiting", "renewed")
    rows = [
        (
            "everything" if b["lane"] == "*" else b["lane"],
            b["period"],
            f"{b['limit_cents']} ¢",
            f"{b['used_cents']} ¢",
            str(b["waiting"]),
            b["renewed_at"][:16],
        )
        for b in budgets
    ]
    console = new_console()
    console.print(
        table("Budgets", columns, rows) if rows else "No budgets: spending isn't limited."
    )


PROVIDER_COLUMNS = (
    *("provider", "adapter", "state", "account", "base URL", "default models", "limits"),
    *("budgets", " today", " month", " open calls"),
)


def print_providers(providers: Sequence[Row]) -> None:
    console = new_console()
    console.print(table("Providers", PROVIDER_COLUMNS, map(_provider, providers)))
    for row in providers:
        if row["why"]:
            console.print(f"{row['provider']} ({row['state']}): {row['why']}", soft_wrap=True)


def _provider(row: Row) -> tuple[str, ...]:
    return (
        row["provider"],
        row["adapter"],
        row["state"],
        row["account"] or "",
        row["base_url"],
        ", ".join(f"{medium} {model}" for medium, model in row["models"].items()),
        "\n".join(map(_limit, row["limits"])),
        ", ".join(
            f"{b['used_cents']} of {b['limit_cents']} ¢ a {b['period']}"
            + (" in all" if b["lane"] == "*" else "")
            for b in row["budgets"]
        ),
        money(row["spend_cents_today"]),
        money(row["spend_cents_month"]),
        str(row["open_calls"] or ""),
    )


LIMITS = (
    ("max_running", "running"),
    ("requests_per_minute", "requests/min"),
    ("tokens_per_minute", "tokens/min"),
)


def _limit(limit: Row) -> str:
    told = [f"{limit[name]} {unit}" for name, unit in LIMITS if limit[name] is not None]
    return f"{limit['of']}: {', '.join(told)}"
