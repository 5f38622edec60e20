"""What the sandbox charges: US cents, exact.

A client must reach the same amounts from what a response carries, so every unit billed here is
in the response: `usage` tokens for text, `metrics.predict_time` and the number of outputs for
media. The adapters' price table has to hold the same figures for the same models.
"""

from __future__ import annotations

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

# By medium: whatever model is named, it costs what `sandbox/<medium>` costs.
MEDIA_PRICES = {
    "video": MediaPrice(second=Decimal(5)),
    "image": MediaPrice(item=Decimal("0.3")),
    "audio": MediaPrice(item=Decimal("0.2")),
}


def text_cents(
    price: TextPrice, input_tokens: int, output_tokens: int = 0, image_tokens: int = 0
) -> Decimal:
    output = price.output * output_tokens + price.image * image_tokens
    return (price.input * input_tokens + output) / MILLION


def media_cents(medium: str, predict_time: Decimal, items: int) -> Decimal:
    price = MEDIA_PRICES[medium]
    return price.second * predict_time + price.item * items
