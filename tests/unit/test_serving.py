"""What a worker's process does beside its work."""

from __future__ import annotations

import asyncio

from worker.commands.serving import ended


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again() -> None:
    waits, cancelled = asyncio.Event(), 0

    async def stubborn() -> None:
        nonlocal cancelled
        while cancelled < 2:
            try:
                waits.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1

    task = asyncio.create_task(stubborn())
    await waits.wait()
    await ended(task, patience=0.01)
    assert (task.done(), cancelled) == (True, 2)


async def test_a_task_that_failed_is_no_hindrance() -> None:
    async def broken() -> None:
        raise RuntimeError

    task = asyncio.create_task(broken())
    await asyncio.sleep(0)
    await ended(task, patience=0.01)
    assert isinstance(task.exception(), RuntimeError)
