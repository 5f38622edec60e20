"""Turns: what the whole fleet may do only so often, spaced by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass

from worker.store.store import Store


@dataclass(frozen=True, slots=True)
class Turn:
    taken: bool
    wait: float
    """Seconds until it begins; until asking again makes sense, if it wasn't taken."""


async def take(store: Store, name: str, gap: float, patience: float) -> Turn:
    rows = await store.fetch(
        "SELECT taken, wait_ms FROM rowmill.take_turn($1, $2, $3)",
        name,
        gap * 1000,
        patience * 1000,
    )
    return Turn(rows[0]["taken"], rows[0]["wait_ms"] / 1000)


async def forget(store: Store) -> None:
    """Names unused for a day. Gaps are an hour at most, so nothing is forgotten too early."""
    await store.value("DELETE FROM rowmill.turns WHERE latest < now() - interval '1 day'")
