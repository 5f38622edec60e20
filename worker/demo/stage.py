"""What a demo plays on: a database with platforms, a provider that bills, and a fleet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.demo import order
from worker.demo.fleet import Fleet, Sandbox
from worker.demo.platform import Shown, prepare
from worker.demo.progress import counts
from worker.demo.screen import Screen
from worker.store import Store


@dataclass(frozen=True, slots=True)
class Stage:
    """What the whole story plays on."""

    screen: Screen
    store: Store
    fleet: Fleet
    sandbox: Sandbox
    shown: Sequence[Shown]

    async def show(self) -> None:
        self.screen.show(await counts(self.store, self.shown))


@asynccontextmanager
async def set_up(
    screen: Screen, dsn: str, home: Path, shown: Sequence[Shown], *, duration: float = 1.5
) -> AsyncIterator[Stage]:
    """`duration` is how many seconds a provider's task takes."""
    await prepare(dsn, shown)
    store = await Store.open(dsn)
    try:
        await order.watch(store)
        sandbox = await Sandbox.start(home, duration=duration)
        fleet = Fleet(dsn, sandbox.url, home, settings=sandbox.mail())
        try:
            yield Stage(screen, store, fleet, sandbox, shown)
        finally:
            await fleet.dismiss()
            await sandbox.stop()
    finally:
        await store.close()
