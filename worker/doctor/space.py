"""What vacuum should have done by now."""

from __future__ import annotations

from worker.doctor.patient import Finding, Limits, Mend, Patient, Row
from worker.findings import Severity
from worker.store.health import space

IDS = 2**31


async def tables(patient: Patient) -> list[Finding]:
    findings = []
    for row in await space.tables(patient.store):
        mend = Mend("vacuum", row["name"]) if row["ours"] else None
        subject = f"table {row['name']}"
        if _bloated(row, patient.limits):
            last = max(
                (at for at in (row["last_vacuum"], row["last_autovacuum"]) if at), default=None
            )
            evidence = (
                f"{row['dead']} dead rows and {row['living']} living ones; last vacuumed: "
                f"{last.isoformat(timespec='seconds') if last else 'never'}"
            )
            fix = (
                f"VACUUM (ANALYZE) {row['name']}; if that removes nothing, an old transaction "
                "holds it back"
            )
            findings.append(Finding("bloat.dead", "warning", subject, evidence, fix, mend))
        if row["unanalyzed"] and row["bytes"] > patient.limits.unanalyzed_bytes:
            evidence = (
                f"{row['bytes'] / 1024**2:.0f} MiB, and the planner knows nothing of it: it "
                "was never analyzed, as after a restore"
            )
            fix = f"ANALYZE {row['name']}"
            findings.append(Finding("bloat.statistics", "warning", subject, evidence, fix, mend))
        if row["unvacuumed"]:
            evidence = "autovacuum_enabled is off for this table"
            fix = f"ALTER TABLE {row['name']} RESET (autovacuum_enabled)"
            findings.append(Finding("bloat.autovacuum", "warning", subject, evidence, fix))
    return findings


def _bloated(row: Row, limits: Limits) -> bool:
    least = limits.dead_rows if row["ours"] else limits.dead_platform_rows
    return bool(row["dead"] > max(least, row["living"]))


async def server(patient: Patient) -> list[Finding]:
    findings = []
    for name in await space.switched_off(patient.store):
        evidence = f"{name} is off: dead rows of the queue are never removed"
        findings.append(
            Finding("bloat.autovacuum", "warning", "database", evidence, f"{name} = on")
        )
    age = await space.age(patient.store)
    if age > patient.limits.wraparound * IDS:
        urgent = age > 0.8 * IDS
        evidence = f"{age} of {IDS} transaction ids are used up; at the end nothing can be written"
        fix = (
            "vacuumdb --freeze of this database; first end what holds vacuum back (transactions.*)"
        )
        severity: Severity = "error" if urgent else "warning"
        findings.append(Finding("bloat.wraparound", severity, "database", evidence, fix))
    return findings
