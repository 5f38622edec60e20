"""Videos made of a video: H.264 and AAC in MP4. Plain functions on paths, for a process pool.

    sides(width, height)             which renditions there are, by their shorter side
    rendition(path, target, side)    one of them: upright, even sizes, times as they were
    remake(path, target)             the same video in the container that the target's name says

One thread each: the pool has one process per processor, and the same file comes out everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from jobs.probe import Unreadable, leash, opened, picture_stream, readable
from jobs.renditions import Made, fitting

SIDES = (360, 720, 1080)
"""Of the shorter side: an upright video of a phone is as sharp as a wide one."""
ENCODER = {"preset": "veryfast", "crf": "23", "profile": "high"}
KEYFRAME_SECONDS = 2
"""How far a player must go back to jump somewhere."""
SAMPLE_RATES = (44_100, 48_000)
AUDIO_BIT_RATE = 128_000
GAP_SECONDS = 0.1
MAX_RATE = 240
BROKEN_PACKETS = 100
"""How much of a video may be unreadable before it isn't one."""

MUXERS = {"mp4": "mp4", "mov": "mov", "m4v": "mp4", "mkv": "matroska"}
"""What we can write, by the extension."""
FITS = {"h264", "hevc", "mpeg4"}, {"aac", "mp3", "alac"}
"""Codecs that every player of MP4 or MOV takes: nothing has to be decoded for these."""


def sides(width: int, height: int) -> list[int]:
    short = min(width, height)
    return [side for side in SIDES if side <= short] or fitting(short, SIDES)


def rendition(path: Path, target: Path, side: int) -> Made:
    """Raises `Unreadable`."""
    with opened(path) as source, _written(target, "mp4") as out:
        video = picture_stream(source)
        if video is None:
            raise Unreadable("it has no moving picture")
        size = _transcode(source, video, out, side)
    return Made(target, "mp4", *size)


def remake(path: Path, target: Path) -> None:
    """Without loss where the codecs allow it. Raises `Unreadable`."""
    muxer = MUXERS[target.suffix[1:]]
    with opened(path) as source:
        video, sound = picture_stream(source), _sound(source)
        if video is None:
            raise Unreadable("it has no moving picture")
        with _written(target, muxer) as out:
            if muxer == "matroska" or _fit(video, sound):
                _copy(source, [stream for stream in (video, sound) if stream], out)
            else:
                _transcode(source, video, out, None)


# --------------------------------------------------------------------------- without loss


def _fit(video: VideoStream, sound: AudioStream | None) -> bool:
    pictures, sounds = FITS
    heard = sound is None or sound.codec_context.codec.canonical_name in sounds
    return video.codec_context.codec.canonical_name in pictures and heard


def _copy(source: InputContainer, streams: Sequence[Stream], out: OutputContainer) -> None:
    targets = {stream.index: out.add_stream_from_template(stream) for stream in streams}
    waiting: dict[int, list[Packet[Stream]]] = {stream.index: [] for stream in streams}
    for packet in source.demux(*streams):
        if packet.pts is None and packet.dts is None:
            continue  # the last one of a stream is empty
        early = waiting[packet.stream.index]
        early.append(packet)
        if packet.dts is None:
            continue
        _complete(early)
        for ready in early:
            ready.stream = targets[ready.stream.index]
            out.mux(ready)
        early.clear()


def _complete(packets: list[Packet[Stream]]) -> None:
    """Matroska doesn't say when the first ones are decoded: before the first that is known."""
    last = packets[-1]
    step = max(1, int(last.duration or 1))
    for number, packet in enumerate(reversed(packets)):
        assert last.dts is not None
        packet.dts = last.dts - number * step


# --------------------------------------------------------------------------- anew


def _transcode(
    source: InputContainer, video: VideoStream, out: OutputContainer, side: int | None
) -> tuple[int, int]:
    start = Fraction(source.start_time or 0, av.time_base)
    pictures = _Pictures(video, out, start, side)  # before the sound: players take the first
    sound = _sound(source)
    sounds = None if sound is None else _Sound(sound, out, start)
    early: list[AudioFrame] = []  # nothing can be written before the first picture is known
    for frame in _frames(source, [stream for stream in (video, sound) if stream]):
        if isinstance(frame, VideoFrame):
            pictures.write(frame)
        else:
            early.append(frame)
        if sounds is not None and pictures.size is not None:
            for heard in early:
                sounds.write(heard)
            early = []
    if pictures.size is None:
        raise Unreadable("it has no picture that can be decoded")
    pictures.end()
    if sounds is not None:
        sounds.end()
    return pictures.size


def _frames(source: InputContainer, streams: Sequence[Stream]) -> Iterator[VideoFrame | AudioFrame]:
    broken = 0
    for packet in source.demux(*streams):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            broken += 1
            if broken > BROKEN_PACKETS:
                raise Unreadable("too much of it is broken") from error
            continue
        for frame in frames:
            if isinstance(frame, VideoFrame | AudioFrame):
                yield frame


class _Pictures:
    """How they are turned is known from the first one on."""

    def __init__(
        self, stream: VideoStream, out: OutputContainer, start: Fraction, side: int | None
    ) -> None:
        leash(stream)
        stream.codec_context.thread_count = 1
        self.size: tuple[int, int] | None = None
        self._rate = _rate(stream)
        self._stretch = stream.sample_aspect_ratio or Fraction(1)
        self._out, self._start, self._side = out, start, side
        self._target = out.add_stream("libx264", rate=self._rate, options=ENCODER)
        self._graph: Graph | None = None
        self._shape: tuple[object, ...] = ()
        self._last = Fraction(-1)

    def write(self, frame: VideoFrame) -> None:
        if frame.pts is None or frame.time_base is None:
            return
        at = frame.pts * frame.time_base - self._start
        if at <= self._last:
            return  # an encoder refuses a time that doesn't go on
        self._last = at
        upright = self._upright(frame, frame.time_base)
        upright.pts, upright.time_base = round(at / frame.time_base), frame.time_base
        upright.pict_type = 0  # let the encoder decide anew
        self._out.mux(self._target.encode(upright))

    def end(self) -> None:
        self._out.mux(self._target.encode(None))

    def _upright(self, frame: VideoFrame, time_base: Fraction) -> VideoFrame:
        if self.size is None:
            self.size = self._fitting(frame)
            self._begin(self.size, time_base)
        shape = frame.width, frame.height, frame.format.name
        if self._graph is None or shape != self._shape:  # it may change on the way
            self._graph, self._shape = _graph(frame, time_base, self.size), shape
        self._graph.push(frame)
        turned = self._graph.pull()
        assert isinstance(turned, VideoFrame)
        return turned

    def _begin(self, size: tuple[int, int], time_base: Fraction) -> None:
        self._target.width, self._target.height = size
        self._target.pix_fmt = "yuv420p"
        codec = self._target.codec_context
        codec.time_base = time_base
        codec.gop_size = max(1, round(self._rate * KEYFRAME_SECONDS))
        codec.thread_count = 1

    def _fitting(self, frame: VideoFrame) -> tuple[int, int]:
        """Even, as the codec needs it; square pixels."""
        width, height = frame.width * self._stretch, Fraction(frame.height)
        if frame.rotation % 180 == 90:
            width, height = height, width
        scale = min(Fraction(1), self._side / min(width, height)) if self._side else Fraction(1)
        return _even(width * scale), _even(height * scale)


TURNS: dict[int, tuple[tuple[str, str | None], ...]] = {
    90: (("transpose", "cclock"),),
    180: (("hflip", None), ("vflip", None)),
    270: (("transpose", "clock"),),
}
"""Degrees counterclockwise, as a frame says them."""


def _graph(frame: VideoFrame, time_base: Fraction, size: tuple[int, int]) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=time_base
    )
    steps = [
        *TURNS.get(frame.rotation % 360, ()),
        ("scale", f"{size[0]}:{size[1]}"),
        ("setsar", "1"),
        ("format", "yuv420p"),
        ("buffersink", None),
    ]
    graph.link_nodes(source, *(graph.add(*step) for step in steps)).configure()
    return graph


class _Sound:
    def __init__(self, stream: AudioStream, out: OutputContainer, start: Fraction) -> None:
        codec = stream.codec_context
        rate = codec.sample_rate if codec.sample_rate in SAMPLE_RATES else SAMPLE_RATES[-1]
        layout = "mono" if codec.channels == 1 else "stereo"
        self._out, self._start, self._next = out, start, 0
        self._target = out.add_stream("aac", rate=rate, layout=layout)
        self._target.bit_rate = AUDIO_BIT_RATE

    def write(self, frame: AudioFrame) -> None:
        """One after the other; only a real gap stays one. Many containers tell times roughly."""
        rate = frame.sample_rate
        if frame.pts is not None and frame.time_base is not None:
            told = round((frame.pts * frame.time_base - self._start) * rate)
            if told > self._next + GAP_SECONDS * rate:
                self._next = told
        frame.pts, frame.time_base = self._next, Fraction(1, rate)
        self._next += frame.samples
        self._out.mux(self._target.encode(frame))

    def end(self) -> None:
        self._out.mux(self._target.encode(None))


@contextmanager
def _written(target: Path, muxer: str) -> Iterator[OutputContainer]:
    """The index stands first, so that players can begin before they have all of it."""
    options = {} if muxer == "matroska" else {"movflags": "+faststart"}
    with av.open(str(target), "w", format=muxer, options=options) as out:
        yield out


def _sound(source: InputContainer) -> AudioStream | None:
    return next(filter(readable, source.streams.audio), None)


def _rate(stream: VideoStream) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return rate if 0 < rate <= MAX_RATE else Fraction(25)


def _even(length: Fraction) -> int:
    return max(2, round(length / 2) * 2)
