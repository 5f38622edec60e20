"""How far each attached table is, by its map's own words."""

from __future__ import annotations

from collections.abc import Sequence

from worker.demo.platform import Shown
from worker.generate.words import ident, literal, name
from worker.maps import Source
from worker.store import Store


async def counts(store: Store, shown: Sequence[Shown]) -> dict[str, tuple[int, int, int]]:
    """Source → how many rows, finished, running."""
    sources = [source for one in shown for source in one.platform.map.sources]
    rows = await store.fetch(" UNION ALL ".join(_count(source) for source in sources))
    return {row["name"]: (row["total"], row["done"], row["running"]) for row in rows}


def _count(source: Source) -> str:
    status = source.status
    ended = [word for word in (status.succeeded, status.failed, status.cancelled) if word]
    column = f"{ident(status.column)}::text"
    return (
        f"SELECT {literal(source.name)} AS name, count(*) AS total,"
        f" count(*) FILTER (WHERE {column} IN ({', '.join(map(literal, ended))})) AS done,"
        f" count(*) FILTER (WHERE {column} = {literal(status.running)}) AS running"
        f" FROM {name(source.table)}"
    )
