"""A paid video in a format its platform supports.

Lossless where that is possible. It is paid for already, so nothing that goes wrong here may lose
it: then it is delivered as it came, and the result says why.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import structlog

from jobs.compute import ComputeInterrupted
from jobs.contract import Context, Output
from jobs.outputs import STORAGE, OutputError
from jobs.transcode import MUXERS, remake

log = structlog.get_logger()

SECONDS = 1200.0
PATIENCE = 2 * SECONDS
"""How much longer than its paid calls a kind must be allowed to take: with copying there and back.

Else its deadline could end the conversion, and a job's last try with it.
"""


async def supported(
    ctx: Context, output: Output, formats: Sequence[str]
) -> tuple[Output, str | None]:
    """The video to deliver, and why it isn't in a supported format if it should be."""
    known = [name.strip().lower().lstrip(".") for name in formats]
    wanted = next((name for name in known if name in MUXERS), None)
    if output.file_type != "video" or wanted is None or _extension(output.key) in known:
        return output, None
    try:
        async with asyncio.timeout(SECONDS):
            return await _remade(ctx, output, wanted), None
    except ComputeInterrupted:
        raise  # a worker that leaves: the next one reads the paid result back, and converts it
    except OutputError as error:
        if error.failure.code == STORAGE:
            raise  # the same, when the storage is back
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the video was paid for
        reason = str(error) or type(error).__name__
    log.warning("video.not_converted", output=output.key, wanted=wanted, reason=reason)
    return output, reason


async def _remade(ctx: Context, output: Output, wanted: str) -> Output:
    # Named by what was paid for, so that no other run's video is overwritten.
    stem = hashlib.sha256(output.key.encode()).hexdigest()[:32]
    with tempfile.TemporaryDirectory(prefix="rowmill-", ignore_cleanup_errors=True) as folder:
        target = Path(folder, f"{stem}.{wanted}")
        async with ctx.file(output.key) as path:
            await ctx.compute(remake, path, target, timeout=SECONDS)
        kept = await ctx.keep(target, target.name)
    name = PurePosixPath(output.filename).stem
    return replace(kept, filename=f"{name}.{wanted}")


def _extension(key: str) -> str:
    return key.rpartition(".")[2].lower()
