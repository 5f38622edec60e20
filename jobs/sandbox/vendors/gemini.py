"""The Gemini protocol: text and images by `generateContent`. Streams and tools are refused."""

from __future__ import annotations

import asyncio
import base64
import secrets
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from aiohttp import web
from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from jobs.sandbox.bill import strings_in
from jobs.sandbox.faults import UnknownFaultError
from jobs.sandbox.gate import BAD_KEY, Gate, RefusalError, Strict, account_of, body_of
from jobs.sandbox.media import MIME, Picture, label, render, size_for
from jobs.sandbox.prices import GEMINI_PRICES, text_cents
from jobs.sandbox.text import clip, compose, count_tokens, dice
from jobs.sandbox.vendors.google_errors import (
    error,
    no_such_model,
    not_json,
    refuse,
    unauthorized,
    validation_error,
)

# What an image is billed as, by its size. Those of the sandbox are all small.
IMAGE_TOKENS = {"1K": 1120, "2K": 1680, "4K": 2520}
INPUT_IMAGE_TOKENS = 1120
IMAGE_THOUGHTS = 150
LOOKS = 6
# The same in both versions; the SDK speaks the first, the adapter the second unless told.
PATH = "/gemini/{version:v1|v1beta}/models/{model:[^/:]+}:generateContent"
BLOCKED = ""
"""In the place of a finish reason: there will be no candidate."""
Ratio = Literal["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"]
Modality = Literal["TEXT", "IMAGE"]


class Camel(Strict):
    """The vendor's names are in camel case, but it reads both (and its SDK mixes them)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Blob(Camel):
    mime_type: str
    data: str


class FileData(Camel):
    file_uri: str
    mime_type: str | None = None


class Part(Camel):
    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None


class Content(Camel):
    role: Literal["user", "model"] | None = None
    parts: list[Part] = Field(min_length=1)


class ImageConfig(Camel):
    aspect_ratio: Ratio | None = None
    image_size: Literal["1K", "2K", "4K"] | None = None


class ThinkingConfig(Camel):
    thinking_budget: int | None = Field(None, ge=-1)


class GenerationConfig(Camel):
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    seed: int | None = None
    candidate_count: Literal[1] | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    stop_sequences: list[str] | None = None
    response_modalities: list[Modality] | None = None
    image_config: ImageConfig | None = None
    thinking_config: ThinkingConfig | None = None


class GenerateRequest(Camel):
    contents: list[Content] = Field(min_length=1)
    system_instruction: Content | None = None
    generation_config: GenerationConfig = GenerationConfig()

    @property
    def parts(self) -> list[Part]:
        system = self.system_instruction.parts if self.system_instruction else []
        return [*system, *(part for content in self.contents for part in content.parts)]


@dataclass(frozen=True, slots=True)
class Made:
    """One candidate: its parts, why it ended, and what is counted for it."""

    parts: list[dict[str, Any]]
    finish: str
    thoughts: int
    text_tokens: int = 0
    image_tokens: int = 0


class Gemini:
    name = "gemini"
    refuse = staticmethod(refuse)

    def __init__(self, gate: Gate, seed: int) -> None:
        self._gate = gate
        self._seed = seed

    def routes(self) -> list[web.RouteDef]:
        return [web.post(PATH, self.generate)]

    def no_such_path(self, _: web.Request) -> web.Response:
        return error(404, "Requested entity was not found.")

    def close(self) -> None:
        pass

    async def generate(self, request: web.Request) -> web.StreamResponse:
        key = authenticated(request)
        model = request.match_info["model"]
        if model not in GEMINI_PRICES:
            raise RefusalError(no_such_model(model, request.match_info["version"]))
        body = await body_of(request, GenerateRequest, not_json, validation_error)
        words = "\n".join(strings_in([part.text for part in body.parts]))
        name = secrets.token_urlsafe(16)
        wanted: Modality = "IMAGE" if GEMINI_PRICES[model].image else "TEXT"
        if wanted not in (body.generation_config.response_modalities or [wanted]):
            raise RefusalError(error(400, f"The model only answers with {wanted.lower()}."))
        drawn = await self._draw(body, words, name) if wanted == "IMAGE" else None

        def work(twist: str | None) -> web.Response:
            made = self._make(body, model, words, drawn, twist)
            prompt = tokens_of(body)
            self._gate.bill.charge(
                provider="gemini", operation="generateContent", model=model,
                cents=cents_of(model, prompt, made),
                words=words, external_id=name, account=account_of(key),
            )  # fmt: skip
            return web.json_response(answer_of(name, model, prompt, made))

        return await self._gate.answer(request, "submit", words, refuse, work)

    def _make(
        self,
        body: GenerateRequest,
        model: str,
        words: str,
        drawn: dict[str, Any] | None,
        twist: str | None,
    ) -> Made:
        match twist:
            case "policy":
                return Made([], BLOCKED, 0)
            case "refusal":
                return Made([], "SAFETY" if drawn is None else "IMAGE_SAFETY", IMAGE_THOUGHTS)
            case None if drawn is not None:
                size = (body.generation_config.image_config or ImageConfig()).image_size
                return Made([drawn], "STOP", IMAGE_THOUGHTS, 0, IMAGE_TOKENS[size or "1K"])
            case None:
                return self._write(body.generation_config, model, words)
            case _:
                raise UnknownFaultError(f"fault {twist!r} means nothing to generateContent")

    def _write(self, config: GenerationConfig, model: str, words: str) -> Made:
        """Thoughts are half as long as the text, and count within the limit."""
        text, finish = compose(words, (self._seed, config.seed, model)), "STOP"
        thinks = config.thinking_config is None or config.thinking_config.thinking_budget != 0
        thoughts = count_tokens(text) // 2 if thinks else 0
        limit = config.max_output_tokens
        if limit is not None and thoughts + count_tokens(text) > limit:
            thoughts = min(thoughts, limit // 2)
            text, finish = clip(text, limit - thoughts), "MAX_TOKENS"
        parts = [{"text": text, "thoughtSignature": "c2FuZGJveA=="}] if text else []
        return Made(parts, finish, thoughts, count_tokens(text))

    async def _draw(self, body: GenerateRequest, words: str, name: str) -> dict[str, Any]:
        config = body.generation_config
        ratio = (config.image_config or ImageConfig()).aspect_ratio or "1:1"
        look = dice(self._seed, config.seed, words).randrange(LOOKS)
        picture = Picture("image", *size_for(ratio), Decimal(0), look)
        content = label("image", await asyncio.to_thread(render, picture), name)
        data = base64.b64encode(content).decode()
        return {"inlineData": {"mimeType": MIME["image"], "data": data}}


def authenticated(request: web.Request) -> str:
    key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
    if not key or key == BAD_KEY:
        raise RefusalError(unauthorized(key))
    return key


def tokens_of(body: GenerateRequest) -> int:
    return sum(
        count_tokens(part.text) if part.text is not None else INPUT_IMAGE_TOKENS
        for part in body.parts
    )


def cents_of(model: str, prompt: int, made: Made) -> Decimal:
    return text_cents(
        GEMINI_PRICES[model], prompt, made.thoughts + made.text_tokens, made.image_tokens
    )


def answer_of(name: str, model: str, prompt: int, made: Made) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "usageMetadata": usage(prompt, made),
        "modelVersion": model,
        "responseId": name,
    }
    if made.finish == BLOCKED:
        return answer | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    content = {"content": {"role": "model", "parts": made.parts}} if made.parts else {}
    return answer | {"candidates": [{**content, "finishReason": made.finish, "index": 0}]}


def usage(prompt: int, made: Made) -> dict[str, Any]:
    """A count of zero is left out, as the vendor's JSON does."""
    by_kind = {"TEXT": made.text_tokens, "IMAGE": made.image_tokens}
    counts = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": made.text_tokens + made.image_tokens,
        "thoughtsTokenCount": made.thoughts,
        "totalTokenCount": prompt + made.thoughts + made.text_tokens + made.image_tokens,
        "candidatesTokensDetails": [
            {"modality": kind, "tokenCount": count} for kind, count in by_kind.items() if count
        ],
    }
    return {name: count for name, count in counts.items() if count}
