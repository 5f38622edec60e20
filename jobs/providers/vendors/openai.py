"""OpenAI and the many servers that speak its protocol: chat completions, embeddings and images.

All answer at once. What can be polled is in `openai_responses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from jobs.contract import EmbedTask, Failure, FailureKind, MediaTask, Task, TextTask, Usage
from jobs.providers.adapter import Account, Op, Request, Response, State
from jobs.providers.errors import Garbled, invalid
from jobs.providers.failures import error_in, failure_of
from jobs.providers.prices import PriceTable
from jobs.providers.texts import expected, price_of, problem_of, unusable
from jobs.providers.vendors import openai_images as images
from jobs.providers.vendors.synchronous import Synchronous

MAX_TEMPERATURE = 2
MAX_TEXTS = 2048

KIND_BY_CODE: Mapping[str, FailureKind] = {
    "insufficient_quota": FailureKind.QUOTA,
    "credit_balance_exhausted": FailureKind.QUOTA,
    "organization_usage_limit_exceeded": FailureKind.QUOTA,
    "billing_hard_limit_reached": FailureKind.QUOTA,
    "billing_not_active": FailureKind.QUOTA,
    "invalid_api_key": FailureKind.AUTH,
    "account_deactivated": FailureKind.AUTH,
    "rate_limit_exceeded": FailureKind.RATE_LIMIT,
    "slow_down": FailureKind.RATE_LIMIT,
    "content_filter": FailureKind.POLICY,
    "content_policy_violation": FailureKind.POLICY,
    "moderation_blocked": FailureKind.POLICY,
    "context_length_exceeded": FailureKind.INVALID,
    "model_not_found": FailureKind.INVALID,
}
SPEND_LIMIT = "_spend_limit_exceeded"
BASE_URL = "https://api.openai.com/v1"


class OpenAI(Synchronous):
    name = "openai"
    base_url = BASE_URL
    models: Mapping[str, str] = {"image": "gpt-image-2"}

    def model(self, task: Task, account: Account) -> str:
        if not isinstance(task, MediaTask):
            return task.model
        if task.medium != "image":
            raise invalid(self.name, f"cannot make {task.medium}: only text, embeddings and images")
        model = task.model or account.models.get("image")
        if not model:
            raise invalid(self.name, "no model is named, and none is configured for image")
        return model

    def check(self, task: Task, account: Account, prices: PriceTable) -> None:
        model = self.model(task, account)
        problem = _problem(task, model)
        if problem:
            raise invalid(self.name, problem)
        price_of(self.name, task, model, prices)

    def estimate(self, task: Task, model: str, prices: PriceTable) -> Decimal:
        usage = images.expected(task) if isinstance(task, MediaTask) else expected(task)
        return self._cost_of(usage, model, prices, task)

    def cost(self, model: str, state: State, prices: PriceTable, task: Task | None) -> Decimal:
        """Servers of others may count no tokens for an image: then those of the estimate."""
        usage = state.usage
        if isinstance(task, MediaTask) and not usage.tokens:
            usage = replace(images.expected(task), items=usage.items)
        return self._cost_of(usage, model, prices, task)

    def _cost_of(self, usage: Usage, model: str, prices: PriceTable, task: Task | None) -> Decimal:
        price = price_of(self.name, task, model, prices)
        return price.of_tokens(usage) + price.item * usage.items

    def submit(self, task: Task, account: Account) -> Request:
        path, body = _asked(task, self.model(task, account))
        return request_of("POST", path, account, body)

    def parse(self, _op: Op, response: Response) -> State:
        body = response.object()
        try:
            if images.are_in(body):
                return images.state_of(body, response)
            return _completion(body) if "choices" in body else _vectors(body)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"not a completion, embeddings or images: {error!r}") from error

    def classify(self, op: Op, response: Response) -> Failure:
        return classified(self.name, op, response)


# --------------------------------------------------------------------------- both protocols


def request_of(method: str, path: str, account: Account, body: Any = None) -> Request:
    headers = account.over({"Authorization": f"Bearer {account.api_key}"})
    return Request(method, f"{account.base_url}/{path}", headers, body)


def classified(provider: str, op: Op, response: Response) -> Failure:
    error = error_in(response)
    names = [str(error.get(field) or "") for field in ("code", "type")]
    kinds = (kind_of(name) for name in names)
    return failure_of(
        op,
        response,
        provider=provider,
        kind=next((kind for kind in kinds if kind), None),
        code=names[0] or names[1],
        message=str(error.get("message") or ""),
    )


def kind_of(code: str) -> FailureKind | None:
    return FailureKind.QUOTA if code.endswith(SPEND_LIMIT) else KIND_BY_CODE.get(code)


# --------------------------------------------------------------------------- requests


def _problem(task: Task, model: str) -> str | None:
    match task:
        case MediaTask():
            return images.problem_of(task, model)
        case TextTask():
            return problem_of(task, hottest=MAX_TEMPERATURE)
        case EmbedTask(model=""):
            return "no model is named"
        case EmbedTask(texts=texts) if not 1 <= len(texts) <= MAX_TEXTS:
            return f"between 1 and {MAX_TEXTS} texts can be embedded at once, not {len(texts)}"
        case EmbedTask(texts=texts) if not all(text.strip() for text in texts):
            return "a text to embed is empty"
    return None


def _asked(task: Task, model: str) -> tuple[str, dict[str, Any]]:
    match task:
        case MediaTask():
            return "images/generations", images.request_of(task, model)
        case TextTask():
            return _chat(task)
        case EmbedTask():
            return _embeddings(task)


def _chat(task: TextTask) -> tuple[str, dict[str, Any]]:
    system = [{"role": "system", "content": task.system}] if task.system else []
    optional = {"temperature": task.temperature, "max_completion_tokens": task.max_tokens}
    return "chat/completions", {
        "model": task.model,
        "messages": [*system, {"role": "user", "content": task.prompt}],
        **{key: value for key, value in optional.items() if value is not None},
    }


def _embeddings(task: EmbedTask) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"model": task.model, "input": list(task.texts)}
    return "embeddings", body | ({"dimensions": task.dimensions} if task.dimensions else {})


# --------------------------------------------------------------------------- responses


def _completion(body: Mapping[str, Any]) -> State:
    choice = body["choices"][0]
    message, finish = choice["message"], choice.get("finish_reason")
    text = message.get("content")
    refusal = message.get("refusal")
    if not refusal and finish == "content_filter":
        refusal = "the answer was withheld by the content filter"
    said = str(refusal) if refusal else None
    failure = unusable(OpenAI.name, text, refusal=said, cut=finish == "length")
    return State(
        phase="failed" if failure else "succeeded",
        external_id=str(body["id"]),
        text=text,
        usage=_usage(body["usage"]),
        failure=failure,
        metadata={"finish_reason": finish, "model": body.get("model")},
    )


def _vectors(body: Mapping[str, Any]) -> State:
    items = sorted(body["data"], key=lambda item: int(item["index"]))
    if [item["index"] for item in items] != list(range(len(items))):
        raise ValueError("vectors are missing")
    vectors: Sequence[Sequence[float]] = tuple(
        tuple(float(number) for number in item["embedding"]) for item in items
    )
    return State(
        phase="succeeded",
        vectors=vectors,
        usage=_usage(body["usage"]),
        metadata={"model": body.get("model")},
    )


def _usage(usage: Mapping[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        input_tokens=int(usage["prompt_tokens"]),
        output_tokens=int(usage.get("completion_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or 0),
    )
