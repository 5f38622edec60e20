"""The screen as a picture (SVG), without a terminal: for the README."""

from __future__ import annotations

from worker.watch.reading import open_store
from worker.watch.screen import Watch


async def picture(
    dsn: str,
    size: tuple[int, int] = (110, 36),
    *,
    reports: int = 5,
    every: float = 1.0,
    title: str = "rowmill watch",
    keys: tuple[str, ...] = (),
) -> str:
    """What a viewer sees after so many reports, and perhaps some keys."""
    app = Watch(lambda: open_store(dsn), every=every)
    await app.reader.open()
    try:
        async with app.run_test(size=size) as pilot:
            # A report, then the running jobs: after so many and one more, both are new.
            while app.kept.reports <= reports:
                app.told.clear()
                await app.told.wait()
            await pilot.press(*keys)
            await pilot.pause()
            return app.export_screenshot(title=title)
    finally:
        await app.reader.close()
