"""What a product video is to be: whose plan allows what, which providers make it, in which words.

Pure, and decided before anything is paid. What can't be is a `Refused`, which begins with the name
of the field to change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field

from jobs.payload import Payload

PREMIUM = "premiumtemplates"
"""The feature of a plan, as `_bare` has it, that premium templates need."""
MOST_SECONDS, MOST_RESOLUTION = 15, "1080p"
"""Where there is no plan, or it doesn't say: the defaults of its table."""
USUAL_SECONDS, USUAL_RESOLUTION, USUAL_RATIO = 5, "1080x1920", "9:16"


class Refused(Exception):
    """It can't be made as it is asked for."""


def _or_empty(value: Any) -> Any:
    return "" if value is None else value


Text = Annotated[str, BeforeValidator(_or_empty)]


class Plan(Payload):
    name: Text = ""
    max_video_duration: int | None = None
    max_resolution: str | None = None
    ai_providers: tuple[str, ...] | None = None
    """None: all of them."""
    features: Any = None


class Preferences(Payload):
    preferred_ai_provider: Text = ""
    default_video_duration: int | None = None
    default_aspect_ratio: Text = ""
    default_video_resolution: Text = ""


class Template(Payload):
    name: Text = ""
    prompt_template: Text = ""
    style_settings: Any = None
    default_duration: int | None = None
    aspect_ratio: Text = ""
    resolution: Text = ""
    is_premium: bool | None = None
    is_active: bool | None = None


class Video(Payload):
    id: UUID
    title: Text = ""
    description: Text = ""
    text_prompt: Text = ""
    input_type: str
    resolution: Text = ""
    aspect_ratio: Text = ""
    duration_seconds: int | None = None
    style: Text = ""
    image_url: Text = ""
    ai_provider: Text = ""


class VideoInput(Payload):
    payload: Any = None
    preferences: Preferences = Preferences()
    plan: Plan | None = None
    video: Video | None = None
    template: Template | None = None
    product: dict[str, Any] | None = None
    rule: dict[str, Any] | None = None
    made_by: dict[str, str] = Field(default_factory=dict)
    overtaken: bool = False
    """The provider of each step that is paid for, or being paid for. The rest stays with them."""

    @property
    def begun(self) -> bool:
        """It goes on, whatever the plan may say by now."""
        return bool(self.made_by)


# --------------------------------------------------------------------------- who makes it

Medium = Literal["image", "video"]


@dataclass(frozen=True, slots=True)
class Maker:
    word: str
    """How the platform calls it."""
    provider: str
    media: tuple[Medium, ...] = ("image", "video")


MAKERS = (
    Maker("Freepik", "freepik"),
    Maker("RunwayML", "runway"),
    Maker("StabilityAI", "stability", ("image",)),
    Maker("Replicate", "replicate"),
)
BY_NAME = {maker.provider: maker for maker in MAKERS} | {m.word.lower(): m for m in MAKERS}
KNOWN = ", ".join(maker.word for maker in MAKERS)


@dataclass(frozen=True, slots=True)
class Makers:
    image: Maker
    video: Maker


def makers(given: VideoInput, video: Video) -> Makers:
    """Who makes the picture, and who the video: the one that is wanted, as far as it can."""
    begun = {step: BY_NAME.get(provider) for step, provider in given.made_by.items()}
    chosen = begun.get("image") or begun.get("video")
    if chosen is not None:
        # All of them make pictures, so whoever made this one is who was wanted.
        film = begun.get("video") or _first("video", [chosen, *_allowed(given), *MAKERS])
        assert film is not None, "some of them make videos"
        return Makers(chosen, film)
    allowed = _allowed(given)
    names = ", ".join(maker.word for maker in allowed) or "none that we know"
    plan = given.plan.name if given.plan else ""
    if video.ai_provider:
        wanted = BY_NAME.get(_bare(video.ai_provider))
        if wanted is None:
            raise Refused(f"ai_provider: {video.ai_provider!r} isn't known; there are {KNOWN}")
        if wanted not in allowed:
            raise Refused(f"ai_provider: the plan {plan!r} has no {wanted.word}; it has {names}")
    else:
        preferred = BY_NAME.get(_bare(given.preferences.preferred_ai_provider))
        wanted = preferred if preferred in allowed else next(iter(allowed), None)
    if wanted is None:
        raise Refused(f"ai_provider: the plan {plan!r} has no provider that we know ({KNOWN})")
    found = {medium: _first(medium, [wanted, *allowed]) for medium in ("image", "video")}
    image, makes_video = found["image"], found["video"]
    if image is None or makes_video is None:
        lacks = "pictures" if image is None else "videos"
        raise Refused(f"ai_provider: none of the plan's providers ({names}) makes {lacks}")
    return Makers(image, makes_video)


def _allowed(given: VideoInput) -> list[Maker]:
    if given.plan is None or given.plan.ai_providers is None:
        return list(MAKERS)
    named = (BY_NAME.get(_bare(name)) for name in given.plan.ai_providers)
    return [maker for maker in named if maker is not None]


def _first(medium: str, those: Iterable[Maker]) -> Maker | None:
    return next((maker for maker in those if medium in maker.media), None)


# --------------------------------------------------------------------------- how long, how large

LINES = {"sd": 480, "hd": 720, "fullhd": 1080, "fhd": 1080, "2k": 1440, "qhd": 1440}
LINES |= {"4k": 2160, "uhd": 2160, "8k": 4320}
PIXELS = re.compile(r"(\d{2,5})[x×*](\d{2,5})")
PLAIN = re.compile(r"(\d{2,5})p?")


@dataclass(frozen=True, slots=True)
class Size:
    seconds: int
    aspect_ratio: str
    lines: int
    """Of the shorter side: 1080 for 1080x1920, and for 1080p."""


def size(given: VideoInput, video: Video) -> Size:
    """What the video says, else its template, else the user's preferences; within the plan."""
    template, own = given.template or Template(), given.preferences
    seconds = _positive(
        video.duration_seconds, template.default_duration, own.default_video_duration
    )
    resolution = (
        video.resolution or template.resolution or own.default_video_resolution or USUAL_RESOLUTION
    )
    ratio = video.aspect_ratio or template.aspect_ratio or own.default_aspect_ratio or USUAL_RATIO
    lines = _lines("resolution", resolution)
    plan = given.plan or Plan()
    whose = f"the plan {plan.name!r} allows" if given.plan else "without a subscription there are"
    most = MOST_SECONDS if plan.max_video_duration is None else plan.max_video_duration
    largest = plan.max_resolution or MOST_RESOLUTION
    if given.begun:
        return Size(seconds, ratio, lines)
    if seconds > most:
        raise Refused(f"duration_seconds: {whose} at most {most} seconds, not {seconds}")
    if lines > _lines("max_resolution", largest):
        raise Refused(f"resolution: {whose} at most {largest}, not {resolution}")
    return Size(seconds, ratio, lines)


def _positive(*numbers: int | None) -> int:
    return next((number for number in numbers if number is not None and number > 0), USUAL_SECONDS)


def _lines(field: str, text: str) -> int:
    plain = text.strip().lower().replace(" ", "")
    if match := PIXELS.fullmatch(plain):
        return min(int(match[1]), int(match[2]))
    if match := PLAIN.fullmatch(plain):
        return int(match[1])
    if plain in LINES:
        return LINES[plain]
    raise Refused(f"{field}: {text!r} is neither like 1080x1920 nor like 1080p or 4k")


# --------------------------------------------------------------------------- in which words

PLACEHOLDER = re.compile(r"\{\{?\s*([A-Za-z][\w.]*)\s*\}\}?")


def check_template(given: VideoInput) -> None:
    template = given.template
    if template is None or given.begun:
        return
    if template.is_active is False:
        raise Refused(f"template_id: the template {template.name!r} is not active")
    if template.is_premium and PREMIUM not in _features(given.plan):
        plan = f"the plan {given.plan.name!r}" if given.plan else "who has no subscription"
        raise Refused(f"template_id: {template.name!r} is a premium template, not for {plan}")


def prompt(given: VideoInput, video: Video, product: Mapping[str, Any] | None) -> str:
    """The template's words, filled in; the user's own at the end if it has no place for them."""
    template, own = given.template, video.text_prompt.strip()
    words = own
    if template and template.prompt_template.strip():
        values = _values(video, product)
        words = _filled(template.prompt_template, values).strip()
        if own and own not in words:
            words = f"{words}\n\n{own}"
    words = words or str((product or {}).get("name") or "").strip() or video.title.strip()
    if not words:
        raise Refused("text_prompt: there is nothing to make a video of")
    style = _style(video, template)
    return f"{words}\n\nStyle: {style}" if style else words


def _filled(template: str, values: Mapping[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        name = _bare(match[1])
        if name not in values:
            known = "title, description, text_prompt, style, product_name, product_price, …"
            raise Refused(
                f"prompt_template: nothing is called {match[1]!r}; there are {known} "
                "(any column of the video or, with product_, of its product)"
            )
        return values[name]

    return PLACEHOLDER.sub(fill, template)


def _values(video: Video, product: Mapping[str, Any] | None) -> dict[str, str]:
    """By bare name. A product's own are `product_name` and, where the video has none, `brand`."""
    columns = dict.fromkeys(PRODUCT, "") | {
        _bare(name): _plain(value) for name, value in (product or {}).items()
    }
    values = {f"product{name}": value for name, value in columns.items()}
    values |= {name: value for name, value in columns.items() if not name.startswith("product")}
    values |= {_bare(name): _plain(value) for name, value in video.model_dump().items()}
    return values | {"prompt": video.text_prompt, "duration": str(video.duration_seconds or "")}


PRODUCT: tuple[str, ...] = (
    "name",
    "description",
    "price",
    "currency",
    "originalprice",
    "discountpercent",
    "brand",
)
PRODUCT += ("sku", "availability", "rating", "reviewcount", "platform", "domain", "originalurl")


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else ""


def _style(video: Video, template: Template | None) -> str:
    """The video's own style goes before its template's; what else the template sets stays."""
    settings = template.style_settings if template else None
    if isinstance(settings, str):
        settings = {"style": settings}
    if not isinstance(settings, Mapping):
        settings = {}
    own = video.style.strip() or _plain(settings.get("style"))
    rest = [f"{name}: {_plain(value)}" for name, value in settings.items() if name != "style"]
    return "; ".join(part for part in (own, *rest) if part and not part.endswith(": "))


def _features(plan: Plan | None) -> set[str]:
    """A list of names, or an object of names that are true or false."""
    stated = plan.features if plan else None
    if isinstance(stated, Mapping):
        stated = [name for name, value in stated.items() if value is True]
    return {_bare(name) for name in stated} if isinstance(stated, Sequence) else set()


def _bare(name: object) -> str:
    return "".join(c for c in str(name).lower() if c.isalnum())
