"""Names, literals, values and assignments: the vocabulary of generated SQL."""

from __future__ import annotations

from dataclasses import dataclass

from worker.maps import Platform, Source, Value, parse_path
from worker.relocating import PLAIN

FUNCTIONS = (
    "enqueue",
    "change",
    "bonus",
    "remove",
    "empty",
    "start",
    "stops",
    "settle",
    "progress",
    "sweep",
    "lock",
    "row",
    "about",
    "retry",
    "requeue",
    "priority",
    "cancel",
    "fail",
    "reserve",
    "release",
    "reclaim",
)
"""Prefixes of the functions a source has: rowmill.<prefix>_<source>."""

HEADER = (
    "SET row_security = off SET rowmill.own = 'on' SET plan_cache_mode = force_generic_plan\n"
    "    SET enable_seqscan = off SET enable_mergejoin = off SET jit = off"
)
"""Settings of every function that writes the platform's tables.

A filtered row is an error instead of a silent nothing, and our own changes don't come back to us
through the triggers. Nothing is planned anew for each array that is passed, so plans made for an
empty table must hold for a full one: tables are read by index. (What has to be scanned all the same
then looks dear, but isn't worth compiling.) No search_path: they run with their caller's rights and
qualify every name, and setting one took half of a claim's time.
"""

LOCK_TIMEOUT = "SET lock_timeout = '250ms'"
"""Shorter than deadlock_timeout, so that a producer is never the victim of waiting for us."""

CANCELLED = "cancelled"
"""The kind in rowmill.failures of a job that was cancelled in a table without a word for that."""


@dataclass(frozen=True, slots=True)
class Column:
    """A live column: its type as SQL, and what clips or rounds values for it."""

    type: str
    length: int | None = None
    scale: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One source of a platform, with what the live database says of its table."""

    platform: Platform
    source: Source
    id: int
    columns: dict[str, Column]
    partitioned: bool

    @property
    def table(self) -> str:
        return name(self.source.table)

    @property
    def key_type(self) -> str:
        return self.columns[self.source.key].type

    def rule(self, rule: str) -> str | None:
        return self.platform.rule(self.source.name, rule)


def name(qualified: str) -> str:
    return ".".join(ident(part) for part in qualified.split("."))


def relation(qualified: str) -> str:
    """The same as `to_regclass` reads it and people write it: quotes only around capitals.

    What `rowmill.sources` keeps. Names without capitals stay as a map has them.
    """
    parts = qualified.split(".")
    return ".".join(part if PLAIN.fullmatch(part) else ident(part) for part in parts)


def ident(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def words(values: list[str]) -> str:
    return "(" + ", ".join(literal(v) for v in values) + ")"


def status_of(target: Target, row: str) -> str:
    status = target.source.status
    column = f"{row}.{ident(status.column)}::text"
    return f"coalesce({column}, {literal(status.default)})" if status.default else column


def unfinished(target: Target) -> str:
    status = target.source.status
    return words([*status.ready, status.running])


def status_value(target: Target, word: str) -> str:
    column = target.columns[target.source.status.column]
    return f"{literal(word)}::{column.type}"


def _joined(path: str, row: str, alias: str) -> tuple[str, list[str]]:
    """The value at the end of a foreign-key path, and the joins that lead there."""
    column, hops = parse_path(path)
    at, joins = f"{row}.{ident(column)}", []
    for number, hop in enumerate(hops):
        step = f"{alias}{number}"
        joins.append(f"LEFT JOIN {name(hop.table)} {step} ON {step}.{ident(hop.key)} = {at}")
        at = f"{step}.{ident(hop.column)}"
    return at, joins


def value_of(value: Value, row: str, alias: str) -> tuple[str, list[str]]:
    if value.constant is not None:
        return literal(value.prefix + value.constant), []
    if value.path is not None:
        at, joins = _joined(value.path, row, alias)
    else:
        at, joins = f"{row}.{ident(value.column or '')}", []
    at = f"nullif({at}::text, '')"
    if value.default is not None:
        at = f"coalesce({at}, {literal(value.default)})"
    if value.words:
        cases = " ".join(f"WHEN {literal(w)} THEN {literal(o)}" for w, o in value.words.items())
        at = f"CASE {at} {cases} ELSE {at} END"
    return (f"{literal(value.prefix)} || {at}" if value.prefix else at), joins


LANE_LENGTH = 200
"""Of a column of any length: what doesn't fit an index entry would fail its producer's INSERT."""


def lane_of(target: Target, row: str) -> tuple[str, list[str]]:
    """Provider lanes are compared in lower case; a lane that mirrors the kind is spelled like it."""
    source = target.source
    at, joins = value_of(source.lane, row, "lane")
    if source.lane.constant is None and not mirrors_kind(source):
        at = f"lower({at})"
    return f"left(coalesce({at}, 'unknown'), {LANE_LENGTH})", joins


def mirrors_kind(source: Source) -> bool:
    lane, kind = source.lane, source.kind
    return (lane.column, lane.path, lane.prefix, lane.words) == (
        kind.column,
        kind.path,
        kind.prefix,
        kind.words,
    )


def rank_of(target: Target, row: str, bonus: str = "v_bonus") -> tuple[str, list[str]]:
    """One scale 1-20 over all tables, with the rank rule's bonus where the platform has one."""
    at, joins = _base_rank(target, row)
    if target.rule("rank") is None:
        return at, joins
    mine = f"coalesce(({bonus} ->> {row}.{ident(target.source.key)}::text)::integer, 0)"
    return f"least(20, greatest(1, ({at}) + {mine}))", joins


def _base_rank(target: Target, row: str) -> tuple[str, list[str]]:
    """Clamped before any arithmetic, so that nothing overflows."""
    priority = target.source.priority
    if priority is None:
        return "10", []
    if priority.path is not None:
        at, joins = _joined(priority.path, row, "rank")
    else:
        at, joins = f"{row}.{ident(priority.column or '')}", []
    if priority.scale == "words":
        cases = " ".join(f"WHEN {literal(w)} THEN {rank}" for w, rank in priority.words.items())
        return f"CASE {at}::text {cases} ELSE {priority.default} END", joins
    at = f"coalesce({at}, {priority.default})"
    if priority.scale == "1-10":
        return f"2 * least(10, greatest(1, {at}))", joins
    return f"10 + least(10, greatest(-9, {at}))", joins


def ready_at(target: Target, row: str) -> str:
    """Clamped to years every client can read: one row that can't be read fails a whole claim."""
    column = target.source.schedule
    if column is None:
        return "v_now"
    given, type_ = f"{row}.{ident(column)}", target.columns[column].type
    at = f"least(greatest({given}, {type_} '1000-01-01'), {type_} '9000-01-01')"
    if "without time zone" in type_:
        at += f" AT TIME ZONE {literal(target.platform.map.timezone)}"
    return f"CASE WHEN {given} IS NULL THEN v_now ELSE {at} END"


def queue_row(target: Target, row: str, run: str, bonus: str = "v_bonus") -> tuple[str, list[str]]:
    """The values of a new queue row, in the order of QUEUE_COLUMNS, and the joins they need."""
    lane, lane_joins = lane_of(target, row)
    rank, rank_joins = rank_of(target, row, bonus)
    tenant, tenant_joins = (
        value_of(target.source.tenant, row, "tenant") if target.source.tenant else ("NULL", [])
    )
    ready = ready_at(target, row)
    values = (
        f"{target.id}, {row}.{ident(target.source.key)}::text, {lane}, ({rank})::smallint, {ready},\n"
        f"           (CASE WHEN {ready} > v_now THEN 'scheduled' ELSE 'ready' END)"
        f"::rowmill.queue_state, {run}, {tenant}"
    )
    return values, [*lane_joins, *rank_joins, *tenant_joins]


QUEUE_COLUMNS = "source, row_key, lane, rank, ready_at, state, run, tenant"


def run_of(target: Target, row: str, *, again: str = "false") -> str:
    """Run 1 for a row the ledger has never seen, without a function call.

    With a limit it is one probe for each row: EXISTS may be planned as a hash of all the source has.
    """
    key = f"{row}.{ident(target.source.key)}::text"
    source = literal(target.source.name)
    return (
        f"CASE WHEN (SELECT s.id FROM rowmill.submissions s WHERE s.source = {source} "
        f"AND s.row_key = {key} LIMIT 1) IS NOT NULL "
        f"THEN rowmill.run_of({source}, {key}, {again}) ELSE 1 END"
    )


def assignments(target: Target, group: str, row: str = "t", result: str = "r") -> list[str]:
    """`set` of the map as SQL: column = value, cast to the live column's type."""
    pairs = getattr(target.source.set, group).items()
    return [
        f"{ident(column)} = ({_field(field, target, column, row, result)})::{target.columns[column].type}"
        for column, field in pairs
    ]


def _field(field: str, target: Target, column: str, row: str, result: str) -> str:
    live = target.columns[column]
    old = f"{row}.{ident(column)}"
    now = "v_now"
    if live.type == "timestamp without time zone":
        now = f"v_now AT TIME ZONE {literal(target.platform.map.timezone)}"
    scale = live.scale if live.scale is not None else 10
    error = f"left({result}.error, {live.length})" if live.length else f"{result}.error"
    main = f"{result}.outputs -> 0"
    return {
        "now": now,
        "first_now": f"coalesce({old}, {now})",
        "null": "NULL",
        "zero": "0",
        "full": "100",
        "progress": f"greatest(coalesce({old}, 0), coalesce({result}.progress, 0))",
        "error": error,
        "external_id": f"coalesce({result}.external_id, {old})",
        "media_id": f"{result}.media_id",
        "url": f"{main} ->> 'url'",
        "thumbnail_url": f"(SELECT o ->> 'url' FROM jsonb_array_elements({result}.outputs) o "
        "WHERE o ->> 'role' = 'thumbnail' LIMIT 1)",
        "metadata": f"coalesce({old}, '{{}}'::jsonb) || coalesce({result}.metadata, '{{}}'::jsonb)",
        "text": f"{result}.text",
        "tokens": f"{result}.tokens",
        "cost_cents": f"rowmill.round_half_even({result}.cost_cents, 0)",
        "cost_usd": f"rowmill.round_half_even({result}.cost_cents / 100, {scale})",
        "duration_ms": f"{result}.duration_ms",
        "duration_seconds": f"rowmill.round_half_even({result}.duration_ms / 1000.0, {live.scale or 0})",
        "provider": f"{result}.provider",
        "model": f"{result}.model",
    }[field]


def tries_of(target: Target) -> tuple[str, str]:
    """Failed tries so far, and how many may be retried: of row `t`, whose queue row is `m.id`."""
    tries = target.source.tries
    if tries is None:
        counted = "(SELECT q.tries FROM rowmill.queue q WHERE q.id = m.id)"
        return counted, str(target.source.max_retries)
    column, most = f"t.{ident(tries.column)}", f"t.{ident(tries.max)}"
    if tries.counts == "retries":
        return f"coalesce({column}, 0)", f"coalesce({most}, {tries.default_max})"
    return (
        f"greatest(coalesce({column}, 1) - 1, 0)",
        f"greatest(coalesce({most}, {tries.default_max + 1}) - 1, 0)",
    )


def lock_parents(target: Target, keys: str) -> str:
    """Lock the parents of these rows in key order, then keep only rows whose parents we hold.

    Waits (for at most lock_timeout) when p_wait; otherwise rows with a busy parent fall out.
    """
    parts = []
    table, key = target.table, ident(target.source.key)
    for number, lock in enumerate(target.source.locks):
        parent, parent_key, column = name(lock.table), ident(lock.key), ident(lock.column)
        held = f"v_parents{number}"
        wanted = (
            f"SELECT p.{parent_key} FROM {parent} p WHERE p.{parent_key} = ANY (ARRAY(\n"
            f"            SELECT t.{column} FROM {table} t WHERE t.{key} = ANY ({keys})))\n"
            f"         ORDER BY p.{parent_key} FOR NO KEY UPDATE"
        )
        parts.append(f"""
    IF p_wait THEN
        {held} := ARRAY({wanted});
    ELSE
        {held} := ARRAY({wanted} SKIP LOCKED);
        {keys} := ARRAY(SELECT t.{key} FROM {table} t WHERE t.{key} = ANY ({keys})
                         AND (t.{column} IS NULL OR t.{column} = ANY ({held})
                              OR NOT EXISTS (SELECT FROM {parent} p WHERE p.{parent_key} = t.{column})));
    END IF;""")
    return "".join(parts)


def parent_variables(target: Target) -> str:
    return "".join(
        f"\n    v_parents{number} {target.columns[lock.column].type}[];"
        for number, lock in enumerate(target.source.locks)
    )
