"""How many samples an MP4 or MOV says it has, read before FFmpeg does.

FFmpeg makes an entry of 70 bytes for every sample that a header announces, there or not: a file of
a few hundred bytes can ask for gigabytes. So the boxes that hold such numbers are looked at first,
wherever FFmpeg would find them.

    moov > trak > mdia > (hdlr, minf > stbl > (stts, stsz))       moof > traf > trun
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

FOLDERS = frozenset(
    b"moov trak mdia minf stbl dinf edts udta meta mvex moof traf tref wide gmhd sinf ipro".split()
)
MAX_SAMPLES = 5_000_000
"""In all: 23 hours at 60 frames a second."""
MAX_BOXES = 200_000
HEAD = 32
TABLE = 1 << 20
"""How much of a table is read; an honest one is far shorter."""
PER_ENTRY = 1024
"""So many samples share an entry where sound isn't compressed."""
BESIDE_SOUND = {b"soun", b"alis", b"url ", b"mdir", b"mdta"}
"""Handlers that don't make a track of sound one of something else."""


class TooManySamples(Exception):
    pass


@dataclass(slots=True)
class Track:
    """Where a box comes twice, the worse one counts: FFmpeg may take either."""

    handlers: set[bytes] = field(default_factory=set)
    one_by_one: bool = True
    """Each sample lasts one tick: so sound is told that isn't compressed."""
    samples: int = 0
    chunks: int = 0
    chunk: int = 0
    """The most samples that one chunk has."""

    @property
    def entries(self) -> int:
        if b"soun" in self.handlers and self.handlers <= BESIDE_SOUND and self.one_by_one:
            return self.chunks * (self.chunk // PER_ENTRY + 1)
        return self.samples

    def read(self, name: bytes, body: bytes) -> None:
        match name:
            case b"hdlr":
                self.handlers.add(body[8:12])
            case b"stts":
                self.one_by_one &= body[4:8] + body[12:16] == b"\0\0\0\1\0\0\0\1"
            case b"stsz":
                self.samples = max(self.samples, _number(body[8:12]))
            case b"stco" | b"co64":
                self.chunks = max(self.chunks, _number(body[4:8]))
            case b"stsc":
                told = [_number(body[at : at + 4]) for at in range(12, len(body) - 3, 12)]
                self.chunk = max([self.chunk, *told])


def check_samples(path: Path) -> None:
    """Raises `TooManySamples`. A file of another format has no such boxes, or nonsense."""
    tracks, fragments = [Track()], 0
    with path.open("rb") as file:
        for number, (name, body) in enumerate(_boxes(file, os.fstat(file.fileno()).st_size)):
            if number == MAX_BOXES:
                raise TooManySamples(f"it has more than {MAX_BOXES:,} boxes")
            if name == b"cmov":
                raise TooManySamples("its header is compressed, so it can't be checked")
            if name == b"trak":
                tracks.append(Track())
            elif name == b"trun":
                fragments += _number(body[4:8])
            else:
                tracks[-1].read(name, body)
    if fragments + sum(track.entries for track in tracks) > MAX_SAMPLES:
        raise TooManySamples(f"it claims more than {MAX_SAMPLES:,} frames")


def _boxes(file: BinaryIO, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Every box's name and the beginning of its body, depth first."""
    spans = [(0, end)]
    while spans:
        start, end = spans.pop()
        if end - start < 8:
            continue
        file.seek(start)
        head = file.read(HEAD)
        size, name = struct.unpack(">I4s", head[:8])
        skip = 8
        if size == 1:
            size, skip = _number(head[8:16]), 16
        stop = min(end, start + size) if size >= skip else end
        if name == b"stsc":
            head += file.read(min(TABLE, stop - start) - len(head)) if stop - start > HEAD else b""
        yield name, head[skip : stop - start]
        spans.append((stop, end))
        if name in FOLDERS:
            spans.append((start + skip, stop))
        if name == b"meta":  # with a version in MP4, without one in MOV
            spans.append((start + skip + 4, stop))


def _number(field: bytes) -> int:
    return int.from_bytes(field, "big")
