"""That the doctor mended something, in the same book as what operators do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.store.store import Store, to_json


async def record(store: Store, who: str, subject: str, detail: Mapping[str, Any]) -> None:
    await store.value(
        "INSERT INTO rowmill.actions (who, action, subject, detail) VALUES ($1, 'repair', $2, $3)",
        who,
        subject,
        to_json(dict(detail)),
    )
