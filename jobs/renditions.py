"""What a picture or a video is made into. Plain functions on paths: they run in a process pool.

    examine(path, thumbnail) ──> Examined       size, hash, and what it is
    pictures(path, folder) ────> Made, …        WebP and JPEG, in several widths

Upright, in sRGB, with nothing of the metadata (a photo tells where it was taken). Videos: see
`jobs.transcode`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from jobs.probe import Media, Unreadable, grab, inspect, on_paper, open_image

WIDTHS = (320, 640, 1280, 1920)
MAX_HEIGHT = 16_383
"""WebP has no room for more."""
FORMATS = {"webp": {"quality": 80, "method": 4}, "jpg": {"quality": 85, "progressive": True}}
PILLOW_NAME = {"webp": "WEBP", "jpg": "JPEG"}


@dataclass(frozen=True, slots=True)
class Examined:
    size: int
    sha256: str
    media: Media | None
    problem: str = ""
    """Why there is no media."""


@dataclass(frozen=True, slots=True)
class Made:
    path: Path
    format: str
    width: int
    height: int


def examine(path: Path, thumbnail: Path) -> Examined:
    """Of any file its size and hash; of media what it is, and a thumbnail."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    try:
        return Examined(size, sha256, inspect(path, thumbnail))
    except Unreadable as error:
        return Examined(size, sha256, None, str(error))


def pictures(path: Path, folder: Path, widths: Sequence[int] = WIDTHS) -> list[Made]:
    """Every width in every format, the smallest first. Raises `Unreadable`."""
    try:
        with open_image(path) as image:
            return list(_pictures(_normal(image), folder, widths))
    except UnidentifiedImageError as error:
        raise Unreadable("not a readable picture") from error


def still(path: Path, target: Path, side: int) -> None:
    """A JPEG that stands for a video, or for a picture. Raises `Unreadable`."""
    try:
        with open_image(path) as image:
            small = _normal(image)
            small.thumbnail((side, side))
            on_paper(small).save(target, "JPEG", **FORMATS["jpg"])
    except UnidentifiedImageError:
        grab(path, target, side)


def _pictures(image: Image.Image, folder: Path, widths: Sequence[int]) -> Iterator[Made]:
    for width in fitting(image.width, widths):
        scale = min(width / image.width, MAX_HEIGHT / image.height, 1.0)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        small = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
        for extension, options in FORMATS.items():
            made = folder / f"{width}.{extension}"
            shown = on_paper(small) if extension == "jpg" else small
            shown.save(made, PILLOW_NAME[extension], **options)
            yield Made(made, extension, *size)


def fitting(source: int, sizes: Sequence[int]) -> list[int]:
    """The sizes below the source's own; and its own, where that isn't larger than all of them."""
    smaller = sorted(size for size in set(sizes) if size < source)
    return [*smaller, source] if source <= max(sizes) else smaller


def _normal(image: Image.Image) -> Image.Image:
    """Upright, sRGB, 8 bits, RGB or RGBA; without metadata. Of an animation the first frame."""
    upright = ImageOps.exif_transpose(image)
    profile = image.info.get("icc_profile")
    if upright.mode[0] in "IF" and upright.mode != "I;16":
        upright = upright.convert("F")
        upright = _stretched(upright)
    elif upright.mode == "I;16":
        upright = upright.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    transparent = upright.has_transparency_data
    if upright.mode == "P" or (transparent and upright.mode != "RGBA"):
        upright = upright.convert("RGBA" if transparent else "RGB")
    if profile:
        upright = _in_srgb(upright, profile)
    plain = upright.convert("RGBA" if transparent else "RGB")
    plain.info.clear()
    return plain


def _stretched(image: Image.Image) -> Image.Image:
    """Numbers without a scale of their own: from the darkest to the brightest there is."""
    low, high = (float(value) for value in image.getextrema())  # type: ignore[arg-type]
    scale = 255 / (high - low) if high > low else 0.0
    return image.point(lambda value: value * scale - low * scale).convert("L")


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """A profile that is broken, or of another kind of picture, says nothing."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colours = image.convert("RGB") if alpha else image
    with suppress(ImageCms.PyCMSError, OSError, ValueError):
        theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        turned = ImageCms.profileToProfile(colours, theirs, srgb, outputMode="RGB")
        assert turned is not None
        if alpha:
            turned.putalpha(alpha)
        return turned
    return image
