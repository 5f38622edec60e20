"""What all requests to OpenAI have in common: a key, and a JSON body of known fields."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.sandbox.gate import BAD_KEY, RefusalError, json_object, key_of
from jobs.sandbox.vendors.openai_errors import error, unauthorized, validation_error


class Strict(BaseModel):
    """Unknown fields are refused, as the vendor refuses them."""

    model_config = ConfigDict(extra="forbid", strict=True)


Body = TypeVar("Body", bound=Strict)


async def read(request: web.Request, shape: type[Body]) -> tuple[str, Body]:
    """Whose key it is, and what is asked for."""
    key = key_of(request, "Bearer")
    if not key or key == BAD_KEY:
        raise RefusalError(unauthorized(key))
    body = await json_object(request)
    if body is None:
        message = "We could not parse the JSON body of your request."
        raise RefusalError(error(400, message))
    try:
        return key, shape.model_validate(body)
    except ValidationError as problem:
        raise RefusalError(validation_error(problem)) from None
