"""Gemini: text and images by `generateContent`, which answers at once; images come inside.

It is the same in `v1`, which the account's base URL may name in the place of `v1beta`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from mimetypes import guess_type
from typing import Any
from urllib.parse import urlsplit

from jobs.contract import EmbedTask, Failure, MediaTask, Task, TextTask, Usage
from jobs.providers.adapter import Account, Op, Request, Response, State
from jobs.providers.errors import Garbled, invalid
from jobs.providers.prices import MILLION, Price, PriceTable
from jobs.providers.texts import check_text, expected, price_of, tokens
from jobs.providers.vendors.gemini_answers import state_of
from jobs.providers.vendors.google_errors import classified
from jobs.providers.vendors.synchronous import Synchronous

MAX_TEMPERATURE = 2
MODEL = re.compile(r"(?:models/)?(\w[\w.-]*)")
RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
# size → about how many tokens such an image is billed as, for estimates
IMAGE_TOKENS = {"1K": 1290, "2K": 1680, "4K": 2520}
DEFAULT_SIZE = "1K"
INPUT_IMAGE_TOKENS = 1120
MAX_IMAGES = 14
DATA_URL = re.compile(r"data:(image/[\w.+-]+);base64,([A-Za-z0-9+/]+={0,2})")


class Gemini(Synchronous):
    name = "gemini"
    base_url = "https://generativelanguage.googleapis.com/v1beta"
    models: Mapping[str, str] = {"image": "gemini-3.1-flash-image"}

    def model(self, task: Task, account: Account) -> str:
        match task:
            case TextTask():
                return task.model
            case MediaTask(medium="image"):
                model = task.model or account.models.get(task.medium)
                if not model:
                    raise invalid(self.name, "no model is named, and none is configured for image")
                return model
            case MediaTask() | EmbedTask():
                raise invalid(self.name, "only text and images are made here")

    def check(self, task: Task, account: Account, prices: PriceTable) -> None:
        model = self.model(task, account)
        if isinstance(task, MediaTask):
            problem = _problem(task)
            if problem:
                raise invalid(self.name, problem)
            price_of(self.name, task, model, prices)
        else:
            check_text(self.name, task, hottest=MAX_TEMPERATURE, prices=prices, model=model)
        if not MODEL.fullmatch(model):
            raise invalid(self.name, f"{model!r} can't be a model's name")

    def estimate(self, task: Task, model: str, prices: PriceTable) -> Decimal:
        price = price_of(self.name, task, model, prices)
        if not isinstance(task, MediaTask):
            return price.of_tokens(expected(task))
        given = tokens(task.prompt) + INPUT_IMAGE_TOKENS * len(task.images)
        made = IMAGE_TOKENS[task.resolution or DEFAULT_SIZE]
        return price.item + _cents(price, Usage(given, made), made)

    def cost(self, model: str, state: State, prices: PriceTable, task: Task | None) -> Decimal:
        price = price_of(self.name, task, model, prices)
        images = int(state.metadata.get("image_tokens") or 0)
        return price.item * state.usage.items + _cents(price, state.usage, images)

    def submit(self, task: Task, account: Account) -> Request:
        model = self.model(task, account)
        found = MODEL.fullmatch(model)
        if found is None:
            raise invalid(self.name, f"{model!r} can't be a model's name")
        body = _image(task) if isinstance(task, MediaTask) else _words(task)
        headers = account.over({"x-goog-api-key": account.api_key})
        url = f"{account.base_url}/models/{found.group(1)}:generateContent"
        return Request("POST", url, headers, body)

    def parse(self, _op: Op, response: Response) -> State:
        body = response.object()
        try:
            return state_of(self.name, body)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"not generated content: {error!r}") from error

    def classify(self, op: Op, response: Response) -> Failure:
        return classified(self.name, op, response)


def _cents(price: Price, usage: Usage, image_tokens: int) -> Decimal:
    """`image_tokens` are among the output tokens, at a price of their own."""
    rate = price.output if price.output_image is None else price.output_image
    others = replace(usage, output_tokens=usage.output_tokens - image_tokens)
    return price.of_tokens(others) + image_tokens * rate / MILLION


# --------------------------------------------------------------------------- requests


def _problem(task: MediaTask) -> str | None:
    if not task.prompt.strip():
        return "there is no prompt"
    if task.duration_seconds is not None:
        return "an image has no duration"
    if task.aspect_ratio and task.aspect_ratio not in RATIOS:
        return f"the aspect ratio must be one of {', '.join(RATIOS)}, not {task.aspect_ratio!r}"
    if task.resolution and task.resolution not in IMAGE_TOKENS:
        return f"the size must be one of {', '.join(IMAGE_TOKENS)}, not {task.resolution!r}"
    if len(task.images) > MAX_IMAGES:
        return f"at most {MAX_IMAGES} images can be given, not {len(task.images)}"
    for image in task.images:
        if not (image.startswith("https://") or DATA_URL.fullmatch(image)):
            return f"an image must be an https URL or a base64 data URL, not {image[:80]!r}"
    return None


def _words(task: Task) -> dict[str, Any]:
    assert isinstance(task, TextTask), "`model` refuses the others"
    config = {"temperature": task.temperature, "maxOutputTokens": task.max_tokens}
    system = {"systemInstruction": {"parts": [{"text": task.system}]}} if task.system else {}
    return {**_content({"text": task.prompt}), **system, **_config(config)}


def _image(task: MediaTask) -> dict[str, Any]:
    """`options` are for `generationConfig`, and win."""
    shape = {"aspectRatio": task.aspect_ratio or None, "imageSize": task.resolution or None}
    image = {key: value for key, value in shape.items() if value is not None}
    config = {"responseModalities": ["IMAGE"], "imageConfig": image or None, **task.options}
    parts = [_given(image) for image in task.images]
    return {**_content({"text": task.prompt}, *parts), **_config(config)}


def _content(*parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": list(parts)}]}


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    present = {key: value for key, value in config.items() if value is not None}
    return {"generationConfig": present} if present else {}


def _given(image: str) -> dict[str, Any]:
    """The vendor fetches a URL itself; what type the file is it can be told, if the name tells."""
    found = DATA_URL.fullmatch(image)
    if found:
        return {"inlineData": {"mimeType": found.group(1), "data": found.group(2)}}
    mime, _ = guess_type(urlsplit(image).path)
    return {"fileData": {"fileUri": image} | ({"mimeType": mime} if mime else {})}
