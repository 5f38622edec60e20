"""Uploads that nobody paid for: real small files at an address, for jobs that start from one.

    GET /samples/video.mp4?label=7&bytes=120000&seconds=2&width=320&height=180
    GET /samples/image.jpg   image.png   video.webm   audio.wav   document.pdf

`label` makes the bytes another file's, `bytes` makes it exactly so long, with padding where nobody
looks; so a row can say its size before it was ever asked for.
"""

from __future__ import annotations

import asyncio
import io
from decimal import Decimal
from functools import lru_cache

import av
from aiohttp import web
from PIL import Image
from pydantic import BaseModel, Field

from jobs.sandbox.media import Picture, even, label, render

MIME = {
    "video.mp4": "video/mp4",
    "video.webm": "video/webm",
    "image.jpg": "image/jpeg",
    "image.png": "image/png",
    "audio.wav": "audio/wav",
    "document.pdf": "application/pdf",
}
JPEG_COMMENT = 60_000
ROUNDS = 5
"""How often the padding's own overhead may shift before it fits."""


class Wanted(BaseModel):
    label: str = Field("", max_length=200)
    bytes: int | None = Field(None, ge=1, le=50_000_000)
    seconds: Decimal = Field(Decimal(2), gt=0, le=60)
    width: int = Field(320, ge=2, le=4096)
    height: int = Field(180, ge=2, le=4096)


async def show(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in MIME:
        raise web.HTTPNotFound
    wanted = Wanted.model_validate(dict(request.query))
    content = await asyncio.to_thread(_rendered, name, wanted.seconds, wanted.width, wanted.height)
    whole = _fitted(name, content, wanted)
    if whole is None:
        problem = f"{name} can't be made {wanted.bytes} bytes long; it has {len(content)} by itself"
        return web.json_response({"error": problem}, status=400)
    return web.Response(body=whole, content_type=MIME[name])


@lru_cache(maxsize=32)
def _rendered(name: str, seconds: Decimal, width: int, height: int) -> bytes:
    medium = name.partition(".")[0]
    look = len(name)
    picture = Picture(medium, even(width), even(height), seconds, look)
    match name:
        case "document.pdf":
            return b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
        case "image.jpg":
            target = io.BytesIO()
            Image.open(io.BytesIO(render(picture))).convert("RGB").save(target, "JPEG", quality=85)
            return target.getvalue()
        case "video.webm":
            return _webm(render(picture))
        case _:
            return render(picture)


def _webm(mp4: bytes) -> bytes:
    target = io.BytesIO()
    with av.open(io.BytesIO(mp4), "r") as source, av.open(target, "w", format="webm") as out:
        given = source.streams.video[0]
        stream = out.add_stream("libvpx", rate=given.average_rate)
        stream.width, stream.height, stream.pix_fmt = given.width, given.height, "yuv420p"
        for frame in source.decode(given):
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return target.getvalue()


def _fitted(name: str, content: bytes, wanted: Wanted) -> bytes | None:
    """As long as asked. None: it can't be."""
    whole = _labelled(name, content, wanted.label)
    if wanted.bytes is None:
        return whole
    padding = 0
    for _ in range(ROUNDS):
        padding += wanted.bytes - len(whole)
        if padding < 0:
            return None
        whole = _labelled(name, content, wanted.label + "." * padding)
        if len(whole) == wanted.bytes:
            return whole
    return None


def _labelled(name: str, content: bytes, text: str) -> bytes:
    raw = text.encode()
    match name:
        case _ if not raw:
            return content
        case "document.pdf":
            return content + b"%" + raw + b"\n"
        case "image.jpg":
            parts = [raw[at : at + JPEG_COMMENT] for at in range(0, len(raw), JPEG_COMMENT)]
            comments = (b"\xff\xfe" + (len(part) + 2).to_bytes(2, "big") + part for part in parts)
            return content[:2] + b"".join(comments) + content[2:]
        case "video.webm":  # a void element, its length in eight bytes
            return content + b"\xec\x01" + len(raw).to_bytes(7, "big") + raw
        case _:
            return label(name.partition(".")[0], content, text)
