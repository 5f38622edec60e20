"""Statements of maintenance: partitions, unserved kinds, clean-up, open submissions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from worker.generate.words import CANCELLED, ident, name
from worker.maps import Partitions, Platform, Source
from worker.store import turns
from worker.store.attaching import unserved
from worker.store.finding import Found, column_type
from worker.store.reports import BUCKETS
from worker.store.store import Store, to_json

_MONTHS = """
SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n))::date
  FROM generate_series(0, $1::integer) n
"""

_OPEN = """
SELECT u.id, u.state, u.provider, u.account, u.model, u.estimate_cents, u.cost_cents, u.ref,
       u.result, u.external_id, u.fingerprint, extract(epoch FROM clock_timestamp() - u.intended_at)::double precision AS age_seconds,
       u.intended_at, u.source, u.row_key, u.run, u.step
  FROM rowmill.submissions u
 WHERE u.state = 'accepted'
   AND (u.provider, u.account) IN (SELECT * FROM unnest($2::text[], $3::text[]))
   AND NOT EXISTS (SELECT FROM rowmill.queue q JOIN rowmill.sources s ON s.id = q.source
                    WHERE s.name = u.source AND q.row_key = u.row_key AND q.run = u.run)
   AND u.accepted_at < clock_timestamp() - make_interval(secs => $1)
 ORDER BY random() LIMIT $4
"""

_LAST_END = """
SELECT f.kind = $3 FROM rowmill.failures f
 WHERE f.source = $1 AND f.row_key = $2 AND f.final ORDER BY f.id DESC LIMIT 1
"""


# The job is locked first, in everyone's order: whoever waits for it with the budgets in hand holds up
# every payment. For less long than the server needs to look for a deadlock, so that nobody is the
# victim of our waiting. (What a select list calls is called after its FROM was read.)
# Recorded in any case, since everything else is read from what was. What the functions see is newer
# than this statement's own look: the recorded success, by which it stays the same run.
_DELIVER = """
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', '250ms', true)
), locked AS MATERIALIZED (
    SELECT rowmill.lock_{name}($1) AS job FROM patience
), recorded AS MATERIALIZED (
    SELECT rowmill.journal($2::jsonb) AS id, (l.job).state AS queued FROM locked l
), late AS MATERIALIZED (
    SELECT r.id FROM recorded r JOIN LATERAL (
           SELECT s.* FROM rowmill.submissions s WHERE s.id = r.id LIMIT 1) u ON true
     WHERE r.queued IS NULL
       AND u.run = (SELECT max(n.run) FROM rowmill.submissions n
                     WHERE n.source = u.source AND n.row_key = u.row_key)
), done AS MATERIALIZED (
    SELECT l.id, rowmill.retry_{name}($1) AS verdict FROM late l
), told AS (
    INSERT INTO rowmill.actions (who, action, subject, detail)
    SELECT 'rowmill', 'deliver', '{name}/' || $1,
           jsonb_build_object('submission', d.id, 'verdict', d.verdict)
      FROM done d WHERE d.verdict = 'requeued'
    RETURNING id
)
SELECT EXISTS (SELECT FROM recorded) AS recorded, EXISTS (SELECT FROM told) AS delivered
"""


@dataclass(frozen=True, slots=True)
class Late:
    recorded: bool
    """Not where another worker had done so already."""
    delivered: bool


async def deliver_late(store: Store, job: Found, entry: Mapping[str, Any]) -> Late:
    """Record a late success, and let its failed row run once more to take it: in one commit.

    One that is recorded and not delivered would never be looked at again. A row that someone
    re-enqueued, finished or deleted meanwhile keeps their change: also one that is held or waits
    stays so, and finds the result when it runs. Raises `LockTimeout`, with nothing recorded, while
    someone has the row.
    """
    (row,) = await store.fetch(_DELIVER.format(name=job.source), job.key, to_json([entry]))
    return Late(**row)


async def make_partitions(store: Store, platform: Platform) -> None:
    """This month's partitions and the coming ones; the platform's function makes what is missing."""
    for partitions in platform.map.partitions:
        for month in await _months(store, partitions.ahead):
            await _make(store, partitions, month)


async def _months(store: Store, ahead: int) -> list[date]:
    return [row[0] for row in await store.fetch(_MONTHS, ahead)]


async def _make(store: Store, partitions: Partitions, month: date) -> None:
    argument = partitions.argument.replace("'", "''")
    await store.value(
        f"SELECT {name(partitions.function)}('{argument}', $1::date)",
        month,
    )


async def refresh_unserved(store: Store, platform: Platform) -> dict[str, str]:
    """Write down which kinds can't run on this database now, and why; extensions come and go."""
    reasons: dict[str, str] = {}
    for source in platform.map.sources:
        missing = await unserved(store.value, source)
        await store.value(
            "UPDATE rowmill.sources SET unserved = $2 WHERE name = $1 AND unserved <> $2::jsonb",
            source.name,
            json.dumps(missing),
        )
        reasons |= missing
    return reasons


async def orphans(
    store: Store, accounts: Sequence[tuple[str, str]], older_than: float, limit: int = 50
) -> list[Mapping[str, Any]]:
    """Accepted submissions whose job is over or gone: what they cost is still to be learnt.

    Of these accounts, by provider. Any of them, since those that never tell must not keep the
    others from their turn.
    """
    providers, names = [provider for provider, _ in accounts], [name for _, name in accounts]
    rows = await store.fetch(_OPEN, older_than, providers, names, limit)
    return [
        {**dict(r), "ref": json.loads(r["ref"]) if r["ref"] else None, "result": None} for r in rows
    ]


async def row_status(store: Store, source: Source, key: str) -> str | None:
    """A platform row's status word; None for a row that is gone."""
    table = name(source.table)
    type_ = await column_type(store, table, source.key)
    status: str | None = await store.value(
        f"SELECT {ident(source.status.column)}::text FROM {table}"
        f" WHERE {ident(source.key)} = $1::text::{type_}",
        key,
    )
    return status


async def unwanted(store: Store, source: Source, key: str) -> bool:
    """Whether the row is deleted or cancelled.

    In a table without a word for that, a cancelled one is called failed like the others: then the
    record of failures says what its last end was.
    """
    status = await row_status(store, source, key)
    if source.status.cancelled is not None or status != source.status.failed:
        return status is None or status == source.status.cancelled
    return bool(await store.value(_LAST_END, source.name, key, CANCELLED))


async def missing_triggers(store: Store) -> list[str]:
    """Attached tables with triggers that are gone or not fired."""
    rows = await store.fetch(
        "SELECT source || ': ' || string_agg(DISTINCT trigger, ', ' ORDER BY trigger) AS missing"
        " FROM rowmill.missing_triggers() GROUP BY source"
    )
    return [row["missing"] for row in rows]


def _summed(column: str) -> str:
    return f"ARRAY[{', '.join(f'sum({column}[{n}])::integer' for n in range(1, BUCKETS + 1))}]"


# Worker 0 is nobody in particular. Two workers at once: the second finds what the first left.
_CONDENSE = f"""
WITH told AS (
    DELETE FROM rowmill.pulses WHERE worker <> 0 AND at < now() - interval '80 seconds' RETURNING *
)
INSERT INTO rowmill.pulses (at, worker, source, lane, started, succeeded, failed, retried, yielded, waits, runs)
SELECT max(at), 0, source, lane, sum(started), sum(succeeded), sum(failed), sum(retried), sum(yielded),
       {_summed("waits")}, {_summed("runs")}
  FROM told GROUP BY date_bin('30 seconds', at, '2000-01-01'), source, lane
"""


async def condense(store: Store) -> None:
    """What workers told every two seconds becomes a line per lane and half minute, once it is a minute old.

    Whoever reads an hour of it reads hundreds of lines then, and not tens of thousands.
    """
    await store.value(_CONDENSE)


# Calls whose intent is being committed just now are left to the next round. What is of a time that is
# still to come was summed up by a clock that was put back since, perhaps another server's.
_SUM_UP = """
WITH today AS MATERIALIZED (
    SELECT u.id, u.lane, u.source, u.provider, u.cost_cents,
           u.state IN ('intent', 'accepted', 'unknown') AS pending
      FROM rowmill.submissions u
     WHERE u.intended_at >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
       AND u.intended_at < now() - interval '1 minute'
       AND NOT EXISTS (SELECT FROM rowmill.spending s
                        WHERE s.until BETWEEN now() - interval '10 minutes' AND now())
), sums AS (
    SELECT t.lane, t.source, t.provider, sum(t.cost_cents) AS cents
      FROM today t WHERE NOT t.pending GROUP BY t.lane, t.source, t.provider
)
INSERT INTO rowmill.spending AS s (since, until, sums, pending)
SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', now() - interval '1 minute',
       (SELECT coalesce(jsonb_agg(u), '[]') FROM sums u),
       ARRAY(SELECT t.id FROM today t WHERE t.pending)
 WHERE EXISTS (SELECT FROM today)
ON CONFLICT (one) DO UPDATE
   SET since = excluded.since, until = excluded.until, sums = excluded.sums, pending = excluded.pending
 WHERE s.until < excluded.until OR s.until > now()
"""


async def sum_up(store: Store) -> None:
    """What the calls of today cost, for reports; a cost that changed since it was known is seen then."""
    await store.value(_SUM_UP)


async def clean_up(store: Store) -> None:
    """Statistics live two hours, turns a day, stopped workers a week; failures and the ledger are kept.

    So is what was paid for and waits for its place: only files that nobody misses any more go.
    """
    await store.value("DELETE FROM rowmill.pulses WHERE at < now() - interval '2 hours'")
    await store.value("DELETE FROM rowmill.workers WHERE stopped_at < now() - interval '7 days'")
    await turns.forget(store)
    await store.value(
        "DELETE FROM rowmill.parked p USING rowmill.submissions u WHERE u.id = p.submission"
        " AND p.parked_at < now() - interval '1 day'"
        " AND (u.state NOT IN ('intent', 'finished') OR u.delivered_at IS NOT NULL)"
    )
