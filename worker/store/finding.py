"""Which job a person means."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from worker.generate.words import ident
from worker.generate.words import name as quoted
from worker.store.errors import Refused
from worker.store.pool import STATEMENT_SECONDS
from worker.store.store import SourceInfo, Store


class UnknownName(Exception):
    """There is no such lane, table or job; the message names those there are."""


FEW = 20
"""Names that one line can hold."""


def names(known: Iterable[str], few: int = FEW) -> str:
    """As a message lists them."""
    ordered = sorted(known)
    more = f" and {len(ordered) - few} more" if len(ordered) > few else ""
    return ", ".join(ordered[:few]) + more or "none yet"


def nearest(given: str, known: Iterable[str]) -> str:
    """The end of a message: what was meant, where one of them comes close."""
    close = difflib.get_close_matches(given, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


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


_RECORDED = """
SELECT s.name FROM rowmill.sources s
 WHERE EXISTS (SELECT FROM rowmill.queue q WHERE q.source = s.id AND q.row_key = $1)
    OR EXISTS (SELECT FROM rowmill.submissions u WHERE u.source = s.name AND u.row_key = $1)
    OR EXISTS (SELECT FROM rowmill.failures f WHERE f.source = s.name AND f.row_key = $1)
"""

# Without a length: a cast to one would cut a longer key down to another row's.
_TYPE = """
SELECT format_type(a.atttypid, -1) FROM pg_attribute a
 WHERE a.attrelid = to_regclass($1) AND a.attname = $2 AND NOT a.attisdropped
"""


# A provider's task: its accounts are few, and one probe of the index for each.
_OF_TASK = """
WITH RECURSIVE account AS (
    (SELECT u.provider, u.account FROM rowmill.submissions u WHERE u.external_id IS NOT NULL
      ORDER BY u.provider, u.account LIMIT 1)
    UNION ALL
    SELECT n.provider, n.account
      FROM account a CROSS JOIN LATERAL (
           SELECT u.provider, u.account FROM rowmill.submissions u
            WHERE u.external_id IS NOT NULL AND (u.provider, u.account) > (a.provider, a.account)
            ORDER BY u.provider, u.account LIMIT 1) n
)
SELECT DISTINCT u.source, u.row_key
  FROM account a CROSS JOIN LATERAL (
       SELECT * FROM rowmill.submissions u
        WHERE u.provider = a.provider AND u.account = a.account AND u.external_id = $1 LIMIT 1) u
"""

BEGINNING = re.compile(r"[0-9a-fA-F-]{6,36}")
"""Of a uuid, as people copy it from a log."""
CHOICES = 5


async def find(store: Store, reference: str) -> list[Found]:
    """The jobs a person may mean by a row's key, or by `table/key`."""
    key, sources = await _read(store, reference)
    recorded = {row["name"] for row in await store.fetch(_RECORDED, key)}
    found = []
    for name, source in sources.items():
        row = await platform_row(store, source, key)
        if row is not None:
            found.append(Found(name, row.key))
        elif name in recorded:
            found.append(Found(name, key))
    return found


async def find_one(store: Store, reference: str, *, exact: bool = False) -> Found:
    """People may also name a job by a provider's task, or by how its key begins."""
    found = await find(store, reference)
    if not found and not exact:
        found = await _of_task(store, reference) or await _beginning(store, reference)
    if not found:
        names = ", ".join(source.name for source in await store.sources()) or "no table yet"
        raise UnknownName(f"no job {reference!r} in any attached table ({names})")
    if len(found) > 1:
        choices = ", ".join(job.subject for job in found[:CHOICES])
        more = ", …" if len(found) > CHOICES else ""
        raise UnknownName(f"{reference!r} names more than one job: say which of {choices}{more}")
    return found[0]


async def _read(store: Store, reference: str) -> tuple[str, dict[str, SourceInfo]]:
    """The key, and the tables it may be of."""
    sources = {source.name: source for source in await store.sources()}
    prefix, slash, rest = reference.partition("/")
    if slash and prefix in sources:
        return rest, {prefix: sources[prefix]}
    return reference, sources


async def _of_task(store: Store, reference: str) -> list[Found]:
    task, sources = await _read(store, reference)
    rows = await store.fetch(_OF_TASK, task)
    return [Found(row["source"], row["row_key"]) for row in rows if row["source"] in sources]


async def _beginning(store: Store, reference: str) -> list[Found]:
    """By the tables' own index: a uuid that begins so is between two others."""
    start, sources = await _read(store, reference)
    digits = start.replace("-", "")
    if not BEGINNING.fullmatch(start) or not 6 <= len(digits) < 32:
        return []
    low, high = digits.ljust(32, "0"), digits.ljust(32, "f")
    found: list[Found] = []
    for name, source in sources.items():
        table, key = quoted(_in_map(source)["table"]), ident(key_column(source))
        if await column_type(store, table, key_column(source)) == "uuid":
            rows = await store.fetch(
                f"SELECT {key}::text AS key FROM {table} "
                f"WHERE {key} BETWEEN $1::text::uuid AND $2::text::uuid ORDER BY {key} LIMIT $3",
                low,
                high,
                CHOICES + 1,
            )
            found += [Found(name, row["key"]) for row in rows]
    return found


async def platform_row(store: Store, source: SourceInfo, key: str) -> PlatformRow | None:
    """The platform's own row; None where there is none, or the key can't be one of this table's."""
    column = key_column(source)
    table, key_at = quoted(_in_map(source)["table"]), f"t.{ident(column)}"
    kind = await column_type(store, table, column)
    if kind is None:  # the table is gone, or made anew: status says so
        return None
    try:
        async with store.look(STATEMENT_SECONDS) as connection:  # one that is hidden isn't gone
            rows = await connection.fetch(
                f"SELECT {key_at}::text AS key, to_jsonb(t)::text AS data "
                f"FROM {table} t WHERE {key_at} = $1::text::{kind}",
                key,
            )
    except Refused as error:
        if error.sqlstate.startswith("22"):  # 'abc' is no uuid, 10^30 no bigint
            return None
        raise
    return PlatformRow(rows[0]["key"], json.loads(rows[0]["data"])) if rows else None


async def column_type(store: Store, table: str, column: str) -> str | None:
    """What texts are cast to, to be compared with it; None where there is no such column."""
    kind: str | None = await store.value(_TYPE, table, column)
    return kind


def key_column(source: SourceInfo) -> str:
    return str(_in_map(source).get("key", "id"))


def _in_map(source: SourceInfo) -> dict[str, Any]:
    (mine,) = [s for s in source.definition["map"]["sources"] if s["name"] == source.name]
    return dict(mine)
