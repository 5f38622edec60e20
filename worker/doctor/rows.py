"""Rows that contradict the queue, or what their map says of them."""

from __future__ import annotations

from worker.doctor.patient import Finding, Mend, Patient
from worker.generate import Target
from worker.store.health import rows as health
from worker.store.health.tables import target_of


async def targets(patient: Patient) -> list[Target]:
    known = {platform.map.platform for platform in await patient.platforms()}
    found = [
        await target_of(patient.store, info)
        for info in await patient.sources()
        if info.platform in known
    ]
    return [target for target in found if target is not None]


def count(keys: list[str]) -> str:
    """How many, of which only so many were looked for."""
    return f"{len(keys)} or more" if len(keys) == health.EXAMPLES else str(len(keys))


async def queued(patient: Patient) -> list[Finding]:
    findings = []
    for target in await targets(patient):
        name = target.source.name
        rows = await health.queued(patient.store, target)
        over = [row["key"] for row in rows if row["how"] in ("over", "gone")]
        if over:
            claimed = sum(row["state"] == "claimed" for row in rows if row["how"] != "tries")
            held = f", {claimed} of them claimed" if claimed else ""
            evidence = (
                f"{count(over)} row(s) are over or gone and still queued{held}, such as {over[0]}"
            )
            fix = "a worker drops them when their turn comes; triggers were bypassed: see tables.*"
            mend = Mend("drop", name) if claimed < len(over) else None
            findings.append(
                Finding("rows.finished", "warning", f"source {name}", evidence, fix, mend)
            )
        spent = [row["key"] for row in rows if row["how"] == "tries"]
        if spent and target.source.tries is not None:
            tries = target.source.tries
            evidence = (
                f"{count(spent)} waiting row(s) have {tries.column} above {tries.max}, such as "
                f"{spent[0]}"
            )
            fix = (
                f"rowmill retry {name}/{spent[0]} gives the tries back; else its next failure is "
                "its last"
            )
            findings.append(Finding("rows.tries", "info", f"source {name}", evidence, fix))
    return findings


async def unqueued(patient: Patient) -> list[Finding]:
    findings = []
    for target in await targets(patient):
        name, subject = target.source.name, f"source {target.source.name}"
        rows = await health.unqueued(patient.store, target)
        ready = [row["key"] for row in rows if not row["running"]]
        if ready:
            evidence = f"{count(ready)} row(s) are ready and in no queue, such as {ready[0]}"
            fix = (
                "a worker's sweep finds them within a minute; that they missed their trigger "
                "has a reason"
            )
            mend = Mend("sweep", name)
            findings.append(Finding("rows.unqueued", "warning", subject, evidence, fix, mend))
        running = [row["key"] for row in rows if row["running"]]
        if running:
            word = target.source.status.running
            evidence = (
                f"{count(running)} row(s) say {word} and are in no queue, such as {running[0]}: "
                "someone else runs them, or nobody does"
            )
            fix = (
                f"if nobody does: UPDATE {target.table} SET {target.source.status.column} = "
                f"'{target.source.status.ready[0]}' of those rows, which queues them"
            )
            findings.append(Finding("rows.running", "warning", subject, evidence, fix))
    return findings


async def empty(patient: Patient) -> list[Finding]:
    findings = []
    for target in await targets(patient):
        name = target.source.name
        keys = await health.empty(patient.store, target)
        if keys:
            evidence = f"{count(keys)} completed row(s) have no file any more, such as {keys[0]}"
            fix = (
                f"rowmill job show {name}/{keys[0]} has what was delivered, and where it was stored"
            )
            findings.append(Finding("rows.empty", "warning", f"source {name}", evidence, fix))
    return findings
