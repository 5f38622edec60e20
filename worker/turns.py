"""A job's turn at something the whole fleet may do only so often: one shop's pages, say.

A turn is a short window of time, by the database's clock, and windows are a gap apart. Who can't
tell that it is still inside its own window doesn't begin but takes another turn. So two of them
never begin less than a gap apart, however late an answer comes or a busy loop gets to it:

    turn at T (database)    asked before T - wait, told after that
    begins in [T, T + WINDOW]       not before the answer's arrival + wait >= T
                                    not after the question's sending + wait + WINDOW <= T + WINDOW
    the next turn           T + WINDOW + gap
"""

from __future__ import annotations

import asyncio

from jobs.providers.journal import NotNow
from worker.ledger import boottime
from worker.store import Store, turns

WINDOW = 0.2
"""Seconds. Longer costs time between turns, shorter costs more turns that are missed."""
PATIENCE = 20.0
"""A job that would wait longer than this gives its slot back."""
MAX_GAP = 3600.0


class Turns:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(self, name: str, gap: float) -> None:
        """Returns when it is this job's turn. Raises `NotNow` if that is too far away."""
        if not 0 <= gap <= MAX_GAP:
            raise ValueError(f"turns are between 0 and {MAX_GAP:g} s apart, not {gap:g}")
        until = boottime() + PATIENCE
        while (patience := until - boottime()) > 0:
            sent = boottime()
            turn = await turns.take(self._store, name, gap + WINDOW, patience)
            if not turn.taken:
                raise NotNow(f"it is not yet its turn at {name}", turn.wait)
            await asyncio.sleep(turn.wait)
            if boottime() <= sent + turn.wait + WINDOW:
                return
        raise NotNow(f"it missed its turns at {name}", gap + WINDOW)
