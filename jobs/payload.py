"""Reading a job's input: one model per kind, one way to say what is wrong with it.

    @kind("text")
    @takes(TextInput)
    async def text(job, ctx, given: TextInput) -> Outcome: ...

Rows come from .NET, JavaScript and Python services, so `contentId`, `ContentId` and `content_id`
all name the same field. What a model doesn't know is ignored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from jobs.contract import CallResult, Context, Failed, Failure, FailureKind, Job, Outcome
from jobs.registry import Handler

MAX_PROBLEMS = 3


class Payload(BaseModel):
    """A part of a job's input."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _match_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        fields = {_bare(name): name for name in cls.model_fields}
        spelled = {fields[_bare(key)]: value for key, value in data.items() if _bare(key) in fields}
        # The exact spelling wins where both are there.
        return spelled | {key: data[key] for key in cls.model_fields if key in data}


M = TypeVar("M", bound=Payload)


def takes(model: type[M]) -> Callable[[Callable[[Job, Context, M], Awaitable[Outcome]]], Handler]:
    """Give the handler its input as a `model`; an input that doesn't fit fails the job."""

    def decorate(handler: Callable[[Job, Context, M], Awaitable[Outcome]]) -> Handler:
        @wraps(handler)
        async def run(job: Job, ctx: Context) -> Outcome:
            try:
                given = model.model_validate(job.input)
            except ValidationError as error:
                return invalid(_explain(error))
            return await handler(job, ctx, given)

        return run

    return decorate


def invalid(message: str, code: str = "input") -> Failed:
    """The job can never work as it was given."""
    return Failed(Failure(FailureKind.INVALID, message, code))


def no_content(content_type: str, content_id: UUID) -> Failed:
    """The platform's `input.sql` found no row under that id."""
    return invalid(f"payload.content_id: there is no {content_type} {content_id}", "no_content")


def useless(result: CallResult, message: str, code: str) -> Failed:
    """Paid for, but nothing to go on with. A retry would only read the same finished step back."""
    failure = Failure(FailureKind.UNKNOWN, message, code, provider=result.provider, accepted="yes")
    return Failed(failure)


def _explain(error: ValidationError) -> str:
    """Field by field, without the values: those may be secrets."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [
        f"{'.'.join(map(str, problem['loc'])) or 'input'}: {problem['msg']}"
        for problem in problems[:MAX_PROBLEMS]
    ]
    more = len(problems) - MAX_PROBLEMS
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _bare(key: object) -> str:
    return str(key).replace("_", "").lower()
