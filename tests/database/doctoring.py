"""What the doctor's tests are written with: every finding that exists has to be provoked by one."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

from jobs.providers.registry import ProviderSettings
from worker.doctor import RESULT, SEVERITIES, Limits, Plan, examine, repair
from worker.settings import Settings
from worker.store import Store

Row = dict[str, Any]
P = ParamSpec("P")

AS_IT_IS = {
    "durability.fsync",
    "durability.pages",
    "durability.failover",
    "durability.managed",
    "versions.here",
}
"""Findings about the server that the tests run on, and about hands, whatever they are."""
OF_THE_TESTS = {("bloat.autovacuum", "database"), ("environment.unknown", "ROWMILL_TEST_POSTGRES")}
KEYS = ["id", "severity", "subject", "evidence", "fix", "repairable"]

PROVOKED: set[str] = set()
"""What the tests that were imported say they provoke."""
SEEN: set[str] = set()
"""What the test that runs has seen."""


def provokes(*ids: str) -> Callable[[Callable[P, Awaitable[None]]], Callable[P, Awaitable[None]]]:
    """The test sees each of these findings, or it fails."""
    PROVOKED.update(ids)

    def of(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
        @functools.wraps(test)
        async def run(*args: P.args, **kwargs: P.kwargs) -> None:
            SEEN.clear()
            await test(*args, **kwargs)
            assert set(ids) <= SEEN, f"not provoked: {set(ids) - SEEN}"

        return run

    return of


def settings(**providers: str) -> Settings:
    keyed = {name: ProviderSettings.model_validate({"api_key": k}) for name, k in providers.items()}
    return Settings.model_construct(providers=keyed)


def checked(report: Row) -> list[Row]:
    """Its findings, of the documented shape."""
    ranks = [SEVERITIES.index(finding["severity"]) for finding in report["findings"]]
    assert ranks == sorted(ranks, reverse=True), "the worst first"
    assert report["worst"] == (report["findings"][0]["severity"] if ranks else None)
    assert report["worst"] in RESULT
    for finding in report["findings"]:
        assert list(finding) == KEYS
        SEEN.add(finding["id"])
    return [
        finding
        for finding in report["findings"]
        if finding["id"] not in AS_IT_IS and (finding["id"], finding["subject"]) not in OF_THE_TESTS
    ]


async def all_found(
    store: Store,
    given: Settings | None = None,
    *,
    network: bool = False,
    only: tuple[str, ...] = (),
    **limits: float,
) -> list[Row]:
    plan = Plan(only=only, network=network, limits=Limits(**limits))  # type: ignore[arg-type]
    return checked(await examine(store, given or settings(), plan))


async def found(store: Store, given: Settings | None = None, **options: Any) -> dict[str, Row]:
    """By id: the last of each."""
    return {finding["id"]: finding for finding in await all_found(store, given, **options)}


async def mended(store: Store, **limits: float) -> tuple[list[Row], dict[str, Row]]:
    """What `--repair` did, and what it left."""
    plan = Plan(limits=Limits(**limits))  # type: ignore[arg-type]
    report = await repair(store, settings(), plan, "ann@desk")
    for done in report["repaired"]:
        assert list(done) == ["id", "subject", "did", "failed"]
    return report["repaired"], {f["id"]: f for f in checked(report)}


async def recorded(connection: Any) -> list[tuple[str, str]]:
    rows = await connection.fetch(
        "SELECT who, subject FROM rowmill.actions WHERE action = 'repair' ORDER BY id"
    )
    return [(row["who"], row["subject"]) for row in rows]
