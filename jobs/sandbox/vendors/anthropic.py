"""The Anthropic protocol: messages, in both of its versions. Streaming and tools are refused."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from aiohttp import web
from pydantic import Field

from jobs.sandbox.bill import strings_in
from jobs.sandbox.faults import UnknownFaultError
from jobs.sandbox.gate import BAD_KEY, Gate, RefusalError, Strict, account_of, body_of, key_of
from jobs.sandbox.prices import ANTHROPIC_PRICES, text_cents
from jobs.sandbox.text import clip, compose, count_tokens
from jobs.sandbox.vendors.anthropic_errors import (
    error,
    new_request_id,
    not_json,
    refuse,
    unauthorized,
    validation_error,
)

# Names of before 2026 stand for a snapshot, and the answer tells which; newer ones are their own.
SNAPSHOTS = {"claude-haiku-4-5": "claude-haiku-4-5-20251001"}
OLD, NEW = "2023-06-01", "2026-10-21"
REMOVED = ("temperature", "top_p", "top_k")
"""In the new version."""
FRAMING = 7  # tokens around a prompt


class TextBlock(Strict):
    type: Literal["text"]
    text: str = Field(min_length=1)


class Message(Strict):
    role: Literal["user", "assistant"]
    content: str | list[TextBlock] = Field(min_length=1)


class Metadata(Strict):
    user_id: str | None = None


class MessagesRequest(Strict):
    model: str
    max_tokens: int = Field(ge=1)
    messages: list[Message] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    stop_sequences: list[str] | None = None
    stream: Literal[False] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None


class Anthropic:
    name = "anthropic"
    refuse = staticmethod(refuse)

    def __init__(self, gate: Gate, seed: int) -> None:
        self._gate = gate
        self._seed = seed

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/anthropic/v1/messages", self.messages)]

    def no_such_path(self, _: web.Request) -> web.Response:
        return error(404, "Not found")

    def close(self) -> None:
        pass

    async def messages(self, request: web.Request) -> web.StreamResponse:
        key = authenticated(request)
        version = version_of(request)
        body = await body_of(request, MessagesRequest, not_json, validation_error)
        for field in REMOVED:
            if version == NEW and field in body.model_fields_set:
                raise RefusalError(error(400, f"{field}: Extra inputs are not permitted"))
        if body.model not in ANTHROPIC_PRICES:
            raise RefusalError(error(404, f"model: {body.model}"))
        words = words_of(body)

        def work(twist: str | None) -> web.Response:
            return self._answer(body, words, account_of(key), twist)

        return await self._gate.answer(request, "submit", words, refuse, work)

    def _answer(
        self, body: MessagesRequest, words: str, account: str, twist: str | None
    ) -> web.Response:
        text, stop, details = self._write(body, words, twist)
        input_tokens, output_tokens = FRAMING + count_tokens(words), count_tokens(text)
        name = f"msg_{secrets.token_hex(12)}"
        self._gate.bill.charge(
            provider="anthropic", operation="messages", model=body.model,
            cents=text_cents(ANTHROPIC_PRICES[body.model], input_tokens, output_tokens),
            words=words, external_id=name, account=account,
        )  # fmt: skip
        answer = {
            "id": name,
            "type": "message",
            "role": "assistant",
            "model": SNAPSHOTS.get(body.model, body.model),
            "content": [{"type": "text", "text": text, "citations": None}] if text else [],
            "stop_reason": stop,
            "stop_sequence": None,
            "stop_details": details,
            "usage": usage(input_tokens, output_tokens),
        }
        return web.json_response(answer, headers={"request-id": new_request_id()})

    def _write(
        self, body: MessagesRequest, words: str, twist: str | None
    ) -> tuple[str, str, dict[str, Any] | None]:
        """Give text, stop_reason and stop_details."""
        text = compose(words, (self._seed, body.model))
        match twist:
            case "policy":
                return clip(text, 8), "refusal", refused("general_harms", None)
            case "refusal":
                return "", "refusal", refused(None, "The request can't be answered.")
            case None if count_tokens(text) > body.max_tokens:
                return clip(text, body.max_tokens), "max_tokens", None
            case None:
                return text, "end_turn", None
            case _:
                raise UnknownFaultError(f"fault {twist!r} means nothing to messages")


def authenticated(request: web.Request) -> str:
    """The key: in the protocol's own header or, as the newer SDKs send it, as a bearer token."""
    key = request.headers.get("x-api-key") or key_of(request, "Bearer")
    if not key or key == BAD_KEY:
        raise RefusalError(unauthorized(key))
    return key


def version_of(request: web.Request) -> str:
    version = request.headers.get("anthropic-version")
    if version is None:
        raise RefusalError(error(400, "anthropic-version: header is required"))
    if version not in {OLD, NEW}:
        raise RefusalError(error(400, f'anthropic-version: "{version}" is not a valid version'))
    return version


def words_of(body: MessagesRequest) -> str:
    said = body.model_dump()
    return "\n".join(strings_in([said["system"], *(item["content"] for item in said["messages"])]))


def refused(category: str | None, explanation: str | None) -> dict[str, Any]:
    return {"type": "refusal", "category": category, "explanation": explanation}


def usage(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """The sandbox keeps no prompt cache, so nothing is ever counted as cached."""
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"thinking_tokens": 0},
        "service_tier": "standard",
    }
