"""Our ledger agrees with the provider's bill, and what was paid is delivered or kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tests.database.support import time_passes
from tests.process.fleet import Fleet, Sandbox, paid, paid_twice, until, until_sql
from tests.process.rows import (
    add_media,
    add_texts,
    exactly_once,
    has_status,
    in_state,
    ledger,
    ledger_equals_bill,
    queue_row,
    row,
    submissions,
)
from tests.process.test_cancel import project_locked

pytestmark = pytest.mark.process

FAULTS = (
    *("", "fail*1", "fail*9", "policy", "invalid", "429=0.1*2", "503=0.1*1", "slow=1*1"),
    *("disconnect-after*1", "disconnect*1", "garbled*1", "cut*1"),
    *("poll-500*2", "poll-429=0.1*1", "poll-disconnect*1", "poll-garbled*1", "download-500*1"),
)
TEXT_FAULTS = ("", "429=0.1*2", "policy", "refusal", "invalid", "slow=1*1")
WITH_SOUND = '{"duration_seconds": 2, "soundtrack": true}'


async def test_the_ledger_equals_the_bill(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    """To the cent and for every job, over all that can go wrong and two crashes."""
    for number, fault in enumerate(FAULTS):
        prompt = f"[fault:{fault}]" if fault else ""
        kind = ("video", "thumbnail", "preview", "audio")[number % 4]
        await add_media(db, prompt=prompt, kind=kind, max_retries=1)
        await add_media(db, prompt=prompt, settings=WITH_SOUND, max_retries=1)
    for fault in TEXT_FAULTS:
        await add_texts(db, prompt=f"[fault:{fault}]" if fault else "")
    worker = await fleet.hire("a", slots=30)
    await in_state(db, "accepted", 5)
    await worker.kill()
    await fleet.hire("b", slots=30, RESUBMIT_UP_TO_CENTS=0)
    await done_without_waiting(db)
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    held = {f"ai_generations/{key['row_key']}" for key in await db.fetch("TABLE rowmill.queue")}
    ours = await ledger(db)
    theirs = {marker: sum_of for marker, sum_of in (await net(sandbox)).items()}
    assert {m: c for m, c in theirs.items() if m not in held} == ours


async def net(sandbox: Sandbox) -> Mapping[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for (marker, _), charges in paid(await sandbox.bill()).items():
        sums[marker] = sums.get(marker, Decimal(0)) + sum(charge.net for charge in charges)
    return sums
