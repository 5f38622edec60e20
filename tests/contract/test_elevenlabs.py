"""ElevenLabs: the official SDK and our adapter read the same things from the sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.contract import FailureKind, MediaTask
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices
from jobs.sandbox import Sandbox
from tests.contract.harness import billed, by_adapter, by_sdk, needs_sdks, provider

pytestmark = needs_sdks
PRICES = load_prices()
MODEL, VOICE, FORMAT = "eleven_flash_v2_5", "voice1", "mp3_22050_32"


async def theirs_of(sandbox: Sandbox, text: str, **settings: Any) -> Any:
    url = f"{sandbox.url}/elevenlabs"
    return await by_sdk(
        "elevenlabs_speech",
        url, model=MODEL, voice=VOICE, format=FORMAT, text=text, settings=settings,
    )  # fmt: skip


def task_of(text: str, **options: Any) -> MediaTask:
    options = {"voice": VOICE, "output_format": FORMAT, **options}
    return MediaTask("audio", text, model=MODEL, options=options)


async def test_a_sound(sandbox: Sandbox) -> None:
    theirs = await theirs_of(sandbox, "A boat at sea.", stability=0.4, speed=1.1)
    asked = provider("elevenlabs", f"{sandbox.url}/elevenlabs/v1")
    task = task_of("A boat at sea.", stability=0.4, speed=1.1)
    ours = await by_adapter(asked, task)
    sound = ours.outputs[0].data
    assert sound is not None
    assert (sound[:3].hex(), len(sound)) == (theirs["start"], theirs["size"])
    assert str(ours.usage.characters) == theirs["characters"]
    assert ours.metadata == {"content_type": theirs["content_type"]}
    assert [charge.external_id for charge in sandbox.bill.charges] == [
        theirs["id"],
        ours.external_id,
    ]
    cost = asked.adapter.cost(MODEL, ours, PRICES, task)
    assert billed(sandbox) == [cost, cost]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("quota", FailureKind.QUOTA),
        ("429", FailureKind.RATE_LIMIT),
        ("policy", FailureKind.POLICY),
        ("auth", FailureKind.AUTH),
    ],
)
async def test_an_error(sandbox: Sandbox, fault: str, kind: FailureKind) -> None:
    # A wait that is too long for the wire to repeat the request itself.
    text = "A boat. [fault:429=99]" if fault == "429" else f"A boat. [fault:{fault}]"
    theirs = await theirs_of(sandbox, text)
    with pytest.raises(ProviderError) as caught:
        await by_adapter(provider("elevenlabs", f"{sandbox.url}/elevenlabs/v1"), task_of(text))
    failure, detail = caught.value.failure, theirs["body"]["detail"]
    assert (failure.kind, failure.code) == (kind, detail["code"])
    assert failure.message == detail["message"]
    assert billed(sandbox) == []


async def test_a_field_that_is_refused(sandbox: Sandbox) -> None:
    theirs = await theirs_of(sandbox, "A boat.", stability=7)
    with pytest.raises(ProviderError) as caught:
        await by_adapter(
            provider("elevenlabs", f"{sandbox.url}/elevenlabs/v1"), task_of("A boat.", stability=7)
        )
    assert theirs["status"] == 422
    assert caught.value.failure.kind is FailureKind.INVALID
    assert theirs["body"]["detail"][0]["msg"] in caught.value.failure.message
