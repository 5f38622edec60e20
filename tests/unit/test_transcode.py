"""Videos made of videos: real files in, and what a player would see of what came out."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from jobs.probe import Unreadable, grab, inspect
from jobs.renditions import Made
from jobs.transcode import remake, rendition, sides
from tests.unit.filming import film, turned

RED, BLUE = (200, 0, 0), (0, 0, 200)


@dataclass(frozen=True)
class Seen:
    """A file as a player understands it."""

    size: tuple[int, int]
    rate: Fraction
    frames: int
    codecs: list[str]
    seconds: float
    first: Image.Image
    start: float


def watch(path: Path) -> Seen:
    with av.open(str(path)) as file:
        (stream,) = file.streams.video
        codecs = [s.codec_context.codec.canonical_name for s in file.streams]
        assert stream.average_rate is not None
        assert file.duration is not None
        frames = list(file.decode(stream))
        first = frames[0].to_image()  # type: ignore[no-untyped-call]
        times = [float(frame.time or 0) for frame in frames]
        assert times == sorted(set(times))
        assert all(frame.rotation == 0 for frame in frames)
        size, rate = (stream.width, stream.height), stream.average_rate
        length = file.duration / av.time_base
        return Seen(size, rate, len(frames), codecs, length, first, times[0])


def like(colour: object, wanted: tuple[int, int, int]) -> bool:
    assert isinstance(colour, tuple)
    return all(abs(a - b) < 60 for a, b in zip(colour, wanted, strict=True))


def test_sides_are_never_larger_than_the_source() -> None:
    assert sides(1920, 1080) == [360, 720, 1080]
    assert sides(1080, 1920) == [360, 720, 1080]
    assert sides(3840, 2160) == [360, 720, 1080]
    assert sides(1280, 720) == [360, 720]
    assert sides(800, 500) == [360]
    assert sides(320, 180) == [180]


def test_a_rendition_keeps_rate_length_and_sound(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", (640, 480), seconds=2, rate=24, sound="aac")
    made = rendition(source, tmp_path / "b.mp4", 360)
    assert made == Made(tmp_path / "b.mp4", "mp4", 480, 360)
    seen = watch(made.path)
    assert (seen.size, seen.frames, seen.rate) == ((480, 360), 48, Fraction(24))
    assert seen.codecs == ["h264", "aac"]
    assert seen.seconds == pytest.approx(2, abs=0.15)
    assert like(seen.first.getpixel((100, 300)), RED)
    assert like(seen.first.getpixel((400, 300)), BLUE)


def test_players_can_begin_before_they_have_all_of_it(tmp_path: Path) -> None:
    rendition(film(tmp_path / "a.mp4"), tmp_path / "b.mp4", 180)
    content = (tmp_path / "b.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_a_silent_video_stays_silent(tmp_path: Path) -> None:
    rendition(film(tmp_path / "a.mp4"), tmp_path / "b.mp4", 180)
    assert watch(tmp_path / "b.mp4").codecs == ["h264"]


@pytest.mark.parametrize("size", [(321, 181), (151, 99), (7, 5)])
def test_odd_sizes_become_even(tmp_path: Path, size: tuple[int, int]) -> None:
    source = film(tmp_path / "a.mp4", size)
    made = rendition(source, tmp_path / "b.mp4", sides(*size)[0])
    assert made.width % 2 == made.height % 2 == 0
    assert abs(made.width - size[0]) <= 1
    assert watch(made.path).size == (made.width, made.height)


def test_an_upright_video_is_measured_by_its_shorter_side(tmp_path: Path) -> None:
    made = rendition(film(tmp_path / "a.mp4", (540, 960)), tmp_path / "b.mp4", 360)
    assert (made.width, made.height) == (360, 640)


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_a_turned_video_stands_upright(tmp_path: Path, clockwise: int) -> None:
    """The source has red on its left; turned clockwise by a quarter, that is its top."""
    source = turned(film(tmp_path / "a.mp4", (320, 180)), clockwise)
    quarter = clockwise != 180
    media = inspect(source, tmp_path / "t.jpg")
    assert (media.width, media.height) == ((180, 320) if quarter else (320, 180))
    made = rendition(source, tmp_path / "b.mp4", 180)
    assert (made.width, made.height) == (media.width, media.height)
    red = {90: (90, 60), 180: (260, 90), 270: (90, 260)}[clockwise]
    for picture in (watch(made.path).first, Image.open(tmp_path / "t.jpg")):
        assert picture.size == (made.width, made.height)
        assert like(picture.getpixel(red), RED)


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.webm", "libvpx-vp9", "libopus"),
        ("a.mkv", "libx264", "libmp3lame"),
        ("a.avi", "mpeg4", "libmp3lame"),
        ("a.mov", "libx264", "aac"),
        ("a.ts", "libx264", "aac"),
    ],
)
def test_any_container_is_read(tmp_path: Path, name: str, codec: str, sound: str) -> None:
    source = film(tmp_path / name, codec=codec, sound=sound)
    rendition(source, tmp_path / "out.mp4", 180)
    seen = watch(tmp_path / "out.mp4")
    assert seen.codecs == ["h264", "aac"]
    assert seen.frames in {9, 10}  # AVI loses one, whoever reads it
    assert seen.start == pytest.approx(0, abs=0.11)


def test_a_late_start_is_no_black_beginning(tmp_path: Path) -> None:
    rendition(film(tmp_path / "a.mkv", shift=600), tmp_path / "b.mp4", 180)
    seen = watch(tmp_path / "b.mp4")
    assert (seen.start, seen.frames) == (0, 10)
    assert seen.seconds < 2


def test_the_same_video_comes_out_every_time(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", sound="aac")
    for name in ("b", "c"):
        rendition(source, tmp_path / f"{name}.mp4", 180)
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()


@pytest.mark.parametrize("keep", [0.3, 0.02])
def test_a_broken_video_is_refused(tmp_path: Path, keep: float) -> None:
    source = film(tmp_path / "a.mp4")
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(Unreadable):
        rendition(source, tmp_path / "b.mp4", 180)


def test_half_a_video_is_made_into_half_a_video(tmp_path: Path) -> None:
    source = film(tmp_path / "a.ts", seconds=4)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2])
    rendition(source, tmp_path / "b.mp4", 180)
    assert 5 < watch(tmp_path / "b.mp4").frames < 40


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    from tests.unit.test_outputs import make_sound

    (tmp_path / "a.wav").write_bytes(make_sound())
    with pytest.raises(Unreadable, match="no moving picture"):
        rendition(tmp_path / "a.wav", tmp_path / "b.mp4", 180)


def test_a_poster_is_as_large_as_asked_never_larger(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", (960, 540))
    assert grab(source, tmp_path / "p.jpg", 1280) == (960, 540)
    assert grab(source, tmp_path / "p.jpg", 480) == (480, 270)
    with Image.open(tmp_path / "p.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (480, 270))


# --------------------------------------------------------------------------- other containers


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(file.streams.video[0]) if packet.size]


@pytest.mark.parametrize("extension", ["mp4", "mov", "m4v", "mkv"])
def test_what_fits_is_copied_without_loss(tmp_path: Path, extension: str) -> None:
    source = film(tmp_path / "a.mkv", sound="libmp3lame")
    target = tmp_path / f"b.{extension}"
    remake(source, target)
    seen = watch(target)
    assert (seen.codecs, seen.frames) == (["h264", "mp3"], 10)
    assert sum(map(len, packets(target))) == pytest.approx(sum(map(len, packets(source))), rel=0.05)
    media = inspect(target, tmp_path / "t.jpg")
    assert media.extension == {"m4v": "mp4"}.get(extension, extension)


@pytest.mark.parametrize("extension", ["mp4", "mov"])
def test_what_does_not_fit_is_made_anew(tmp_path: Path, extension: str) -> None:
    source = film(tmp_path / "a.webm", (321, 181), codec="libvpx-vp9", sound="libopus")
    remake(source, tmp_path / f"b.{extension}")
    seen = watch(tmp_path / f"b.{extension}")
    assert (seen.codecs, seen.frames) == (["h264", "aac"], 10)
    assert abs(seen.size[0] - 321) <= 1
