"""Which function looks for which findings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from worker.doctor import (
    durability,
    environment,
    fleet,
    money,
    outside,
    rows,
    sessions,
    space,
    tables,
)
from worker.doctor.patient import Finding, Patient

Needs = Literal["nothing", "schema", "network"]


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    """As it is told: `looking at …`."""
    look: Callable[[Patient], Awaitable[list[Finding]]]
    ids: tuple[str, ...]
    needs: Needs = "nothing"
    """`schema`: our tables, as this version knows them. `network`: others than the database."""


def _of(what: str, look: Callable[[Patient], Awaitable[list[Finding]]], *ids: str) -> Check:
    return Check(what, look, ids)


def _ours(what: str, look: Callable[[Patient], Awaitable[list[Finding]]], *ids: str) -> Check:
    return Check(what, look, ids, "schema")


def _others(what: str, look: Callable[[Patient], Awaitable[list[Finding]]], *ids: str) -> Check:
    return Check(what, look, ids, "network")


CHECKS: tuple[Check, ...] = (
    # Who waits for others begins first.
    _others("providers", outside.providers, "providers.unreachable", "providers.refused"),
    _others("the storage", outside.storage, "storage.unreachable"),
    _others("Redis", outside.redis, "redis.unreachable"),
    _others("the mail server", outside.mail, "mail.unreachable"),
    _of("variables", environment.names, "environment.unknown"),
    _of("handlers, providers and prices", environment.worker, "environment.worker"),
    _of("settings", environment.settings, "environment.pulse", "environment.mail"),
    _of("this machine", environment.machine, "environment.files", "environment.disk"),
    _ours("lanes", environment.lanes, "environment.lane"),
    _ours("where outputs go", environment.storage, "environment.storage", "environment.links"),
    _of(
        "durability",
        durability.durability,
        "database.standby",
        *(f"durability.{name}" for name in ("fsync", "pages", "commit", "failover", "unseen")),
        "durability.managed",
    ),
    _ours("failovers", durability.lost, "durability.lost"),
    _of("the server", sessions.server, "database.version", "database.connections"),
    _of("the pooler", sessions.pooler, "pooler.transaction", "pooler.statement"),
    _of("clocks", sessions.clock, "clocks.apart"),
    _ours("heartbeats", sessions.heartbeats, "clocks.future"),
    _of(
        "old transactions",
        sessions.transactions,
        *(f"transactions.{name}" for name in ("old", "prepared", "unseen")),
    ),
    _of("replication slots", sessions.slots, "transactions.slot"),
    _ours("bloat", space.tables, "bloat.dead", "bloat.statistics", "bloat.autovacuum"),
    _of("vacuum", space.server, "bloat.autovacuum", "bloat.wraparound"),
    _ours("migrations", tables.schema, "schema.ahead"),
    _ours("attached tables", tables.there, "tables.gone"),
    _ours("triggers", tables.triggers, "tables.triggers"),
    _of("replication roles", tables.replicas, "tables.replica"),
    _ours("functions", tables.functions, "tables.functions", "maps.misfit"),
    _ours("maps", tables.maps, "maps.misfit", "maps.notice", "maps.changed"),
    _ours(
        "rights",
        tables.rights,
        *(f"rights.{name}" for name in ("missing", "row_security", "owner")),
    ),
    _ours("partitions", tables.partitions, "partitions.missing", "partitions.default"),
    _ours("schedules", tables.schedules, "schedules.failed"),
    _ours("audits", tables.audits, "audit.failed"),
    _ours("what needs a person", fleet.needs_person, *fleet.KINDS.values()),
    _ours("providers' keys", fleet.keys, "providers.key"),
    _ours("silent workers", fleet.silent, "fleet.silent", "fleet.abandoned"),
    _ours("crashes", fleet.crashes, "fleet.crashes"),
    _ours("versions", fleet.versions, "versions.mixed", "versions.here"),
    _ours("queued rows", rows.queued, "rows.finished", "rows.tries"),
    _ours("rows that aren't queued", rows.unqueued, "rows.unqueued", "rows.running"),
    _ours("completed rows", rows.empty, "rows.empty"),
    _ours("results", money.undelivered, "payments.undelivered"),
    _ours("open calls", money.long_open, "payments.open"),
    _ours("usage", money.usage, "usage.missing", "usage.double"),
)
