"""What an operator does: find a job, pause, resume and limit lanes, retry and cancel jobs.

Every act is one statement, so the act and its line in `rowmill.actions` commit together, behind any
pooler. The line keeps what was there before: the statement's snapshot is older than what it does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from worker.generate.words import ident
from worker.generate.words import name as quoted
from worker.store.errors import Refused
from worker.store.store import SourceInfo, Store, to_json

EVERY = "*"


class UnknownName(Exception):
    """There is no such lane, table or job; the message names those there are."""


@dataclass(frozen=True, slots=True)
class Found:
    source: str
    key: str

    @property
    def subject(self) -> str:
        """How actions and messages call a job."""
        return f"{self.source}/{self.key}"


@dataclass(frozen=True, slots=True)
class PlatformRow:
    key: str
    """As the database writes it, which is how the queue and the ledger name the row."""
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gate:
    """Where a pause or limit is attached: a lane, a table, one lane of one table, or everything."""

    lane: str = EVERY
    source: str = EVERY

    @property
    def subject(self) -> str:
        if self.lane == EVERY:
            return "everything" if self.source == EVERY else f"source {self.source}"
        return f"lane {self.lane}" + ("" if self.source == EVERY else f" of {self.source}")

    @property
    def arguments(self) -> str:
        """How `rowmill pause` and `resume` are told of it."""
        if self.lane == EVERY:
            return "--all" if self.source == EVERY else f"--source {self.source}"
        return self.lane + ("" if self.source == EVERY else f" --source {self.source}")

    def matches(self, lane: str, source: str) -> bool:
        return self.lane in (EVERY, lane) and self.source in (EVERY, source)


# --------------------------------------------------------------------------- finding

_RECORDED = """
SELECT s.name FROM rowmill.sources s
 WHERE EXISTS (SELECT FROM rowmill.queue q WHERE q.source = s.id AND q.row_key = $1)
    OR EXISTS (SELECT FROM rowmill.submissions u WHERE u.source = s.name AND u.row_key = $1)
    OR EXISTS (SELECT FROM rowmill.failures f WHERE f.source = s.name AND f.row_key = $1)
"""

_KEY_TYPE = """
SELECT format_type(a.atttypid, NULL) FROM pg_attribute a
 WHERE a.attrelid = to_regclass($1) AND a.attname = $2 AND NOT a.attisdropped
"""


async def find(store: Store, reference: str) -> list[Found]:
    """The jobs a person may mean by a row's key, or by `table/key`."""
    sources = {source.name: source for source in await store.sources()}
    prefix, slash, rest = reference.partition("/")
    if slash and prefix in sources:
        key, sources = rest, {prefix: sources[prefix]}
    else:
        key = reference
    recorded = {row["name"] for row in await store.fetch(_RECORDED, key)}
    found = []
    for name, source in sources.items():
        row = await platform_row(store, source, key)
        if row is not None:
            found.append(Found(name, row.key))
        elif name in recorded:
            found.append(Found(name, key))
    return found


async def find_one(store: Store, reference: str) -> Found:
    found = await find(store, reference)
    if not found:
        names = ", ".join(source.name for source in await store.sources()) or "no table yet"
        raise UnknownName(f"no job {reference!r} in any attached table ({names})")
    if len(found) > 1:
        choices = ", ".join(job.subject for job in found)
        raise UnknownName(f"{reference!r} names more than one job: say which of {choices}")
    return found[0]


async def platform_row(store: Store, source: SourceInfo, key: str) -> PlatformRow | None:
    """The platform's own row; None where there is none, or the key can't be one of this table's."""
    column = key_column(source)
    table, key_at = quoted(_in_map(source)["table"]), f"t.{ident(column)}"
    kind = await store.value(_KEY_TYPE, table, column)
    if kind is None:  # the table is gone, or made anew: status says so
        return None
    try:
        rows = await store.fetch(
            f"SELECT {key_at}::text AS key, to_jsonb(t)::text AS data "
            f"FROM {table} t WHERE {key_at} = $1::text::{kind}",
            key,
        )
    except Refused as error:
        if error.sqlstate.startswith("22"):  # 'abc' is no uuid, 10^30 no bigint
            return None
        raise
    return PlatformRow(rows[0]["key"], json.loads(rows[0]["data"])) if rows else None


def key_column(source: SourceInfo) -> str:
    return str(_in_map(source).get("key", "id"))


def _in_map(source: SourceInfo) -> dict[str, Any]:
    (mine,) = [s for s in source.definition["map"]["sources"] if s["name"] == source.name]
    return dict(mine)


# --------------------------------------------------------------------------- pausing

_PAUSE = """
WITH before AS (
    SELECT to_jsonb(l) AS gate FROM rowmill.lanes l WHERE l.lane = $1 AND l.source = $2
), paused AS (
    INSERT INTO rowmill.lanes AS l (lane, source, paused_at, paused_by, pause_reason)
    VALUES ($1, $2, clock_timestamp(), $3, $4)
    ON CONFLICT (lane, source) DO UPDATE
       SET paused_at = coalesce(l.paused_at, excluded.paused_at), paused_by = excluded.paused_by,
           pause_reason = excluded.pause_reason
)
INSERT INTO rowmill.actions (who, action, subject, detail)
VALUES ($3, 'pause', $5,
        jsonb_build_object('before', (SELECT gate FROM before), 'reason', $4::text))
"""

_RESUME = """
WITH before AS (
    SELECT to_jsonb(l) AS gate FROM rowmill.lanes l
     WHERE l.lane = $1 AND l.source = $2
       AND (l.paused_at IS NOT NULL OR l.broken_until IS NOT NULL OR l.slow_until > clock_timestamp())
       FOR UPDATE
), opened AS (
    UPDATE rowmill.lanes l SET paused_at = NULL, paused_by = NULL, pause_reason = NULL,
           broken_until = NULL, broken_for = NULL, broken_why = NULL,
           slow_until = NULL, slow_admits = NULL
     WHERE l.lane = $1 AND l.source = $2 AND EXISTS (SELECT FROM before)
)
INSERT INTO rowmill.actions (who, action, subject, detail)
SELECT $3, 'resume', $4, jsonb_build_object('before', gate) FROM before
RETURNING id
"""

_LANES = """
SELECT lane FROM rowmill.lanes WHERE lane <> '*'
UNION SELECT unnest(lanes) FROM rowmill.workers
       WHERE stopped_at IS NULL AND heartbeat_at > clock_timestamp() - lease
UNION SELECT lane FROM rowmill.queue
"""


async def pause(
    store: Store,
    *,
    lane: str = EVERY,
    source: str = EVERY,
    who: str,
    reason: str | None = None,
    providers: Iterable[str] = (),
) -> None:
    """Claim nothing more from there; what already runs is finished."""
    gate = await known_gate(store, lane, source, providers)
    await store.value(_PAUSE, gate.lane, gate.source, who, reason, gate.subject)


async def resume(
    store: Store,
    *,
    lane: str = EVERY,
    source: str = EVERY,
    who: str,
    providers: Iterable[str] = (),
) -> bool:
    """Take a pause back, close a breaker, end a wait for a rate; False if there was none.

    Pauses attached elsewhere still hold.
    """
    gate = await known_gate(store, lane, source, providers)
    return await store.value(_RESUME, gate.lane, gate.source, who, gate.subject) is not None


async def paused_gates(store: Store) -> list[Gate]:
    rows = await store.fetch(
        "SELECT lane, source FROM rowmill.lanes"
        " WHERE paused_at IS NOT NULL OR platform_paused_why IS NOT NULL ORDER BY lane, source"
    )
    return [Gate(row["lane"], row["source"]) for row in rows]


async def known_gate(store: Store, lane: str, source: str, providers: Iterable[str] = ()) -> Gate:
    """A misspelt lane would be paused without effect, so names are checked.

    `providers` are those of the configuration: their lanes may have no row and no worker yet.
    """
    return Gate(await _known_lane(store, lane, providers), await _known_source(store, source))


async def _known_lane(store: Store, lane: str, providers: Iterable[str]) -> str:
    if lane == EVERY:
        return lane
    known = sorted({row["lane"] for row in await store.fetch(_LANES)}.union(providers))
    if lane not in known:
        raise UnknownName(f"no lane {lane!r}; known lanes: {', '.join(known) or 'none yet'}")
    return lane


async def _known_source(store: Store, source: str) -> str:
    """A source's name, also from its table's."""
    if source == EVERY:
        return source
    known = await store.sources()
    for info in known:
        if source in (info.name, info.relation, info.relation.replace('"', "")):
            return info.name
    names = ", ".join(info.name for info in known) or "none yet"
    raise UnknownName(f"no attached table {source!r}; attached: {names}")


# --------------------------------------------------------------------------- limiting

LIMITS = ("max_running", "requests_per_minute", "tokens_per_minute")
"""What an operator may limit; the platform's own limits hold beside them."""

# A new rate is measured anew: what the old one closed is opened.
_LIMIT = """
WITH before AS (
    SELECT to_jsonb(l) AS gate FROM rowmill.lanes l WHERE l.lane = $1 AND l.source = $2
), given AS (
    SELECT * FROM jsonb_to_record($3::jsonb) AS g (
           max_running integer, requests_per_minute integer, tokens_per_minute integer)
), limited AS (
    INSERT INTO rowmill.lanes AS l (lane, source, max_running, requests_per_minute, tokens_per_minute)
    SELECT $1, $2, g.max_running, g.requests_per_minute, g.tokens_per_minute FROM given g
    ON CONFLICT (lane, source) DO UPDATE
       SET max_running = CASE WHEN $3::jsonb ? 'max_running'
                              THEN excluded.max_running ELSE l.max_running END,
           requests_per_minute = CASE WHEN $3::jsonb ? 'requests_per_minute'
                                      THEN excluded.requests_per_minute ELSE l.requests_per_minute END,
           tokens_per_minute = CASE WHEN $3::jsonb ? 'tokens_per_minute'
                                    THEN excluded.tokens_per_minute ELSE l.tokens_per_minute END,
           slow_until = NULL, slow_admits = NULL
    RETURNING l.max_running, l.requests_per_minute, l.tokens_per_minute
), told AS (
    INSERT INTO rowmill.actions (who, action, subject, detail)
    VALUES ($4, 'limit', $5, jsonb_build_object('before', (SELECT gate FROM before), 'set', $3::jsonb))
)
SELECT * FROM limited
"""


async def limit(
    store: Store,
    limits: Mapping[str, int | None],
    *,
    lane: str = EVERY,
    source: str = EVERY,
    who: str,
) -> dict[str, int | None]:
    """Set what `limits` names, None takes it away; returns all that an operator has set there."""
    gate = await known_gate(store, lane, source)
    assert limits.keys() <= set(LIMITS)
    (row,) = await store.fetch(
        _LIMIT, gate.lane, gate.source, to_json(dict(limits)), who, gate.subject
    )
    return dict(row)


# --------------------------------------------------------------------------- single jobs

# {name} is the name of a source, which a map checks to be a plain identifier.
_ACT = """
WITH before AS MATERIALIZED (
    SELECT to_jsonb(q) - ARRAY['token'] AS queued FROM rowmill.queue q
      JOIN rowmill.sources s ON s.id = q.source WHERE s.name = $1 AND q.row_key = $2
), done AS MATERIALIZED (
    SELECT rowmill.{action}_{name}($2) AS verdict
)
INSERT INTO rowmill.actions (who, action, subject, detail)
SELECT $3, '{action}', $1 || '/' || $2,
       jsonb_build_object('verdict', d.verdict, 'before', (SELECT queued FROM before),
                          'row', $4::jsonb)
  FROM done d
RETURNING detail ->> 'verdict'
"""


async def retry(store: Store, source: str, key: str, who: str) -> str:
    """Let it run again: a finished row starts over with no tries spent, a held one goes on.

    Returns requeued | released | hastened, or why not: missing | running | the row's status.
    """
    return await _act(store, "retry", source, key, who)


async def cancel(store: Store, source: str, key: str, who: str) -> str:
    """Returns cancelled, or why not: missing | the finished row's status."""
    return await _act(store, "cancel", source, key, who)


async def resolve(
    store: Store,
    job: Found,
    *,
    how: str,
    who: str,
    step: str | None = None,
    external_id: str | None = None,
) -> str:
    """Say what became of a call nobody could find out about; see rowmill.resolve()."""
    return str(
        await store.value(
            "SELECT rowmill.resolve($1, $2, $3, $4, $5, $6)",
            *(job.source, job.key, step, how, external_id, who),
        )
    )


async def _act(store: Store, action: str, source: str, key: str, who: str) -> str:
    name = await _known_source(store, source)
    (info,) = [s for s in await store.sources() if s.name == name]
    row = await platform_row(store, info, key)
    if row is None:
        return "missing"
    statement = _ACT.format(action=action, name=name)
    return str(await store.value(statement, name, row.key, who, to_json(_in_short(row.data))))


def _in_short(data: dict[str, Any]) -> dict[str, Any]:
    """Long texts aren't what an operator changes; the record needn't hold a copy."""
    return {
        name: value
        for name, value in data.items()
        if not isinstance(value, str | dict | list) or len(str(value)) < 500
    }
