"""OpenAI: the official SDK and our adapter read the same things from the sandbox."""

from __future__ import annotations

import pytest

from jobs.contract import FailureKind, TextTask
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices
from jobs.sandbox import Sandbox
from tests.contract.harness import billed, by_adapter, by_sdk, needs_sdks, provider

pytestmark = needs_sdks
PRICES = load_prices()


async def test_a_chat_completion(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/openai/v1"
    theirs = await by_sdk("openai_chat", url, model="gpt-4o-mini", prompt="A boat.")
    openai, task = provider("openai", url), TextTask("gpt-4o-mini", "A boat.")
    ours = await by_adapter(openai, task)
    assert ours.text == theirs["text"]
    assert ours.usage.input_tokens == theirs["input_tokens"]
    assert ours.usage.output_tokens == theirs["output_tokens"]
    assert ours.metadata == {"finish_reason": theirs["finish_reason"], "model": theirs["model"]}
    cost = openai.adapter.cost("gpt-4o-mini", ours, PRICES, task)
    assert billed(sandbox) == [cost, cost]


async def test_an_answer_in_words_of_refusal(sandbox: Sandbox) -> None:
    url, prompt = f"{sandbox.url}/openai/v1", "A boat. [fault:refusal]"
    theirs = await by_sdk("openai_chat", url, model="gpt-4o-mini", prompt=prompt)
    ours = await by_adapter(provider("openai", url), TextTask("gpt-4o-mini", prompt))
    assert ours.failure is not None
    assert (ours.failure.kind, ours.failure.message) == (FailureKind.POLICY, theirs["refusal"])


async def test_an_error(sandbox: Sandbox) -> None:
    url, prompt = f"{sandbox.url}/openai/v1", "A boat. [fault:quota]"
    theirs = await by_sdk("openai_chat", url, model="gpt-4o-mini", prompt=prompt)
    with pytest.raises(ProviderError) as caught:
        await by_adapter(provider("openai", url), TextTask("gpt-4o-mini", prompt))
    failure = caught.value.failure
    assert (failure.kind, failure.code) == (FailureKind.QUOTA, theirs["code"])
    assert failure.message in theirs["message"]
