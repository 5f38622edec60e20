"""What all requests of the OpenAI protocol have in common: keys, bodies, models, framing."""

from __future__ import annotations

from aiohttp import web

from jobs.sandbox.gate import BAD_KEY, Body, RefusalError, body_of, key_of
from jobs.sandbox.text import count_tokens
from jobs.sandbox.vendors.openai_errors import not_json, unauthorized, validation_error

# A request names a family, the answer the snapshot that served it, as the vendor does.
SNAPSHOTS = {
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
}
PROMPT_OVERHEAD, MESSAGE_OVERHEAD = 3, 4  # tokens that frame a prompt


async def opened(request: web.Request, shape: type[Body]) -> tuple[str, Body]:
    """Whose request it is, and what it asks for."""
    key = authenticated(request)
    return key, await body_of(request, shape, not_json, validation_error)


def authenticated(request: web.Request) -> str:
    key = key_of(request, "Bearer")
    if not key or key == BAD_KEY:
        raise RefusalError(unauthorized(key))
    return key


def framed(words: str, messages: int) -> int:
    return PROMPT_OVERHEAD + MESSAGE_OVERHEAD * messages + count_tokens(words)
