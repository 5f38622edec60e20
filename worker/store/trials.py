"""The table of `rowmill try`: made and attached when it is first used, one row per trial."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any

from worker.maps import load
from worker.store.attaching import attach
from worker.store.store import Head, Store

SOURCE = "rowmill_trials"

_SERVING = """
SELECT name FROM rowmill.workers
 WHERE stopped_at IS NULL AND NOT draining AND heartbeat_at > clock_timestamp() - lease
   AND $1 = ANY (lanes) ORDER BY started_at LIMIT 1
"""

_INSERT = """
INSERT INTO rowmill.trials (id, provider, kind, prompt, model, max_tokens, generation_settings, tried_by)
VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, jsonb_build_object('model', $4::text), $6) RETURNING id::text
"""

_LOOK = """
SELECT t.status, t.progress, t.text, t.url, t.error, q.state::text AS queue_state, q.note,
       coalesce(m.open, 0) AS open, m.cost_cents
  FROM rowmill.trials t
  LEFT JOIN rowmill.sources s ON s.name = $1
  LEFT JOIN rowmill.queue q ON q.source = s.id AND q.row_key = t.id::text
  LEFT JOIN (SELECT sum(u.cost_cents) AS cost_cents,
                    count(*) FILTER (WHERE u.state IN ('intent', 'accepted', 'unknown')) AS open
               FROM rowmill.submissions u WHERE u.source = $1 AND u.row_key = $2) m ON true
 WHERE t.id = $2::text::uuid
"""

_HEAD = """
SELECT q.lane, q.source, q.rank, q.ready_at FROM rowmill.queue q
  JOIN rowmill.sources s ON s.id = q.source
 WHERE s.name = $1 AND q.row_key = $2 AND q.state = 'ready'
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """Where a trial stands."""

    status: str
    progress: Decimal
    text: str | None
    url: str | None
    error: str | None
    queue_state: str | None
    note: str | None
    open: int
    """Calls of which nobody knows yet how they end."""
    cost_cents: Decimal | None

    @property
    def over(self) -> bool:
        return self.status not in ("queued", "processing")


async def prepare(store: Store) -> None:
    """Make and attach the table, unless it is there as this version wants it."""
    folder = files("sql") / "trials"
    platform = load(str(folder / "map.toml"))
    (source,) = platform.map.sources
    wanted = platform.definition(source)
    if not any(s.name == SOURCE and s.definition == wanted for s in await store.sources()):
        await store.script((folder / "schema.sql").read_text(encoding="utf-8"))
        await attach(store.dsn, platform)


async def serving(store: Store, lane: str) -> str | None:
    """A live worker that takes jobs of this lane."""
    name: str | None = await store.value(_SERVING, lane)
    return name


async def insert(  # noqa: PLR0917 - the columns in their order
    store: Store, lane: str, kind: str, prompt: str, model: str, max_tokens: int | None, who: str
) -> str:
    return str(await store.value(_INSERT, lane, kind, prompt, model, max_tokens, who))


async def look(store: Store, key: str) -> Trial:
    (row,) = await store.fetch(_LOOK, SOURCE, key)
    return Trial(**dict(row))


async def head(store: Store, key: str) -> Head | None:
    """Where in the queue it is, if its time has come: claiming from there takes this row."""
    await store.value("SELECT rowmill.promote()")
    rows: list[Any] = await store.fetch(_HEAD, SOURCE, key)
    return Head(*rows[0]) if rows else None
