"""What Freepik's endpoints take, and how they say what they don't."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from jobs.sandbox.gate import RefusalError
from jobs.sandbox.predictions import Order
from jobs.sandbox.vendors.openai_errors import phrase

# fault → status, message
REFUSALS = {
    "429": (429, "Too many requests."),
    "quota": (402, "There is no credit left for this request."),
    "auth": (401, "Invalid API key"),
    "invalid": (400, "Refused by a fault on demand."),
    "404": (404, "Task not found"),
}


def error(status: int, message: str, *, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"message": message}, status=status, headers=headers)


def refuse(name: str, value: float) -> web.Response:
    status, message = REFUSALS.get(name) or (int(name), phrase(int(name)))
    headers = {"retry-after": f"{value:g}"} if status in {429, 503} else None
    return error(status, message, headers=headers)


def invalid(*params: tuple[str, str]) -> RefusalError:
    fields = [{"name": name, "reason": reason} for name, reason in params]
    body = {"message": "Your request parameters didn't validate.", "invalid_params": fields}
    return RefusalError(
        web.json_response(body, status=400, content_type="application/problem+json")
    )


# --------------------------------------------------------------------------- bodies


def picture(value: str) -> str:
    """A URL, or base64 without anything before it."""
    if not value.startswith(("https://", "http://")):
        try:
            b64decode(value, validate=True)
        except binascii.Error as problem:
            raise ValueError("must be a URL or base64") from problem
    if not value:
        raise ValueError("must not be empty")
    return value


Picture = Annotated[str, AfterValidator(picture)]
Text = Annotated[str, Field(max_length=2500)]
Named = Literal["widescreen_16_9", "social_story_9_16", "square_1_1"]


class Body(BaseModel):
    """Unknown fields are refused, so that a test hears of a misspelt one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    webhook_url: str | None = None
    """Taken and never called."""

    @property
    def size(self) -> str:
        """What decides the price: the seconds of a video, the resolution of an image."""
        return str(getattr(self, "duration", "") or getattr(self, "resolution", ""))

    @property
    def shape(self) -> str:
        """`widescreen_16_9` → `16:9`."""
        named = str(getattr(self, "aspect_ratio", "16:9"))
        return ":".join(named.split("_")[-2:])


class Mystic(Body):
    prompt: str = ""
    resolution: Literal["1k", "2k", "4k"] = "2k"
    aspect_ratio: Literal[
        "square_1_1", "classic_4_3", "traditional_3_4", "widescreen_16_9", "social_story_9_16",
        "smartphone_horizontal_20_9", "smartphone_vertical_9_20", "standard_3_2", "portrait_2_3",
        "horizontal_2_1", "vertical_1_2", "social_5_4", "social_post_4_5",
    ] = "square_1_1"  # fmt: skip
    model: Literal[
        "realism", "fluid", "zen", "flexible", "super_real", "editorial_portraits"
    ] = "realism"  # fmt: skip
    creative_detailing: int = Field(33, ge=0, le=100)
    engine: str = "automatic"
    fixed_generation: bool = False
    filter_nsfw: Literal[True] = True


class Kling(Body):
    """The output has the shape of the image."""

    image: Picture
    duration: Literal["5", "10"]
    prompt: Text = ""
    negative_prompt: Text = ""
    cfg_scale: float = Field(0.5, ge=0, le=1)


class Kling26(Body):
    prompt: Text
    duration: Literal["5", "10"]
    image: Picture | None = None
    negative_prompt: Text = ""
    cfg_scale: float = Field(0.5, ge=0, le=1)
    aspect_ratio: Named = "widescreen_16_9"
    generate_audio: bool = True


class Kling3(Body):
    prompt: Text
    duration: str = Field("5", pattern=r"^([3-9]|1[0-5])$")
    start_image_url: Picture | None = None
    end_image_url: Picture | None = None
    negative_prompt: Text = ""
    cfg_scale: float = Field(0.5, ge=0, le=1)
    aspect_ratio: Literal["16:9", "9:16", "1:1"] = "16:9"
    generate_audio: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    shape: type[Body]
    medium: str
    family: str
    """The path under which its tasks are found."""


# The path of an order → what it takes.
OFFERS: Mapping[str, Offer] = {
    "mystic": Offer(Mystic, "image", "mystic"),
    "image-to-video/kling-v2-1-std": Offer(Kling, "video", "image-to-video/kling-v2-1"),
    "image-to-video/kling-v2-1-pro": Offer(Kling, "video", "image-to-video/kling-v2-1"),
    "image-to-video/kling-v2-6-pro": Offer(Kling26, "video", "image-to-video/kling-v2-6"),
    "video/kling-v3-pro": Offer(Kling3, "video", "video/kling-v3"),
}


def read(offer: Offer, body: dict[str, Any] | None) -> Body:
    """Raises `RefusalError`."""
    if body is None:
        raise RefusalError(error(400, "The body is not a JSON object"))
    try:
        return offer.shape.model_validate(body)
    except ValidationError as problem:
        found = ((".".join(map(str, one["loc"])), one["msg"]) for one in problem.errors())
        raise invalid(*found) from None


def order_of(offer: Offer, body: Body) -> Order:
    seconds = Decimal(body.size) if offer.medium == "video" else Decimal(0)
    return Order(offer.medium, body.shape, seconds, 1)
