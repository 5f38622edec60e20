"""rowmill providers."""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from worker.commands.common import NOT_DONE, OK, AsJson, print_json, with_store

if TYPE_CHECKING:
    from worker.store import Store


def providers(as_json: AsJson = False) -> None:
    """
    Who can be paid: every provider of this configuration, whether it works, and what it costs.

    Exits with 1 when a configured one is broken: all its latest calls failed for reasons no task
    can help, such as a refused key or an empty account. Keys are never shown.

    rowmill providers

    rowmill providers --json | jq '.providers[] | select(.state == "broken")'
    \f
    One line per provider of this configuration (the environment of the shell it runs in), then one per adapter that has no provider of its name. With `--json`:

        {"providers": [{"provider", "adapter", "state", "why", "account", "base_url", "models",
                        "limits":  [{"of", "max_running", "requests_per_minute", "tokens_per_minute"}],
                        "slow_until",
                        "budgets": [{"lane", "period", "limit_cents", "used_cents", "renewed_at", "waiting"}],
                        "spend_cents_today", "spend_cents_month", "open_calls", "open_cents"}]}

    | state | meaning |
    |---|---|
    | `configured` | it can be paid |
    | `not configured` | there is an adapter, and no provider of its name |
    | `key missing` | it has no key here |
    | `paused` | by an operator, its lane or everything; or by a platform's tables, its lane of one table |
    | `broken` | a breaker leaves its lane alone; or the last five of its account's calls that ended, of those made in the last ten minutes, all failed as `auth`, `quota` or `transient`; one success, or ten quiet minutes, and it is `configured` again |

    `why` says it in words and is null where there is nothing to say. Each limit is the stricter of the operator's and the platform's, null where there is none. `models` maps a medium to the model of tasks that
    name none, `open_cents` is what the open calls are expected to cost, and a budget of lane `*` is of all lanes together. Headers are never shown either.
    """
    from jobs.providers.registry import build_providers
    from worker.commands.problems import a_wrong_setting
    from worker.providers import report
    from worker.settings import Settings

    with a_wrong_setting():
        built = build_providers(Settings().providers)

    async def work(store: Store) -> list[dict[str, Any]]:
        return await report(store, built)

    found = with_store(work)
    if as_json:
        print_json({"providers": found})
    else:
        from worker.text.providers import print_providers

        print_providers(found)
    raise typer.Exit(NOT_DONE if any(row["state"] == "broken" for row in found) else OK)
