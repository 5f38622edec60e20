"""Pauses and limits, as an operator sets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gate:
    lane: str = "*"
    source: str = "*"
    most: int | None = None
    paused: bool = False

    def admits(self, lane: str, source: str) -> bool:
        return self.lane in {"*", lane} and self.source in {"*", source}


async def put_up(connection: Any, *gates: Gate) -> None:
    for gate in gates:
        await connection.execute(
            "INSERT INTO rowmill.lanes (lane, source, max_running, paused_at)"
            " VALUES ($1, $2, $3, CASE WHEN $4 THEN now() END) ON CONFLICT (lane, source)"
            " DO UPDATE SET max_running = excluded.max_running, paused_at = excluded.paused_at",
            gate.lane,
            gate.source,
            gate.most,
            gate.paused,
        )
