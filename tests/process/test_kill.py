"""kill -9 in mid-flight: every job ends exactly once, and is paid for once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process.fleet import Fleet, Sandbox, paid, paid_twice
from tests.process.rows import (
    add_media,
    all_done,
    exactly_once,
    in_state,
    ledger_equals_bill,
)

pytestmark = pytest.mark.process


async def test_what_a_provider_accepted_is_resumed(db: Any, fleet: Fleet, sandbox: Sandbox) -> None:
    keys = await add_media(db, 8)
    first = await fleet.hire("a")
    await in_state(db, "accepted", 5)
    await first.kill()
    await fleet.hire("b")
    await all_done(db)
    await exactly_once(db)
    assert not paid_twice(await sandbox.bill())
    assert len(paid(await sandbox.bill())) == len(keys)
    await ledger_equals_bill(db, sandbox)
