"""What an operator does to lanes and tables: pause, resume, limit.

Every act is one statement, so the act and its line in `rowmill.actions` commit together, behind any
pooler. The line keeps what was there before: the statement's snapshot is older than what it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from shlex import quote

from worker.store.finding import UnknownName, names, nearest
from worker.store.store import Store, to_json

EVERY = "*"


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
        """How `rowmill pause` and `resume` are told of it, in a shell: rows name their lanes."""
        if self.lane == EVERY:
            return "--all" if self.source == EVERY else f"--source {quote(self.source)}"
        return quote(self.lane) + (
            "" if self.source == EVERY else f" --source {quote(self.source)}"
        )

    def matches(self, lane: str, source: str) -> bool:
        return self.lane in (EVERY, lane) and self.source in (EVERY, source)


_PAUSE = """
WITH before AS (
    SELECT to_jsonb(l) AS gate FROM rowmill.lanes l WHERE l.lane = $1 AND l.source = $2
), paused AS (
    INSERT INTO rowmill.lanes AS l (lane, source, paused_at, paused_by, pause_reason)
    VALUES ($1, $2, clock_timestamp(), $3, $4)
    ON CONFLICT (lane, source) DO UPDATE
       SET paused_at = coalesce(l.paused_at, excluded.paused_at), paused_by = excluded.paused_by,
           pause_reason = coalesce(excluded.pause_reason, l.pause_reason)
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

# Of the queue the lanes that `status` tells, which reads little of it.
_LANES = """
SELECT lane FROM rowmill.lanes WHERE lane <> '*'
UNION SELECT unnest(lanes) FROM rowmill.workers
       WHERE stopped_at IS NULL AND heartbeat_at > clock_timestamp() - lease
UNION SELECT lane FROM rowmill.counted()
"""

_WAITS_THERE = "SELECT EXISTS (SELECT FROM rowmill.queue WHERE lane = $1)"


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
    return Gate(await _known_lane(store, lane, providers), await known_source(store, source))


async def _known_lane(store: Store, lane: str, providers: Iterable[str]) -> str:
    if lane == EVERY:
        return lane
    known = await known_lanes(store, providers)
    if lane not in known and not await store.value(_WAITS_THERE, lane):
        raise UnknownName(f"no lane {lane!r}; known lanes: {names(known)}{nearest(lane, known)}")
    return lane


async def known_lanes(store: Store, providers: Iterable[str] = ()) -> list[str]:
    return sorted({row["lane"] for row in await store.fetch(_LANES)}.union(providers))


async def known_source(store: Store, source: str) -> str:
    """A source's name, also from its table's."""
    if source == EVERY:
        return source
    known = await store.sources()
    for info in known:
        if source in (info.name, info.relation, info.relation.replace('"', "")):
            return info.name
    there = [info.name for info in known]
    raise UnknownName(
        f"no attached table {source!r}; attached: {names(there)}{nearest(source, there)}"
    )


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
