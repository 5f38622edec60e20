"""OpenAI's background responses: the official SDK and our adapter read the same things."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.contract import FailureKind, TextTask
from jobs.providers.adapter import State
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices
from jobs.sandbox import Sandbox
from tests.contract.harness import billed, by_adapter, by_sdk, needs_sdks, provider, wire

pytestmark = needs_sdks
PRICES = load_prices()
WRITER, THINKER = "gpt-4o-mini", "gpt-5-mini"


async def told(sandbox: Sandbox, task: TextTask, *, polls: int = 2, cancel: bool = False) -> Any:
    return await by_sdk(
        "openai_responses",
        f"{sandbox.url}/openai/v1",
        model=task.model,
        prompt=task.prompt,
        system=task.system,
        polls=polls,
        cancel=cancel,
    )


async def asked(sandbox: Sandbox, task: TextTask) -> State:
    return await by_adapter(provider("openai_responses", f"{sandbox.url}/openai/v1"), task)


def same(sandbox: Sandbox, task: TextTask, ours: State, theirs: Any) -> None:
    assert ours.metadata["status"] == theirs["statuses"][-1]
    assert ours.metadata["model"] == theirs["model"]
    assert ours.usage.input_tokens == theirs["input_tokens"]
    assert ours.usage.cached_tokens == theirs["cached_tokens"]
    assert ours.usage.output_tokens == theirs["output_tokens"]
    adapter = provider("openai_responses", sandbox.url).adapter
    cost = adapter.cost(task.model, ours, PRICES, task)
    assert billed(sandbox) == [cost, cost]


@pytest.mark.parametrize(
    ("model", "items"), [(WRITER, ["message"]), (THINKER, ["reasoning", "message"])]
)
async def test_text(sandbox: Sandbox, model: str, items: list[str]) -> None:
    task = TextTask(model, "A boat.", "Be brief.")
    theirs = await told(sandbox, task)
    assert theirs["statuses"] == ["queued", "in_progress", "completed"]
    assert theirs["items"] == items
    assert (theirs["reasoning_tokens"] > 0) is (model == THINKER)
    ours = await asked(sandbox, task)
    same(sandbox, task, ours, theirs)
    assert ours.text == theirs["text"] != ""


async def test_a_refusal(sandbox: Sandbox) -> None:
    task = TextTask(WRITER, "A boat. [fault:refusal]", "Be brief.")
    theirs = await told(sandbox, task)
    ours = await asked(sandbox, task)
    same(sandbox, task, ours, theirs)
    assert ours.failure is not None
    assert (ours.failure.kind, ours.failure.message) == (FailureKind.POLICY, theirs["refusal"])


async def test_what_the_filter_withheld(sandbox: Sandbox) -> None:
    task = TextTask(WRITER, "A boat. [fault:policy]", "Be brief.")
    theirs = await told(sandbox, task)
    ours = await asked(sandbox, task)
    same(sandbox, task, ours, theirs)
    assert ours.failure is not None
    assert ours.failure.kind is FailureKind.POLICY
    assert ours.failure.code == ours.metadata["finish_reason"] == theirs["reason"]


async def test_a_failure_costs_nothing(sandbox: Sandbox) -> None:
    task = TextTask(WRITER, "A boat. [fault:fail]", "Be brief.")
    theirs = await told(sandbox, task)
    ours = await asked(sandbox, task)
    same(sandbox, task, ours, theirs)
    assert billed(sandbox) == [0, 0]
    assert ours.failure is not None
    assert ours.failure.kind is FailureKind.TRANSIENT
    assert theirs["error"] == {"code": ours.failure.code, "message": ours.failure.message}


@pytest.mark.parametrize("polls", [0, 1])
async def test_cancelling(sandbox: Sandbox, polls: int) -> None:
    task = TextTask(WRITER, "A boat.", "Be brief.")
    theirs = await told(sandbox, task, polls=polls, cancel=True)
    openai = provider("openai_responses", f"{sandbox.url}/openai/v1")
    async with wire() as ours:
        request = openai.adapter.submit(task, openai.account)
        state = await ours.pay(openai, request, lambda: None)
        assert state.ref is not None
        for _ in range(polls):
            await ours.poll(openai, state.ref)
        stop = openai.adapter.cancel(state.ref, openai.account)
        assert stop is not None
        state = openai.adapter.parse("cancel", await ours.ask(openai, stop, "cancel"))
    assert (state.phase, theirs["statuses"][-1]) == ("cancelled", "cancelled")
    same(sandbox, task, state, theirs)
    assert (billed(sandbox)[0] > 0) is (polls == 1)


async def test_an_error(sandbox: Sandbox) -> None:
    task = TextTask(WRITER, "A boat. [fault:quota]", "Be brief.")
    theirs = await told(sandbox, task)
    with pytest.raises(ProviderError) as caught:
        await asked(sandbox, task)
    failure = caught.value.failure
    assert (failure.kind, failure.code) == (FailureKind.QUOTA, theirs["code"])
    assert failure.message in theirs["message"]
    assert billed(sandbox) == []
