"""What `rowmill reconcile` compares with a provider's own list of tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from worker.store.store import Store

_CALL = """
u.id, u.state, u.provider, u.account, u.model, u.estimate_cents, u.cost_cents, u.ref, u.result,
u.external_id, u.fingerprint, u.intended_at, u.source, u.row_key, u.step,
extract(epoch FROM clock_timestamp() - u.intended_at)::double precision AS age_seconds,
q.state::text AS queued
"""

# Its job, while it waits or runs: of one that is over, or went on to another run, there is none.
_JOB = """
LEFT JOIN rowmill.sources s ON s.name = u.source
LEFT JOIN rowmill.queue q ON q.source = s.id AND q.row_key = u.row_key AND q.run = u.run
"""

_IN_DOUBT = f"""
SELECT {_CALL}, extract(epoch FROM coalesce(w.lease, interval '1 minute'))::double precision AS lease
  FROM rowmill.submissions u {_JOB}
  LEFT JOIN rowmill.workers w ON w.id = u.worker
 WHERE u.state IN ('intent', 'unknown') ORDER BY u.id
"""

_KNOWN = f"""
SELECT {_CALL} FROM rowmill.submissions u {_JOB}
 WHERE u.provider = $1 AND u.account = $2 AND u.external_id = ANY ($3) ORDER BY u.id
"""

# Accepted before the provider was asked, and in the time it was asked about.
_ABSENT = f"""
SELECT {_CALL}, count(*) OVER () AS total FROM rowmill.submissions u {_JOB}
 WHERE u.intended_at >= $3 AND u.accepted_at < $4 AND u.provider = $1 AND u.account = $2
   AND u.external_id IS NOT NULL
   AND NOT EXISTS (SELECT FROM unnest($5::text[]) AS there (id) WHERE there.id = u.external_id)
 ORDER BY u.id LIMIT $6
"""


async def now(store: Store) -> datetime:
    at: datetime = await store.value("SELECT clock_timestamp()")
    return at


async def in_doubt(store: Store) -> list[Mapping[str, Any]]:
    """Calls of which nobody has written down whether they were accepted."""
    return [_plain(row) for row in await store.fetch(_IN_DOUBT)]


async def known(
    store: Store, provider: str, account: str, ids: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """The submissions that have these tasks, by the tasks' ids."""
    rows = await store.fetch(_KNOWN, provider, account, list(ids))
    return {row["external_id"]: _plain(row) for row in rows}


async def absent(  # noqa: PLR0917 - the parameters in their order
    store: Store,
    provider: str,
    account: str,
    since: datetime,
    until: datetime,
    ids: Sequence[str],
    most: int,
) -> tuple[list[Mapping[str, Any]], int]:
    """Submissions of that time with a task that isn't among these; and how many there are."""
    rows = await store.fetch(_ABSENT, provider, account, since, until, list(ids), most)
    return [_plain(row) for row in rows], rows[0]["total"] if rows else 0


def _plain(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**dict(row), "ref": json.loads(row["ref"]) if row["ref"] else None, "result": None}
