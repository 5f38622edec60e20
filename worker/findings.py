"""What `rowmill doctor` can find, as data: docs/cli.md's table and its checks are made of it.

error      a promise doesn't hold, or jobs can't run
warning    a promise may not hold on a bad day, or something waits for a person
info       worth knowing; nothing has to be done, or nothing can be seen from here
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")

RESULT = {None: 0, "info": 0, "warning": 1, "error": 2}
"""The exit code, by the worst that was found."""


@dataclass(frozen=True, slots=True)
class Known:
    severities: tuple[Severity, ...]
    by: str
    """What it is found by."""
    repair: str = ""
    """What `--repair` does about it; empty where that takes a person."""


def _error(by: str, repair: str = "") -> Known:
    return Known(("error",), by, repair)


def _warning(by: str, repair: str = "") -> Known:
    return Known(("warning",), by, repair)


def _info(by: str) -> Known:
    return Known(("info",), by)


_ATTACH = "attaches the platform again, as it was attached"
_VACUUM = "`VACUUM (ANALYZE)` of it"

FINDINGS: Mapping[str, Known] = {
    # ------------------------------------------------------------------ this shell
    "environment.unknown": _warning(
        "a `ROWMILL_…` variable that no setting has, with the nearest one that there is"
    ),
    "environment.worker": _error(
        "what a worker refuses to start with: handlers that can't be imported, a provider without "
        "an adapter, a price list that can't be read"
    ),
    "environment.lane": _warning(
        "`ROWMILL_LANES` names a lane that has no provider, no kind of work and no waiting job"
    ),
    "environment.mail": _warning("one of `ROWMILL_SMTP_URL` and `ROWMILL_MAIL_FROM` is missing"),
    "environment.pulse": _info(
        "`ROWMILL_PULSE_SECONDS` is above a fifth of the lease, which counts instead"
    ),
    "environment.files": _warning("`ulimit -n` is below what as many slots may have open"),
    "environment.disk": _warning(
        "the temporary directory has less room than one output of `ROWMILL_MAX_OUTPUT_BYTES`"
    ),
    "environment.storage": _warning(
        "outputs go to memory; or to a local disk while workers of several hosts live"
    ),
    "environment.links": _info(
        "outputs are in a cloud and `ROWMILL_PUBLIC_BASE_URL` isn't set: rows get `s3://…` URLs"
    ),
    # ------------------------------------------------------------------ the server
    "database.standby": _error("the database is in recovery"),
    "database.version": Known(
        ("info", "error"), "PostgreSQL is newer than what was tested (18); or older than 14"
    ),
    "database.connections": _warning("more than nine in ten of the server's connections are used"),
    "durability.fsync": _error("`fsync` is off"),
    "durability.pages": _warning("`full_page_writes` is off"),
    "durability.commit": Known(
        ("warning", "error"),
        "`synchronous_commit` is `local` though there are synchronous standbys; or `off` for this"
        " role and database",
    ),
    "durability.failover": _warning(
        "standbys stream, or their slots wait, and none is synchronous: a failover may lose the "
        "last commits of the journal"
    ),
    "durability.lost": _warning(
        "the server's timeline changed in the last day: a failover or a restore; commits of the "
        "time it names may be lost"
    ),
    "durability.unseen": _info("this role may not see whether a standby is synchronous"),
    "durability.managed": _info(
        "roles that Amazon RDS, Cloud SQL, Azure or Supabase make: their own replication can't be"
        " seen by SQL"
    ),
    "clocks.apart": _warning("this machine's clock is ten seconds off the database's"),
    "clocks.future": _warning(
        "heartbeats lie in the future: the database's clock was set back, and who dies looks alive"
        " until then"
    ),
    "pooler.transaction": _info(
        "a transaction-mode pooler: no doorbell, so a job waits for the next poll, half a second"
    ),
    "pooler.statement": _error("a statement-mode pooler, which allows no transactions"),
    "transactions.old": _warning(
        "a transaction is older than 15 minutes, or does nothing for 5: the queue can't be vacuumed"
        " behind it, and its locks hold up jobs"
    ),
    "transactions.prepared": _warning("a prepared transaction is older than 5 minutes"),
    "transactions.slot": _warning(
        "an unused replication slot holds back vacuum, or more than 1 GiB of write-ahead log"
    ),
    "transactions.unseen": _info("this role may not see other sessions"),
    "bloat.dead": _warning(
        "a table has more dead rows than living ones, and 50 000 (the platforms' tables: 1 "
        "000 000)",
        f"{_VACUUM}, if it is one of Rowmill's",
    ),
    "bloat.autovacuum": _warning("autovacuum is off, for the server or for one of these tables"),
    "bloat.statistics": _warning(
        "a table of more than 1 MiB was never analyzed, as after a restore",
        f"{_VACUUM}, if it is one of Rowmill's",
    ),
    "bloat.wraparound": Known(
        ("warning", "error"),
        "transaction ids are used up to a half, or to four fifths: at the end nothing can "
        "be written",
    ),
    # ------------------------------------------------------------------ our tables
    "schema.behind": _error(
        "migrations of this version aren't applied; our tables are then not looked at",
        "`rowmill migrate`",
    ),
    "schema.ahead": _warning("the database was migrated by a newer version than this one"),
    "versions.mixed": Known(
        ("info", "warning"),
        "workers of several versions live; a warning once the last of them started an hour ago",
    ),
    "versions.here": _info("all workers that live have another version than this command"),
    # ------------------------------------------------------------------ attached tables
    "tables.gone": _error("an attached table isn't there any more"),
    "tables.triggers": _error(
        "a trigger on an attached table is missing or disabled, also on a partition", _ATTACH
    ),
    "tables.replica": _error(
        "`session_replication_role` of a role or of the database is `replica`: our triggers are not"
        " fired for it"
    ),
    "tables.functions": Known(
        ("warning", "error"),
        "a generated function isn't what this version makes of the map; or it is missing",
        _ATTACH,
    ),
    "maps.misfit": _error("what `rowmill attach` would refuse of an attached map"),
    "maps.notice": _warning("what `rowmill attach` would warn of, such as time zones that differ"),
    "maps.changed": _info("the map that comes with this version isn't the one that is attached"),
    "rights.row_security": _error(
        "row-level security of a table would filter the workers' role, so that its jobs fail"
    ),
    "rights.missing": _error(
        "the workers' role lacks a right on Rowmill's tables and functions, or on those that a "
        "map or its rules name"
    ),
    "rights.owner": _warning("a materialized view to be refreshed belongs to another role"),
    "partitions.missing": Known(
        ("warning", "error"),
        "next month has no partition in a table whose partitions a map names; or this month",
        "has the platform's own function make them, as workers do",
    ),
    "partitions.default": _warning(
        "such a table's default partition holds rows: no partition can be made that they belong to"
    ),
    "schedules.failed": _warning(
        "a view couldn't be refreshed, or old rows couldn't be removed, the last time it was tried"
    ),
    "audit.failed": _warning(
        "a platform's `audit.sql` couldn't record what operators did in the last 30 days"
    ),
    # ------------------------------------------------------------------ workers and jobs
    "fleet.none": _warning("as in `status`: jobs wait, and no worker lives"),
    "fleet.unserved": _warning("as in `status`: jobs wait in a lane that no live worker serves"),
    "fleet.silent": _warning(
        "a worker has been silent for three leases, and nobody gave it up: its jobs wait"
    ),
    "fleet.abandoned": _warning(
        "jobs are claimed by workers that are gone, for longer than a rescue takes"
    ),
    "fleet.crashes": _warning(
        "three workers or more of one host died within a minute of their start, in half an hour"
    ),
    "providers.broken": _warning(
        "as in `status`: a provider refuses our key, or our account there is used up"
    ),
    "jobs.held": _warning("as in `status`: jobs are held for a person"),
    "rows.unqueued": _warning(
        "rows are ready and in no queue: they missed their trigger",
        "the sweep that workers do, too",
    ),
    "rows.running": _warning(
        "rows are said to be running, and are in no queue: someone else runs them, or nobody"
    ),
    "rows.finished": _warning(
        "rows are over, or gone, and still in the queue",
        "takes those from the queue that are over and that nobody has claimed, row by row, locked",
    ),
    "rows.tries": _info("waiting rows have used up more tries than they have"),
    "rows.empty": _warning(
        "rows of the last 7 days are completed without the file that their map says they have"
    ),
    # ------------------------------------------------------------------ money
    "usage.missing": _error(
        "metered jobs of the last 7 days are completed and nothing was charged for them, says the"
        " platform's `charged.sql`"
    ),
    "usage.double": _error("such jobs have more usage records than runs that were delivered"),
    "payments.unresolved": _warning(
        "as in `status`: a call may have been paid, and nobody knows what became of it"
    ),
    "payments.undelivered": _warning(
        "results of the last 30 days were paid for, and their jobs are over without them"
    ),
    "payments.open": _warning("paid calls were accepted a day ago or earlier, and have not ended"),
    # ------------------------------------------------------------------ outside
    "providers.key": _error(
        "jobs wait for a provider without a key here that no live worker serves"
    ),
    "providers.refused": _error("a provider refuses the key that is configured here"),
    "providers.unreachable": _warning("a provider can't be reached from here, or answers with 5xx"),
    "storage.unreachable": _error("a small file can't be written, read and deleted in the storage"),
    "redis.unreachable": _warning("Redis is configured and doesn't answer"),
    "mail.unreachable": _warning("the mail server is configured and doesn't answer"),
    # ------------------------------------------------------------------ the doctor
    "doctor.failed": _warning(
        "something couldn't be looked at: a right is missing, or it took long"
    ),
}


def reference() -> str:
    """The table of docs/cli.md."""
    rows = ["| id | severity | found by | `--repair` |", "|---|---|---|---|"]
    for name, known in FINDINGS.items():
        rows.append(f"| `{name}` | {', '.join(known.severities)} | {known.by} | {known.repair} |")
    return "\n".join(rows)
