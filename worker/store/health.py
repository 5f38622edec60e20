"""What `rowmill doctor` asks the server about: how durable a commit is, and what paid calls brought."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from worker.store.store import Store

# Who may not see other sessions gets rows of pg_stat_replication without a state. Backups and
# logical subscribers are no standbys.
_SERVER = """
WITH followers AS (
    SELECT r.state, r.sync_state FROM pg_stat_replication r
     WHERE r.state IS DISTINCT FROM 'backup'
       AND NOT EXISTS (SELECT FROM pg_replication_slots s
                        WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
)
SELECT pg_is_in_recovery() AS in_recovery,
       current_setting('synchronous_standby_names') AS standby_names,
       (SELECT json_object_agg(s.name, json_build_array(s.setting, s.source)) FROM pg_settings s
         WHERE s.name IN ('fsync', 'full_page_writes', 'synchronous_commit'))::text AS settings,
       (SELECT count(*) FROM followers) AS followers,
       (SELECT count(*) FROM followers f WHERE f.sync_state IN ('sync', 'quorum')) AS synchronous,
       (SELECT count(*) FROM followers f WHERE f.state IS NULL) AS hidden,
       (SELECT count(*) FROM pg_replication_slots s
         WHERE s.slot_type = 'physical' AND NOT s.active) AS waiting_slots,
       ARRAY(SELECT r.rolname::text FROM pg_roles r WHERE r.rolname = ANY ($1)) AS roles
"""

# The last thirty days: what is older was looked at, or never will be.
_UNDELIVERED = """
SELECT u.source, count(*) AS calls, sum(u.cost_cents) AS cents, min(u.row_key) AS example
  FROM rowmill.submissions u
 WHERE u.intended_at > now() - interval '30 days'
   AND u.state = 'finished' AND u.delivered_at IS NULL AND u.cost_cents > 0
   AND NOT EXISTS (SELECT FROM rowmill.queue q JOIN rowmill.sources s ON s.id = q.source
                    WHERE s.name = u.source AND q.row_key = u.row_key AND q.run = u.run)
 GROUP BY u.source ORDER BY u.source
"""

_STUCK = """
SELECT c.chore, c.subject, c.error FROM rowmill.schedules c
 WHERE c.error IS NOT NULL AND EXISTS (SELECT FROM rowmill.sources s WHERE s.platform = c.platform)
 ORDER BY 1, 2
"""

_UNAUDITED = """
SELECT f.platform, count(*) AS acts, (array_agg(f.why ORDER BY a.id DESC))[1] AS why
  FROM rowmill.actions a, jsonb_each_text(a.detail -> 'audit_failed') AS f (platform, why)
 WHERE a.at > now() - interval '30 days' AND a.detail ? 'audit_failed'
 GROUP BY f.platform ORDER BY f.platform
"""


@dataclass(frozen=True, slots=True)
class Server:
    in_recovery: bool
    standby_names: str
    settings: Mapping[str, tuple[str, str]]
    """Value and source, as this session has them: so have workers with the same URL."""
    followers: int
    synchronous: int
    hidden: int
    waiting_slots: int
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Undelivered:
    source: str
    calls: int
    cents: Decimal
    example: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """A view that couldn't be refreshed, or a table whose old rows couldn't be removed."""

    chore: str
    subject: str
    error: str


@dataclass(frozen=True, slots=True)
class Unaudited:
    platform: str
    acts: int
    why: str
    """Of the last one."""


async def server(store: Store, roles: list[str]) -> Server:
    """`roles`: names that tell a managed service; those that exist come back."""
    ((row),) = await store.fetch(_SERVER, roles)
    settings = {name: tuple(pair) for name, pair in json.loads(row["settings"]).items()}
    values: dict[str, Any] = {**dict(row), "settings": settings, "roles": tuple(row["roles"])}
    return Server(**values)


async def lost(store: Store) -> Lost | None:
    """The time whose commits a failover or a restore may have lost, if that was in the last day."""
    ((row),) = await store.fetch("SELECT gap_since, gap_until FROM rowmill.gap(false)")
    return Lost(row["gap_since"], row["gap_until"]) if row["gap_since"] else None


async def undelivered(store: Store) -> list[Undelivered]:
    """Results that were paid for, and whose job is over without them."""
    return [Undelivered(**dict(row)) for row in await store.fetch(_UNDELIVERED)]


async def stuck(store: Store) -> list[Stuck]:
    return [Stuck(**dict(row)) for row in await store.fetch(_STUCK)]


async def unaudited(store: Store) -> list[Unaudited]:
    """Operators' acts that a platform's audit.sql couldn't record."""
    return [Unaudited(**dict(row)) for row in await store.fetch(_UNAUDITED)]
