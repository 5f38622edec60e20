"""A terminal taken, and given back as it was: after q, a crash, a signal, a closed window."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

from worker.watch.reading import open_store
from worker.watch.screen import Watch

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def show(dsn: str, *, every: float, text: str, who: str, providers: tuple[str, ...]) -> int:
    """Watch until someone leaves. The exit code; 128 + number of the signal that ended it."""
    app = Watch(lambda: open_store(dsn), every=every, text=text, who=who, providers=providers)
    await app.reader.open()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, app.exit, 128 + number)
    code: int | None = None
    try:
        with suppress(OSError):  # the terminal is gone: nothing to draw on, nothing to give back
            code = await app.run_async(mouse=False)  # so that text can be selected and copied
    finally:
        await app.reader.close()
    if app.broke is not None:
        raise app.broke
    return code or 0
