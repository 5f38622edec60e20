"""An uploaded file made ready for readers: measured, and in the sizes that pages and players want.

    file ──> examine ──> a picture    WebP and JPEG in several widths
                    ├──> a video      MP4 in several sizes, a thumbnail, a poster
                    └──> else         nothing more: sound is measured, a document hashed

A repeat writes the same files again: their names come from the row and the size, their bytes from
the upload alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.contract import (
    Context,
    Failed,
    Failure,
    FailureKind,
    Job,
    Outcome,
    Output,
    RetryLater,
    Succeeded,
)
from jobs.payload import Payload, invalid, takes
from jobs.probe import Unreadable, grab
from jobs.registry import RetryPolicy, kind
from jobs.renditions import Examined, examine, pictures
from jobs.transcode import rendition, sides

DEADLINE = 6 * 3600.0
"""Hours of film, one processor."""
EXAMINE_SECONDS = 900.0
PICTURES_SECONDS = 900.0
POSTER_SIDE = 1280
CACHE_DAYS = 30
"""How long a page may keep a public file before it asks again."""
MEDIA = ("image/", "video/", "audio/")
UNDECODED = ("image/svg", "image/vnd", "image/x-")
"""Called pictures, and nothing we have a decoder for: kept as they are, like documents."""


class MediaFile(Payload):
    file_path: str = Field(min_length=1)
    file_size: int | None = None
    mime_type: str = ""
    visibility: str = "private"


class MediaFileInput(Payload):
    file: MediaFile


@dataclass(slots=True)
class Variants:
    """What was made so far, in the order it will be listed."""

    outputs: list[Output] = field(default_factory=list)
    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    singles: dict[str, dict[str, Any]] = field(default_factory=dict)

    def listed(self, *, public: bool) -> dict[str, Any]:
        """Without URLs for a file that isn't public: its platform signs its own from the keys."""

        def shown(entry: Mapping[str, Any]) -> dict[str, Any]:
            return dict(entry) if public else {**entry, "url": None}

        lists = {name: [shown(entry) for entry in found] for name, found in self.lists.items()}
        return {**lists, **{name: shown(entry) for name, entry in self.singles.items()}}


@kind("background:process_media", timeout=DEADLINE, retry=RetryPolicy(base=5.0))
@takes(MediaFileInput)
async def process_media(_job: Job, ctx: Context, given: MediaFileInput) -> Outcome:
    """Measure an uploaded file and make the sizes of it that are shown."""
    file = given.file
    with tempfile.TemporaryDirectory(prefix="rowmill-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        async with ctx.file(file.file_path) as path:
            found = await ctx.compute(
                examine, path, folder / "thumbnail.jpg", timeout=EXAMINE_SECONDS
            )
            refusal = _refusal(file, found)
            if refusal is not None:
                return refusal
            ctx.progress(10)
            try:
                variants = await _variants(ctx, path, folder, found)
            except Unreadable as error:
                return invalid(f"the file can't be processed: {error}", "unreadable")
        return _succeeded(ctx, file, found, variants)


def _refusal(file: MediaFile, found: Examined) -> Outcome | None:
    if file.file_size is not None and file.file_size != found.size:
        # Perhaps its upload isn't done: rows are often written first.
        message = f"the file has {found.size:,} bytes, its row says {file.file_size:,}"
        return RetryLater(Failure(FailureKind.TRANSIENT, message, "file_size"))
    told = file.mime_type.lower()
    if found.media is None and told.startswith(MEDIA) and not told.startswith(UNDECODED):
        return Failed(Failure(FailureKind.INVALID, f"the file: {found.problem}", "unreadable"))
    return None


async def _variants(ctx: Context, path: Path, folder: Path, found: Examined) -> Variants:
    variants = Variants()
    if found.media is None or found.media.file_type == "audio":
        return variants
    if found.media.file_type == "image":
        await _pictures(ctx, path, folder, variants)
    else:
        assert found.media.width
        assert found.media.height
        wanted = sides(found.media.width, found.media.height)
        await _films(ctx, path, folder, wanted, variants)
    return variants


async def _pictures(ctx: Context, path: Path, folder: Path, variants: Variants) -> None:
    made = await ctx.compute(pictures, path, folder, timeout=PICTURES_SECONDS)
    for number, each in enumerate(made, start=1):
        kept = await ctx.keep(each.path, each.path.name)
        variants.outputs.append(kept)
        variants.lists.setdefault("image", []).append(_entry(kept))
        ctx.progress(50 + 50 * number / len(made))


async def _films(
    ctx: Context, path: Path, folder: Path, wanted: Sequence[int], variants: Variants
) -> None:
    thumbnail = await ctx.keep(folder / "thumbnail.jpg", "thumbnail.jpg")
    variants.singles["thumbnail"] = _entry(thumbnail)
    variants.singles["poster"] = _entry(await _poster(ctx, path, folder))
    done, whole = 0, sum(side**2 for side in wanted)  # its work goes with its area
    for side in wanted:
        target = folder / f"{side}p.mp4"
        made = await ctx.compute(rendition, path, target, side, timeout=DEADLINE)
        kept = await ctx.keep(made.path, target.name)
        made.path.unlink()
        variants.outputs.append(kept)
        variants.lists.setdefault("video", []).append(
            {**_entry(kept), "duration": kept.duration_seconds}
        )
        done += side**2
        ctx.progress(10 + 90 * done / whole)


async def _poster(ctx: Context, path: Path, folder: Path) -> Output:
    target = folder / "poster.jpg"
    await ctx.compute(grab, path, target, POSTER_SIDE, timeout=EXAMINE_SECONDS)
    return await ctx.keep(target, target.name)


def _entry(output: Output) -> dict[str, Any]:
    return {
        "format": output.key.rpartition(".")[2],
        "width": output.width,
        "height": output.height,
        "url": output.url,
        "key": output.key,
        "size": output.size,
    }


def _succeeded(ctx: Context, file: MediaFile, found: Examined, variants: Variants) -> Succeeded:
    media = found.media
    main = _main(variants.outputs)
    return Succeeded(
        outputs=(main,) if main else (),
        data={
            "mime_type": media.mime_type if media else None,
            "width": media.width if media else None,
            "height": media.height if media else None,
            "duration": media.duration_seconds if media else None,
            "file_hash": found.sha256,
            "variants": variants.listed(public=False),
            "public_variants": variants.listed(public=True),
            "cdn_url": main.url if main else ctx.link(file.file_path),
            "cache_days": CACHE_DAYS,
        },
    )


def _main(outputs: Sequence[Output]) -> Output | None:
    """The largest: of pictures the WebP, which keeps transparency and is smaller."""
    rank: Callable[[Output], tuple[int, bool]] = lambda output: (  # noqa: E731
        output.width or 0,
        output.mime_type == "image/webp",
    )
    return max(outputs, key=rank, default=None)
