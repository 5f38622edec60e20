"""The server and our ways to it: versions, clocks, poolers, connections, old transactions."""

from __future__ import annotations

from datetime import UTC, datetime

from worker.doctor.patient import Finding, Patient, Row
from worker.store.health import fleet, sessions
from worker.text.values import duration

OLDEST, NEWEST = 14, 18
"""Of PostgreSQL: what is tested."""


async def server(patient: Patient) -> list[Finding]:
    row = await sessions.server(patient.store)
    findings = []
    if row["major"] < OLDEST:
        evidence = f"PostgreSQL {row['version']}; {OLDEST} or newer is needed"
        fix = f"upgrade to PostgreSQL {OLDEST} or newer"
        findings.append(Finding("database.version", "error", "database", evidence, fix))
    if row["major"] > NEWEST:
        evidence = f"PostgreSQL {row['version']}; tested are {OLDEST} to {NEWEST}"
        fix = "look for a newer Rowmill"
        findings.append(Finding("database.version", "info", "database", evidence, fix))
    if row["used"] > patient.limits.connections * row["most"]:
        evidence = (
            f"{row['used']} of {row['most']} connections are used; the next worker may get none"
        )
        fix = (
            "raise max_connections, or put a transaction-mode pooler before it; a worker uses "
            "about ten"
        )
        findings.append(Finding("database.connections", "warning", "database", evidence, fix))
    return findings


async def pooler(patient: Patient) -> list[Finding]:
    if not patient.store.pooled:
        return []
    said = await sessions.refuses_transactions(patient.store.dsn)
    if said is not None:
        evidence = f"a pooler that allows no transactions: {said}"
        fix = "pool_mode = transaction (or session), or connect to the server itself"
        return [Finding("pooler.statement", "error", "pooler", evidence, fix)]
    seconds = patient.settings.poll_seconds
    evidence = (
        "connections go through a transaction-mode pooler: nobody can LISTEN through it, so "
        "an idle "
        f"worker sees a new job up to {seconds:g}s later"
    )
    fix = "nothing has to be done; a URL of the server itself, or session pooling, spares the wait"
    return [Finding("pooler.transaction", "info", "pooler", evidence, fix)]


async def clock(patient: Patient) -> list[Finding]:
    """As far off as it must be at least, whenever the answer was made."""
    before = datetime.now(UTC)
    theirs = await sessions.clock(patient.store)
    after = datetime.now(UTC)
    off = max((before - theirs).total_seconds(), (theirs - after).total_seconds())
    if off < patient.limits.clock:
        return []
    side = "ahead of" if theirs < before else "behind"
    evidence = f"this machine's clock is {duration(off)} {side} the database's"
    fix = "let both keep time by NTP: signed storage requests and certificates go by this one"
    return [Finding("clocks.apart", "warning", "this machine", evidence, fix)]


async def heartbeats(patient: Patient) -> list[Finding]:
    ahead = [row for row in await fleet.alive(patient.store) if row["ahead"] > patient.limits.clock]
    if not ahead:
        return []
    most = max(row["ahead"] for row in ahead)
    evidence = (
        f"the last heartbeat of {_names(ahead)} lies {duration(most)} in the future: the "
        "database's clock was set back"
    )
    fix = "let the database's machine keep time by NTP; restart those workers, or wait until then"
    return [Finding("clocks.future", "warning", "fleet", evidence, fix)]


def _names(rows: list[Row]) -> str:
    names = [row["name"] for row in rows[:3]]
    return ", ".join(names) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")


async def transactions(patient: Patient) -> list[Finding]:
    limits, store = patient.limits, patient.store
    findings = []
    for row in await sessions.old(store, limits.old_transaction, limits.idle_transaction):
        idle = str(row["state"]).startswith("idle in transaction")
        doing = f"and idle for {duration(row['idle'])}" if idle else "and at work"
        holds = "; vacuum can't remove what died since" if row["holds"] else ""
        evidence = (
            f"{row['who']} ({row['application'] or 'no application name'}): a transaction of "
            f"{duration(row['age'])}, {doing}{holds}; its locks hold up jobs"
        )
        fix = f'end it there; or psql -c "SELECT pg_terminate_backend({row["pid"]})"'
        findings.append(Finding("transactions.old", "warning", f"pid {row['pid']}", evidence, fix))
    for row in await sessions.prepared(store, limits.idle_transaction):
        evidence = (
            f"prepared by {row['who']} {duration(row['age'])} ago; holds back vacuum, and its locks"
        )
        gid = row["gid"].replace("'", "''")
        fix = f"COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}', as its coordinator says"
        findings.append(
            Finding("transactions.prepared", "warning", f"transaction {row['gid']}", evidence, fix)
        )
    if count := await sessions.hidden(store):
        evidence = f"this role may not look at {count} session(s): old transactions stay unseen"
        fix = "GRANT pg_read_all_stats to this role"
        findings.append(Finding("transactions.unseen", "info", "database", evidence, fix))
    return findings


async def slots(patient: Patient) -> list[Finding]:
    findings = []
    for row in await sessions.slots(patient.store):
        parts = []
        if (row["behind"] or 0) > patient.limits.slot_transactions:
            parts.append(f"holds back vacuum by {row['behind']} transactions")
        if (row["bytes"] or 0) > patient.limits.slot_bytes:
            parts.append(f"keeps {row['bytes'] / 1024**2:.0f} MiB of write-ahead log on the disk")
        if parts:
            name = row["name"]
            evidence = f"nobody uses this {row['kind']} slot, and it {' and '.join(parts)}"
            fix = f"bring its reader back, or SELECT pg_drop_replication_slot('{name}')"
            findings.append(Finding("transactions.slot", "warning", f"slot {name}", evidence, fix))
    return findings
