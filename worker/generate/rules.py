"""The platform's rule files, embedded in generated functions.

A rule is set-based SQL over `rowmill_keys` (a typed array) and, where results exist, the relation
`result`, which is put before each statement as a common table expression.
"""

from __future__ import annotations

import re

from worker.generate.words import Target, literal

_END = re.compile(r";[ \t]*(?=\n|$)")
_LEADING = re.compile(r"^(\s|--[^\n]*\n?|/\*.*?\*/)*", re.DOTALL)


def statements(sql: str) -> list[str]:
    """A rule file's statements, each ended by `;` at the end of a line; comments alone are none."""
    parts = (part.strip() for part in _END.split(sql))
    return [part for part in parts if _LEADING.sub("", part)]


def embed(target: Target, rule: str, *, where: str = "true") -> str:
    """The rule's statements for a function body, or nothing where the platform has no such rule.

    A rule of one kind runs only where the batch has that kind: its tables may be missing (an
    extension that isn't there), and a statement that isn't reached isn't planned.
    """
    body = _body(target, target.rule(rule), where)
    for word, sql in target.platform.kind_rules(target.source.name, rule).items():
        kinds = f"r.kind IN ({literal(word)}, {literal(target.source.kind.prefix + word)})"
        body += (
            f"\n    IF EXISTS (SELECT FROM unnest(v_results) r WHERE {where} AND {kinds}) THEN"
            f"{_body(target, sql, f'{where} AND {kinds}')}\n    END IF;"
        )
    return body


def _body(target: Target, sql: str | None, where: str) -> str:
    if sql is None:
        return ""
    relation = (
        f"result AS (SELECT r.*, r.key::{target.key_type} AS row_id\n"
        f"                        FROM unnest(v_results) r WHERE {where})"
    )
    return "".join(f"\n    {with_relation(s, relation)};" for s in statements(sql))


def with_relation(statement: str, relation: str) -> str:
    """`relation` is a common table expression; a statement that doesn't name it goes without."""
    if not re.search(rf"\b{relation.split(maxsplit=1)[0]}\b", statement):
        return statement
    comments = _LEADING.match(statement)
    start = comments.end() if comments else 0
    body = statement[start:]
    if found := re.match(r"WITH( RECURSIVE)?\b", body, re.IGNORECASE):
        return f"{found[0]} {relation}, {body[found.end() :].lstrip()}"
    return f"WITH {relation}\n    {body}"


def query(target: Target, rule: str) -> str | None:
    """A rule that is one SELECT: tenant, input, reserve."""
    sql = target.rule(rule)
    if sql is None:
        return None
    parts = statements(sql)
    if len(parts) != 1:
        raise ValueError(
            f"{target.source.name}.{rule}.sql: one SELECT is wanted, there are {len(parts)} statements"
        )
    return parts[0]


def metered(target: Target) -> str:
    kinds = target.source.metered
    if "*" in kinds:
        return "r.verb = 'succeed'"
    listed = ", ".join(literal(kind) for kind in kinds) or "NULL"
    return f"r.verb = 'succeed' AND r.kind IN ({listed})"
