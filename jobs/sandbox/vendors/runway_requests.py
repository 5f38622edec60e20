"""What Runway's endpoints take, model by model, and how they say what they don't."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from jobs.sandbox.gate import RefusalError
from jobs.sandbox.vendors.openai_errors import phrase

DOCS = "https://docs.dev.runwayml.com/api"

# fault → status, error
REFUSALS = {
    "429": (429, "You have hit the limit of generations for today."),
    "quota": (400, "You do not have enough credits to run this task."),
    "auth": (401, "The API key is not valid."),
    "invalid": (400, "Refused by a fault on demand."),
    "404": (404, "Could not find Task"),
}


def error(
    status: int, message: str, *, headers: dict[str, str] | None = None, **more: Any
) -> web.Response:
    return web.json_response({"error": message} | more, status=status, headers=headers)


def refuse(name: str, value: float) -> web.Response:
    status, message = REFUSALS.get(name) or (int(name), phrase(int(name)))
    headers = {"retry-after": f"{value:g}"} if status in {429, 503} else None
    return error(status, message, headers=headers)


def invalid(*issues: dict[str, Any]) -> RefusalError:
    return RefusalError(error(400, "Validation of body failed", issues=list(issues), docUrl=DOCS))


def issue(field: str, message: str, code: str = "custom") -> dict[str, Any]:
    return {"code": code, "path": field.split("."), "message": message}


# --------------------------------------------------------------------------- bodies


def utf16(text: str) -> str:
    if not 1 <= len(text.encode("utf-16-le")) // 2 <= 1000:
        raise ValueError("must have 1 to 1000 UTF-16 code units")
    return text


def asset(uri: str) -> str:
    if not re.match(r"https://[a-zA-Z][^/]*\.|data:image/(png|jpe?g|webp);base64,|runway://", uri):
        raise ValueError("must be an HTTPS URL, a Runway URI or a data URI of an image")
    return uri


Prompt = Annotated[str, AfterValidator(utf16)]
Uri = Annotated[str, AfterValidator(asset)]


class Strict(BaseModel):
    """Unknown fields are refused, as the vendor refuses them."""

    model_config = ConfigDict(extra="forbid", strict=True)


class First(Strict):
    uri: Uri
    position: Literal["first"]


class Frame(Strict):
    uri: Uri
    position: Literal["first", "last"]


class Reference(Strict):
    uri: Uri
    tag: str | None = Field(None, pattern=r"^[a-zA-Z]\w{2,15}$")


class Moderation(Strict):
    publicFigureThreshold: Literal["auto", "low"] | None = None  # noqa: N815


class Asked(Strict):
    model: str
    promptText: Prompt | None = None  # noqa: N815
    ratio: str
    seed: int | None = Field(None, ge=0, lt=2**32)

    @property
    def seconds(self) -> Decimal:
        """Of video: none for an image."""
        return Decimal(getattr(self, "duration", 0))


class WithPrompt(Asked):
    promptText: Prompt = Field()  # noqa: N815


class Gen4Turbo(Asked):
    contentModeration: Moderation | None = None  # noqa: N815
    promptImage: Uri | list[First]  # noqa: N815
    duration: int = Field(5, ge=2, le=10)


class Gen45(WithPrompt):
    contentModeration: Moderation | None = None  # noqa: N815
    duration: int = Field(ge=2, le=10)
    outputFormat: Literal["mp4"] | None = None  # noqa: N815


class Gen45FromImage(Gen45):
    promptImage: Uri | list[First]  # noqa: N815


class Veo(WithPrompt):
    duration: Literal[4, 6, 8] = 8
    negativePrompt: str | None = None  # noqa: N815
    audio: bool | None = None


class VeoFromImage(Asked):
    promptImage: Uri | Annotated[list[Frame], Field(max_length=2)]  # noqa: N815
    duration: Literal[4, 6, 8] = 8
    negativePrompt: str | None = None  # noqa: N815
    audio: bool | None = None


class Gen4Image(WithPrompt):
    contentModeration: Moderation | None = None  # noqa: N815
    referenceImages: list[Reference] = Field([], max_length=3)  # noqa: N815


class Gen4ImageTurbo(Gen4Image):
    referenceImages: list[Reference] = Field(min_length=1, max_length=3)  # noqa: N815


@dataclass(frozen=True, slots=True)
class Offer:
    shape: type[Asked]
    ratios: str


SIX = "1280:720 720:1280 1104:832 832:1104 960:960 1584:672"
FOUR = "1280:720 720:1280 1080:1920 1920:1080"
SIXTEEN = (
    "1024:1024 1080:1080 1168:880 1360:768 1440:1080 1080:1440 1808:768 1920:1080 1080:1920 "
    "2112:912 1280:720 720:1280 720:720 960:720 720:960 1680:720"
)

OFFERS: Mapping[str, Mapping[str, Offer]] = {
    "image_to_video": {
        "gen4_turbo": Offer(Gen4Turbo, SIX),
        "gen4.5": Offer(Gen45FromImage, SIX),
        "veo3.1": Offer(VeoFromImage, FOUR),
        "veo3.1_fast": Offer(VeoFromImage, FOUR),
    },
    "text_to_video": {
        "gen4.5": Offer(Gen45, "1280:720 720:1280"),
        "veo3.1": Offer(Veo, FOUR),
        "veo3.1_fast": Offer(Veo, FOUR),
    },
    "text_to_image": {
        "gen4_image": Offer(Gen4Image, SIXTEEN),
        "gen4_image_turbo": Offer(Gen4ImageTurbo, SIXTEEN),
    },
}


def read(endpoint: str, body: dict[str, Any] | None) -> Asked:
    """Raises `RefusalError`."""
    if body is None:
        raise invalid(issue("body", "expected an object", "invalid_type"))
    offers = OFFERS[endpoint]
    offer = offers.get(str(body.get("model")))
    if offer is None:
        raise invalid(issue("model", f"expected one of {', '.join(offers)}", "invalid_value"))
    try:
        asked = offer.shape.model_validate(body)
    except ValidationError as problem:
        raise invalid(*map(_issue, problem.errors())) from None
    if asked.ratio not in offer.ratios.split():
        raise invalid(issue("ratio", f"expected one of {offer.ratios}", "invalid_value"))
    return asked


def _issue(found: Any) -> dict[str, Any]:
    return issue(".".join(map(str, found["loc"])), found["msg"], found["type"])
