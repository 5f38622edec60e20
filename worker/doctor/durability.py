"""How durable a commit is: the journal of paid calls is no more durable than that."""

from __future__ import annotations

from worker.doctor.patient import Finding, Patient
from worker.store.health import server as health
from worker.store.health.server import Server

JOURNAL = "the journal of paid calls is only as durable as a commit"
MANAGED = {
    "rdsadmin": "Amazon RDS",
    "cloudsqladmin": "Google Cloud SQL",
    "azure_pg_admin": "Azure Database for PostgreSQL",
    "supabase_admin": "Supabase",
}
"""Roles that these services make. Their own replication can't be seen by SQL."""


async def durability(patient: Patient) -> list[Finding]:
    """What the server's own settings say."""
    server = await health.server(patient.store, list(MANAGED))
    parts = (primary, disk, commits, failover, managed)
    return [finding for part in parts for finding in part(server)]


def primary(server: Server) -> list[Finding]:
    if not server.in_recovery:
        return []
    evidence = "pg_is_in_recovery() is true: nothing can be written"
    fix = "set ROWMILL_DATABASE_URL to the primary"
    return [Finding("database.standby", "error", "database", evidence, fix)]


def disk(server: Server) -> list[Finding]:
    """What a crash of the machine takes with it."""
    findings = []
    settings = server.settings
    if settings["fsync"][0] == "off":
        evidence = f"fsync is off: a crash of the machine may lose anything, and {JOURNAL}"
        findings.append(Finding("durability.fsync", "error", "database", evidence, "fsync = on"))
    if settings["full_page_writes"][0] == "off":
        evidence = "full_page_writes is off: a crash may tear pages, unless the file system can't"
        fix = "full_page_writes = on, or make sure that the file system writes pages whole"
        findings.append(Finding("durability.pages", "warning", "database", evidence, fix))
    return findings


def commits(server: Server) -> list[Finding]:
    """What our own sessions wait for; a role or a database may have settings of its own."""
    value, source = server.settings["synchronous_commit"]
    evidence = f"synchronous_commit is {value} (set by: {source}), and {JOURNAL}"
    if value == "off":
        fix = "synchronous_commit = on for this role and database: ALTER ROLE … or ALTER DATABASE …"
        return [Finding("durability.commit", "error", "database", evidence, fix)]
    if value == "local" and server.standby_names:
        fix = "synchronous_commit = on, so that a commit waits for the synchronous standby"
        return [Finding("durability.commit", "warning", "database", evidence, fix)]
    return []


def failover(server: Server) -> list[Finding]:
    """A standby that may be promoted without the last commits: their calls are made again."""
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


async def lost(patient: Patient) -> list[Finding]:
    gap = await health.lost(patient.store)
    if gap is None:
        return []
    since, until = gap.since.isoformat(), gap.until.isoformat()
    evidence = f"a failover or a restore: commits from {since} to {until} may be lost"
    fix = f"rowmill reconcile --since {since}; look at the dashboards of providers without a list"
    return [Finding("durability.lost", "warning", "database", evidence, fix)]


def managed(server: Server) -> list[Finding]:
    return [
        Finding(
            "durability.managed",
            "info",
            MANAGED[role],
            f"there is a role {role}; whether its failover keeps every commit can't be seen by SQL",
            "choose its synchronous high availability; a promoted read replica may lack commits",
        )
        for role in server.roles
    ]
