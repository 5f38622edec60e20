"""One job's explanation, seen everywhere it is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobs.contract import Yield
from jobs.providers.journal import NotNow
from tests.database.support import Connect, Hand, OpenStore, Work
from worker.coordination import Coordination
from worker.inbox import Inbox
from worker.store import Store
from worker.store.explaining import explain

VIDEOS, TEXTS, BACKGROUND = "generation_jobs", "ai_generations", "background_jobs"
TOLD = ("reason", "why", "subject", "ahead", "may_start_at", "estimated_start_at")


@dataclass(frozen=True, slots=True)
class Explained:
    connection: Any
    store: Store

    @classmethod
    async def of(cls, dsn: str, connect: Connect, open_store: OpenStore) -> Explained:
        return cls(await connect(dsn), await open_store(dsn))

    async def __call__(self, key: str, source: str = VIDEOS) -> dict[str, Any]:
        """What it says in JSON, which is what the view and a message say."""
        told = await explain(self.store, source, key)
        answer = await Inbox(self.store, Coordination()).answer(
            "get", (), {"id": key, "source": source}
        )
        assert (answer["ok"], answer["why"]) == (True, told["why"])
        row = await self.view(key, source)
        for name in TOLD:
            seen = row[name]
            if name == "estimated_start_at":  # from now on, and now is later
                assert (
                    (seen is None) == (told[name] is None) == (answer["explanation"][name] is None)
                )
                continue
            seen = seen.isoformat() if isinstance(seen, datetime) else seen
            assert seen == told[name] == answer["explanation"][name], name
        assert told["commands"] == answer["explanation"]["commands"]
        assert told["commands"][-1] == f"rowmill cancel {source}/{key}"
        return told

    async def view(self, key: str, source: str = VIDEOS) -> Any:
        return await self.connection.fetchrow(
            "SELECT * FROM rowmill.waiting WHERE source = $1 AND row_key = $2", source, key
        )

    async def reason(self, key: str, source: str = VIDEOS) -> tuple[str, str | None, list[str]]:
        """Reason, subject and what may be done about it."""
        told = await self(key, source)
        return told["reason"], told["subject"], told["commands"][:-1]

    async def fetch(self, key: str) -> Any:
        return await self.connection.fetchrow("SELECT * FROM rowmill.queue WHERE row_key = $1", key)


async def put_back(hand: Hand, work: Work, refused: NotNow) -> None:
    """As the executor does with a job that may not make its call now."""
    outcome = Yield(refused.reason, refused.after, counts=False, keeps_place=refused.keeps_place)
    assert await hand.settle([work], lambda _: outcome) == {work.key: "settled"}
