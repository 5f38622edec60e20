"""The OpenAI protocol: chat completions, embeddings and images, all synchronous; and responses."""

from __future__ import annotations

import base64
import secrets
import time
from array import array
from typing import Annotated, Any, Literal, cast

from aiohttp import web
from pydantic import Field

from jobs.sandbox.bill import strings_in
from jobs.sandbox.faults import UnknownFaultError
from jobs.sandbox.gate import Gate, RefusalError, Strict, account_of
from jobs.sandbox.predictions import Pace
from jobs.sandbox.prices import CHAT_PRICES, EMBEDDING_PRICES, text_cents
from jobs.sandbox.quota import Window
from jobs.sandbox.text import clip, compose, count_tokens, embed
from jobs.sandbox.vendors.openai_errors import (
    error,
    no_such_model,
    no_such_path,
    refuse,
)
from jobs.sandbox.vendors.openai_images import Images
from jobs.sandbox.vendors.openai_requests import SNAPSHOTS, framed, opened
from jobs.sandbox.vendors.openai_responses import Responses

DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
MAX_INPUTS = 2048
MAX_TOKENS_EACH = 8192
MAX_TOKENS_IN_ALL = 300_000

TokenIds = list[Annotated[int, Field(ge=0)]]


class Message(Strict):
    role: Literal["developer", "system", "user", "assistant"]
    content: str | list[dict[str, Any]]
    name: str | None = None


class ChatRequest(Strict):
    """The fields that don't change the shape of the answer; streaming and tools are refused."""

    model: str
    messages: list[Message] = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: Literal[1] | None = None
    stream: Literal[False] | None = None
    seed: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class EmbeddingRequest(Strict):
    model: str
    input: str | list[str] | TokenIds | list[TokenIds] = Field(min_length=1)
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None

    @property
    def items(self) -> list[str | TokenIds]:
        """A list of numbers is one text given as token ids, any other list is many texts."""
        if isinstance(self.input, str) or isinstance(self.input[0], int):
            return [self.input]
        return cast("list[str | TokenIds]", self.input)


class OpenAI:
    name = "openai"
    refuse = staticmethod(refuse)

    def __init__(self, gate: Gate, pace: Pace, seed: int) -> None:
        self._gate = gate
        self._seed = seed
        self._responses = Responses(gate, pace, seed)
        self._window = Window()
        self._images = Images(gate, seed, self._respond)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/openai/v1/chat/completions", self.chat),
            web.post("/openai/v1/embeddings", self.embeddings),
            web.post("/openai/v1/images/generations", self._images.generate),
            *self._responses.routes(),
        ]

    def no_such_path(self, request: web.Request) -> web.Response:
        return no_such_path(request.method, request.path)

    def close(self) -> None:
        pass

    async def chat(self, request: web.Request) -> web.StreamResponse:
        key, body = await opened(request, ChatRequest)
        if body.model not in CHAT_PRICES:
            raise RefusalError(no_such_model(body.model))
        if body.max_tokens is not None and body.max_completion_tokens is not None:
            message = "Setting 'max_tokens' and 'max_completion_tokens' together is not supported."
            raise RefusalError(error(400, message, code="invalid_parameter_combination"))
        words = words_of(body)

        def work(twist: str | None) -> web.Response:
            return self._complete(body, words, account_of(key), twist)

        return await self._gate.answer(request, "submit", words, refuse, work)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        key, body = await opened(request, EmbeddingRequest)
        if body.model not in EMBEDDING_PRICES:
            raise RefusalError(no_such_model(body.model))
        check_size(body)
        words = "\n".join(item for item in body.items if isinstance(item, str))

        def work(twist: str | None) -> web.Response:
            if twist is not None:
                raise UnknownFaultError(f"fault {twist!r} means nothing to embeddings")
            return self._embed(body, words, account_of(key))

        return await self._gate.answer(request, "submit", words, refuse, work)

    def _complete(
        self, body: ChatRequest, words: str, account: str, twist: str | None
    ) -> web.Response:
        text, refusal, finish = self._write(body, words, twist)
        prompt_tokens = framed(words, len(body.messages))
        completion_tokens = count_tokens(text or refusal or "")
        name = f"chatcmpl-{secrets.token_urlsafe(21)}"
        cents = text_cents(CHAT_PRICES[body.model], prompt_tokens, completion_tokens)
        self._gate.bill.charge(
            provider="openai", operation="chat.completions", model=body.model, cents=cents,
            words=words, external_id=name, account=account,
        )  # fmt: skip
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text,
            "refusal": refusal,
            "annotations": [],
        }
        answer = {
            "id": name,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": SNAPSHOTS[body.model],
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
            ],
            "usage": chat_usage(prompt_tokens, completion_tokens),
            "service_tier": "default",
        }
        return self._respond(answer, prompt_tokens + completion_tokens)

    def _write(
        self, body: ChatRequest, words: str, twist: str | None
    ) -> tuple[str | None, str | None, str]:
        """Give content, refusal and finish_reason."""
        text = compose(words, (self._seed, body.seed, body.model))
        match twist:
            case "policy":
                return clip(text, 8), None, "content_filter"
            case "refusal":
                return None, "I'm sorry, I can't help with that request.", "stop"
            case None if body.limit is not None and count_tokens(text) > body.limit:
                return clip(text, body.limit), None, "length"
            case None:
                return text, None, "stop"
            case _:
                raise UnknownFaultError(f"fault {twist!r} means nothing to chat completions")

    def _embed(self, body: EmbeddingRequest, words: str, account: str) -> web.Response:
        dimensions = body.dimensions or DIMENSIONS[body.model]
        as_base64 = body.encoding_format == "base64"
        tokens = sum(item_tokens(item) for item in body.items)
        self._gate.bill.charge(
            provider="openai", operation="embeddings", model=body.model,
            cents=text_cents(EMBEDDING_PRICES[body.model], tokens),
            words=words, external_id=f"emb-{secrets.token_hex(12)}", account=account,
        )  # fmt: skip
        vectors = (embed(str(item), dimensions, self._seed) for item in body.items)
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": n, "embedding": encode(vector, as_base64)}
                for n, vector in enumerate(vectors)
            ],
            "model": body.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return self._respond(answer, tokens)

    def _respond(self, answer: dict[str, Any], tokens: int, name: str = "") -> web.Response:
        headers = {
            "x-request-id": name or f"req_{secrets.token_hex(16)}",
            "openai-version": "2020-10-01",
            **self._window.spend(tokens),
        }
        return web.json_response(answer, headers=headers)


def words_of(body: ChatRequest) -> str:
    return "\n".join(
        text for message in body.messages for text in strings_in(message.model_dump()["content"])
    )


def chat_usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """The sandbox keeps no prompt cache, so nothing is ever counted as cached."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def item_tokens(item: str | TokenIds) -> int:
    return count_tokens(item) if isinstance(item, str) else len(item)


def check_size(body: EmbeddingRequest) -> None:
    sizes = [item_tokens(item) for item in body.items]
    problem = None
    if (body.dimensions or 0) > DIMENSIONS[body.model]:
        problem = f"Invalid value for 'dimensions' = {body.dimensions}."
    elif len(sizes) > MAX_INPUTS:
        problem = f"Invalid 'input': at most {MAX_INPUTS} items, got {len(sizes)}."
    elif not all(sizes):
        problem = "Invalid 'input': input cannot be an empty string."
    elif max(sizes) > MAX_TOKENS_EACH:
        problem = (
            f"This model's maximum context length is {MAX_TOKENS_EACH} tokens, "
            f"however you requested {max(sizes)} tokens."
        )
    elif sum(sizes) > MAX_TOKENS_IN_ALL:
        problem = f"Requested {sum(sizes)} tokens, max {MAX_TOKENS_IN_ALL} tokens per request."
    if problem is not None:
        raise RefusalError(error(400, problem))


def encode(vector: list[float], as_base64: bool) -> str | list[float]:
    """Single precision either way: little-endian bytes, or numbers with as many digits."""
    if as_base64:
        return base64.b64encode(array("f", vector).tobytes()).decode()
    return [round(value, 9) for value in vector]
