"""A picture that stands for a video: the first frame that shows something."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from jobs.contract import Context, Job, Outcome, Succeeded
from jobs.payload import Payload, invalid, takes
from jobs.probe import Unreadable
from jobs.registry import kind
from jobs.renditions import still

SIDE = 1280
SECONDS = 600.0


def _object_or_empty(value: Any) -> Any:
    return value if isinstance(value, dict) else {}


class Video(Payload):
    video_url: str | None = None


class ThumbnailPayload(Payload):
    video_url: str | None = None


class ThumbnailInput(Payload):
    """Where the video is: as the job says, else as the row of its video does."""

    payload: Annotated[ThumbnailPayload, BeforeValidator(_object_or_empty)] = ThumbnailPayload()
    video_url: str | None = None
    video: Annotated[Video, BeforeValidator(_object_or_empty)] = Video()

    @property
    def source(self) -> str | None:
        return self.video_url or self.payload.video_url or self.video.video_url


@kind("background:generate_thumbnail", timeout=1800)
@takes(ThumbnailInput)
async def generate_thumbnail(_job: Job, ctx: Context, given: ThumbnailInput) -> Outcome:
    """Take a JPEG from a video."""
    if not given.source:
        return invalid("video_url: neither the job nor its video says where the video is")
    with tempfile.TemporaryDirectory(prefix="rowmill-", ignore_cleanup_errors=True) as folder:
        target = Path(folder, "thumbnail.jpg")
        async with ctx.file(given.source) as path:
            try:
                await ctx.compute(still, path, target, SIDE, timeout=SECONDS)
            except Unreadable as error:
                return invalid(f"video_url: {error}", "unreadable")
        ctx.progress(80)
        kept = await ctx.keep(target, target.name)
    return Succeeded(
        outputs=(kept,),
        metadata={
            "thumbnail": kept.url,
            "key": kept.key,
            "width": kept.width,
            "height": kept.height,
            "size": kept.size,
        },
    )
