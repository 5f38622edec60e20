"""Gemini: the official SDK and our adapter read the same things from the sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.contract import FailureKind, MediaTask, Task, TextTask
from jobs.providers.adapter import State
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices
from jobs.sandbox import Sandbox
from tests.contract.harness import billed, by_adapter, by_sdk, needs_sdks, provider

pytestmark = needs_sdks
PRICES = load_prices()
WRITER, PAINTER = "gemini-3.8-flash", "gemini-3.1-flash-image"


async def told(sandbox: Sandbox, model: str, prompt: str, **more: Any) -> Any:
    url = f"{sandbox.url}/gemini"  # the SDK adds the version itself
    return await by_sdk("gemini_content", url, model=model, prompt=prompt, **more)


async def asked(sandbox: Sandbox, task: Task, version: str = "v1beta") -> State:
    gemini = provider("gemini", f"{sandbox.url}/gemini/{version}")
    state = await by_adapter(gemini, task)
    model = gemini.adapter.model(task, gemini.account)
    cost = gemini.adapter.cost(model, state, PRICES, task)
    assert billed(sandbox) == [cost, cost]
    assert cost > 0
    return state


def same(ours: State, theirs: Any) -> None:
    assert ours.usage.input_tokens == theirs["input_tokens"]
    assert ours.usage.output_tokens == theirs["output_tokens"]
    assert ours.metadata["image_tokens"] == theirs["image_tokens"]
    assert ours.metadata["model"] == theirs["model"]
    assert ours.metadata["finish_reason"] == (theirs["finish"] or theirs["blocked"])


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_text(sandbox: Sandbox, version: str) -> None:
    task = TextTask(WRITER, "A boat.", "Be brief.", temperature=0.5, max_tokens=2000)
    config = {"system_instruction": "Be brief.", "temperature": 0.5, "max_output_tokens": 2000}
    theirs = await told(sandbox, WRITER, "A boat.", config=config)
    ours = await asked(sandbox, task, version)
    same(ours, theirs)
    assert ours.text == theirs["text"] != ""
    assert theirs["thoughts"] > 0


async def test_an_image_from_an_image(sandbox: Sandbox) -> None:
    shape = {"aspect_ratio": "16:9", "image_size": "2K"}
    config = {"response_modalities": ["IMAGE"], "image_config": shape}
    theirs = await told(sandbox, PAINTER, "A boat.", image="aGk=", config=config)
    task = MediaTask(
        "image",
        "A boat.",
        images=("data:image/png;base64,aGk=",),
        aspect_ratio="16:9",
        resolution="2K",
    )
    ours = await asked(sandbox, task)
    same(ours, theirs)
    # Each file carries its own id, so only their sizes are alike.
    assert [len(output.data or b"") for output in ours.outputs] == theirs["sizes"] != []
    assert theirs["types"] == ["image/png"]


@pytest.mark.parametrize("fault", ["policy", "refusal"])
async def test_refusals(sandbox: Sandbox, fault: str) -> None:
    prompt = f"A boat. [fault:{fault}]"
    theirs = await told(sandbox, WRITER, prompt)
    ours = await asked(sandbox, TextTask(WRITER, prompt))
    same(ours, theirs)
    assert theirs["text"] is None
    assert ours.failure is not None
    assert ours.failure.kind is FailureKind.POLICY
    assert ours.failure.code == (theirs["finish"] or theirs["blocked"])


@pytest.mark.parametrize(
    ("fault", "kind", "name"),
    [
        ("429=9", FailureKind.RATE_LIMIT, "ClientError"),
        ("quota", FailureKind.QUOTA, "ClientError"),
        ("auth", FailureKind.AUTH, "ClientError"),
        ("503", FailureKind.TRANSIENT, "ServerError"),
    ],
)
async def test_errors(sandbox: Sandbox, fault: str, kind: FailureKind, name: str) -> None:
    prompt = f"A boat. [fault:{fault}]"
    theirs = await told(sandbox, WRITER, prompt)
    with pytest.raises(ProviderError) as caught:
        await asked(sandbox, TextTask(WRITER, prompt))
    failure = caught.value.failure
    assert theirs["class"] == name
    assert (failure.kind, failure.code) == (kind, theirs["status"])
    assert failure.message == theirs["message"]
    assert failure.retry_after == {"429=9": 9, "quota": 1}.get(fault)
    assert billed(sandbox) == []
