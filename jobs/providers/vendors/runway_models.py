"""What Runway's models take, as its SDK has it (5.24), and which pixels stand for an aspect ratio.

A model that is not listed is sent what the task says: Runway then tells what it doesn't take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WIDE = ("1280:720", "720:1280", "1104:832", "832:1104", "960:960", "1584:672")
HD = ("1280:720", "720:1280", "1920:1080", "1080:1920")
PICTURES = (
    "1920:1080", "1080:1920", "1440:1080", "1080:1440", "1080:1080", "2112:912", "1280:720",
    "720:1280", "960:720", "720:960", "720:720", "1680:720", "1024:1024", "1168:880", "1360:768",
    "1808:768",
)  # fmt: skip
GEMINI = (
    "1344:768", "768:1344", "1024:1024", "1184:864", "864:1184", "1536:672", "832:1248",
    "1248:832", "896:1152", "1152:896",
)  # fmt: skip
TWO_TO_TEN = tuple(range(2, 11))
VEO = (4, 6, 8)

USUAL_SECONDS = 5
SAME_SHAPE = 0.03
"""How far the pixels may be off the aspect ratio: 1104:832 is not quite 4:3."""
SAME_SIZE = 0.25
"""How far the number of pixels may be off the resolution that is asked for."""


@dataclass(frozen=True, slots=True)
class Mode:
    """A model at one endpoint."""

    ratios: tuple[str, ...] = ()
    """The first of a shape is what is made when no resolution is named. (): not known."""
    seconds: tuple[int, ...] = ()
    most_images: int = 2
    least_images: int = 0
    needs_prompt: bool = False

    @property
    def usual_seconds(self) -> int:
        usual = not self.seconds or USUAL_SECONDS in self.seconds
        return USUAL_SECONDS if usual else self.seconds[0]

    def pixels(self, aspect_ratio: str | None, resolution: str | None) -> str | None:
        """The ratio to send for it, or None where the model has none."""
        if not self.ratios or (aspect_ratio in self.ratios and not resolution):
            return aspect_ratio
        shape = _shape(aspect_ratio or self.ratios[0])
        fits = [ratio for ratio in self.ratios if abs(_shape(ratio) / shape - 1) <= SAME_SHAPE]
        area = _area(resolution) if resolution else None
        if area is not None:
            fits = [ratio for ratio in fits if abs(_size(ratio) / area - 1) <= SAME_SIZE]
            fits.sort(key=lambda ratio: abs(_size(ratio) - area))
        return fits[0] if fits else None


ANY = Mode()
FROM_TEXT = Mode(WIDE[:2], TWO_TO_TEN, needs_prompt=True, most_images=0)
VEO_FROM_TEXT = Mode(HD, VEO, needs_prompt=True, most_images=0)
VEO_FROM_IMAGE = Mode(HD, VEO, least_images=1)

MODES: Mapping[tuple[str, str], Mode] = {
    ("image_to_video", "gen4_turbo"): Mode(WIDE, TWO_TO_TEN, most_images=1, least_images=1),
    ("image_to_video", "gen4.5"): Mode(
        WIDE, TWO_TO_TEN, most_images=1, least_images=1, needs_prompt=True
    ),
    ("image_to_video", "veo3.1"): VEO_FROM_IMAGE,
    ("image_to_video", "veo3.1_fast"): VEO_FROM_IMAGE,
    ("text_to_video", "gen4.5"): FROM_TEXT,
    ("text_to_video", "veo3.1"): VEO_FROM_TEXT,
    ("text_to_video", "veo3.1_fast"): VEO_FROM_TEXT,
    ("text_to_image", "gen4_image"): Mode(PICTURES, needs_prompt=True, most_images=3),
    ("text_to_image", "gen4_image_turbo"): Mode(
        PICTURES, needs_prompt=True, most_images=3, least_images=1
    ),
    ("text_to_image", "gemini_2.5_flash"): Mode(GEMINI, needs_prompt=True, most_images=3),
}
LISTED = frozenset(model for _, model in MODES)


def _sides(ratio: str) -> tuple[int, int]:
    across, _, down = ratio.partition(":")
    return int(across), int(down)


def _shape(ratio: str) -> float:
    across, down = _sides(ratio)
    return across / down


def _size(ratio: str) -> int:
    across, down = _sides(ratio)
    return across * down


def _area(resolution: str) -> float | None:
    """The pixels of `720p`, `1080P`, `4k`; None for a name that says nothing to us."""
    name = {"2k": "1440p", "4k": "2160p"}.get(resolution.lower(), resolution.lower())
    lines = name.removesuffix("p")
    return int(lines) ** 2 * 16 / 9 if name.endswith("p") and lines.isdecimal() else None
