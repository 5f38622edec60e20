"""Every check, several at a time; one that fails, or takes long, becomes a finding."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.doctor import repairs
from worker.doctor.checks import CHECKS, Check
from worker.doctor.patient import Finding, Limits, Mend, Patient
from worker.findings import SEVERITIES
from worker.settings import Settings
from worker.store import Store, StoreError
from worker.store.migrations import pending

AT_ONCE = 2
"""Checks that ask the database; the others wait for the network."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is looked, and at what."""

    only: Sequence[str] = ()
    """Beginnings of ids; empty: all."""
    network: bool = False
    """Whether others than the database are asked."""
    limits: Limits = field(default_factory=Limits)
    tell: Callable[[str], None] = lambda _what: None

    def wants(self, name: str) -> bool:
        return not self.only or name.startswith(tuple(self.only))


async def examine(store: Store, settings: Settings, plan: Plan = Plan()) -> dict[str, Any]:
    """What docs/cli.md promises; nothing is changed."""
    return report(await find(store, settings, plan), [])


async def repair(store: Store, settings: Settings, plan: Plan, who: str) -> dict[str, Any]:
    """Look, mend what is safe to, and look again: what is told is what is left."""
    found = await find(store, settings, plan)
    done = []
    for mend, of in repairs.in_order(found).items():
        plan.tell(f"mending {of.id} of {of.subject}")
        done.append(await repairs.do(store, mend, of, who))
    if not done:
        return report(found, done)
    return report(await find(store, settings, plan), done)


def report(found: Sequence[Finding], repaired: Sequence[dict[str, Any]]) -> dict[str, Any]:
    worst = found[0].severity if found else None
    return {
        "findings": [finding.row() for finding in found],
        "worst": worst,
        "repaired": list(repaired),
    }


async def find(store: Store, settings: Settings, plan: Plan) -> list[Finding]:
    """The worst first."""
    behind, found = await _schema(store)
    patient = Patient(store, settings, plan.limits, behind)
    lines = asyncio.Semaphore(AT_ONCE)
    wanted = [
        check
        for check in CHECKS
        if any(plan.wants(name) for name in check.ids)
        and (check.needs != "network" or plan.network)
        and (check.needs != "schema" or not (behind or found))
    ]
    found += _behind(behind)
    try:
        for findings in await asyncio.gather(
            *(_run(check, patient, lines, plan) for check in wanted)
        ):
            found += findings
    finally:
        patient.close()
    found = [f for f in dict.fromkeys(found) if plan.wants(f.id) or f.id == "doctor.failed"]
    return sorted(found, key=lambda f: (-SEVERITIES.index(f.severity), f.id, f.subject))


async def _run(
    check: Check, patient: Patient, lines: asyncio.Semaphore, plan: Plan
) -> list[Finding]:
    if check.needs == "network":
        return await _look(check, patient, plan)
    async with lines:
        return await _look(check, patient, plan)


async def _look(check: Check, patient: Patient, plan: Plan) -> list[Finding]:
    plan.tell(f"looking at {check.what}")
    seconds = patient.limits.check + (patient.limits.ask if check.needs == "network" else 0)
    try:
        async with asyncio.timeout(seconds):
            return await check.look(patient)
    except TimeoutError:
        why = f"it took longer than {seconds:g}s, and was given up"
        fix = "is the server busy, or is a table locked? then again"
    except Exception as error:  # noqa: BLE001 - what is wrong with one must hide no other
        why = f"{type(error).__name__}: {error}"
        fix = "often a right is missing: docs/platforms.md, Rights"
    return [Finding("doctor.failed", "warning", check.what, why, fix)]


async def _schema(store: Store) -> tuple[list[str], list[Finding]]:
    try:
        return await pending(store.dsn), []
    except StoreError as error:
        fix = "a role that may read the schema rowmill: docs/platforms.md, Rights"
        return [], [Finding("doctor.failed", "warning", "the schema rowmill", str(error), fix)]


def _behind(names: Sequence[str]) -> list[Finding]:
    if not names:
        return []
    evidence = f"not applied yet: {', '.join(names)}"
    mend = Mend("migrate", "rowmill")
    return [Finding("schema.behind", "error", "rowmill", evidence, "rowmill migrate", mend)]
