"""Pictures made of pictures: sizes, turns, colours, and nothing of who took them where."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from jobs.probe import Unreadable
from jobs.renditions import Made, examine, fitting, pictures

RED, BLUE, WHITE = (200, 20, 20), (20, 20, 200), (255, 255, 255)


def halves(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", size, RED)
    picture.paste(BLUE, (size[0] // 2, 0, *size))
    return picture.convert(mode)


def made_of(
    picture: Image.Image, folder: Path, name: str = "a.png", **options: object
) -> list[Made]:
    path = folder / name
    picture.save(path, **options)  # type: ignore[arg-type]
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return pictures(path, out)


def near(picture: Image.Image, at: tuple[float, float], wanted: tuple[int, int, int]) -> bool:
    colour = picture.convert("RGB").getpixel(
        (round(at[0] * (picture.width - 1)), round(at[1] * (picture.height - 1)))
    )
    assert isinstance(colour, tuple)
    return all(abs(a - b) < 40 for a, b in zip(colour, wanted, strict=True))


def test_sizes_are_never_enlarged() -> None:
    assert fitting(4000, (320, 640, 1280, 1920)) == [320, 640, 1280, 1920]
    assert fitting(1920, (320, 640, 1280, 1920)) == [320, 640, 1280, 1920]
    assert fitting(500, (320, 640, 1280, 1920)) == [320, 500]
    assert fitting(100, (320, 640)) == [100]


def test_every_width_in_both_formats(tmp_path: Path) -> None:
    made = made_of(halves((1500, 601)), tmp_path)
    assert [(m.format, m.width, m.height) for m in made] == [
        (extension, width, round(601 * width / 1500))
        for width in (320, 640, 1280, 1500)
        for extension in ("webp", "jpg")
    ]
    for each in made:
        with Image.open(each.path) as picture:
            assert picture.size == (each.width, each.height)
            assert picture.format == {"webp": "WEBP", "jpg": "JPEG"}[each.format]
            assert near(picture, (0.2, 0.5), RED)
            assert near(picture, (0.8, 0.5), BLUE)


@pytest.mark.parametrize(
    ("orientation", "red"),
    [(1, (0.2, 0.5)), (2, (0.8, 0.5)), (3, (0.8, 0.5)), (6, (0.5, 0.2)), (8, (0.5, 0.8))],
)
def test_a_turned_photo_stands_upright_and_says_nothing_else(
    tmp_path: Path, orientation: int, red: tuple[float, float]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A camera of somebody's"
    for made in made_of(halves((400, 200)), tmp_path, "a.jpg", exif=exif, comment=b"secret"):
        assert (made.width > made.height) == (orientation < 5)
        content = made.path.read_bytes()
        assert b"somebody" not in content
        assert b"secret" not in content
        with Image.open(made.path) as picture:
            assert not picture.getexif()
            assert near(picture, red, RED)
    examined = examine(tmp_path / "a.jpg", tmp_path / "t.jpg")
    assert examined.media is not None
    upright = (400, 200) if orientation < 5 else (200, 400)
    assert (examined.media.width, examined.media.height) == upright


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_stays_in_webp_and_is_white_in_jpeg(tmp_path: Path, mode: str) -> None:
    picture = halves((400, 200), "RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 200, 200))
    made = made_of(picture.convert(mode), tmp_path)
    with Image.open(made[0].path) as webp, Image.open(made[1].path) as jpeg:
        assert webp.convert("RGBA").getchannel("A").getextrema() == (0, 255)
        assert near(jpeg, (0.2, 0.5), WHITE)


def test_a_cmyk_photo_keeps_its_colours(tmp_path: Path) -> None:
    for made in made_of(halves((400, 200), "CMYK"), tmp_path, "a.jpg", quality=95):
        with Image.open(made.path) as picture:
            assert picture.mode == "RGB"
            assert near(picture, (0.2, 0.5), RED)
            assert near(picture, (0.8, 0.5), BLUE)


def test_a_profile_is_turned_into_srgb(tmp_path: Path) -> None:
    """The same numbers mean other colours in another profile."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for number, profile in enumerate((srgb, lab, b"broken")):
        made = made_of(halves((40, 20)), tmp_path, f"{number}.jpg", icc_profile=profile, quality=95)
        with Image.open(made[0].path) as picture:
            assert "icc_profile" not in picture.info
            if profile != lab:
                assert near(picture, (0.2, 0.5), RED)


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "I", "F"])
def test_every_depth_becomes_eight_bits(tmp_path: Path, mode: str) -> None:
    grey = Image.linear_gradient("L").resize((200, 200))
    if mode == "I;16":
        deep = grey.convert("I").point(lambda value: value * 256).convert("I;16")
    else:
        deep = grey.convert(mode)
    for made in made_of(deep, tmp_path, "a.tiff"):
        with Image.open(made.path) as picture:
            assert near(picture, (0.5, 0.02), (5, 5, 5))
            assert near(picture, (0.5, 0.98), (250, 250, 250))


def test_of_an_animation_the_first_picture(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (50, 50), RED), Image.new("RGB", (50, 50), BLUE)
    for made in made_of(red, tmp_path, "a.gif", save_all=True, append_images=[blue]):
        with Image.open(made.path) as picture:
            assert getattr(picture, "n_frames", 1) == 1
            assert near(picture, (0.5, 0.5), RED)


def test_a_very_tall_picture_fits_what_webp_can_hold(tmp_path: Path) -> None:
    made = made_of(Image.new("L", (100, 40_000)), tmp_path)
    assert [(m.width, m.height) for m in made] == [(41, 16_383), (41, 16_383)]


def test_the_same_picture_comes_out_every_time(tmp_path: Path) -> None:
    first, second = (
        [made.path.read_bytes() for made in made_of(halves((400, 200)), tmp_path)] for _ in "ab"
    )
    assert first == second


def test_a_broken_picture_is_refused_and_still_measured(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    halves((400, 200)).save(path)
    content = path.read_bytes()[:700]
    path.write_bytes(content)
    with pytest.raises(Unreadable):
        pictures(path, tmp_path)
    examined = examine(path, tmp_path / "t.jpg")
    assert examined.media is None
    assert examined.problem
    assert (examined.size, examined.sha256) == (700, hashlib.sha256(content).hexdigest())


def test_too_little_memory_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches the pool, which says what to do; else a good picture would fail for good."""
    halves((400, 200)).save(tmp_path / "a.jpg")

    def load(_image: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    for work in (lambda path: pictures(path, tmp_path), lambda path: examine(path, tmp_path / "t")):
        with pytest.raises(MemoryError):
            work(tmp_path / "a.jpg")


def test_a_document_is_measured(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4\n%%EOF")
    with pytest.raises(Unreadable):
        pictures(tmp_path / "a.pdf", tmp_path)
    examined = examine(tmp_path / "a.pdf", tmp_path / "t.jpg")
    assert (examined.media, examined.size) == (None, 14)
