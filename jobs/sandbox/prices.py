"""What the sandbox charges: US cents, exact.

A client must reach the same amounts from what a response carries, so every unit billed here is
in the response: `usage` tokens for text, `metrics.predict_time` and the number of outputs for
media on Replicate, `cost.credits` on Runway, the `character-cost` header for speech. Freepik's
and Stability's answers carry nothing: there the order decides. The adapters' price table has to
hold the same figures for the same models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class TextPrice:
    """Cents per million tokens."""

    input: Decimal
    output: Decimal = Decimal(0)
    image: Decimal = Decimal(0)
    """For output tokens that are an image."""


@dataclass(frozen=True, slots=True)
class MediaPrice:
    """Cents per second of `metrics.predict_time`, or per output file."""

    second: Decimal = Decimal(0)
    item: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class SpeechPrice:
    """Cents per thousand billed characters, and how many of them a character counts for."""

    thousand: Decimal
    rate: Decimal = Decimal(1)


CHAT_PRICES = {
    "gpt-4o-mini": TextPrice(input=Decimal(15), output=Decimal(60)),
    "gpt-4o": TextPrice(input=Decimal(250), output=Decimal(1000)),
    "gpt-5-mini": TextPrice(input=Decimal(25), output=Decimal(200)),
}

ANTHROPIC_PRICES = {
    "claude-sonnet-5-5": TextPrice(input=Decimal(200), output=Decimal(1000)),
    "claude-haiku-4-5": TextPrice(input=Decimal(100), output=Decimal(500)),
}

GEMINI_PRICES = {
    "gemini-3.8-flash": TextPrice(input=Decimal(75), output=Decimal(375)),
    "gemini-3.1-flash-image": TextPrice(
        input=Decimal(50), output=Decimal(300), image=Decimal(6000)
    ),
}

EMBEDDING_PRICES = {
    "text-embedding-3-small": TextPrice(input=Decimal(2)),
    "text-embedding-3-large": TextPrice(input=Decimal(13)),
}

IMAGE_PRICES = {
    "gpt-image-2": TextPrice(input=Decimal(500), output=Decimal(3000)),
    "gpt-image-1-mini": TextPrice(input=Decimal(200), output=Decimal(800)),
}

# By medium: whatever model is named, it costs what `sandbox/<medium>` costs.
MEDIA_PRICES = {
    "video": MediaPrice(second=Decimal(5)),
    "image": MediaPrice(item=Decimal("0.3")),
    "audio": MediaPrice(item=Decimal("0.2")),
}


SPEECH_PRICES = {
    "eleven_multilingual_v2": SpeechPrice(Decimal(10)),
    "eleven_flash_v2_5": SpeechPrice(Decimal(10), rate=Decimal("0.5")),
}

# Cents per picture.
STABILITY_PRICES = {
    "core": Decimal(3),
    "ultra": Decimal(8),
    "sd3.5-large": Decimal("6.5"),
    "sd3.5-medium": Decimal("3.5"),
    "upscale/creative": Decimal(60),
}


def text_cents(
    price: TextPrice, input_tokens: int, output_tokens: int = 0, image_tokens: int = 0
) -> Decimal:
    output = price.output * output_tokens + price.image * image_tokens
    return (price.input * input_tokens + output) / MILLION


def media_cents(medium: str, predict_time: Decimal, items: int) -> Decimal:
    price = MEDIA_PRICES[medium]
    return price.second * predict_time + price.item * items


# Credits, each of them a cent: per second of video, or per image of up to and of more than 720p.
RUNWAY_VIDEO = {
    "gen4_turbo": Decimal(5),
    "gen4.5": Decimal(12),
    "veo3.1": Decimal(40),
    "veo3.1_fast": Decimal(15),
}
RUNWAY_IMAGE = {
    "gen4_image": (Decimal(5), Decimal(8)),
    "gen4_image_turbo": (Decimal(2), Decimal(2)),
}
PIXELS_OF_720P = 1280 * 720


def runway_credits(model: str, ratio: str, seconds: Decimal) -> Decimal:
    if model in RUNWAY_VIDEO:
        return RUNWAY_VIDEO[model] * seconds
    across, down = map(int, ratio.split(":"))
    return RUNWAY_IMAGE[model][across * down > PIXELS_OF_720P]


# Per image of a size, or per second of video.
FREEPIK = {
    "mystic:1k": Decimal(12),
    "mystic:2k": Decimal(12),
    "mystic:4k": Decimal(38),
    "kling-v2-1-std": Decimal("5.6"),
    "kling-v2-1-pro": Decimal("9.8"),
    "kling-v2-6-pro": Decimal(14),
    "kling-v3-pro": Decimal("16.8"),
}


def freepik_cents(model: str, size: str) -> Decimal:
    """`size`: the seconds of a video, or the resolution of an image, as they were ordered."""
    by_size = FREEPIK.get(f"{model}:{size}")
    return FREEPIK[model] * Decimal(size) if by_size is None else by_size


def billed_characters(price: SpeechPrice, text: str) -> int:
    return math.ceil(price.rate * len(text))


def speech_cents(price: SpeechPrice, characters: int) -> Decimal:
    return price.thousand * characters / 1000
