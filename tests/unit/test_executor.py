"""A job's time: what counts, and what doesn't."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobs.compute import Compute
from jobs.contract import Context, Job, Outcome, RetryLater, Succeeded
from jobs.registry import Kind
from tests.unit import crunching
from worker.executor import Executor, suspended

JOB = Job("media_files", "row", "film", "film", 1, 0, 3, None, {})


async def outcome_of(kind: Kind, compute: Compute) -> Outcome:
    services = cast("Any", SimpleNamespace(compute=compute))
    executor = Executor(
        cast("Any", None), services, max_yields=9, put=lambda _: None, dropped=lambda _: None
    )
    running = cast("Any", SimpleNamespace(job=JOB))
    return await executor._outcome(running, kind)


def film(seconds: float, timeout: float) -> Kind:
    async def handler(_job: Job, ctx: Context) -> Outcome:
        await ctx.compute(crunching.crunch, seconds, timeout=3600)
        return Succeeded()

    return Kind("film", handler, timeout=timeout)


async def test_waiting_for_a_processor_takes_nothing_from_a_jobs_time() -> None:
    """Four films on one processor: the last waits longer than any of them may take."""
    compute = Compute(1, 0)
    await compute.run(crunching.whereabouts, seconds=20)
    began = time.monotonic()
    try:
        films = [outcome_of(film(0.7, timeout=2.0), compute) for _ in range(4)]
        assert await asyncio.gather(*films) == [Succeeded()] * 4
        assert time.monotonic() - began > 2.5
    finally:
        await compute.close()


async def test_the_work_itself_does_count() -> None:
    compute = Compute(1, 0)
    try:
        outcome = await outcome_of(film(60, timeout=1.0), compute)
    finally:
        await compute.close()
    assert isinstance(outcome, RetryLater)
    assert (outcome.failure.code, outcome.failure.message) == ("deadline", "not done within 1 s")


async def test_two_that_wait_at_once_and_one_that_is_over() -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(0.2) as deadline:
        with suspended(deadline), suspended(deadline):
            await asyncio.sleep(0.3)
        due = deadline.when()
        assert due is not None
        assert 0.1 < due - loop.time() < 0.25
    late = pytest.raises(TimeoutError)
    with late:
        async with asyncio.timeout(0.01) as deadline:
            try:
                await asyncio.sleep(1)
            finally:
                with suspended(deadline):
                    pass
