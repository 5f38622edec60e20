"""What text providers have in common: what a task must be like, and what it will cost."""

from __future__ import annotations

from decimal import Decimal

from jobs.contract import EmbedTask, Failure, FailureKind, Task, TextTask, Usage
from jobs.providers.errors import invalid
from jobs.providers.prices import Price, PriceTable

CHARACTERS_PER_TOKEN = 4
TYPICAL_ANSWER = 500
"""Tokens, for the estimate of a task that sets no limit."""


def problem_of(task: TextTask, *, hottest: float) -> str | None:
    """Why this can't be asked of a provider that takes temperatures from 0 to `hottest`."""
    if not task.model:
        return "no model is named"
    if task.temperature is not None and not 0 <= task.temperature <= hottest:
        return f"temperature must be between 0 and {hottest:g}, not {task.temperature}"
    if task.max_tokens is not None and task.max_tokens < 1:
        return f"max_tokens must be at least 1, not {task.max_tokens}"
    if not task.prompt.strip():
        return "the prompt is empty"
    return None


def check_text(
    provider: str, task: Task, *, hottest: float, prices: PriceTable, model: str
) -> TextTask:
    """The task, if it is one this provider can answer and price."""
    if not isinstance(task, TextTask):
        raise invalid(provider, "only text is made here")
    problem = problem_of(task, hottest=hottest)
    if problem:
        raise invalid(provider, problem)
    price_of(provider, task, model, prices)
    return task


def price_of(provider: str, task: Task | None, model: str, prices: PriceTable) -> Price:
    """The platform's own price, before the table's."""
    own = task.price if isinstance(task, TextTask | EmbedTask) else None
    return prices.of(provider, model) if own is None else Price.per_token(own)


def expected(task: Task) -> Usage:
    """About what a task will use, for its estimate."""
    if isinstance(task, EmbedTask):
        return Usage(input_tokens=tokens(*task.texts))
    assert isinstance(task, TextTask), "checked before"
    answer = task.max_tokens or TYPICAL_ANSWER
    return Usage(input_tokens=tokens(task.system or "", task.prompt), output_tokens=answer)


def tokens_of(task: Task) -> int:
    """About how many a limit per minute must let through; media aren't counted in tokens."""
    return expected(task).tokens if isinstance(task, TextTask | EmbedTask) else 0


def cost_of_tokens(
    provider: str, task: Task | None, model: str, usage: Usage, prices: PriceTable
) -> Decimal:
    return price_of(provider, task, model, prices).of_tokens(usage)


def unusable(
    provider: str,
    text: object,
    *,
    refusal: str | None = None,
    code: str = "content_filter",
    cut: bool = False,
) -> Failure | None:
    """Why a 200 brings nothing usable, if it doesn't. It is billed all the same.

    `refusal` says why it was refused, `code` in the vendor's own word; `cut`: a limit was reached.
    """
    if refusal is not None:
        return Failure(FailureKind.POLICY, refusal, code, provider, accepted="yes")
    if isinstance(text, str) and text:
        return None
    if cut:
        message = "max_tokens was used up before the answer began"
        return Failure(FailureKind.INVALID, message, "max_tokens", provider, accepted="yes")
    return Failure(
        FailureKind.UNKNOWN, "the answer is empty", "empty_answer", provider, accepted="yes"
    )


def tokens(*texts: str) -> int:
    return sum(-(-len(text.encode()) // CHARACTERS_PER_TOKEN) for text in texts)
