"""What the tests of allowances are written with: a shop that counts credits, and who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.contract import Succeeded
from jobs.providers.journal import NotAllowed, Submission
from tests.database.journaling import intend
from tests.database.platform_samples import run
from tests.database.settling import until
from tests.database.support import Hand, Work, add, add_videos
from worker import maps
from worker.ledger import ClaimJournal, Lease, Ledger
from worker.store import Store
from worker.store.attaching import attach
from worker.store.migrations import migrate

CREDITS = Path(__file__).parent / "data" / "credits"
SUCCESS = Succeeded(text="done")


async def build_shop(dsn: str) -> None:
    await migrate(dsn)
    await run(dsn, (CREDITS / "schema.sql").read_text(encoding="utf-8"))
    await attach(dsn, maps.load(str(CREDITS / "map.toml")))


# --------------------------------------------------------------------------- what tests ask and do


async def answers(stores: Sequence[Store], hand: Hand, works: Sequence[Work]) -> list[Any]:
    """All of them ask at once, spread over several workers."""
    ledgers = [Ledger(store, Lease(30)) for store in stores]
    journals = [
        ClaimJournal(
            ledgers[n % len(ledgers)], queue_id=work.queue_id, token=work.token, worker=hand.id
        )
        for n, work in enumerate(works)
    ]
    return await asyncio.gather(*[intend(j) for j in journals], return_exceptions=True)


async def asked(store: Store, hand: Hand, works: Sequence[Work]) -> list[Any]:
    made = await answers([store], hand, works)
    for one in made:
        assert isinstance(one, Submission | NotAllowed), one
    return made


def passed(made: Sequence[Any]) -> list[bool]:
    return [isinstance(one, Submission) for one in made]


async def held(connection: Any) -> list[tuple[str, int, int]]:
    rows = await connection.fetch("SELECT * FROM rowmill.allowances ORDER BY row_key, run")
    return [(row["row_key"], row["run"], int(row["amount"])) for row in rows]


async def of_free_user(connection: Any, store: Store, count: int) -> tuple[Hand, list[Work]]:
    """Videos of a customer without a subscription: five a month."""
    hand = await Hand.hire(store)
    await add_videos(connection, count, of=1)
    return hand, await hand.take(count)


async def customer(connection: Any, *pots: int, days: Sequence[int] = ()) -> str:
    """With credits that expire in that many days; a NULL where there is no number of days."""
    (key,) = await add(connection, "credits.users")
    for number, amount in enumerate(pots):
        expires = None
        if number < len(days):
            expires = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=days[number])
        await connection.execute(
            "INSERT INTO credits.usage_credits (user_id, credit_type, amount, source, expires_at)"
            " VALUES ($1, 'VideoGeneration', $2, 'Purchase', $3)",
            key,
            amount,
            expires,
        )
    return key


async def used(connection: Any, owner: str) -> list[int]:
    """By expiry."""
    rows = await connection.fetch(
        "SELECT used_amount FROM credits.usage_credits WHERE user_id = $1"
        " ORDER BY expires_at NULLS LAST, id",
        owner,
    )
    return [row["used_amount"] for row in rows]


async def renders(
    connection: Any, store: Store, owner: str, count: int = 1
) -> tuple[Hand, list[Work]]:
    hand = await Hand.hire(store)
    await add(connection, "credits.renders", count, user_id=owner)
    return hand, await hand.take(count)


async def set_state(connection: Any, key: str, state: str) -> None:
    await connection.execute("UPDATE credits.renders SET state = $2 WHERE id = $1", key, state)


async def waits_for_a_lock(connection: Any, asking: asyncio.Task[Any]) -> None:
    """And doesn't answer before."""
    waits = until(connection, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
    watching = asyncio.create_task(waits)
    await asyncio.wait({asking, watching}, return_when=asyncio.FIRST_COMPLETED)
    assert not asking.done(), asking
