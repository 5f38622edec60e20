"""What the workers' role may do, and what a map and its rules need it to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from worker.generate.words import name as quoted
from worker.maps import Platform, Source, parse_path
from worker.store.health.rows_of import Row, rows_of
from worker.store.store import Store

# Workers call themselves so, where no pooler hides it; so does this command, by whomever.
_ROLES = """
SELECT DISTINCT a.usename::text AS role FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.application_name = 'rowmill' AND a.usename IS NOT NULL
   AND EXISTS (SELECT FROM rowmill.workers w
                WHERE w.stopped_at IS NULL AND w.heartbeat_at > clock_timestamp() - w.lease)
"""

# The owner of the triggers' functions: they run with its rights, whoever inserts.
_DEFINERS = """
SELECT DISTINCT p.proowner::regrole::text AS role, p.proowner AS oid
  FROM pg_proc p
 WHERE p.pronamespace = 'rowmill'::regnamespace AND p.prosecdef AND p.prorettype = 'trigger'::regtype
   AND NOT has_table_privilege(p.proowner, 'rowmill.queue', 'INSERT')
"""

_OWN = """
SELECT 'USAGE' AS right, 'schema rowmill' AS object
 WHERE NOT has_schema_privilege($1::name, 'rowmill', 'USAGE')
UNION ALL
SELECT string_agg(r, ', ' ORDER BY r), 'table ' || c.oid::regclass::text
  FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) r
 WHERE c.relnamespace = 'rowmill'::regnamespace AND c.relkind = 'r'
   AND c.relname NOT IN ('migrations', 'functions')
   AND NOT has_table_privilege($1::name, c.oid, r)
 GROUP BY c.oid
UNION ALL
SELECT 'EXECUTE', 'function ' || p.oid::regprocedure::text
  FROM pg_proc p
 WHERE p.pronamespace = 'rowmill'::regnamespace AND p.prorettype <> 'trigger'::regtype
   AND NOT has_function_privilege($1::name, p.oid, 'EXECUTE')
 ORDER BY 2
"""

# A right on some columns is enough for SELECT, INSERT and UPDATE: which ones, the rules know.
_TABLES = """
WITH wanted AS (
    SELECT c.oid, c.relnamespace, w.priv
      FROM unnest($2::text[], $3::text[]) AS w (relation, priv)
      JOIN pg_class c ON c.oid = to_regclass(w.relation) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
)
SELECT DISTINCT 'USAGE' AS right, 'schema ' || n.nspname AS object
  FROM wanted w JOIN pg_namespace n ON n.oid = w.relnamespace
 WHERE NOT has_schema_privilege($1::name, n.oid, 'USAGE')
UNION ALL
SELECT string_agg(DISTINCT w.priv, ', ' ORDER BY w.priv), 'table ' || w.oid::regclass::text FROM wanted w
 WHERE NOT CASE WHEN w.priv = 'DELETE' THEN has_table_privilege($1::name, w.oid, 'DELETE')
                ELSE has_table_privilege($1::name, w.oid, w.priv)
                     OR has_any_column_privilege($1::name, w.oid, w.priv) END
 GROUP BY w.oid
 ORDER BY 2
"""

_COLUMNS = """
SELECT t.oid::regclass::text AS relation, string_agg(DISTINCT c.name, ', ' ORDER BY c.name) AS columns
  FROM unnest($2::text[], $3::text[]) AS c (relation, name)
  JOIN pg_class t ON t.oid = to_regclass(c.relation)
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = c.name
 WHERE has_any_column_privilege($1::name, t.oid, 'UPDATE')
   AND NOT has_column_privilege($1::name, t.oid, a.attnum, 'UPDATE')
 GROUP BY t.oid
"""

_CALLED = """
SELECT 'EXECUTE' AS right, 'function ' || p.oid::regprocedure::text AS object
  FROM unnest($2::text[]) AS w (name)
  JOIN pg_proc p ON p.proname = split_part(w.name, '.', 2)
   AND p.pronamespace = to_regnamespace(split_part(w.name, '.', 1))
 WHERE NOT has_function_privilege($1::name, p.oid, 'EXECUTE')
 ORDER BY 2
"""

# Owners are exempt unless it is forced; a superuser always is, and a partition's own is asked for
# only where someone names the partition.
_SECURED = """
SELECT c.oid::regclass::text AS relation, c.relforcerowsecurity AS forced
  FROM pg_class c, pg_roles r
 WHERE c.oid IN (SELECT to_regclass(w) FROM unnest($2::text[]) w) AND c.relrowsecurity
   AND r.rolname = $1::name AND NOT r.rolsuper AND NOT r.rolbypassrls
   AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE'))
 ORDER BY 1
"""

_VIEWS = """
SELECT c.oid::regclass::text AS view, c.relowner::regrole::text AS owner
  FROM pg_class c
 WHERE c.oid IN (SELECT to_regclass(w) FROM unnest($2::text[]) w) AND c.relkind = 'm'
   AND NOT pg_has_role($1::name, c.relowner, 'USAGE')
   AND NOT ($3 AND has_table_privilege($1::name, c.oid, $4))
 ORDER BY 1
"""


async def roles(store: Store) -> list[str]:
    """As whom workers are connected now; where that can't be seen, as whom this command is."""
    mine = str(await store.value("SELECT current_user::text"))
    seen = {row["role"] for row in await rows_of(store, _ROLES)} - {mine}
    return sorted(seen) or [mine]


async def definers(store: Store) -> list[str]:
    """Owners of triggers who may not write the queue."""
    return [row["role"] for row in await rows_of(store, _DEFINERS)]


async def own(store: Store, role: str) -> list[Row]:
    """What is lacking on Rowmill's own schema: `right` and `object`."""
    return await rows_of(store, _OWN, role)


async def of_platform(store: Store, role: str, platform: Platform) -> list[Row]:
    wanted = [
        (table, right) for table, rights in tables_of(platform).items() for right in sorted(rights)
    ]
    found = await rows_of(store, _TABLES, role, [t for t, _ in wanted], [r for _, r in wanted])
    written = [(quoted(s.table), column) for s in platform.map.sources for column in _written(s)]
    for row in await rows_of(
        store, _COLUMNS, role, [t for t, _ in written], [c for _, c in written]
    ):
        found.append({"right": f"UPDATE ({row['columns']})", "object": f"table {row['relation']}"})
    called = [partitions.function for partitions in platform.map.partitions]
    return [*found, *await rows_of(store, _CALLED, role, called)]


async def secured(store: Store, role: str, platform: Platform) -> list[Row]:
    """Tables whose row-level security would filter this role."""
    return await rows_of(store, _SECURED, role, list(tables_of(platform)))


async def foreign_views(store: Store, role: str, platform: Platform) -> list[Row]:
    """Materialized views that this role may not refresh."""
    views = [quoted(refresh.view) for refresh in platform.map.refreshes]
    newer = await store.value("SELECT current_setting('server_version_num')::integer >= 170000")
    # MAINTAIN is unknown before 17, and asked for only where it is.
    return await rows_of(store, _VIEWS, role, views, newer, "MAINTAIN" if newer else "SELECT")


# --------------------------------------------------------------------------- what is needed

_WRITES = (
    (re.compile(r"\bINSERT\s+INTO\s+([\w\".]+)", re.IGNORECASE), "INSERT"),
    (re.compile(r"\bUPDATE\s+(?:ONLY\s+)?([\w\".]+\.[\w\"]+)", re.IGNORECASE), "UPDATE"),
    (re.compile(r"\bDELETE\s+FROM\s+([\w\".]+)", re.IGNORECASE), "DELETE"),
    (re.compile(r"\b(?:FROM|JOIN|USING)\s+([\w\"]+\.[\w\"]+)", re.IGNORECASE), "SELECT"),
)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
NOT_AT_WORK = {"attach", "audit"}
"""Asked by operators, as whom they are."""


def tables_of(platform: Platform) -> Mapping[str, set[str]]:
    """Every table that a map and its rules name → what is done with it.

    Rules are read as text: every name in them is qualified, and what is no table falls out later.
    """
    needed: dict[str, set[str]] = defaultdict(set)
    for source in platform.map.sources:
        needed[quoted(source.table)] |= {"SELECT", "UPDATE"}
        for lock in source.locks:
            needed[quoted(lock.table)] |= {"SELECT", "UPDATE"}
        for path in _paths(source):
            for hop in parse_path(path)[1]:
                needed[quoted(hop.table)].add("SELECT")
    for entry in platform.map.retention:
        table = entry.table or next(s.table for s in platform.map.sources if s.name == entry.source)
        needed[quoted(table)] |= {"SELECT", "UPDATE", "DELETE"}
    for table, right in _in_rules(platform):
        needed[table].add(right)
    return needed


def _in_rules(platform: Platform) -> Iterator[tuple[str, str]]:
    for name, sql in platform.rules.items():
        text = "" if name in NOT_AT_WORK else _COMMENT.sub(" ", sql)
        for pattern, right in _WRITES:
            for table in pattern.findall(text):
                if table.count(".") == 1 and not table.startswith("rowmill."):
                    yield table, right


def _paths(source: Source) -> Sequence[str]:
    values = (source.lane, source.kind, source.tenant, source.priority)
    return [value.path for value in values if value is not None and value.path is not None]


def _written(source: Source) -> set[str]:
    columns = {source.status.column}
    for group in type(source.set).model_fields:
        columns |= getattr(source.set, group).keys()
    if source.tries is not None:
        columns.add(source.tries.column)
    return columns
