"""OpenAI's images. The pictures are small, whatever the size that is asked for and told.

The fault `policy` refuses with 400, as the vendor's moderation does, and bills nothing.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from aiohttp import web
from pydantic import Field

from jobs.sandbox.faults import UnknownFaultError
from jobs.sandbox.formats import image_as
from jobs.sandbox.gate import Gate, RefusalError, Strict, account_of
from jobs.sandbox.media import Picture, render, size_for
from jobs.sandbox.prices import IMAGE_PRICES, text_cents
from jobs.sandbox.text import count_tokens, dice, without_marks
from jobs.sandbox.vendors.openai_errors import error, no_such_model, refuse
from jobs.sandbox.vendors.openai_requests import opened

Respond = Callable[[dict[str, Any], int, str], web.Response]
"""(answer, its tokens, its name) → the response with the headers that all have."""

SIZE = re.compile(r"\d{2,4}x\d{2,4}")
DEFAULT_SIZE = "1024x1024"
THREE_SIZES = (DEFAULT_SIZE, "1536x1024", "1024x1536")
TILE = 16
TOKENS = {"low": 272, "medium": 1056, "high": 4160}  # of a picture of the default size


class ImageRequest(Strict):
    model: str
    prompt: str = Field(min_length=1, max_length=32_000)
    n: int | None = Field(None, ge=1, le=10)
    size: str | None = None
    quality: Literal["low", "medium", "high", "auto"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    background: Literal["opaque", "auto"] | None = None
    moderation: Literal["low", "auto"] | None = None
    stream: Literal[False] | None = None
    user: str | None = None
    safety_identifier: str | None = None

    @property
    def drawn_size(self) -> str:
        return DEFAULT_SIZE if self.size in (None, "auto") else str(self.size)

    @property
    def drawn_quality(self) -> str:
        return "high" if self.quality in (None, "auto") else str(self.quality)


class Images:
    def __init__(self, gate: Gate, seed: int, respond: Respond) -> None:
        self._gate = gate
        self._seed = seed
        self._respond = respond

    async def generate(self, request: web.Request) -> web.StreamResponse:
        key, body = await opened(request, ImageRequest)
        if body.model not in IMAGE_PRICES:
            raise RefusalError(no_such_model(body.model))
        check_size(body)

        def work(twist: str | None) -> web.Response:
            if twist == "policy":
                return moderated()
            if twist is not None:
                raise UnknownFaultError(f"fault {twist!r} means nothing to images")
            return self._draw(body, account_of(key))

        return await self._gate.answer(request, "submit", body.prompt, refuse, work)

    def _draw(self, body: ImageRequest, account: str) -> web.Response:
        name, count = f"req_{secrets.token_hex(16)}", body.n or 1
        usage = usage_of(body, count)
        tokens = usage["input_tokens"], usage["output_tokens"]
        self._gate.bill.charge(
            provider="openai", operation="images.generations", model=body.model,
            cents=text_cents(IMAGE_PRICES[body.model], *tokens),
            words=body.prompt, external_id=name, account=account,
        )  # fmt: skip
        kind = body.output_format or "png"
        pictures = (
            image_as(kind, render(self._picture(body, number)), f"{name}/{number}")
            for number in range(count)
        )
        answer = {
            "created": int(time.time()),
            "background": "opaque",
            "data": [{"b64_json": base64.b64encode(item).decode()} for item in pictures],
            "output_format": kind,
            "quality": body.drawn_quality,
            "size": body.drawn_size,
            "usage": usage,
        }
        return self._respond(answer, sum(tokens), name)

    def _picture(self, body: ImageRequest, number: int) -> Picture:
        """The same for the same words, model and seed."""
        look = dice(self._seed, body.model, without_marks(body.prompt), number).randrange(6)
        width, height = size_for(body.drawn_size.replace("x", ":"))
        return Picture("image", width, height, Decimal(0), look)


def sides(size: str) -> tuple[int, int]:
    width, height = size.split("x")
    return int(width), int(height)


def check_size(body: ImageRequest) -> None:
    """Three sizes for the first generation, whole tiles for the others."""
    size, fine = body.drawn_size, False
    if body.model.startswith("gpt-image-1"):
        fine = size in THREE_SIZES
    elif SIZE.fullmatch(size):
        short, long = sorted(sides(size))
        fine = short % TILE == long % TILE == 0 < short and long <= 3 * short
    if not fine:
        message = f"Invalid size '{size}' for model {body.model}."
        raise RefusalError(error(400, message, code="invalid_value", param="size"))


def usage_of(body: ImageRequest, count: int) -> dict[str, Any]:
    width, height = sides(body.drawn_size)
    area = Fraction(width * height, 1024 * 1024)
    asked, drawn = count_tokens(body.prompt), count * round(TOKENS[body.drawn_quality] * area)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": asked},
        "output_tokens": drawn,
        "output_tokens_details": {"image_tokens": drawn, "text_tokens": 0},
        "total_tokens": asked + drawn,
    }


def moderated() -> web.Response:
    message = "Your request was rejected by the safety system."
    return error(400, message, kind="image_generation_user_error", code="moderation_blocked")
