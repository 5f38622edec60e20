"""What `job show` tells of one job, and why it waits. Reads only."""

from __future__ import annotations

import json

from worker.store.finding import Found, platform_row
from worker.store.reading import Row, read, stored_query
from worker.store.store import Store

_QUEUED = """
SELECT q.id::text AS id, q.state::text AS state, q.lane, q.rank, q.run, q.tries, q.yields,
       q.ready_at, q.enqueued_at, q.claimed_at, w.name AS worker, q.tenant, q.note
  FROM rowmill.queue q
  JOIN rowmill.sources s ON s.id = q.source
  LEFT JOIN rowmill.workers w ON w.id = q.worker
 WHERE s.name = $1 AND q.row_key = $2
"""

_FAILURES = """
SELECT at, lane, run, try, final, kind, code, provider, message
  FROM rowmill.failures WHERE source = $1 AND row_key = $2 ORDER BY id
"""

_SUBMISSIONS = """
SELECT id::text AS id, run, step, attempt, provider, account, model, state::text AS state,
       external_id, estimate_cents, cost_cents, error,
       intended_at, accepted_at, ended_at, delivered_at
  FROM rowmill.submissions WHERE source = $1 AND row_key = $2 ORDER BY id
"""

_ACTIONS = "SELECT at, who, action, detail FROM rowmill.actions WHERE subject = $1 ORDER BY id"


async def job(store: Store, source: str, key: str) -> Row:
    """The whole story of one job, from its row to what was paid for it."""
    (info,) = [s for s in await store.sources() if s.name == source]
    row = await platform_row(store, info, key)
    queued = await read(store, _QUEUED, source, key)
    actions = await read(store, _ACTIONS, Found(source, key).subject)
    return {
        "source": source,
        "key": key,
        "platform": info.platform,
        "relation": info.relation,
        "why": await why(store, source, key),
        "ahead": await ahead(store, source, key),
        "queue": queued[0] if queued else None,
        "failures": await read(store, _FAILURES, source, key),
        "submissions": await read(store, _SUBMISSIONS, source, key),
        "actions": [{**a, "detail": json.loads(a["detail"])} for a in actions],
        "row": row.data if row else None,
    }


async def why(store: Store, source: str, key: str) -> str:
    """Why a job isn't done yet, in one line; where it isn't waiting at all, that."""
    rows = await store.fetch(
        "SELECT state::text AS state, lane, obstacle, why FROM rowmill.waiting "
        "WHERE source = $1 AND row_key = $2",
        source,
        key,
    )
    if not rows:
        return await _why_not_waiting(store, source, key)
    (row,) = rows
    if row["state"] != "ready" or row["obstacle"]:
        return str(row["why"])
    before = await ahead(store, source, key)
    return f"ready: {before or 'none'} ahead of it in lane {row['lane']}"


async def _why_not_waiting(store: Store, source: str, key: str) -> str:
    (info,) = [s for s in await store.sources() if s.name == source]
    row = await platform_row(store, info, key)
    if row is None:
        return f"not waiting: {info.relation} has no such row (any more)"
    (mine,) = [s for s in info.definition["map"]["sources"] if s["name"] == source]
    words, word = mine["status"], row.data.get(mine["status"]["column"])
    if (word or words.get("default")) in words["ready"]:
        return "not queued yet: its trigger was off when it was written; the sweep finds it"
    return f"not waiting: its {words['column']} is {word}"


async def ahead(store: Store, source: str, key: str) -> int | None:
    """How many of its lane come before it; None unless it is ready."""
    place: int | None = await store.value(stored_query("place"), source, key)
    return place
