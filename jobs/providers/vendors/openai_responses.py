"""OpenAI's responses, made in the background: text that may take long. Asynchronous.

The account, its errors and its prices are those of `openai`. Responses can't be listed, so nothing
can be asked about a lost request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from jobs.contract import Failure, FailureKind, Task, TextTask, Usage
from jobs.providers.adapter import Account, Op, Page, Phase, Ref, Request, Response, State
from jobs.providers.checked import checked_id, is_id
from jobs.providers.errors import Garbled, invalid
from jobs.providers.prices import PriceTable
from jobs.providers.texts import cost_of_tokens, expected, price_of, problem_of, unusable
from jobs.providers.vendors.openai import (
    BASE_URL,
    MAX_TEMPERATURE,
    OpenAI,
    classified,
    kind_of,
    request_of,
)

PRICED_AS = OpenAI.name
MIN_TOKENS = 16
PHASES: Mapping[str, Phase] = {
    "queued": "queued",
    "in_progress": "running",
    "completed": "succeeded",
    "incomplete": "succeeded",  # as far as it brought text
    "failed": "failed",
    "cancelled": "cancelled",
}
# Why a response failed; other codes are those of errors.
KIND_BY_CODE: Mapping[str, FailureKind] = {
    "server_error": FailureKind.TRANSIENT,
    "vector_store_timeout": FailureKind.TRANSIENT,
    "invalid_prompt": FailureKind.INVALID,
    "data_residency_mismatch": FailureKind.INVALID,
}
POLICY = re.compile(r"_policy(_violation)?$")


class OpenAIResponses:
    name = "openai_responses"
    base_url = BASE_URL
    poll_seconds = 2.0
    models: Mapping[str, str] = {}

    def model(self, task: Task, _account: Account) -> str:
        if not isinstance(task, TextTask):
            raise invalid(self.name, "only text is made here")
        return task.model

    def check(self, task: Task, account: Account, prices: PriceTable) -> None:
        model = self.model(task, account)
        problem = _problem(_text(task))
        if problem:
            raise invalid(self.name, problem)
        price_of(PRICED_AS, task, model, prices)

    def estimate(self, task: Task, model: str, prices: PriceTable) -> Decimal:
        return cost_of_tokens(PRICED_AS, task, model, expected(task), prices)

    def cost(self, model: str, state: State, prices: PriceTable, task: Task | None) -> Decimal:
        """However it ended: what it says it used. Text without a count is not free."""
        uncounted = bool(state.text) and not state.usage.tokens
        usage = expected(task) if uncounted and task is not None else state.usage
        return cost_of_tokens(PRICED_AS, task, model, usage, prices)

    def submit(self, task: Task, account: Account) -> Request:
        return request_of("POST", "responses", account, _body(_text(task)))

    def ref(self, external_id: str, _model: str) -> Ref | None:
        return {"id": external_id} if is_id(external_id) else None

    def poll(self, ref: Ref, account: Account) -> Request | None:
        return request_of("GET", f"responses/{ref['id']}", account)

    def cancel(self, ref: Ref, account: Account) -> Request | None:
        return request_of("POST", f"responses/{ref['id']}/cancel", account)

    def find(self, _account: Account) -> Request | None:
        return None

    def listed(self, _since: datetime, _response: Response, _account: Account) -> Page:
        return Page()

    def parse(self, _op: Op, response: Response) -> State:
        body = response.object()
        try:
            return _state(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"not a response: {error!r}") from error

    def classify(self, op: Op, response: Response) -> Failure:
        return classified(self.name, op, response)


# --------------------------------------------------------------------------- requests


def _text(task: Task) -> TextTask:
    assert isinstance(task, TextTask), "`model` refuses the others"
    return task


def _problem(task: TextTask) -> str | None:
    if task.max_tokens is not None and task.max_tokens < MIN_TOKENS:
        return f"max_tokens must be at least {MIN_TOKENS}, not {task.max_tokens}"
    return problem_of(task, hottest=MAX_TEMPERATURE)


def _body(task: TextTask) -> dict[str, Any]:
    optional = {
        "instructions": task.system or None,
        "temperature": task.temperature,
        "max_output_tokens": task.max_tokens,
    }
    return {
        "model": task.model,
        "input": task.prompt,
        "background": True,
        **{key: value for key, value in optional.items() if value is not None},
    }


# --------------------------------------------------------------------------- responses


def _state(body: Mapping[str, Any]) -> State:
    status, name = str(body["status"]), checked_id(body["id"])
    phase = PHASES.get(status, "unknown")
    cut = str((body.get("incomplete_details") or {}).get("reason") or "")
    parts = list(_parts(body.get("output")))
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    failure: Failure | None = None
    if phase == "failed":
        failure = _failure(body.get("error") or {})
    elif phase == "succeeded":
        failure = unusable(
            OpenAIResponses.name,
            text,
            refusal=_refusal(parts, cut),
            cut=cut == "max_output_tokens",
        )
    return State(
        phase="failed" if failure else phase,
        ref={"id": name},
        external_id=name,
        text=text if phase == "succeeded" else None,
        usage=_usage(body.get("usage") or {}),
        failure=failure,
        metadata={"status": status, "finish_reason": cut or status, "model": body.get("model")},
    )


def _parts(output: Any) -> Iterator[Mapping[str, Any]]:
    """Of messages only: thoughts and tools leave items of their own."""
    for item in output or ():
        if item["type"] == "message":
            yield from item["content"]


def _refusal(parts: list[Mapping[str, Any]], cut: str) -> str | None:
    said = "".join(part["refusal"] for part in parts if part["type"] == "refusal")
    if cut == "content_filter":
        return said or "the answer was withheld by the content filter"
    return said or None


def _failure(error: Mapping[str, Any]) -> Failure:
    code = str(error.get("code") or "failed")
    kind = FailureKind.POLICY if POLICY.search(code) else KIND_BY_CODE.get(code) or kind_of(code)
    message = str(error.get("message") or "the response failed without a reason")[:500]
    return Failure(kind or FailureKind.UNKNOWN, message, code, OpenAIResponses.name, accepted="yes")


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Thoughts are among the output tokens. While it is under way nothing is told."""
    details = usage.get("input_tokens_details") or {}
    return Usage(
        input_tokens=int(usage.get("input_tokens") or 0),
        output_tokens=int(usage.get("output_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or 0),
    )
