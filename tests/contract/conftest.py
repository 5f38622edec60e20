"""The sandbox that both sides speak to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jobs.sandbox import Sandbox


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(steps=2) as running:
        yield running
