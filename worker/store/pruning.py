"""Taking away what is known of jobs whose rows are gone, page by page.

The ledger of a row that exists says which run comes next, and with it what a next payment and a next
file are called: nothing of it goes. Nor does what is unfinished, in flight, in doubt, or paid and
never delivered, whatever its age; nor what a customer is still to get an allowance back for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from worker.generate.words import ident
from worker.generate.words import name as quoted
from worker.store.errors import translated
from worker.store.finding import column_type, key_column
from worker.store.pool import connect
from worker.store.store import SourceInfo, Store, to_json

PAGE = 1000

# Each look-up has a limit, so that it stays one probe of an index for each key, in every plan.
_KEYS = f"""
WITH page AS MATERIALIZED (
    SELECT DISTINCT l.row_key FROM rowmill.{{ledger}} l
     WHERE l.source = $1 AND l.row_key > $2 ORDER BY l.row_key LIMIT {PAGE}
), gone AS MATERIALIZED (
    SELECT p.row_key FROM page p
     WHERE (SELECT q.id FROM rowmill.queue q
             WHERE q.source = $3 AND q.row_key = p.row_key LIMIT 1) IS NULL
       AND (SELECT h.run FROM rowmill.allowances h
             WHERE h.source = $3 AND h.row_key = p.row_key LIMIT 1) IS NULL
       AND (SELECT true FROM {{table}} t
             WHERE t.{{key}} = p.row_key::{{type}} LIMIT 1) IS NULL
       AND (SELECT l.id FROM rowmill.{{ledger}} l
             WHERE l.source = $1 AND l.row_key = p.row_key AND ({{kept}}) LIMIT 1) IS NULL
), taken AS (
    {{take}}
)
SELECT (SELECT max(row_key) FROM page) AS last, (SELECT count(*) FROM taken) AS taken
"""

_OF_GONE = "rowmill.{ledger} l USING gone g WHERE l.source = $1 AND l.row_key = g.row_key"
TAKE = {
    False: f"DELETE FROM {_OF_GONE} RETURNING l.id",
    True: f"SELECT l.id FROM {_OF_GONE.replace(' USING', ',')}",  # a dry run
}

_NEEDED = """
    {u}.state IN ('intent', 'accepted', 'unknown')
    OR ({u}.delivered_at IS NULL AND ({u}.state = 'finished' OR {u}.cost_cents > 0))
    OR greatest({u}.intended_at, {u}.accepted_at, {u}.ended_at, {u}.delivered_at)
       >= clock_timestamp() - $4::interval
"""

KEPT = {
    "submissions": _NEEDED.format(u="l"),
    "failures": f"""
        l.at >= clock_timestamp() - $4::interval
        OR EXISTS (SELECT FROM rowmill.submissions u
                    WHERE u.source = l.source AND u.row_key = l.row_key
                      AND ({_NEEDED.format(u="u")}))""",
}
"""Of a key nothing goes while one of its lines is so."""

_OLD_ACTIONS = """
SELECT a.id FROM rowmill.actions a LEFT JOIN rowmill.sources s ON s.name = a.source
 WHERE a.at < clock_timestamp() - $1::interval
   AND (SELECT q.id FROM rowmill.queue q
         WHERE q.source = s.id AND q.row_key = a.row_key LIMIT 1) IS NULL
"""


@dataclass(frozen=True, slots=True)
class Pruned:
    submissions: int
    failures: int
    actions: int


async def prune(store: Store, older_than: timedelta, who: str, *, dry_run: bool) -> Pruned:
    """Each page is a transaction of its own: interrupted, it goes on where it was."""
    note = None
    if not dry_run:
        note = await store.value(
            "INSERT INTO rowmill.actions (who, action, subject, detail)"
            " VALUES ($1, 'prune', 'ledger', $2::jsonb) RETURNING id",
            who,
            to_json({"older_than": str(older_than)}),
        )
    counts = {}
    for ledger in KEPT:  # failures last: they stay as long as anything paid does
        counts[ledger] = sum(
            [
                await _of_source(store, ledger, info, older_than, dry_run)
                for info in await store.sources()
            ]
        )
    pruned = Pruned(**counts, actions=await _actions(store, older_than, dry_run))
    if note is not None:
        await store.value(
            "UPDATE rowmill.actions SET detail = detail || $2::jsonb WHERE id = $1",
            note,
            to_json({**counts, "actions": pruned.actions}),
        )
    return pruned


async def _of_source(
    store: Store, ledger: str, info: SourceInfo, older_than: timedelta, dry_run: bool
) -> int:
    (mine,) = [s for s in info.definition["map"]["sources"] if s["name"] == info.name]
    table, key = quoted(mine["table"]), key_column(info)
    kind = await column_type(store, table, key)
    if kind is None:  # a table that isn't there says nothing of its rows
        return 0
    names = {"ledger": ledger, "table": table, "key": ident(key), "type": kind}
    kept, take = KEPT[ledger], TAKE[dry_run].format(ledger=ledger)
    sql = _KEYS.format(**names, kept=kept, take=take)
    taken = 0
    last: str | None = ""
    with translated():
        connection = await connect(store.dsn)
        try:
            while last is not None:
                page = await _page(connection, sql, info, last, older_than)
                taken, last = taken + int(page["taken"]), page["last"]
        finally:
            await connection.close()
    return taken


async def _page(
    connection: Any, sql: str, info: SourceInfo, last: str, older_than: timedelta
) -> Mapping[str, Any]:
    async with connection.transaction():
        # A row that a policy hides isn't gone: with this it is an error.
        await connection.execute(
            "SET LOCAL row_security = off; SET LOCAL enable_seqscan = off;"
            " SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
        )
        row: Mapping[str, Any] = await connection.fetchrow(
            sql, info.name, last, info.id, older_than
        )
    return row


async def _actions(store: Store, older_than: timedelta, dry_run: bool) -> int:
    if dry_run:
        return int(await store.value(f"SELECT count(*) FROM ({_OLD_ACTIONS}) a", older_than))
    taken, page = 0, PAGE
    while page == PAGE:
        page = await store.value(
            "WITH taken AS (DELETE FROM rowmill.actions WHERE id = ANY (ARRAY("
            f"{_OLD_ACTIONS} LIMIT {PAGE})) RETURNING id) SELECT count(*) FROM taken",
            older_than,
        )
        taken += page
    return taken
