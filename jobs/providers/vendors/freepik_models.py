"""Where Freepik's models are asked for and looked at, and what each takes.

The path of a task need not be the one it was ordered at: all tiers of Kling 2.1 are looked at under
`kling-v2-1`. A model that is not listed is looked at where it was ordered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NAMED = MappingProxyType(
    {"16:9": "widescreen_16_9", "9:16": "social_story_9_16", "1:1": "square_1_1"}
)
MANY = NAMED | {
    "4:3": "classic_4_3",
    "3:4": "traditional_3_4",
    "20:9": "smartphone_horizontal_20_9",
    "9:20": "smartphone_vertical_9_20",
    "3:2": "standard_3_2",
    "2:3": "portrait_2_3",
    "2:1": "horizontal_2_1",
    "1:2": "vertical_1_2",
    "5:4": "social_5_4",
    "4:5": "social_post_4_5",
}
PLAIN = {ratio: ratio for ratio in NAMED}
FIVE_OR_TEN = ("5", "10")
THREE_TO_FIFTEEN = ("5", *(str(n) for n in range(3, 16) if n != 5))


@dataclass(frozen=True, slots=True)
class Model:
    order: str
    """The path, below the base URL, that takes the order."""
    look: str = ""
    """The path below which its tasks are; "": the same."""
    medium: str = "video"
    sizes: tuple[str, ...] = FIVE_OR_TEN
    """What has a price of its own: seconds of a video, pixels of an image. The first is usual."""
    image_field: str = "image"
    needs_image: bool = True
    most_images: int = 1
    ratios: Mapping[str, str] | None = None
    """None: the output follows the image."""

    @property
    def size_field(self) -> str:
        return "duration" if self.medium == "video" else "resolution"


KLING = "image-to-video/kling"

MODELS: Mapping[str, Model] = {
    "mystic": Model(
        "mystic",
        medium="image",
        sizes=("2k", "1k", "4k"),
        needs_image=False,
        most_images=0,
        ratios=MANY,
    ),
    "kling-std": Model(f"{KLING}-std", KLING),
    "kling-pro": Model(f"{KLING}-pro", KLING),
    "kling-v2": Model(f"{KLING}-v2"),
    "kling-v2-1-std": Model(f"{KLING}-v2-1-std", f"{KLING}-v2-1"),
    "kling-v2-1-pro": Model(f"{KLING}-v2-1-pro", f"{KLING}-v2-1"),
    "kling-v2-1-master": Model(f"{KLING}-v2-1-master"),
    "kling-v2-5-pro": Model(f"{KLING}-v2-5-pro"),
    "kling-v2-6-pro": Model(f"{KLING}-v2-6-pro", f"{KLING}-v2-6", needs_image=False, ratios=NAMED),
    "kling-v3-std": Model(
        "video/kling-v3-std",
        "video/kling-v3",
        sizes=THREE_TO_FIFTEEN,
        image_field="start_image_url",
        needs_image=False,
        ratios=PLAIN,
    ),
    "kling-v3-pro": Model(
        "video/kling-v3-pro",
        "video/kling-v3",
        sizes=THREE_TO_FIFTEEN,
        image_field="start_image_url",
        needs_image=False,
        ratios=PLAIN,
    ),
}
LOOK = {model.order: model.look or model.order for model in MODELS.values()}

FAMILY = {"video": "image-to-video", "image": "text-to-image"}


def model_named(name: str, medium: str) -> Model:
    """A name that is not listed may be a path (`text-to-video/wan-2-7`), or the end of one."""
    listed = MODELS.get(name)
    if listed is not None:
        return listed
    order = name if "/" in name else f"{FAMILY[medium]}/{name}"
    return Model(order, medium=medium, sizes=(), needs_image=False, ratios=PLAIN)
