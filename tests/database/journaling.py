"""What the tests of the ledger are written with: one claim's journal, and the ledger's rows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from jobs.providers.journal import Submission
from tests.database.support import Hand, Work, add_videos
from worker.ledger import ClaimJournal, Lease, Ledger
from worker.store import Store


def journal_of(store: Store, work: Work, hand: Hand, *, lease: float = 30.0) -> ClaimJournal:
    ledger = Ledger(store, Lease(lease))
    return ClaimJournal(ledger, queue_id=work.queue_id, token=work.token, worker=hand.id)


async def intend(journal: ClaimJournal, step: str = "main", cents: str = "12.5") -> Submission:
    return await journal.intend(
        step,
        provider="replicate",
        account="acct",
        model="m",
        estimate_cents=Decimal(cents),
        fingerprint="f",
    )


async def ledger_rows(connection: Any) -> list[Any]:
    return list(await connection.fetch("SELECT * FROM rowmill.submissions ORDER BY id"))


async def at_work(connection: Any, store: Store, count: int = 1) -> tuple[Hand, list[Work]]:
    hand = await Hand.hire(store)
    await add_videos(connection, count)
    return hand, await hand.take(count)
