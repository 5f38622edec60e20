"""The sandbox's media in the formats that vendors let their clients choose.

Every file carries a text of its own, as in `jobs.sandbox.media`: here as the comment that the
format has a place for.
"""

from __future__ import annotations

import io
from typing import cast

import av
from av.audio.stream import AudioStream
from PIL import Image

from jobs.sandbox.media import label

DESCRIPTION = 0x010E  # of Exif
# name → container, codec
SOUNDS = {"mp3": ("mp3", "libmp3lame"), "opus": ("ogg", "libopus"), "wav": ("wav", "pcm_s16le")}
IMAGES = ("png", "jpeg", "webp")


def image_as(name: str, png: bytes, text: str) -> bytes:
    if name == "png":
        return label("image", png, text)
    image, target = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    exif = Image.Exif()
    exif[DESCRIPTION] = text
    image.save(target, name.upper(), exif=exif)
    return target.getvalue()


def sound_as(name: str, wav: bytes, samples_per_second: int, text: str) -> bytes:
    container, codec = SOUNDS[name]
    target = io.BytesIO()
    with (
        av.open(io.BytesIO(wav), "r") as source,
        av.open(target, "w", format=container) as sink,
    ):
        sink.metadata["comment"] = text
        stream = cast(AudioStream, sink.add_stream(codec, rate=samples_per_second))
        for frame in source.decode(audio=0):
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode())
    return target.getvalue()
