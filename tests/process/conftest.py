"""A sandbox, a fleet and a database of both platforms; every process ends with its test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.database.conftest import attached
from tests.database.platform_samples import CloneDatabase, run
from tests.process.fleet import Fleet, Sandbox

OpenFleet = Callable[[str], Awaitable[Fleet]]

# The sample allows five generations at a time, which would hide what many at once do.
_ROOM = """
UPDATE public.system_settings SET value = '60' WHERE key = 'generation_queue_max_concurrent'
"""
LOG_TAIL = 6000


@pytest.fixture
async def both(clone_database: CloneDatabase) -> str:
    """Both platforms in one database: three job tables that share one queue."""

    async def build(dsn: str) -> None:
        await attached("photomemory", "ebook")(dsn)
        await run(dsn, _ROOM)

    return await clone_database("both-process", build)


@pytest.fixture
async def db(both: str) -> AsyncIterator[Any]:
    """A superuser's connection to it."""
    connection = await asyncpg.connect(both)
    yield connection
    connection.terminate()


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """A provider whose predictions take 0.6 s."""
    started = await Sandbox.start(tmp_path, duration=0.6)
    yield started
    await started.stop()


@pytest.fixture
async def open_fleet(
    sandbox: Sandbox, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[OpenFleet]:
    """Await it with a DSN for a fleet on that database."""
    fleets: list[Fleet] = []
    request.node.stash[FLEETS] = fleets

    async def open_one(dsn: str) -> Fleet:
        fleets.append(Fleet(dsn, sandbox, tmp_path))
        return fleets[-1]

    yield open_one
    for fleet in fleets:
        await fleet.dismiss()


@pytest.fixture
async def fleet(both: str, open_fleet: OpenFleet) -> Fleet:
    return await open_fleet(both)


# --------------------------------------------------------------------------- failures

FLEETS = pytest.StashKey[list[Fleet]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What the workers logged stands below a failure."""
    report: Any = yield
    if report.when == "call" and report.failed:
        for fleet in item.stash.get(FLEETS, []):
            for worker in fleet.workers:
                text = worker.log_file.read_text()[-LOG_TAIL:]
                report.sections.append((f"log of {worker.name} ({worker.log_file.name})", text))
    return report  # type: ignore[no-any-return]
