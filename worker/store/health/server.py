"""How durable a commit is on this server, and what a failover may have lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
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
