"""Small media files with what real ones have: sound, turns, odd sizes, other codecs."""

from __future__ import annotations

import math
import struct
from array import array
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from PIL import Image


def film(
    path: Path,
    size: tuple[int, int] = (320, 180),
    *,
    seconds: float = 1.0,
    rate: int = 10,
    codec: str = "libx264",
    sound: str | None = None,
    container: str | None = None,
    shift: int = 0,
) -> Path:
    """Red on the left, blue on the right, with a bright square that moves over it."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
        track = out.add_stream(sound, rate=48_000) if sound else None
        frames = round(seconds * rate)
        for number in range(frames):
            frame = av.VideoFrame.from_image(_scene(size, number / frames))  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = number + shift, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if track is not None:
            assert isinstance(track, AudioStream)
            _hum(out, track, seconds)
    return path


def _scene(size: tuple[int, int], time: float) -> Image.Image:
    width, height = size
    picture = Image.new("RGB", size, (200, 0, 0))
    picture.paste((0, 0, 200), (width // 2, 0, width, height))
    left = round((width - 20) * time)
    picture.paste((250, 250, 0), (left, 0, left + 20, 20))
    return picture


def _hum(out: av.container.OutputContainer, track: AudioStream, seconds: float) -> None:
    samples = round(seconds * 48_000)
    wave = array("h", (round(8000 * math.sin(n / 20)) for n in range(samples)))
    for at in range(0, samples, 960):
        piece = wave[at : at + 960]
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(piece))
        frame.planes[0].update(piece.tobytes())
        frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
        out.mux(track.encode(frame))
    out.mux(track.encode(None))


MATRIX = {
    90: (0, 1, -1, 0),  # as a phone that is held upright writes it
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def turned(path: Path, clockwise: int) -> Path:
    """Write into the header by how much players must turn the picture."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4
    matrix = at + 40
    a, b, c, d = (value * 0x10000 for value in MATRIX[clockwise])
    struct.pack_into(">9i", content, matrix, a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(content)
    return path
