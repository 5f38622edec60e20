"""Materialized views, made anew.

A refresh holds no lock that an INSERT, a claim or a settlement could wait for, and waits itself for
no lock longer than a moment. CONCURRENTLY, readers of the view notice nothing; without a unique
index they have to wait, which is allowed for a moment only. A view that was never filled can't be
read, so nobody waits for it.
"""

from __future__ import annotations

from typing import Any

from worker.generate.words import name
from worker.maps import Platform, Refresh
from worker.store.errors import translated
from worker.store.pool import connect
from worker.store.problem import Problem
from worker.store.store import Store

_MOMENT = "2s"
"""How long readers of a view without a unique index may be kept waiting."""

_VIEW = """
SELECT c.relkind = 'm' AS materialized, c.relispopulated AS filled,
       EXISTS (SELECT FROM pg_index i
                WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
                  AND i.indpred IS NULL AND 0 <> ALL (i.indkey::smallint[])) AS has_unique_index
  FROM pg_class c WHERE c.oid = to_regclass($1)
"""


async def refresh(store: Store, view: Refresh) -> None:
    """Of a size that takes longer than its period there is no use: then it is given up."""
    with translated():
        # A connection of its own: the pool's give up after a minute.
        connection = await connect(store.dsn)
        try:
            found = await connection.fetchrow(_VIEW, name(view.view))
            concurrently = bool(found and found["filled"] and found["has_unique_index"])
            patience = _MOMENT if found and found["filled"] and not concurrently else None
            async with connection.transaction():
                await connection.execute(
                    "SELECT set_config('lock_timeout', '250ms', true),"
                    " set_config('statement_timeout', (extract(epoch FROM"
                    " least($1::text::interval, '20 days')) * 1000)::bigint::text, true)",
                    patience or view.every,
                )
                await connection.execute(
                    "REFRESH MATERIALIZED VIEW "
                    f"{'CONCURRENTLY ' if concurrently else ''}{name(view.view)}"
                )
        finally:
            await connection.close()


async def problems(connection: Any, platform: Platform) -> list[Problem]:
    """What keeps this database's views from being refreshed."""
    found: list[Problem] = []
    for number, refresh in enumerate(platform.map.refreshes):
        where = f"{platform.origin}: refreshes[{number}].view: {refresh.view}"
        live = await connection.fetchrow(_VIEW, name(refresh.view))
        if live is None:
            found.append(Problem("refuse", f"{where} does not exist in this database"))
        elif not live["materialized"]:
            found.append(Problem("refuse", f"{where} is no materialized view"))
        elif not live["has_unique_index"]:
            why = (
                f"{where} has no unique index over plain columns, so its readers wait while it is "
                f"refreshed; that is given up after {_MOMENT}: create such an index"
            )
            found.append(Problem("warn", why))
    return found
