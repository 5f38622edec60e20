"""Who does what is due once per period over the whole fleet (rowmill.schedules)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from worker.store.store import Store

LEASE = 120.0
"""Seconds until another worker takes over what a dead one had taken."""

# Two workers at once: the second waits for the row of the first, then sees that it is taken.
_TAKE = """
INSERT INTO rowmill.schedules AS s (platform, chore, subject, token, taken_at, not_before)
VALUES ($1, $2, $3, $4, clock_timestamp(), clock_timestamp() + make_interval(secs => $5))
ON CONFLICT (platform, chore, subject) DO UPDATE
   SET token = excluded.token, taken_at = excluded.taken_at, not_before = excluded.not_before
 WHERE s.not_before <= clock_timestamp()
   AND coalesce(s.done_at <= clock_timestamp() - $6::text::interval, true)
RETURNING true
"""

_KEEP = """
UPDATE rowmill.schedules SET not_before = clock_timestamp() + make_interval(secs => $5)
 WHERE (platform, chore, subject, token) = ($1, $2, $3, $4)
"""

_DONE = """
UPDATE rowmill.schedules
   SET done_at = clock_timestamp(), not_before = clock_timestamp(), error = NULL
 WHERE (platform, chore, subject, token) = ($1, $2, $3, $4)
"""

_LATER = """
UPDATE rowmill.schedules
   SET not_before = clock_timestamp() + make_interval(secs => $5), error = $6
 WHERE (platform, chore, subject, token) = ($1, $2, $3, $4)
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """A chore that is ours to do now."""

    store: Store
    platform: str
    chore: str
    subject: str
    token: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.platform, self.chore, self.subject, self.token

    async def keep(self) -> None:
        """We are still at it."""
        await self.store.value(_KEEP, *self.key, LEASE)

    async def done(self) -> None:
        await self.store.value(_DONE, *self.key)

    async def later(self, seconds: float, error: str | None = None) -> None:
        """Not done, or not all of it: anyone's again in a while."""
        await self.store.value(_LATER, *self.key, seconds, error)


async def take(store: Store, platform: str, chore: str, subject: str, every: str) -> Turn | None:
    """The turn, if it is due and nobody has it."""
    turn = Turn(store, platform, chore, subject, secrets.randbits(62))
    taken = await store.value(_TAKE, *turn.key, LEASE, every)
    return turn if taken else None
