"""LISTEN on a connection of its own: new work, and claims that were taken from us.

Only shortens latency. Behind a transaction-mode pooler there is no LISTEN, and the poll does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog

from worker.store.errors import Unavailable, translated

log = structlog.get_logger()


class Bell:
    def __init__(self, dsn: str, heard: Callable[[str], None]) -> None:
        self._dsn = dsn
        self._heard = heard

    async def run(self, channel: Callable[[], str]) -> None:
        """Listen until cancelled; a lost connection is made again, and counts as a ring."""
        while True:
            try:
                await self._listen(channel)
            except Unavailable as error:
                log.warning("bell.lost", error=str(error))
                await asyncio.sleep(1)

    async def _listen(self, channel: Callable[[], str]) -> None:
        closed = asyncio.Event()
        name = channel()
        with translated():
            connection = await asyncpg.connect(self._dsn)
            try:
                connection.add_termination_listener(lambda _: closed.set())
                await connection.add_listener(name, self._on_notify)
                self._heard("")
                while not closed.is_set() and channel() == name:
                    try:
                        async with asyncio.timeout(30):
                            await closed.wait()
                    except TimeoutError:
                        await connection.execute("SELECT 1")
            finally:
                connection.terminate()
        if closed.is_set():
            raise Unavailable("the listening connection was closed")

    def _on_notify(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        self._heard(payload)
