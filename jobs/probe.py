"""What a file really is, read from its bytes: names, headers and URLs are not believed.

    inspect(path, thumbnail) ──> Media          Pillow for images, PyAV for video and audio

Files come from other people's machines, so decoders are kept on a short leash: named formats only,
a bound on pixels before anything is decoded, and no format may open a second file (playlists and
external tracks could name files of ours or hosts inside our network).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image, ImageOps, ImageStat, UnidentifiedImageError

from jobs.boxes import TooManySamples, check_samples

FileType = Literal["image", "video", "audio"]

MAX_PIXELS = 100_000_000
"""A 10,000 × 10,000 picture; decoded, already 400 MB."""
MAX_IMAGE_BYTES = 512 * 1024**2
"""Some of Pillow's formats read the whole file into memory."""
MAX_SECONDS = 24 * 3600.0
MAX_FRAME_RATE = 1000
THUMBNAIL_SIDE = 640
THUMBNAIL_FRAMES = 120
"""How far into a video to look for a frame that shows something."""
THUMBNAIL_STEP = 10
MEANINGFUL_SPREAD = 12.0
"""Standard deviation of brightness (of 255) above which a frame isn't plain black or white."""


class Unreadable(Exception):
    """Not a media file we can read, or one that isn't safe to."""


@dataclass(frozen=True, slots=True)
class Media:
    file_type: FileType
    mime_type: str
    extension: str
    width: int | None = None
    height: int | None = None
    duration_seconds: float | None = None
    codec: str | None = None
    frame_rate: float | None = None
    bit_rate: int | None = None
    thumbnail: tuple[int, int] | None = None
    """The size of the thumbnail that was written, if one was."""


IMAGES = {
    "PNG": ("image/png", "png"),
    "JPEG": ("image/jpeg", "jpg"),
    "WEBP": ("image/webp", "webp"),
    "GIF": ("image/gif", "gif"),
    "TIFF": ("image/tiff", "tiff"),
    "BMP": ("image/bmp", "bmp"),
    "AVIF": ("image/avif", "avif"),
}

# FFmpeg's name of the container → (with pictures, sound alone). `None`: never has pictures.
CONTAINERS: dict[str, tuple[tuple[str, str] | None, tuple[str, str]]] = {
    "mov": (("video/mp4", "mp4"), ("audio/mp4", "m4a")),
    "matroska": (("video/x-matroska", "mkv"), ("audio/x-matroska", "mka")),
    "ogg": (("video/ogg", "ogv"), ("audio/ogg", "ogg")),
    "avi": (("video/x-msvideo", "avi"), ("audio/x-msvideo", "avi")),
    "mpegts": (("video/mp2t", "ts"), ("audio/mp2t", "ts")),
    "wav": (None, ("audio/wav", "wav")),
    "mp3": (None, ("audio/mpeg", "mp3")),
    "flac": (None, ("audio/flac", "flac")),
    "aac": (None, ("audio/aac", "aac")),
}
WEBM = {"vp8", "vp9", "av1", "opus", "vorbis"}


def inspect(path: Path, thumbnail: Path) -> Media:
    """Say what `path` is; of a picture or a video, write a JPEG to `thumbnail`.

    Raises `Unreadable`. Slow (it decodes), so call it off the event loop.
    """
    if path.stat().st_size > MAX_IMAGE_BYTES:
        return _stream(path, thumbnail)
    try:
        return _image(path, thumbnail)
    except UnidentifiedImageError:
        return _stream(path, thumbnail)


def grab(path: Path, target: Path, side: int) -> tuple[int, int]:
    """Write a frame of a video that shows something as a JPEG, its longer side at most `side`."""
    with opened(path) as container:
        video = picture_stream(container)
        if video is None:
            raise Unreadable("it has no moving picture")
        best, _ = _best_frame(container, video, side)
        return _save_thumbnail(best, target, side)


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """A video or sound, to be read with every care. Raises `Unreadable`, also inside the block."""
    try:
        check_samples(path)
    except TooManySamples as error:
        raise Unreadable(str(error)) from error
    with decoding(), path.open("rb") as file, _open(file) as container:
        yield container


@contextmanager
def decoding() -> Iterator[None]:
    """Turn whatever a decoder raises on a broken file into `Unreadable`; there is no closed list.

    A full disk or too many open files is not the file's fault, and passes as the OSError it is; nor
    is too little memory, where that has a bound.
    """
    try:
        yield
    except (Unreadable, UnidentifiedImageError, MemoryError):
        raise
    except Exception as error:
        ours = isinstance(error, OSError) and not isinstance(error, av.error.FFmpegError)
        if ours and getattr(error, "errno", None) is not None:
            raise
        # `strerror` where there is one: FFmpeg's whole text would name our temporary file.
        reason = getattr(error, "strerror", None) or error
        raise Unreadable(f"not a readable image, video or audio file: {reason}") from error


# --------------------------------------------------------------------------- images


def _image(path: Path, thumbnail: Path) -> Media:
    with open_image(path) as image:
        mime_type, extension = IMAGES[str(image.format)]
        upright = ImageOps.exif_transpose(image)
        return Media(
            "image",
            mime_type,
            extension,
            width=upright.width,
            height=upright.height,
            thumbnail=_save_thumbnail(upright, thumbnail),
        )


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """A picture as it is stored. Raises `Unreadable`, also inside the block."""
    with decoding(), Image.open(path, formats=list(IMAGES)) as image:
        check_pixels(image.width, image.height)
        image.load()  # a truncated file shows only here
        yield image


def check_pixels(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise Unreadable("it has no picture size")
    if width * height > MAX_PIXELS:
        raise Unreadable(f"picture too large: {width}×{height}, at most {MAX_PIXELS:,} pixels")


def _save_thumbnail(image: Image.Image, path: Path, side: int = THUMBNAIL_SIDE) -> tuple[int, int]:
    small = image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")
    small.thumbnail((side, side))
    on_paper(small).save(path, "JPEG", quality=85)
    return small.size


def on_paper(image: Image.Image) -> Image.Image:
    """JPEG has no transparency; white is what a page would show behind it."""
    if image.mode != "RGBA":
        return image
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")


# --------------------------------------------------------------------------- video and audio


def _refuse_second_file(url: str, _flags: int, _options: dict[str, str]) -> NoReturn:
    raise PermissionError(f"the file refers to another one: {url}")


def _open(file: BinaryIO) -> InputContainer:
    return av.open(
        file,
        "r",
        options={"format_whitelist": ",".join(CONTAINERS)},
        io_open=_refuse_second_file,
    )


def _stream(path: Path, thumbnail: Path) -> Media:
    with opened(path) as container:
        video = picture_stream(container)
        return _audio(container) if video is None else _video(container, video, thumbnail)


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The moving picture; a cover image inside a song isn't one."""
    for stream in container.streams.video:
        if readable(stream) and not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def readable(stream: VideoStream | AudioStream) -> bool:
    """PyAV leaves the codec out (against its stub) where the file or FFmpeg knows none."""
    return getattr(stream, "codec_context", None) is not None


def _video(container: InputContainer, stream: VideoStream, thumbnail: Path) -> Media:
    best, turned = _best_frame(container, stream, THUMBNAIL_SIDE)
    width, height = stream.codec_context.width, stream.codec_context.height
    if turned:
        width, height = height, width
    mime_type, extension = _container_type(container, pictures=True)
    return Media(
        "video",
        mime_type,
        extension,
        width=width,
        height=height,
        duration_seconds=_duration(container),
        codec=stream.codec.canonical_name,
        frame_rate=_frame_rate(stream),
        bit_rate=container.bit_rate or None,
        thumbnail=_save_thumbnail(best, thumbnail),
    )


def _audio(container: InputContainer) -> Media:
    stream = next(filter(readable, container.streams.audio), None)
    if stream is None:
        raise Unreadable("it holds neither pictures nor sound")
    mime_type, extension = _container_type(container, pictures=False)
    if next(container.decode(stream), None) is None:
        raise Unreadable("it has no sound that can be decoded")
    return Media(
        "audio",
        mime_type,
        extension,
        duration_seconds=_duration(container),
        codec=stream.codec.canonical_name,
        bit_rate=container.bit_rate or None,
    )


def _frame_rate(stream: VideoStream) -> float | None:
    """Pictures a second; some files claim thousands where they mean that they don't know."""
    rate = stream.average_rate
    return round(float(rate), 3) if rate and 0 < rate <= MAX_FRAME_RATE else None


def _container_type(container: InputContainer, *, pictures: bool) -> tuple[str, str]:
    name = next(name for name in container.format.name.split(",") if name in CONTAINERS)
    if name == "mov" and container.metadata.get("major_brand", "").strip() == "qt":
        return ("video/quicktime", "mov") if pictures else ("audio/mp4", "m4a")
    if name == "matroska" and {s.codec.canonical_name for s in _coded(container)} <= WEBM:
        return ("video/webm", "webm") if pictures else ("audio/webm", "weba")
    with_pictures, sound = CONTAINERS[name]
    return with_pictures if pictures and with_pictures else sound


def _coded(container: InputContainer) -> list[VideoStream | AudioStream]:
    video, audio = container.streams.video, container.streams.audio
    return [*filter(readable, video), *filter(readable, audio)]


def leash(stream: VideoStream) -> None:
    """The size is checked now, and may change from one frame to the next."""
    check_pixels(stream.codec_context.width, stream.codec_context.height)
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    """The longer side at most `side`, never enlarged."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _best_frame(
    container: InputContainer, stream: VideoStream, side: int
) -> tuple[Image.Image, bool]:
    """The first frame that shows something (videos fade in from black), else the best of them.

    Upright; and whether it was turned by a quarter for that.
    """
    leash(stream)
    best, turned, best_spread = None, False, -1.0
    for picture, rotation in _sampled(container, stream, side):
        spread = ImageStat.Stat(picture.convert("L")).stddev[0]
        if spread > best_spread:
            best, turned, best_spread = picture, rotation % 180 == 90, spread
        if spread >= MEANINGFUL_SPREAD:
            break
    if best is None:
        raise Unreadable("it has no picture that can be decoded")
    return best, turned


def _sampled(
    container: InputContainer, stream: VideoStream, side: int
) -> Iterator[tuple[Image.Image, int]]:
    width, height = _fit(stream.codec_context.width, stream.codec_context.height, side)
    frames = islice(container.decode(stream), 0, THUMBNAIL_FRAMES, THUMBNAIL_STEP)
    for frame in frames:
        # Shrunk by FFmpeg first: a 4K frame never becomes a 25 MB picture.
        small = frame.reformat(width=width, height=height, format="rgb24")
        picture = small.to_image()  # type: ignore[no-untyped-call]  # PyAV's stub has no types here
        yield picture.rotate(frame.rotation, expand=True), frame.rotation


def _duration(container: InputContainer) -> float:
    if container.duration:
        seconds = container.duration / av.time_base
    else:
        ends = max((_stream_end(stream) for stream in _coded(container)), default=0)
        seconds = float(ends) or _measured(container)
    if not 0 <= seconds <= MAX_SECONDS:
        raise Unreadable(f"it claims to last {seconds:,.0f} seconds, at most {MAX_SECONDS:,.0f}")
    return seconds


def _stream_end(stream: VideoStream | AudioStream) -> Fraction:
    return (stream.duration or 0) * (stream.time_base or Fraction(0))


def _measured(container: InputContainer) -> float:
    """Read to the end: files written as a stream don't say how long they are."""
    container.seek(0)
    ends = (
        (packet.pts + (packet.duration or 0)) * packet.time_base
        for packet in container.demux()
        if packet.pts is not None
    )
    return float(max(ends, default=0))
