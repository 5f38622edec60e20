"""The process pool: results and errors pass, the loop goes on, and what must stop is killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from itertools import count
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pebble import ProcessFuture

from jobs.compute import NICENESS, Compute, ComputeFailed, ComputeInterrupted
from tests.unit import crunching
from worker.executor import JobContext, Running, Services

WITHIN = 15.0


@pytest.fixture
async def compute() -> AsyncIterator[Compute]:
    pool = Compute(1, memory_mb=2048)
    yield pool
    await pool.close()


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not look():  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    """Ended; as a zombie it may wait for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_work_is_done_elsewhere_nicely_and_within_its_memory(compute: Compute) -> None:
    pid, niceness, memory = await compute.run(crunching.whereabouts, seconds=20)
    assert pid != os.getpid()
    assert niceness >= os.nice(0) + NICENESS or niceness == 19
    assert memory == 2048 * 1024**2


async def test_what_the_work_raises_passes(compute: Compute) -> None:
    with pytest.raises(ValueError, match="not like this"):
        await compute.run(crunching.fail, "not like this", seconds=20)


async def test_what_cannot_come_through_is_told_and_breaks_nothing(compute: Compute) -> None:
    """A pool that broke over one job's exception would take all other jobs' work with it."""
    await compute.run(crunching.whereabouts, seconds=20)
    before = children()
    with pytest.raises(RuntimeError, match="Odd: this: because"):
        await compute.run(crunching.fail_oddly, seconds=20)
    assert children() == before


async def test_the_loop_goes_on_meanwhile(compute: Compute) -> None:
    """The computation ends only because the loop, which it may not stall, lets it."""
    work = asyncio.create_task(compute.run(crunching.crunch, 60, seconds=60))
    for _ in range(50):
        await asyncio.sleep(0.01)
    assert not work.done()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_cancelled_task_is_killed_and_the_next_one_runs(
    compute: Compute, tmp_path: Path
) -> None:
    started = tmp_path / "pid"
    work = asyncio.create_task(compute.run(crunching.crunch, 600, started, seconds=600))
    await until(lambda: started.exists() and started.read_text() != "")
    pid = int(started.read_text())
    work.cancel()
    await asyncio.wait([work])
    await until(lambda: gone(pid))
    assert await compute.run(crunching.crunch, 0.01, seconds=20) > 0


async def test_a_task_is_killed_when_its_time_is_up(compute: Compute, tmp_path: Path) -> None:
    started = tmp_path / "pid"
    with pytest.raises(ComputeFailed, match=r"longer than 0\.5 s") as caught:
        await compute.run(crunching.crunch, 600, started, seconds=0.5)
    assert caught.value.failure.code == "deadline"
    await until(lambda: gone(int(started.read_text())))


async def test_waiting_for_a_turn_takes_nothing_from_a_tasks_time(compute: Compute) -> None:
    first = asyncio.create_task(compute.run(crunching.crunch, 1.5, seconds=20))
    await asyncio.sleep(0)
    assert await compute.run(crunching.crunch, 0.01, seconds=1) > 0
    await first


async def test_waiting_for_a_turn_takes_nothing_from_a_jobs_time_either(compute: Compute) -> None:
    """The second job's whole time is shorter than the first one's work."""
    begun = asyncio.Event()

    async def job(work_seconds: float, deadline: float) -> int:
        async with asyncio.timeout(deadline) as limit:
            context = JobContext(
                cast(Running, SimpleNamespace()),
                cast(Services, SimpleNamespace(compute=compute)),
                limit,
            )
            begun.set()
            return await context.compute(crunching.crunch, work_seconds)

    await compute.run(crunching.crunch, 0.01, seconds=20)
    first = asyncio.create_task(job(3, 20))
    await begun.wait()
    assert await job(0.01, 2) > 0
    await first
    with pytest.raises(TimeoutError):
        await job(60, 0.5)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
async def test_a_child_that_dies_is_its_own_tasks_failure(compute: Compute, number: int) -> None:
    with pytest.raises(ComputeFailed, match=f"signal {int(number)}") as caught:
        await compute.run(crunching.end, number, seconds=20)
    assert caught.value.failure.code == "crashed"
    assert await compute.run(crunching.crunch, 0.01, seconds=20) > 0


async def test_a_child_that_leaves_is_a_failure_too(compute: Compute) -> None:
    with pytest.raises(ComputeFailed, match="code 3"):
        await compute.run(crunching.leave, 3, seconds=20)


async def test_terminated_from_outside_is_nobodys_failure(compute: Compute) -> None:
    with pytest.raises(ComputeInterrupted):
        await compute.run(crunching.end, signal.SIGTERM, seconds=20)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't keep RLIMIT_AS")
async def test_too_much_memory_is_the_tasks_failure(compute: Compute) -> None:
    with pytest.raises(ComputeFailed, match="ROWMILL_COMPUTE_MEMORY_MB") as caught:
        await compute.run(crunching.hog, 4096, seconds=20)
    assert caught.value.failure.code == "memory"
    assert await compute.run(crunching.hog, 64, seconds=20) > 0


async def test_an_idle_child_that_dies_harms_nobody(compute: Compute) -> None:
    pid, _, _ = await compute.run(crunching.whereabouts, seconds=20)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: gone(pid))
    fresh, _, _ = await compute.run(crunching.whereabouts, seconds=20)
    assert fresh != pid


ORPHANS = """
import asyncio, sys
from pathlib import Path
from jobs.compute import Compute
from tests.unit import crunching

async def main():
    pool = Compute(1, 0)
    await pool.run(crunching.crunch, 600, Path(sys.argv[1]), seconds=600)

asyncio.run(main())
"""


async def test_children_die_with_a_worker_that_was_killed(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", ORPHANS, str(started))
    try:
        await until(lambda: started.exists() and started.read_text() != "")
    finally:
        worker.kill()
        await worker.wait()
    await until(lambda: gone(int(started.read_text())))


# --------------------------------------------------------------------------- the pool itself


def children() -> list[int]:
    """Those of all pools of this process."""
    return sorted(child.pid or 0 for child in multiprocessing.active_children())


async def test_a_page_to_be_read_never_stands_behind_a_film(tmp_path: Path) -> None:
    compute = Compute(1, memory_mb=0)
    started = tmp_path / "pid"
    film = asyncio.create_task(compute.run(crunching.crunch, 600, started, seconds=3600))
    try:
        await until(started.exists)
        assert await compute.run(crunching.crunch, 0.01, seconds=20) > 0
        assert not film.done()
    finally:
        film.cancel()
        await asyncio.wait([film])
        await compute.close()


async def test_whoever_is_cancelled_while_the_pool_starts_leaves_none_behind() -> None:
    compute, before = Compute(2, memory_mb=0), children()
    first = asyncio.create_task(compute.run(crunching.whereabouts, seconds=20))
    await asyncio.sleep(0.005)  # its pool is being made, in a thread
    first.cancel()
    await asyncio.wait([first])
    await compute.run(crunching.whereabouts, seconds=20)
    assert len(children()) - len(before) == 3
    await compute.close()
    await until(lambda: children() == before)


async def test_a_pool_that_broke_while_idle_is_taken_down() -> None:
    compute, before = Compute(2, memory_mb=0), children()
    await compute.run(crunching.whereabouts, seconds=20)
    first, *others = (pid for pid in children() if pid not in before)
    os.kill(first, signal.SIGKILL)
    await asyncio.sleep(1)  # the pool notices
    await compute.run(crunching.whereabouts, seconds=20)
    assert not set(others) & set(children())
    assert len(children()) - len(before) == 3
    await compute.close()


async def test_a_pool_that_cannot_start_is_not_the_jobs_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second process is refused: the first must not stay."""
    compute, before = Compute(1, memory_mb=0), children()
    real, calls = ForkServerProcess.start, count()

    def start(self: ForkServerProcess) -> None:
        if next(calls) == 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        real(self)

    monkeypatch.setattr(ForkServerProcess, "start", start)
    with pytest.raises(ComputeInterrupted, match="temporarily unavailable"):
        await compute.run(crunching.whereabouts, seconds=20)
    await until(lambda: children() == before)
    assert (await compute.run(crunching.whereabouts, seconds=20))[0] > 0  # and there is room again
    await compute.close()


async def test_a_result_that_comes_between_two_looks_is_no_reason_to_break_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Done(ProcessFuture[int]):
        def running(self) -> bool:  # and at this very moment it isn't any more
            if not self.done():
                self.set_result(7)
            return False

    class Pool:
        active = True

    monkeypatch.setattr("jobs.compute.START_SECONDS", 0.0)
    monkeypatch.setattr("jobs.compute.LOOK_SECONDS", 0.01)
    found = await Compute(1, 0)._result(cast("Any", Pool()), Done(), 20)
    assert found == 7
