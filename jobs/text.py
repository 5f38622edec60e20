"""Text generation: a prompt in, a text with its tokens and its cost out."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field

from jobs.capabilities import SYSTEM, TEMPERATURE, Capabilities
from jobs.contract import (
    CallResult,
    Context,
    Job,
    Outcome,
    Succeeded,
    TextTask,
    TokenPrice,
    Yield,
)
from jobs.payload import Payload, invalid, takes, useless
from jobs.registry import kind

CENTS = Decimal(100)
CHARACTERS_PER_TOKEN = 5
"""More than any common tokenizer packs into one on average, so that only the hopeless is refused:
the provider counts exactly, and its refusal of a long prompt costs nothing."""

USUAL_TEMPERATURE = 0.7
"""What rows have where nobody chose one."""
MAINTENANCE_SECONDS = 60.0
"""Until a job looks again whether its model may be used."""

UsdPerToken = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[int, Field(gt=0)]


class TextInput(Payload):
    prompt: str
    model: str = Field(min_length=1)
    system_prompt: str | None = None
    temperature: float | None = None
    max_tokens: Positive | None = None
    version: str | None = None
    provider: str | None = None
    model_status: str | None = None
    provider_status: str | None = None
    capabilities: Any = None
    cost_per_input_token: UsdPerToken | None = None
    cost_per_output_token: UsdPerToken | None = None
    context_window: Positive | None = None
    model_max_tokens: Positive | None = None
    chapter_id: str | None = None
    replace_content: bool | None = None
    user_status: str | None = None


@kind("text", timeout=600)
@takes(TextInput)
async def text(job: Job, ctx: Context, given: TextInput) -> Outcome:
    """Generate text by the model and at the price of the row's ai_models entry."""
    closed = _closed(given)
    if closed:
        return Yield(closed, MAINTENANCE_SECONDS, counts=False)
    problem = _problem(given)
    if problem:
        return invalid(problem)
    result = await ctx.call("main", job.lane, _task(given))
    if not result.text:
        return useless(result, "the provider returned no text", "no_text")
    return _succeeded(given, result, result.text)


def _closed(given: TextInput) -> str | None:
    """Why it has to wait. A provider's lane is closed by now, or will be within seconds."""
    if given.provider_status not in (None, "active"):
        return f"ai_providers says {given.provider_status} of {given.provider}"
    if given.model_status == "maintenance":
        return f"ai_models says maintenance of {given.model}"
    return None


def _problem(given: TextInput) -> str | None:
    """What can be known to fail before anything is paid."""
    if not given.prompt.strip():
        return "prompt: it is empty"
    if given.user_status not in (None, "active"):
        return f"user_status: the user is {given.user_status}, not active"
    if given.model_status not in (None, "active"):
        return (
            f"model_status: ai_models says {given.model_status} of {given.model}; make it active "
            "and retry, or choose another model"
        )
    return _impossible(given, Capabilities(given.capabilities)) or _too_much(given)


def _impossible(given: TextInput, model: Capabilities) -> str | None:
    if model.writes_no_text:
        return f"capabilities: ai_models says that {given.model} writes no text"
    if given.system_prompt and model.without(SYSTEM):
        return f"system_prompt: ai_models says that {given.model} takes none"
    chosen = given.temperature not in (None, USUAL_TEMPERATURE)
    if chosen and model.without(TEMPERATURE):
        return f"temperature: ai_models says that {given.model} takes none, not {given.temperature}"
    return None


def _too_much(given: TextInput) -> str | None:
    if given.max_tokens and given.model_max_tokens and given.max_tokens > given.model_max_tokens:
        return (
            f"max_tokens: {given.max_tokens} is more than the {given.model_max_tokens} "
            f"that {given.model} can return"
        )
    at_least = len(given.prompt + (given.system_prompt or "")) // CHARACTERS_PER_TOKEN
    needed = at_least + (given.max_tokens or 0)
    if given.context_window and needed > given.context_window:
        return (
            f"prompt: it needs at least {at_least} tokens and {given.max_tokens or 0} for the "
            f"answer; {given.model} has room for {given.context_window}"
        )
    return None


def _task(given: TextInput) -> TextTask:
    takes_one = not Capabilities(given.capabilities).without(TEMPERATURE)
    return TextTask(
        model=given.model,
        prompt=given.prompt,
        system=given.system_prompt or None,
        temperature=given.temperature if takes_one else None,
        max_tokens=given.max_tokens,
        price=_price(given),
    )


def _price(given: TextInput) -> TokenPrice | None:
    """Half a price is none: the price table then knows both halves."""
    if given.cost_per_input_token is None or given.cost_per_output_token is None:
        return None
    return TokenPrice(given.cost_per_input_token * CENTS, given.cost_per_output_token * CENTS)


def _succeeded(given: TextInput, result: CallResult, text: str) -> Succeeded:
    return Succeeded(
        text=text,
        data={
            "chapter_id": given.chapter_id,
            "replace_content": given.replace_content is True,
            "input_tokens": result.usage.input_tokens,
            "output_tokens": result.usage.output_tokens,
        },
        metadata={**result.metadata, "version": given.version},
        tokens=result.usage.tokens,
        cost_cents=result.cost_cents,
        provider=result.provider,
        model=result.model,
        external_id=result.external_id,
    )
