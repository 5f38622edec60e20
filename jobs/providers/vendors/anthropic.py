"""Anthropic: messages. They answer at once.

Two versions of the protocol are about. `2023-06-01`, which is sent unless the account's headers
name another, takes a temperature (newer models answer 400 to one all the same); since `2026-10-21`
the field is gone. The answers are alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from jobs.contract import Failure, FailureKind, Task, TextTask, Usage
from jobs.providers.adapter import Account, Op, Request, Response, State
from jobs.providers.errors import Garbled, invalid
from jobs.providers.failures import error_in, failure_of
from jobs.providers.prices import PriceTable
from jobs.providers.texts import check_text, cost_of_tokens, expected, unusable
from jobs.providers.vendors.synchronous import Synchronous

VERSION = "2023-06-01"
NO_TEMPERATURE = "2026-10-21"
"""From this version on."""
MAX_TEMPERATURE = 1
MAX_TOKENS = 8192
"""For a task that sets no limit: the vendor wants one. Newer models think within it, too."""

KIND_BY_CODE: Mapping[str, FailureKind] = {
    "authentication_error": FailureKind.AUTH,
    "permission_error": FailureKind.AUTH,
    "organization_on_hold": FailureKind.AUTH,
    "billing_error": FailureKind.QUOTA,
    "linked_organization_billing_unavailable": FailureKind.QUOTA,
    "rate_limit_error": FailureKind.RATE_LIMIT,
    "overloaded_error": FailureKind.TRANSIENT,
    "api_error": FailureKind.TRANSIENT,
    "timeout_error": FailureKind.TRANSIENT,
    "request_too_large": FailureKind.INVALID,
}
SPEND_LIMIT = "_spend_limit_reached"
# A customer's own spending cap, and used-up credit, are an ordinary 400 without a code.
NO_MONEY = re.compile(r"(?i)specified (?:\w+ )?API usage limits|credit balance is too low")
CUT = ("max_tokens", "model_context_window_exceeded")


class Anthropic(Synchronous):
    name = "anthropic"
    base_url = "https://api.anthropic.com/v1"

    def model(self, task: Task, _account: Account) -> str:
        if not isinstance(task, TextTask):
            raise invalid(self.name, "only text is made here")
        return task.model

    def check(self, task: Task, account: Account, prices: PriceTable) -> None:
        model = self.model(task, account)
        text = check_text(self.name, task, hottest=MAX_TEMPERATURE, prices=prices, model=model)
        version = _headers(account)["anthropic-version"]
        if text.temperature is not None and version >= NO_TEMPERATURE:
            raise invalid(self.name, f"version {version} of the API takes no temperature")

    def estimate(self, task: Task, model: str, prices: PriceTable) -> Decimal:
        """As if the whole limit were used, also the one set here for a task that sets none."""
        text = _text(task)
        usage = expected(replace(text, max_tokens=_limit(text)))
        return cost_of_tokens(self.name, task, model, usage, prices)

    def cost(self, model: str, state: State, prices: PriceTable, task: Task | None) -> Decimal:
        return cost_of_tokens(self.name, task, model, state.usage, prices)

    def submit(self, task: Task, account: Account) -> Request:
        body = _message(_text(task))
        return Request("POST", f"{account.base_url}/messages", _headers(account), body)

    def parse(self, _op: Op, response: Response) -> State:
        body = response.object()
        try:
            return _state(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"not a message: {error!r}") from error

    def classify(self, op: Op, response: Response) -> Failure:
        error = error_in(response)
        details = error.get("details")
        cause = details.get("error_code") if isinstance(details, dict) else None
        names = [str(cause or ""), str(error.get("type") or "")]
        message = str(error.get("message") or "")
        kinds = (_kind(name) for name in names)
        kind = FailureKind.QUOTA if NO_MONEY.search(message) else None
        return failure_of(
            op,
            response,
            provider=self.name,
            kind=kind or next((kind for kind in kinds if kind), None),
            code=names[0] or names[1],
            message=message,
        )


# --------------------------------------------------------------------------- requests


def _text(task: Task) -> TextTask:
    assert isinstance(task, TextTask), "`model` refuses the others"
    return task


def _headers(account: Account) -> dict[str, str]:
    """With the version's name in lower case, so that it can be looked up."""
    headers = account.over({"x-api-key": account.api_key, "anthropic-version": VERSION})
    return {
        name.lower() if name.lower() == "anthropic-version" else name: value
        for name, value in headers.items()
    }


def _limit(task: TextTask) -> int:
    return task.max_tokens or MAX_TOKENS


def _message(task: TextTask) -> dict[str, Any]:
    optional = {"system": task.system or None, "temperature": task.temperature}
    return {
        "model": task.model,
        "max_tokens": _limit(task),
        "messages": [{"role": "user", "content": task.prompt}],
        **{key: value for key, value in optional.items() if value is not None},
    }


# --------------------------------------------------------------------------- responses


def _state(body: Mapping[str, Any]) -> State:
    """A model that thinks, or uses tools, puts blocks of other kinds between the text."""
    text = "".join(block["text"] for block in body["content"] if block["type"] == "text")
    stop = body.get("stop_reason")
    details = body.get("stop_details") or {}
    refused = stop == "refusal"
    failure = unusable(
        Anthropic.name,
        text,
        refusal=str(details.get("explanation") or "the answer was refused") if refused else None,
        code=str(details.get("category") or "refusal"),
        cut=stop in CUT,
    )
    return State(
        phase="failed" if failure else "succeeded",
        external_id=str(body["id"]),
        text=text,
        usage=_usage(body["usage"]),
        failure=failure,
        metadata={"finish_reason": stop, "model": body.get("model")},
    )


def _usage(usage: Mapping[str, Any]) -> Usage:
    """`input_tokens` are only those that have nothing to do with the cache."""
    read = int(usage.get("cache_read_input_tokens") or 0)
    written = int(usage.get("cache_creation_input_tokens") or 0)
    return Usage(
        input_tokens=int(usage["input_tokens"]) + written + read,
        output_tokens=int(usage["output_tokens"]),
        cached_tokens=read,
    )


def _kind(code: str) -> FailureKind | None:
    return FailureKind.QUOTA if code.endswith(SPEND_LIMIT) else KIND_BY_CODE.get(code)
