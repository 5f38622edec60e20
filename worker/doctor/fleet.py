"""Workers, and what waits for them or for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from jobs.providers.registry import ADAPTERS
from worker import __version__
from worker.doctor.patient import Finding, Patient, Row
from worker.findings import Severity
from worker.store.health import fleet as health
from worker.text.values import duration

KINDS: Mapping[str, str] = {
    "no_workers": "fleet.none",
    "unserved": "fleet.unserved",
    "held": "jobs.held",
    "provider": "providers.broken",
    "unresolved_payment": "payments.unresolved",
}
"""What `rowmill status` says needs a person, as findings; of tables we say more ourselves."""


async def needs_person(patient: Patient) -> list[Finding]:
    status = await patient.status()
    told = {f"lane {lane}" for lane in _keyless(patient, status)}
    findings = []
    for item in status["needs_person"]:
        name = KINDS.get(item["kind"])
        if name is None or (item["kind"] == "unserved" and item["subject"] in told):
            continue
        fix = "; or ".join(item["commands"])
        findings.append(Finding(name, "warning", item["subject"], item["message"], fix))
    return findings


async def keys(patient: Patient) -> list[Finding]:
    """Jobs of a provider that has no key here, and that no live worker serves either."""
    return [
        Finding(
            "providers.key",
            "error",
            f"lane {lane}",
            f"{count} waiting, its key is missing here, and no live worker serves it",
            f"set ROWMILL_PROVIDERS__{lane.upper()}__API_KEY where workers run",
        )
        for lane, count in sorted(_keyless(patient, await patient.status()).items())
    ]


def _keyless(patient: Patient, status: Row) -> dict[str, int]:
    """Providers' lanes that nobody can pay for, and how many jobs wait there."""
    live = [w for w in status["workers"] if w["alive"] and not w["draining"]]
    served = {lane for worker in live for lane in worker["lanes"]}
    providers = ADAPTERS.keys() | patient.settings.providers.keys()
    waiting: Counter[str] = Counter()
    for lane in status["lanes"]:
        if lane["lane"] in providers - patient.keyed - served and not lane["paused"]:
            waiting[lane["lane"]] += lane["ready"] + lane["scheduled"] + lane["held"]
    return +waiting


async def silent(patient: Patient) -> list[Finding]:
    living = bool(await health.alive(patient.store))
    findings = []
    for row in await health.silent(patient.store, patient.limits.silent_leases):
        jobs = f"{row['claims']} job(s) of its wait" if row["claims"] else "it had no jobs"
        why = "those that live don't give it up" if living else "no worker lives to give it up"
        evidence = f"silent for {duration(row['silent'])}; {jobs}, and {why}"
        fix = (
            "look at the living workers' logs for chore.failed (rescue)"
            if living
            else "rowmill run: a worker takes its jobs over after a lease of its own"
        )
        findings.append(Finding("fleet.silent", "warning", f"worker {row['name']}", evidence, fix))
    row_ = await health.abandoned(patient.store, patient.limits.rescue)
    if row_ is not None:
        evidence = (
            f"{row_['claims']} job(s) are claimed by workers that left or never were, such as "
            f"{row_['source']}/{row_['example']}"
        )
        fix = (
            "look at the living workers' logs for chore.failed (rescue)"
            if living
            else "rowmill run: a worker takes them over after a lease of its own"
        )
        findings.append(Finding("fleet.abandoned", "warning", "fleet", evidence, fix))
    return findings


async def crashes(patient: Patient) -> list[Finding]:
    return [
        Finding(
            "fleet.crashes",
            "warning",
            f"host {row['host']}",
            f"{row['deaths']} workers died there within a minute of their start, the last "
            "one started "
            f"{row['last'].isoformat(timespec='seconds')}",
            "look at the end of their logs; out of memory, or a setting they can't work with",
        )
        for row in await health.crashes(patient.store)
    ]


async def versions(patient: Patient) -> list[Finding]:
    living = await health.alive(patient.store)
    count = Counter(row["version"] for row in living)
    if len(count) > 1:
        rolled = min(row["age"] for row in living) > patient.limits.mixed_versions
        severity: Severity = "warning" if rolled else "info"
        said = ", ".join(f"{n} of {version}" for version, n in sorted(count.items()))
        evidence = f"workers of several versions live: {said}" + (
            ", and none was started in the last hour" if rolled else ""
        )
        fix = "finish the deployment: `rowmill workers` says which are left"
        return [Finding("versions.mixed", severity, "fleet", evidence, fix)]
    if count and __version__ not in count:
        evidence = (
            f"the workers are of version {next(iter(count))}, this command is of {__version__}"
        )
        fix = "use the same version; both can work on one database"
        return [Finding("versions.here", "info", "this machine", evidence, fix)]
    return []
