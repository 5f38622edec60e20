"""OpenAI's images: the official SDK and our adapter read the same things from the sandbox."""

from __future__ import annotations

import pytest

from jobs.contract import FailureKind, MediaTask
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices
from jobs.sandbox import Sandbox
from tests.contract.harness import billed, by_adapter, by_sdk, needs_sdks, provider

pytestmark = needs_sdks
PRICES = load_prices()


async def test_pictures(sandbox: Sandbox) -> None:
    url, options = f"{sandbox.url}/openai/v1", {"quality": "medium", "n": 2}
    asked = {"model": "gpt-image-2", "prompt": "A boat.", "size": "1536x864", **options}
    theirs = await by_sdk("openai_images", url, asked=asked)
    openai = provider("openai", url)
    task = MediaTask("image", "A boat.", "gpt-image-2", aspect_ratio="16:9", options=options)
    ours = await by_adapter(openai, task)
    assert [len(output.data or b"") for output in ours.outputs] == theirs["sizes"]
    assert ours.usage.input_tokens == theirs["input_tokens"]
    assert ours.usage.output_tokens == theirs["output_tokens"] == theirs["image_tokens"]
    assert ours.metadata == {name: theirs[name] for name in ("size", "quality", "output_format")}
    ids = [charge.external_id for charge in sandbox.bill.charges]
    assert ids == [theirs["id"], ours.external_id]
    cost = openai.adapter.cost("gpt-image-2", ours, PRICES, task)
    assert billed(sandbox) == [cost, cost]


@pytest.mark.parametrize(
    ("fault", "kind"), [("policy", FailureKind.POLICY), ("quota", FailureKind.QUOTA)]
)
async def test_an_error(sandbox: Sandbox, fault: str, kind: FailureKind) -> None:
    url, prompt = f"{sandbox.url}/openai/v1", f"A boat. [fault:{fault}]"
    asked = {"model": "gpt-image-2", "prompt": prompt}
    theirs = await by_sdk("openai_images", url, asked=asked)
    with pytest.raises(ProviderError) as caught:
        await by_adapter(provider("openai", url), MediaTask("image", prompt))
    failure = caught.value.failure
    assert (failure.kind, failure.code) == (kind, theirs["code"])
    assert failure.message in theirs["message"]
    assert billed(sandbox) == []
