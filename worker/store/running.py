"""The jobs that run now, with how far they are; and what a lane does next. Reads only.

How far a job is stands in the platform's own row, if its map has a column for it. So the statement
is written from the maps of the attached tables, whenever those are read anew: nothing of it is kept
in the database, and an upgrade has nothing to make again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from worker.generate.words import Column, Target, ident, tries_of, value_of
from worker.maps import MapError, Platform, Source
from worker.store.reading import Row, read
from worker.store.store import Store

MOST = 50
"""The longest-running ones; a screen shows no more."""

_TABLES = """
SELECT s.id, s.name, s.definition,
       (SELECT jsonb_object_agg(a.attname, format_type(a.atttypid, NULL)) FROM pg_attribute a
         WHERE a.attrelid = to_regclass(s.relation) AND a.attnum > 0 AND NOT a.attisdropped
       )::text AS columns
  FROM rowmill.sources s ORDER BY s.id
"""

# {rows} tells of each running job what its platform's row says.
_RUNNING = """
WITH m AS MATERIALIZED (
    SELECT q.id, q.source, s.name, q.row_key, q.lane, q.tenant, q.claimed_at, q.tries,
           w.name AS worker, count(*) OVER () AS total
      FROM rowmill.queue q
      JOIN rowmill.sources s ON s.id = q.source
      LEFT JOIN rowmill.workers w ON w.id = q.worker
     WHERE q.state = 'claimed'
       AND ($1 = '' OR strpos(lower(concat_ws(' ', q.lane, s.name || '/' || q.row_key, q.tenant,
                                              w.name)), lower($1)) > 0)
     ORDER BY q.claimed_at, q.id
     LIMIT {most}
), r AS MATERIALIZED (
    {rows}
)
SELECT m.name AS source, m.row_key AS key, m.lane, r.kind, m.worker, m.claimed_at AS since,
       extract(epoch FROM clock_timestamp() - m.claimed_at)::double precision AS running_s,
       coalesce(r.failed, m.tries) + 1 AS try, m.tenant,
       r.percent, m.total
  FROM m LEFT JOIN r USING (id)
 ORDER BY m.claimed_at, m.id
"""

_NO_TABLE = (
    "SELECT NULL::bigint AS id, NULL::text AS kind, NULL::integer AS failed,"
    " NULL::double precision AS percent WHERE false"
)


@dataclass(frozen=True, slots=True)
class RunningJobs:
    """The statement that reads running jobs, for the tables as they were when it was written."""

    sql: str

    @classmethod
    async def of(cls, store: Store) -> RunningJobs:
        parts = []
        for row in await store.fetch(_TABLES):
            part = _of_table(
                row["id"], row["name"], row["definition"], json.loads(row["columns"] or "{}")
            )
            if part:
                parts.append(part)
        rows = "\n    UNION ALL\n    ".join(parts or [_NO_TABLE])
        return cls(_RUNNING.format(most=MOST, rows=rows))

    async def read(self, store: Store, text: str = "") -> list[Row]:
        """Those whose lane, name, tenant or worker holds `text`, the longest-running first.

        `percent` is None where the map has no column for it; `total` counts those beyond MOST.
        """
        return await read(store, self.sql, text)


def _of_table(number: int, name: str, definition: str, columns: dict[str, str]) -> str | None:
    """None where the table is gone, or was attached by a version that knows more than this one."""
    try:
        platform = Platform.from_definition(json.loads(definition))
    except MapError:
        return None
    (source,) = [s for s in platform.map.sources if s.name == name]
    live = {column: Column(kind) for column, kind in columns.items()}
    target = Target(platform, source, number, live, partitioned=False)
    if not _needed(source) <= set(live):
        return None
    kind, joins = value_of(source.kind, "t", "kind")
    failed, _ = tries_of(target)
    # A key of another table may be no value of this key's type; CASE is evaluated in order.
    key = f"CASE WHEN m.source = {number} THEN m.row_key::{target.key_type} END"
    return (
        f"SELECT m.id, {kind} AS kind, ({failed})::integer AS failed, {_percent(source)} AS percent\n"
        f"      FROM m JOIN {target.table} t ON t.{ident(source.key)} = {key} {' '.join(joins)}\n"
        f"     WHERE m.source = {number}"
    )


def _needed(source: Source) -> set[str]:
    columns = {source.key, source.kind.column, progress_column(source)}
    if source.tries is not None:
        columns |= {source.tries.column, source.tries.max}
    return {column for column in columns if column}


def progress_column(source: Source) -> str | None:
    return next((c for c, field in source.set.progress.items() if field == "progress"), None)


def _percent(source: Source) -> str:
    column = progress_column(source)
    # Nobody's NULL is 0 here; a table without such a column has no percentage at all.
    at = f"least(100, greatest(0, t.{ident(column)}))" if column else "NULL"
    return f"{at}::double precision"


# --------------------------------------------------------------------------- one lane

# In the order of claims, by probes of the index queue_order: one for each rank.
_NEXT = """
SELECT s.name AS source, n.row_key AS key, n.state::text AS state, n.rank, n.tenant, n.note,
       extract(epoch FROM clock_timestamp() - n.since)::double precision AS since_s
  FROM rowmill.sources s
 CROSS JOIN LATERAL (
       (SELECT ready.*, ready.ready_at AS since
          FROM generate_series(20, 1, -1) r
         CROSS JOIN LATERAL (
               SELECT q.* FROM rowmill.queue q
                WHERE q.state = 'ready' AND q.lane = $1 AND q.source = s.id AND q.rank = r
                ORDER BY q.ready_at, q.id LIMIT {most}) ready
         ORDER BY ready.rank DESC, ready.ready_at, ready.id LIMIT {most})
       UNION ALL
       (SELECT q.*, q.enqueued_at FROM rowmill.queue q
         WHERE q.state = 'held' AND q.lane = $1 AND q.source = s.id
         ORDER BY q.enqueued_at LIMIT {most})) n
 WHERE s.name = $2
 ORDER BY n.state = 'held', n.rank DESC, n.since, n.id
"""


async def next_jobs(store: Store, lane: str, source: str, most: int = MOST) -> Sequence[Row]:
    """What a table's lane does next, then what it holds."""
    return await read(store, _NEXT.format(most=most), lane, source)
