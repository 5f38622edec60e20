"""Real small media: mp4 (h264), png and wav, the same for the same order, never twice rendered.

A file is rendered once per look and size and kept; what makes it *this* prediction's file is a
label put into the bytes (a box, chunk or tag that players skip). So twenty jobs cost one
rendering, yet no two predictions share a hash, and a mix-up of outputs can be proved.
"""

from __future__ import annotations

import io
import math
import struct
import wave
import zlib
from array import array
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import cast

import av
from PIL import Image, ImageDraw, ImageOps

LONG_SIDE = 320
FRAMES_PER_SECOND = 12
SAMPLES_PER_SECOND = 16_000

MIME = {"video": "video/mp4", "image": "image/png", "audio": "audio/wav"}
SUFFIX = {"video": "mp4", "image": "png", "audio": "wav"}

LOOKS = (
    ("#0b132b", "#5bc0be", "#ffd166"),
    ("#2d1e2f", "#f26430", "#ffe8d6"),
    ("#132a13", "#90a955", "#ecf39e"),
    ("#1d3557", "#a8dadc", "#e63946"),
    ("#240046", "#c77dff", "#72efdd"),
    ("#3d2c2e", "#c9ada7", "#f2e9e4"),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """What decides the bytes of a file, and nothing else: the key of the cache."""

    medium: str
    width: int
    height: int
    seconds: Decimal
    look: int


def size_for(aspect_ratio: str) -> tuple[int, int]:
    """Even width and height, as h264 needs them, the longer side `LONG_SIDE` pixels."""
    across, down = (int(part) for part in aspect_ratio.split(":"))
    scale = LONG_SIDE / max(across, down)
    return even(across * scale), even(down * scale)


def even(length: float) -> int:
    return max(2, round(length / 2) * 2)


@lru_cache(maxsize=128)
def render(picture: Picture) -> bytes:
    match picture.medium:
        case "video":
            return render_video(picture)
        case "image":
            return render_image(picture)
        case _:
            return render_audio(picture)


def render_video(picture: Picture) -> bytes:
    target = io.BytesIO()
    frames = max(1, round(picture.seconds * FRAMES_PER_SECOND))
    background = paint_background(picture)
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height = picture.width, picture.height
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # light on a small machine, and reproducible
        stream.options = {"preset": "ultrafast", "crf": "28"}
        for number in range(frames):
            image = paint_sun(background, picture, number / frames)
            container.mux(stream.encode(frame_of(image)))
        container.mux(stream.encode())
    return target.getvalue()


def frame_of(image: Image.Image) -> av.VideoFrame:
    # PyAV's type stub leaves the argument bare.
    return cast(av.VideoFrame, av.VideoFrame.from_image(image))  # type: ignore[no-untyped-call]


def render_image(picture: Picture) -> bytes:
    target = io.BytesIO()
    paint_sun(paint_background(picture), picture, 0.4).save(target, "PNG")
    return target.getvalue()


def paint_background(picture: Picture) -> Image.Image:
    dark, light, _ = LOOKS[picture.look % len(LOOKS)]
    gradient = Image.linear_gradient("L").resize((picture.width, picture.height))
    return ImageOps.colorize(gradient, dark, light)


def paint_sun(background: Image.Image, picture: Picture, time: float) -> Image.Image:
    """A disc on its way over the sky; `time` runs from 0 to 1."""
    image = background.copy()
    radius = min(picture.width, picture.height) // 6
    x = picture.width * time
    y = picture.height * (0.75 - 0.5 * math.sin(math.pi * time))
    colour = LOOKS[picture.look % len(LOOKS)][2]
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


def render_audio(picture: Picture) -> bytes:
    """A chord of three tones."""
    target = io.BytesIO()
    base = 220 * 2 ** (picture.look / 12)
    second = array("h", (tone(base, n) for n in range(SAMPLES_PER_SECOND))).tobytes()
    wanted = int(picture.seconds * SAMPLES_PER_SECOND) * 2
    with wave.open(target, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLES_PER_SECOND)
        sound.writeframes((second * math.ceil(picture.seconds))[:wanted])
    return target.getvalue()


def tone(base: float, sample: int) -> int:
    angle = 2 * math.pi * base * sample / SAMPLES_PER_SECOND
    return round(4000 * (math.sin(angle) + math.sin(angle * 5 / 4) + math.sin(angle * 3 / 2)))


# ------------------------------------------------------------------------------ labels


def label(medium: str, content: bytes, text: str) -> bytes:
    """The same media with `text` inside, where players don't look."""
    raw = text.encode()
    match medium:
        case "video":  # a `free` box after the last one
            return content + struct.pack(">I4s", 8 + len(raw), b"free") + raw
        case "image":
            return label_png(content, raw)
        case _:
            return label_wav(content, raw)


def label_png(content: bytes, raw: bytes) -> bytes:
    """A tEXt chunk before the last chunk (IEND, always 12 bytes)."""
    body = b"tEXtComment\0" + raw
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return content[:-12] + chunk + content[-12:]


def label_wav(content: bytes, raw: bytes) -> bytes:
    """A LIST/INFO comment at the end, counted in the RIFF size."""
    raw += b"\0" * (1 + (len(raw) + 1) % 2)
    info = b"INFOICMT" + struct.pack("<I", len(raw)) + raw
    whole = content + b"LIST" + struct.pack("<I", len(info)) + info
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]
