"""`rowmill doctor`: what could lose a job or pay twice, and what to do about it.

Each check is a function that returns findings, and stands in `CHECKS`; another is one function and
one line more. Checks that read our tables are left out while migrations are behind.

    error      a promise doesn't hold, or jobs can't run
    warning    a promise may not hold on a bad day, or something waits for a person
    info       worth knowing; nothing can be seen from here
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from jobs.providers.registry import ADAPTERS
from worker.settings import Settings
from worker.store import Store, health, reports
from worker.store.health import Server
from worker.store.migrations import pending

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")

RESULT = {None: 0, "info": 0, "warning": 1, "error": 2}
"""The exit code, by the worst that was found."""


@dataclass(frozen=True, slots=True)
class Finding:
    id: str
    severity: Severity
    subject: str
    evidence: str
    fix: str
    repairable: bool = False
    """Whether a program may mend it without asking: nothing can be lost by it."""


@dataclass(frozen=True)
class Patient:
    """What the checks look at; each part is read once."""

    settings: Settings
    server: Server
    pending: Sequence[str]
    status: Mapping[str, Any]
    """Empty while migrations are behind."""
    lost: health.Lost | None
    undelivered: Sequence[health.Undelivered]
    stuck: Sequence[health.Stuck]
    unaudited: Sequence[health.Unaudited]

    @cached_property
    def keyed(self) -> set[str]:
        given = self.settings.providers.items()
        return {name for name, one in given if one.api_key.get_secret_value()}

    @cached_property
    def served(self) -> set[str]:
        """Lanes that live workers serve, with whatever keys they have."""
        live = [w for w in self.status.get("workers", ()) if w["alive"] and not w["draining"]]
        return {lane for worker in live for lane in worker["lanes"]}


async def examine(store: Store, settings: Settings) -> dict[str, Any]:
    """The report of docs/cli.md."""
    behind = await pending(store.dsn)
    patient = Patient(
        settings=settings,
        server=await health.server(store, list(MANAGED)),
        pending=behind,
        status={} if behind else await reports.status(store),
        lost=None if behind else await health.lost(store),
        undelivered=[] if behind else await health.undelivered(store),
        stuck=[] if behind else await health.stuck(store),
        unaudited=[] if behind else await health.unaudited(store),
    )
    findings = [finding for check in CHECKS for finding in check(patient)]
    findings.sort(key=lambda f: (-SEVERITIES.index(f.severity), f.id, f.subject))
    worst = findings[0].severity if findings else None
    return {"findings": [asdict(finding) for finding in findings], "worst": worst}


# --------------------------------------------------------------------------- durability

JOURNAL = "the journal of paid calls is only as durable as a commit"
MANAGED = {
    "rdsadmin": "Amazon RDS",
    "cloudsqladmin": "Google Cloud SQL",
    "azure_pg_admin": "Azure Database for PostgreSQL",
    "supabase_admin": "Supabase",
}
"""Roles that these services make. Their own replication can't be seen by SQL."""


def primary(patient: Patient) -> list[Finding]:
    if not patient.server.in_recovery:
        return []
    evidence = "pg_is_in_recovery() is true: nothing can be written"
    fix = "set ROWMILL_DATABASE_URL to the primary"
    return [Finding("database.standby", "error", "database", evidence, fix)]


def disk(patient: Patient) -> list[Finding]:
    """What a crash of the machine takes with it."""
    findings = []
    settings = patient.server.settings
    if settings["fsync"][0] == "off":
        evidence = f"fsync is off: a crash of the machine may lose anything, and {JOURNAL}"
        findings.append(Finding("durability.fsync", "error", "database", evidence, "fsync = on"))
    if settings["full_page_writes"][0] == "off":
        evidence = "full_page_writes is off: a crash may tear pages, unless the file system can't"
        fix = "full_page_writes = on, or make sure that the file system writes pages whole"
        findings.append(Finding("durability.pages", "warning", "database", evidence, fix))
    return findings


def commits(patient: Patient) -> list[Finding]:
    """What our own sessions wait for; a role or a database may have settings of its own."""
    value, source = patient.server.settings["synchronous_commit"]
    evidence = f"synchronous_commit is {value} (set by: {source}), and {JOURNAL}"
    if value == "off":
        fix = "synchronous_commit = on for this role and database: ALTER ROLE … or ALTER DATABASE …"
        return [Finding("durability.commit", "error", "database", evidence, fix)]
    if value == "local" and patient.server.standby_names:
        fix = "synchronous_commit = on, so that a commit waits for the synchronous standby"
        return [Finding("durability.commit", "warning", "database", evidence, fix)]
    return []


def failover(patient: Patient) -> list[Finding]:
    """A standby that may be promoted without the last commits: their calls are made again."""
    server = patient.server
    seen = [
        f"{count} {what}"
        for count, what in (
            (server.followers, "streaming standby(s)"),
            (server.waiting_slots, "physical slot(s) of absent standbys"),
        )
        if count
    ]
    if not seen or server.synchronous:
        return []
    there = " and ".join(seen)
    if not server.standby_names:
        evidence = f"{there}, and synchronous_standby_names is empty: a failover may lose the last "
        evidence += f"commits, and {JOURNAL}"
        fix = "set synchronous_standby_names; after a failover, rowmill reconcile"
        return [Finding("durability.failover", "warning", "database", evidence, fix)]
    if server.hidden:
        evidence = f"{there}, but this role may not see whether one is synchronous"
        fix = "GRANT pg_read_all_stats to this role"
        return [Finding("durability.unseen", "info", "database", evidence, fix)]
    evidence = f"{there}, none of them synchronous, though synchronous_standby_names names some"
    fix = "look why the named standbys are away: until they are back, commits wait"
    return [Finding("durability.failover", "warning", "database", evidence, fix)]


def lost(patient: Patient) -> list[Finding]:
    if patient.lost is None:
        return []
    since, until = patient.lost.since.isoformat(), patient.lost.until.isoformat()
    evidence = f"a failover or a restore: commits from {since} to {until} may be lost"
    fix = f"rowmill reconcile --since {since}; look at the dashboards of providers without a list"
    return [Finding("durability.lost", "warning", "database", evidence, fix)]


def managed(patient: Patient) -> list[Finding]:
    return [
        Finding(
            "durability.managed",
            "info",
            MANAGED[role],
            f"there is a role {role}; whether its failover keeps every commit can't be seen by SQL",
            "choose its synchronous high availability; a promoted read replica may lack commits",
        )
        for role in patient.server.roles
    ]


# --------------------------------------------------------------------------- our own tables


def migrations(patient: Patient) -> list[Finding]:
    if not patient.pending:
        return []
    evidence = f"not applied yet: {', '.join(patient.pending)}"
    return [
        Finding("schema.behind", "error", "rowmill", evidence, "rowmill migrate", repairable=True)
    ]


KINDS: Mapping[str, tuple[str, Severity, bool]] = {
    "missing_triggers": ("tables.triggers", "error", True),
    "missing_table": ("tables.gone", "error", False),
    "no_workers": ("fleet.none", "warning", False),
    "unserved": ("fleet.unserved", "warning", False),
    "held": ("jobs.held", "warning", False),
    "provider": ("providers.broken", "warning", False),
    "unresolved_payment": ("payments.unresolved", "warning", False),
}
"""What `rowmill status` says needs a person, as findings."""


def needs_person(patient: Patient) -> list[Finding]:
    findings = []
    told = {f"lane {lane}" for lane in _keyless(patient)}
    for item in patient.status.get("needs_person", ()):
        if item["kind"] == "unserved" and item["subject"] in told:
            continue
        name, severity, repairable = KINDS[item["kind"]]
        fix = "; or ".join(item["commands"])
        findings.append(
            Finding(name, severity, item["subject"], item["message"], fix, repairable=repairable)
        )
    return findings


def keys(patient: Patient) -> list[Finding]:
    """Jobs of a provider that has no key here, and that no live worker serves either."""
    return [
        Finding(
            "providers.key",
            "error",
            f"lane {lane}",
            f"{count} waiting, its key is missing here, and no live worker serves it",
            f"set ROWMILL_PROVIDERS__{lane.upper()}__API_KEY where workers run",
        )
        for lane, count in sorted(_keyless(patient).items())
    ]


def _keyless(patient: Patient) -> dict[str, int]:
    """Providers' lanes that nobody can pay for, and how many jobs wait there."""
    providers = ADAPTERS.keys() | patient.settings.providers.keys()
    waiting: Counter[str] = Counter()
    for lane in patient.status.get("lanes", ()):
        if lane["lane"] in providers - patient.keyed - patient.served and not lane["paused"]:
            waiting[lane["lane"]] += lane["ready"] + lane["scheduled"] + lane["held"]
    return +waiting


def undelivered(patient: Patient) -> list[Finding]:
    return [
        Finding(
            "payments.undelivered",
            "warning",
            f"source {row.source}",
            f"{row.calls} result(s) of the last 30 days, for {row.cents:f} cents, were paid for "
            "and their jobs are over without them",
            f"rowmill job show {row.source}/{row.example}; of a failed job, `rowmill retry` "
            "delivers what was bought, without a second call",
        )
        for row in patient.undelivered
    ]


def schedules(patient: Patient) -> list[Finding]:
    fix = "mend what the error says; it is tried every five minutes, and its rights are in the docs"
    return [
        Finding("schedules.failed", "warning", f"{row.chore} of {row.subject}", row.error, fix)
        for row in patient.stuck
    ]


def audits(patient: Patient) -> list[Finding]:
    fix = "mend audit.sql or what it writes; what was not recorded stands in rowmill.actions"
    return [
        Finding(
            "audit.failed",
            "warning",
            f"platform {row.platform}",
            f"{row.acts} act(s) of the last 30 days are not in its records: {row.why}",
            fix,
        )
        for row in patient.unaudited
    ]


Check = Callable[[Patient], list[Finding]]
CHECKS: tuple[Check, ...] = (
    primary,
    disk,
    commits,
    failover,
    lost,
    managed,
    migrations,
    needs_person,
    keys,
    undelivered,
    schedules,
    audits,
)
