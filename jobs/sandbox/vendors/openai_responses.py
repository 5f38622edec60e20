"""OpenAI's responses: made at once or in the background, where they are polled and cancelled.

A background response is billed when it is accepted. What is taken back follows the usage it tells:
all of it when it fails or is cancelled in the queue, half of the output when it was under way.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from aiohttp import web
from pydantic import Field

from jobs.sandbox.bill import strings_in
from jobs.sandbox.gate import Gate, RefusalError, Strict, account_of
from jobs.sandbox.predictions import DONE_AT, STARTED_AT, Pace
from jobs.sandbox.prices import CHAT_PRICES, text_cents
from jobs.sandbox.text import clip, compose, count_tokens
from jobs.sandbox.vendors.openai_errors import error, no_such_model, refuse
from jobs.sandbox.vendors.openai_requests import SNAPSHOTS, authenticated, framed, opened

RESPONSES = "/openai/v1/responses"
THINKS = "gpt-5"
"""Models of this family think before they answer, half as much as they say."""
REFUSAL = "I'm sorry, I can't help with that request."
FAILED = {"code": "server_error", "message": "An error occurred while processing your request."}
OVER = frozenset({"completed", "failed", "cancelled", "incomplete"})


class InputMessage(Strict):
    role: Literal["developer", "system", "user", "assistant"]
    content: str | list[dict[str, Any]]
    type: Literal["message"] | None = None


class ResponseRequest(Strict):
    """The fields that don't change the shape of the answer; streaming and tools are refused."""

    model: str
    input: str | list[InputMessage] = Field(min_length=1)
    instructions: str | None = None
    background: bool | None = None
    store: bool | None = None
    stream: Literal[False] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_output_tokens: int | None = Field(None, ge=16)
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None

    @property
    def words(self) -> str:
        said = self.model_dump()
        given = said["input"]
        contents = given if isinstance(given, str) else [item["content"] for item in given]
        return "\n".join(strings_in([said["instructions"], contents]))

    @property
    def messages(self) -> int:
        """Instructions count as one."""
        given = 1 if isinstance(self.input, str) else len(self.input)
        return given + (self.instructions is not None)


@dataclass(frozen=True, slots=True)
class Tokens:
    input: int
    output: int
    reasoning: int

    def as_json(self) -> dict[str, Any]:
        """The sandbox keeps no prompt cache, so nothing is ever counted as cached."""
        return {
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input + self.output,
        }


@dataclass(slots=True)
class Answer:
    """A response on its way. How far it is follows from the clock or from the polls."""

    id: str
    key: str
    body: ResponseRequest
    text: str
    cut: bool
    tokens: Tokens
    twist: str | None
    pace: Pace
    charge_id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    born: float = field(default_factory=time.monotonic)
    polls: int = 0
    percent: int = 0
    """How far it was when last observed: one answer must not mix two moments."""
    stopped_at: int | None = None

    @property
    def status(self) -> str:
        if self.stopped_at is not None:
            return "cancelled"
        if self.percent < STARTED_AT:
            return "queued"
        if self.percent < DONE_AT:
            return "in_progress"
        if self.twist == "fail":
            return "failed"
        return "incomplete" if self.cut or self.twist == "policy" else "completed"

    def observe(self) -> None:
        """Bring the state up to now; whoever reads it calls this first."""
        if self.status in OVER:
            return
        at_once = not self.body.background
        self.percent = DONE_AT if at_once else self.pace.percent(self.born, self.polls, self.twist)

    @property
    def used(self) -> Tokens | None:
        """What there is to pay for by now."""
        match self.status:
            case "completed" | "incomplete":
                return self.tokens
            case "cancelled" if self.stopped_at is not None and self.stopped_at >= STARTED_AT:
                half = self.tokens.output // 2
                return Tokens(self.tokens.input, half, min(half, self.tokens.reasoning))
            case _:
                return None

    def as_json(self) -> dict[str, Any]:
        self.observe()
        used, status = self.used, self.status
        reason = "content_filter" if self.twist == "policy" else "max_output_tokens"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": bool(self.body.background),
            "error": FAILED if status == "failed" else None,
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            "instructions": self.body.instructions,
            "max_output_tokens": self.body.max_output_tokens,
            "metadata": self.body.metadata or {},
            "model": SNAPSHOTS[self.body.model],
            "output": self._output(status) if status in {"completed", "incomplete"} else [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": self.body.store is not False,
            "temperature": self.body.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": self.body.top_p,
            "truncation": self.body.truncation or "disabled",
            "usage": used.as_json() if used else None,
        }

    def _output(self, status: str) -> list[dict[str, Any]]:
        thought = {"id": f"rs_{self.id}", "type": "reasoning", "summary": []}
        content: dict[str, Any] = {"type": "output_text", "text": self.text, "annotations": []}
        if self.twist == "refusal":
            content = {"type": "refusal", "refusal": REFUSAL}
        message = {
            "id": f"msg_{self.id}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [content],
        }
        return [*([thought] if self.tokens.reasoning else []), *([message] if self.text else [])]


class Responses:
    """A part of the OpenAI vendor: its routes stand beside the others."""

    def __init__(self, gate: Gate, pace: Pace, seed: int) -> None:
        self._gate = gate
        self._pace = pace
        self._seed = seed
        self._all: dict[str, Answer] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(RESPONSES, self.create),
            web.get(RESPONSES + "/{id}", self.get),
            web.post(RESPONSES + "/{id}/cancel", self.cancel),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        key, body = await opened(request, ResponseRequest)
        if body.model not in CHAT_PRICES:
            raise RefusalError(no_such_model(body.model))
        if body.background and body.store is False:
            message = "Background responses have to be stored: 'store' can't be false."
            raise RefusalError(error(400, message, param="store"))

        def work(twist: str | None) -> web.Response:
            return web.json_response(self._accept(key, body, twist).as_json())

        return await self._gate.answer(request, "submit", body.words, refuse, work)

    async def get(self, request: web.Request) -> web.StreamResponse:
        answer = self._find(request)

        def work(_: str | None) -> web.Response:
            answer.polls += 1
            return web.json_response(answer.as_json())

        return await self._gate.answer(request, "poll", answer.body.words, refuse, work)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        answer = self._find(request)

        def work(_: str | None) -> web.Response:
            if not answer.body.background:
                return error(400, "Only background responses can be cancelled.")
            self._stop(answer)
            return web.json_response(answer.as_json())

        return await self._gate.answer(request, "cancel", answer.body.words, refuse, work)

    def _accept(self, key: str, body: ResponseRequest, twist: str | None) -> Answer:
        answer = self._write(key, body, twist)
        charge = self._gate.bill.charge(
            provider="openai", operation="responses", model=body.model,
            cents=cents_of(body.model, answer.tokens),
            words=body.words, external_id=answer.id, account=account_of(key),
        )  # fmt: skip
        if twist == "fail":  # it will fail, and a failed response costs nothing
            self._gate.bill.refund(charge.charge_id, charge.cents, "failed")
        answer.charge_id = charge.charge_id
        self._all[answer.id] = answer
        return answer

    def _write(self, key: str, body: ResponseRequest, twist: str | None) -> Answer:
        text = compose(body.words, (self._seed, body.model))
        limit, cut = body.max_output_tokens, False
        if twist == "policy":
            text = clip(text, 8)
        elif twist == "refusal":
            text = REFUSAL
        reasoning = count_tokens(text) // 2 if body.model.startswith(THINKS) else 0
        if limit is not None and reasoning + count_tokens(text) > limit:
            reasoning = min(reasoning, limit // 2)
            text, cut = clip(text, limit - reasoning), True
        tokens = Tokens(
            framed(body.words, body.messages), reasoning + count_tokens(text), reasoning
        )
        name = f"resp_{secrets.token_hex(24)}"
        return Answer(name, key, body, text, cut, tokens, twist, self._pace)

    def _stop(self, answer: Answer) -> None:
        """Cancel, and take back what is not billed then. One that is over stays as it is."""
        answer.observe()
        if answer.status in OVER:
            return
        answer.stopped_at = answer.percent
        if answer.twist == "fail":
            return  # taken back already
        full, used = cents_of(answer.body.model, answer.tokens), answer.used
        due = cents_of(answer.body.model, used) if used else Decimal(0)
        self._gate.bill.refund(answer.charge_id, full - due, "cancelled")

    def _find(self, request: web.Request) -> Answer:
        """Another account's response is as unknown as one that never was, or wasn't stored."""
        name, key = request.match_info["id"], authenticated(request)
        found = self._all.get(name)
        if found is None or found.key != key or found.body.store is False:
            raise RefusalError(error(404, f"Response with id '{name}' not found."))
        return found


def cents_of(model: str, tokens: Tokens) -> Decimal:
    return text_cents(CHAT_PRICES[model], tokens.input, tokens.output)
