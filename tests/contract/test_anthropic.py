"""Anthropic: the official SDK and our adapter read the same things from the sandbox.

The SDK speaks the newer version of the protocol, the adapter each of the two.
"""

from __future__ import annotations

from typing import Any

import pytest

from jobs.contract import FailureKind, TextTask
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices
from jobs.sandbox import Sandbox
from tests.contract.harness import billed, by_adapter, by_sdk, needs_sdks, provider

pytestmark = needs_sdks
PRICES = load_prices()
TASK = TextTask("claude-haiku-4-5", "A boat.", system="Be brief.", max_tokens=2000)


async def told(sandbox: Sandbox, task: TextTask) -> Any:
    return await by_sdk(
        "anthropic_messages",
        f"{sandbox.url}/anthropic",  # the SDK adds the version itself
        model=task.model,
        prompt=task.prompt,
        system=task.system,
        max_tokens=task.max_tokens,
    )


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
async def test_a_message(sandbox: Sandbox, version: str) -> None:
    theirs = await told(sandbox, TASK)
    headers = {"anthropic-version": version}
    anthropic = provider("anthropic", f"{sandbox.url}/anthropic/v1", headers=headers)
    ours = await by_adapter(anthropic, TASK)
    assert ours.text == theirs["text"] != ""
    assert ours.usage.input_tokens == theirs["input_tokens"]
    assert ours.usage.output_tokens == theirs["output_tokens"]
    assert ours.metadata == {"finish_reason": theirs["stop_reason"], "model": theirs["model"]}
    cost = anthropic.adapter.cost(TASK.model, ours, PRICES, TASK)
    assert billed(sandbox) == [cost, cost]
    assert cost <= anthropic.adapter.estimate(TASK, TASK.model, PRICES)


async def test_a_refusal(sandbox: Sandbox) -> None:
    task = TextTask(TASK.model, "A boat. [fault:refusal]", "Be brief.", max_tokens=2000)
    theirs = await told(sandbox, task)
    anthropic = provider("anthropic", f"{sandbox.url}/anthropic/v1")
    ours = await by_adapter(anthropic, task)
    assert (theirs["stop_reason"], theirs["category"]) == ("refusal", None)
    assert ours.failure is not None
    assert (ours.failure.kind, ours.failure.message) == (FailureKind.POLICY, theirs["explanation"])
    cost = anthropic.adapter.cost(TASK.model, ours, PRICES, task)
    assert billed(sandbox) == [cost, cost]


@pytest.mark.parametrize(
    ("fault", "kind", "name"),
    [
        ("quota", FailureKind.QUOTA, "PaymentRequiredError"),
        ("529", FailureKind.TRANSIENT, "OverloadedError"),
        ("auth", FailureKind.AUTH, "AuthenticationError"),
    ],
)
async def test_errors(sandbox: Sandbox, fault: str, kind: FailureKind, name: str) -> None:
    task = TextTask(TASK.model, f"A boat. [fault:{fault}]", "Be brief.", max_tokens=2000)
    theirs = await told(sandbox, task)
    with pytest.raises(ProviderError) as caught:
        await by_adapter(provider("anthropic", f"{sandbox.url}/anthropic/v1"), task)
    failure = caught.value.failure
    assert theirs["class"] == name
    assert (failure.kind, failure.code) == (kind, theirs["type"])
    assert failure.message == theirs["message"]
    assert theirs["request_id"].startswith("req_")
    assert billed(sandbox) == []
