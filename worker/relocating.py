"""A platform's files write `public.` before every name; this puts another schema in its place."""

from __future__ import annotations

import re
from typing import Any

_PUBLIC = re.compile(r"(?<![\w$.])public\.(?=[A-Za-z_\"%])")
PLAIN = re.compile(r"[a-z_][a-z0-9_]{0,62}")
"""Names of schemas that work: every spelling of them means the same."""

# What PostgreSQL doesn't take for a schema's name without quotes (pg_get_keywords(), all versions).
_RESERVED = frozenset(
    """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check
    collate collation column concurrently constraint create cross current_catalog current_date
    current_role current_schema current_time current_timestamp current_user default deferrable desc
    distinct do else end except false fetch for foreign freeze from full grant group having ilike in
    initially inner intersect into is isnull join lateral leading left like limit localtime
    localtimestamp natural not notnull null offset on only or order outer overlaps placing primary
    references returning right select session_user similar some symmetric system_user table
    tablesample then to trailing true union unique user using variadic verbose when where window
    with
    """.split()  # noqa: SIM905 - a hundred quotes would hide the words
)


def relocated(sql: str, schema: str) -> str:
    """The same SQL for objects in another schema; for schema.sql, sample.sql, demo.sql too."""
    return _put(sql, quoted(schema))


def quoted(schema: str) -> str:
    """A plain name as SQL takes it."""
    return f'"{schema}"' if schema in _RESERVED else schema


def relocated_map(node: Any, schema: str) -> Any:
    """A map's data; its names are quoted where SQL is made of them."""
    match node:
        case str():
            return _put(node, schema)
        case dict():
            return {key: relocated_map(value, schema) for key, value in node.items()}
        case list():
            return [relocated_map(value, schema) for value in node]
    return node


def _put(text: str, schema: str) -> str:
    return _PUBLIC.sub(lambda _: f"{schema}.", text)
