"""What was paid and not delivered, delivered and not charged."""

from __future__ import annotations

from worker.doctor.patient import Finding, Patient
from worker.doctor.rows import targets
from worker.store.health import money as health
from worker.text.values import duration


async def undelivered(patient: Patient) -> list[Finding]:
    return [
        Finding(
            "payments.undelivered",
            "warning",
            f"source {row['source']}",
            f"{row['calls']} result(s) of the last 30 days, for {row['cents']:f} cents, were "
            "paid for and their jobs are over without them",
            f"rowmill job show {row['source']}/{row['example']}; of a failed job, `rowmill retry` "
            "delivers what was bought, without a second call",
        )
        for row in await health.undelivered(patient.store)
    ]


async def long_open(patient: Patient) -> list[Finding]:
    return [
        Finding(
            "payments.open",
            "warning",
            f"provider {row['provider']}",
            f"{row['calls']} call(s) of account {row['account']} were accepted and have not "
            "ended, the "
            f"oldest for {duration(row['age'])}; about {row['cents']:f} cents; such as "
            f"{row['example']}",
            f"rowmill reconcile {row['provider']}; are workers running that have this "
            "account's key?",
        )
        for row in await health.long_open(patient.store, patient.limits.open_call)
    ]


async def usage(patient: Patient) -> list[Finding]:
    findings = []
    for target in await targets(patient):
        rule = target.rule("charged")
        if rule is None:
            continue
        name, subject = target.source.name, f"source {target.source.name}"
        rows = await health.charged(patient.store, target, rule)
        missing = [row["key"] for row in rows if row["records"] == 0]
        double = [row["key"] for row in rows if row["records"] > 0]
        if missing:
            evidence = f"{len(missing)} completed job(s) have no usage record, such as {missing[0]}"
            fix = f"rowmill job show {name}/{missing[0]}, and record what its customer used"
            findings.append(Finding("usage.missing", "error", subject, evidence, fix))
        if double:
            evidence = (
                f"{len(double)} completed job(s) have more usage records than runs, such as "
                f"{double[0]}"
            )
            fix = f"rowmill job show {name}/{double[0]}; who else writes usage records?"
            findings.append(Finding("usage.double", "error", subject, evidence, fix))
    return findings
