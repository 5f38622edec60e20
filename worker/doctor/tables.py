"""Attached tables: there, watched, understood, writable."""

from __future__ import annotations

from collections import defaultdict

from worker.doctor.patient import Finding, Mend, Patient
from worker.findings import Severity
from worker.maps import MapError, Platform, builtin_platforms, load
from worker.store import SourceInfo
from worker.store.health import rights as asked_rights
from worker.store.health import tables as health
from worker.store.needs import attach


async def schema(patient: Patient) -> list[Finding]:
    names = await health.ahead(patient.store)
    if not names:
        return []
    evidence = f"the database has migrations that this version doesn't know: {', '.join(names)}"
    return [Finding("schema.ahead", "warning", "rowmill", evidence, "upgrade this Rowmill")]


async def there(patient: Patient) -> list[Finding]:
    return [
        Finding(
            "tables.gone",
            "error",
            row["source"],
            f"{row['relation']} is gone from this database; if that is meant, detach",
            f"rowmill detach {row['platform']}",
        )
        for row in await health.gone(patient.store)
    ]


async def triggers(patient: Patient) -> list[Finding]:
    lacking: dict[tuple[str, str], list[str]] = defaultdict(list)
    platform_of = {}
    for row in await health.triggers(patient.store):
        what = row["trigger"]
        if row["leaf"] is not None:
            what += f" on {row['leaf']}"
        how = "" if row["how"] == "missing" else f" ({row['how']})"
        lacking[row["source"], row["relation"]].append(what + how)
        platform_of[row["source"]] = row["platform"]
    return [
        Finding(
            "tables.triggers",
            "error",
            source,
            f"{relation} lacks {', '.join(what[:8])}{_more(what, 8)}: "
            "new rows are only found by the sweep, cancels and deletes by nobody",
            attach(platform_of[source]),
            Mend("attach", platform_of[source]),
        )
        for (source, relation), what in lacking.items()
    ]


def _more(items: list[str], shown: int) -> str:
    return f" and {len(items) - shown} more" if len(items) > shown else ""


async def replicas(patient: Patient) -> list[Finding]:
    return [
        Finding(
            "tables.replica",
            "error",
            who,
            "session_replication_role is replica by default: what it writes fires no trigger, so "
            "its rows are only found by the sweep, its cancels by nobody",
            "ALTER ROLE … (or DATABASE …) RESET session_replication_role; set it per session "
            "where a restore needs it",
        )
        for who in await health.replicas(patient.store)
    ]


async def functions(patient: Patient) -> list[Finding]:
    findings = []
    for info in await patient.sources():
        try:
            unlike = await health.unlike(patient.store, info)
        except MapError as error:  # attached by a newer version
            findings.append(_newer(info, error))
            continue
        if not unlike:
            continue
        missing = [made.function for made in unlike if made.missing]
        names = missing or [made.function for made in unlike]
        says = "missing" if missing else "not what this version makes of the map"
        findings.append(
            Finding(
                "tables.functions",
                "error" if missing else "warning",
                info.name,
                f"{says}: {', '.join(f'rowmill.{name}' for name in names[:8])}{_more(names, 8)}",
                attach(info.platform),
                Mend("attach", info.platform),
            )
        )
    return findings


def _newer(info: SourceInfo, error: MapError) -> Finding:
    return Finding("maps.misfit", "error", info.name, str(error), "upgrade this Rowmill")


async def maps(patient: Patient) -> list[Finding]:
    findings = []
    gone = {row["platform"] for row in await health.gone(patient.store)}
    for platform in await patient.platforms():
        name = platform.map.platform
        if name in gone:
            continue  # said already
        for problem in await health.problems(patient.store, platform):
            if problem.severity == "refuse":
                fix = f"mend the table or the map, then {attach(name)}"
                found = Finding("maps.misfit", "error", name, problem.message, fix)
            else:
                fix = f"mend it if it isn't meant; {attach(name)} says the same"
                found = Finding("maps.notice", "warning", name, problem.message, fix)
            findings.append(found)
        findings += _changed(platform)
    return findings


def _changed(platform: Platform) -> list[Finding]:
    """A copy that someone changed has its own name, or is meant to be another."""
    name = platform.map.platform
    if name not in builtin_platforms():
        return []
    ours = load(name, platform.schema)
    if (ours.map, ours.rules) == (platform.map, platform.rules):
        return []
    changed = sorted(
        rule
        for rule in ours.rules.keys() | platform.rules.keys()
        if ours.rules.get(rule) != platform.rules.get(rule)
    )
    files = [*([] if ours.map == platform.map else ["map.toml"]), *(f"{r}.sql" for r in changed)]
    evidence = (
        f"it was attached as another version has it, or as someone changed it: {', '.join(files)}"
    )
    fix = (
        f"rowmill attach {name} --schema {platform.schema} takes over what comes with this version"
    )
    return [Finding("maps.changed", "info", name, evidence, fix)]


async def partitions(patient: Patient) -> list[Finding]:
    findings = []
    for platform in await patient.platforms():
        mend = Mend("partitions", platform.map.platform)
        for table in platform.map.partitions:
            row = await health.partitions(patient.store, table)
            if row is None:
                continue
            subject = f"table {table.table}"
            if row["lacking"]:
                now = 0 in row["lacking"]
                evidence = (
                    f"{'this' if now else 'next'} month has no partition: what belongs to it is "
                    f"{'' if now else 'then '}refused"
                )
                fix = (
                    f"SELECT {table.function}('{table.argument}', …), which workers call every hour"
                )
                severity: Severity = "error" if now else "warning"
                findings.append(
                    Finding("partitions.missing", severity, subject, evidence, fix, mend)
                )
            default = row["default_partition"]
            if default is not None and await health.any_row(patient.store, default):
                evidence = (
                    f"its default partition {default} holds rows: no partition can be made for them"
                )
                fix = (
                    f"move them: make the partition beside it, move its rows out of {default}, "
                    "attach it"
                )
                findings.append(Finding("partitions.default", "warning", subject, evidence, fix))
    return findings


async def rights(patient: Patient) -> list[Finding]:
    """Of the role that workers are connected as; of this command's where none can be seen."""
    findings = []
    for role in await asked_rights.roles(patient.store):
        lacking: dict[str, list[str]] = defaultdict(list)
        for row in await asked_rights.own(patient.store, role):
            lacking["rowmill"].append(f"{row['right']} on {row['object']}")
        for platform in await patient.platforms():
            name = platform.map.platform
            for row in await asked_rights.of_platform(patient.store, role, platform):
                lacking[name].append(f"{row['right']} on {row['object']}")
            secured = await asked_rights.secured(patient.store, role, platform)
            findings += [_blind(role, row["relation"], forced=row["forced"]) for row in secured]
            for row in await asked_rights.foreign_views(patient.store, role, platform):
                evidence = f"{row['view']} belongs to {row['owner']}: role {role} can't refresh it"
                fix = (
                    f"GRANT {row['owner']} TO {role}; or, since PostgreSQL 17, GRANT MAINTAIN on it"
                )
                findings.append(
                    Finding("rights.owner", "warning", f"view {row['view']}", evidence, fix)
                )
        for name, what in lacking.items():
            evidence = f"role {role} lacks {'; '.join(dict.fromkeys(what[:6]))}{_more(what, 6)}"
            fix = f"GRANT … TO {role}: docs/platforms.md, Rights"
            findings.append(Finding("rights.missing", "error", name, evidence, fix))
    for role in await asked_rights.definers(patient.store):
        evidence = (
            f"role {role} owns our triggers and may not write rowmill.queue: INSERTs of jobs fail"
        )
        fix = f"GRANT ALL ON ALL TABLES IN SCHEMA rowmill TO {role}"
        findings.append(Finding("rights.missing", "error", "triggers", evidence, fix))
    return findings


def _blind(role: str, relation: str, *, forced: bool) -> Finding:
    evidence = (
        f"row-level security is {'forced' if forced else 'on'}, and role {role} isn't exempt: its "
        "statements fail, since Rowmill rather fails than sees a part"
    )
    fix = f"ALTER ROLE {role} BYPASSRLS"
    return Finding("rights.row_security", "error", f"table {relation}", evidence, fix)


async def schedules(patient: Patient) -> list[Finding]:
    fix = "mend what the error says; it is tried every five minutes, and its rights are in the docs"
    return [
        Finding(
            "schedules.failed", "warning", f"{row['chore']} of {row['subject']}", row["error"], fix
        )
        for row in await health.stuck(patient.store)
    ]


async def audits(patient: Patient) -> list[Finding]:
    fix = "mend audit.sql or what it writes; what was not recorded stands in rowmill.actions"
    return [
        Finding(
            "audit.failed",
            "warning",
            f"platform {row['platform']}",
            f"{row['acts']} act(s) of the last 30 days are not in its records: {row['why']}",
            fix,
        )
        for row in await health.unaudited(patient.store)
    ]
