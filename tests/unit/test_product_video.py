"""Product videos: who makes them, of what, within which plan; nothing is paid in vain."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import product_video
from jobs.contract import (
    CallResult,
    Failed,
    Failure,
    FailureKind,
    JobEnds,
    MediaTask,
    Outcome,
    Output,
    Succeeded,
    Task,
)
from jobs.providers.adapter import Account
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices
from jobs.providers.registry import ADAPTERS
from tests.unit.test_handlers import Recorder, job
from tests.unit.test_handlers import run as run_handler

KIND = "background:generate_video"
VIDEO_ID = "f6000000-0000-4000-8000-000000000001"
STILL = Output(
    "main", "v/1/0.png", "https://cdn/still.png", "image/png", "image", 9, "aa", "0.png", 9, 16
)
FILM = Output(
    "main", "v/2/0.mp4", "https://cdn/0.mp4", "video/mp4", "video", 99, "bb", "0.mp4", 9, 16, 5.2
)  # fmt: skip


def made(step: str, task: Task) -> CallResult:
    assert isinstance(task, MediaTask)
    still = step == "image"
    outputs = (STILL,) if still else (FILM,)
    return CallResult("freepik", "m", f"t-{step}", Decimal(10 if still else 45), outputs=outputs)


@dataclass
class Worker(Recorder):
    """Checks tasks by the real adapters, and lends files of a folder."""

    folder: Path | None = None
    checked: list[str] = field(default_factory=list)

    def check(self, provider: str, task: Task) -> None:
        adapter = ADAPTERS[provider]
        account = Account("main", adapter.base_url, "key", dict(adapter.models))
        adapter.check(task, account, load_prices())
        self.checked.append(provider)

    @asynccontextmanager
    async def file(self, reference: str) -> AsyncIterator[Path]:
        assert self.folder is not None
        yield self.folder / reference.rpartition("/")[2]


VIDEO: dict[str, Any] = {
    "id": VIDEO_ID,
    "title": "Lamp",
    "description": None,
    "text_prompt": "A lamp at dusk",
    "input_type": "Text",
    "resolution": "1080x1920",
    "aspect_ratio": "9:16",
    "duration_seconds": 5,
    "style": None,
    "image_url": None,
    "ai_provider": None,
}
STUDIO: dict[str, Any] = {
    "name": "Studio",
    "max_video_duration": 60,
    "max_resolution": "4k",
    "ai_providers": ["Freepik", "RunwayML", "StabilityAI"],
    "features": ["Premium Templates"],
}
STARTER = STUDIO | {"name": "Starter", "ai_providers": ["Freepik"], "max_video_duration": 10}
STARTER |= {"max_resolution": "1080p", "features": []}
PRODUCT = {"name": "Reading Lamp", "brand": "Nordlys", "price": 49.9, "scraping_status": "Success"}


def given(plan: dict[str, Any] | None = STUDIO, **more: Any) -> dict[str, Any]:
    video = VIDEO | more.pop("video", {})
    base = {"payload": {"videoId": VIDEO_ID}, "preferences": {}, "video": video, "plan": plan}
    return base | more


async def outcome(ctx: Worker, entry: dict[str, Any]) -> Outcome:
    return await run_handler(ctx, job(KIND, entry))


async def steps(entry: dict[str, Any], **more: Any) -> list[tuple[str, str]]:
    ctx = Worker(made, **more)
    done = await outcome(ctx, entry)
    assert isinstance(done, Succeeded), done
    return [(step, provider) for step, provider, _ in ctx.calls]


async def refusal(entry: dict[str, Any]) -> str:
    """Nothing is paid by it."""
    ctx = Worker(made)
    try:
        done = await outcome(ctx, entry)
    except ProviderError as error:
        message = error.failure.message
    else:
        assert isinstance(done, Failed), done
        message = done.failure.message
    assert ctx.calls == []
    return message


# --------------------------------------------------------------------------- stages


async def test_words_become_a_picture_and_the_picture_a_video() -> None:
    ctx = Worker(made)
    done = await outcome(ctx, given())
    assert isinstance(done, Succeeded)
    (image, video) = [task for _, _, task in ctx.calls if isinstance(task, MediaTask)]
    assert (image.medium, image.images, image.duration_seconds) == ("image", (), None)
    assert (video.medium, video.images, video.duration_seconds) == ("video", (STILL.url,), 5)
    assert (video.prompt, video.aspect_ratio) == ("A lamp at dusk", "9:16")
    assert (done.outputs, done.cost_cents, done.external_id) == ((FILM,), Decimal(55), "t-video")
    assert done.data == {"video_id": VIDEO_ID, "ai_provider": "Freepik", "image_url": STILL.url}
    assert ctx.percents == sorted(set(ctx.percents))


async def test_a_crash_between_the_stages_pays_for_neither_twice() -> None:
    ctx = Worker(made)
    first = await outcome(ctx, given())
    again = await outcome(ctx, given())
    assert first == again
    assert [step for step, _, _ in ctx.calls] == ["image", "video"]


async def test_nothing_is_bought_for_a_video_that_another_job_completed() -> None:
    late = given(made_by={"image": "freepik"}, overtaken=True)
    assert "another job has completed this video" in await refusal(late)


async def test_a_given_picture_needs_no_image_stage() -> None:
    entry = given(video={"input_type": "Image", "image_url": "https://shop.example.com/lamp.jpg"})
    assert await steps(entry) == [("video", "freepik")]


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        ({"main_image_url": "https://shop.example.com/a.jpg"}, ["video"]),
        ({"images": [{"url": "https://x/1.jpg"}, {"url": "https://x/2.jpg", "is_primary": True}]},
         ["video"]),
        ({}, ["image", "video"]),
    ],
)  # fmt: skip
async def test_a_known_products_picture_is_taken_if_it_has_one(
    product: dict[str, Any], expected: list[str]
) -> None:
    entry = given(video={"input_type": "Url"}, product=PRODUCT | product)
    assert [step for step, _ in await steps(entry)] == expected


async def test_a_page_that_nobody_read_is_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scraped(_ctx: Any, url: str, _rule: Any) -> dict[str, Any]:
        return {"name": "Chair", "main_image_url": f"{url}/chair.jpg"}

    monkeypatch.setattr(product_video, "_scraped", scraped)
    entry = given(
        video={"input_type": "Url"},
        payload={"VideoId": VIDEO_ID, "ProductUrl": "https://shop.example.com/chair"},
    )
    ctx = Worker(made)
    done = await outcome(ctx, entry)
    assert isinstance(done, Succeeded)
    assert done.data["product"]["name"] == "Chair"
    ((step, _, task),) = ctx.calls
    assert isinstance(task, MediaTask)
    assert (step, task.images) == ("video", ("https://shop.example.com/chair/chair.jpg",))


async def test_a_page_whose_rule_is_not_active_fails_its_video_before_anything_is_paid() -> None:
    rule = {
        "domain": "shop.example.com",
        "platform": "Shopify",
        "selectors": {},
        "is_active": False,
    }
    payload = {"VideoId": VIDEO_ID, "ProductUrl": "https://shop.example.com/chair"}
    ctx = Worker(made)
    with pytest.raises(JobEnds, match=r"rule of shop\.example\.com is not active"):
        await outcome(ctx, given(video={"input_type": "Url"}, payload=payload, rule=rule))
    assert ctx.calls == []


async def test_a_picture_in_our_own_storage_goes_inside_the_request(tmp_path: Path) -> None:
    Image.new("RGB", (9, 16), "red").save(tmp_path / "0.png")

    def local(step: str, task: Task) -> CallResult:
        result = made(step, task)
        if step == "video":
            return result
        still = Output("main", STILL.key, "file:///v/1/0.png", *_rest(STILL))
        return CallResult("freepik", "m", "t", Decimal(10), outputs=(still,))

    ctx = Worker(local, folder=tmp_path)
    assert isinstance(await outcome(ctx, given()), Succeeded)
    task = ctx.calls[1][2]
    assert isinstance(task, MediaTask)
    prefix, _, data = task.images[0].partition(",")
    assert prefix == "data:image/png;base64"
    assert base64.b64decode(data) == (tmp_path / "0.png").read_bytes()


def _rest(output: Output) -> tuple[Any, ...]:
    return (output.mime_type, output.file_type, output.size, output.sha256, output.filename, 9, 16)


def test_a_picture_too_large_for_a_request_is_made_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_video, "MAX_INLINE", 1000)
    Image.effect_noise((4000, 100), 90).save(tmp_path / "0.png")
    data = product_video.inline(tmp_path / "0.png", "image/png")
    assert data.startswith("data:image/jpeg;base64,")


# --------------------------------------------------------------------------- providers


@pytest.mark.parametrize(
    ("chosen", "preferred", "plan", "expected"),
    [
        (None, None, STUDIO, ["freepik", "freepik"]),
        (None, "RunwayML", STUDIO, ["runway", "runway"]),
        (None, "RunwayML", STARTER, ["freepik", "freepik"]),
        ("RunwayML", "Freepik", STUDIO, ["runway", "runway"]),
        ("runway", None, STUDIO, ["runway", "runway"]),
        ("StabilityAI", None, STUDIO, ["stability", "freepik"]),
        (None, "StabilityAI", STUDIO, ["stability", "freepik"]),
        (None, "Sora", STUDIO | {"ai_providers": ["Sora", "RunwayML"]}, ["runway", "runway"]),
        ("RunwayML", None, None, ["runway", "runway"]),
        (None, None, STUDIO | {"ai_providers": None}, ["freepik", "freepik"]),
    ],
)
async def test_who_makes_it(
    chosen: str | None, preferred: str | None, plan: dict[str, Any] | None, expected: list[str]
) -> None:
    entry = given(
        plan,
        video={"ai_provider": chosen},
        preferences={"preferred_ai_provider": preferred},
    )
    assert [provider for _, provider in await steps(entry)] == expected


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (given(STARTER, video={"ai_provider": "RunwayML"}),
         "ai_provider: the plan 'Starter' has no RunwayML; it has Freepik"),
        (given(video={"ai_provider": "Sora"}), "ai_provider: 'Sora' isn't known"),
        (given(STUDIO | {"ai_providers": []}), "ai_provider: the plan 'Studio' has no provider"),
        (given(STUDIO | {"ai_providers": ["StabilityAI"]}),
         "ai_provider: none of the plan's providers (StabilityAI) makes videos"),
        (given(STARTER, video={"duration_seconds": 20}),
         "duration_seconds: the plan 'Starter' allows at most 10 seconds, not 20"),
        (given(None, video={"duration_seconds": 16}),
         "duration_seconds: without a subscription there are at most 15"),
        (given(STARTER, video={"resolution": "2160x3840"}),
         "resolution: the plan 'Starter' allows at most 1080p, not 2160x3840"),
        (given(None, video={"resolution": "4K"}), "resolution: without a subscription"),
        (given(video={"resolution": "crisp"}), "resolution: 'crisp' is neither"),
        (given(video={"duration_seconds": 7}), "the duration of kling-v2-1-pro can be 5, 10"),
        (given(video={"aspect_ratio": "wide"}), "the aspect ratio must be like 16:9"),
        (given(video={"input_type": "Image"}), "image_url: a video of input type Image needs one"),
        (given(video={"input_type": "Sound"}), "input_type: 'Sound' is none of"),
        (given(video={"input_type": "Url"}), "payload.url: a video of input type Url needs one"),
        (given(video={"text_prompt": " ", "title": ""}), "text_prompt: there is nothing"),
        (given(payload=[1], video={}) | {"video": None}, "job_data: has to be an object"),
        (given() | {"video": None}, f"payload.video_id: no video {VIDEO_ID}"),
        (given(payload={}) | {"video": None}, "payload.video_id: is missing"),
        (given(payload={"url": 5}) | {"video": None}, "payload.video_id: is missing"),
        (given(video={"input_type": "Url"}, payload={"url": ["x"]}), "payload.url: has to be"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused_before_anything_is_paid(
    entry: dict[str, Any], says: str
) -> None:
    assert (await refusal(entry)).startswith(says)


async def test_what_was_begun_goes_on_whatever_the_plan_says_by_now() -> None:
    entry = given(
        STARTER,
        video={"ai_provider": "RunwayML", "resolution": "4k"},
        made_by={"image": "runway"},
    )
    assert [provider for _, provider in await steps(entry)] == ["runway", "runway"]


@pytest.mark.parametrize(
    ("made_by", "expected"),
    [
        ({}, ["runway", "runway"]),
        ({"image": "runway"}, ["runway", "runway"]),
        ({"image": "stability"}, ["stability", "runway"]),
        ({"image": "stability", "video": "freepik"}, ["stability", "freepik"]),
    ],
)
async def test_what_was_begun_stays_with_whom_it_was_begun(
    made_by: dict[str, str], expected: list[str]
) -> None:
    """Also where the user would prefer somebody whom the plan doesn't have."""
    plan = STUDIO | {"ai_providers": ["RunwayML", "StabilityAI"]}
    entry = given(plan, preferences={"preferred_ai_provider": "Freepik"}, made_by=made_by)
    assert [provider for _, provider in await steps(entry)] == expected


@pytest.mark.parametrize("made_by", [{"video": "freepik"}, {"image": "freepik"}, {}])
async def test_a_page_that_is_gone_costs_no_video_that_is_paid_for(
    made_by: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: Any) -> dict[str, Any]:
        raise JobEnds(Failed(Failure(FailureKind.GONE, "the page is gone")))

    monkeypatch.setattr(product_video, "_scraped", gone)
    payload = {"VideoId": VIDEO_ID, "ProductUrl": "https://shop.example.com/chair"}
    entry = given(video={"input_type": "Url"}, payload=payload, made_by=made_by)
    ctx = Worker(made)
    if "video" not in made_by:
        with pytest.raises(JobEnds):
            await outcome(ctx, entry)
        assert ctx.calls == []
        return
    done = await outcome(ctx, entry)
    assert isinstance(done, Succeeded)
    assert [step for step, _, _ in ctx.calls] == ["video"]
    assert "product" not in done.data


# --------------------------------------------------------------------------- templates


async def asked(entry: dict[str, Any]) -> MediaTask:
    ctx = Worker(made)
    done = await outcome(ctx, entry)
    assert isinstance(done, Succeeded), done
    task = ctx.calls[-1][2]
    assert isinstance(task, MediaTask)
    return task


TEMPLATE = {"name": "Turntable", "prompt_template": "{text_prompt}", "is_active": True}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("A turn around {product_name} by {brand}. {text_prompt}",
         "A turn around Reading Lamp by Nordlys. A lamp at dusk"),
        ("{{ProductName}} at {product.price}. {textPrompt}", "Reading Lamp at 49.9. A lamp at dusk"),  # noqa: E501
        ("{title}, {duration} s", "Lamp, 5 s\n\nA lamp at dusk"),
        ("{sku}{description}{prompt}", "A lamp at dusk"),
        ('Return {"json": 1}. {prompt}', 'Return {"json": 1}. A lamp at dusk'),
    ],
)  # fmt: skip
async def test_a_template_is_filled_in(words: str, expected: str) -> None:
    entry = given(template=TEMPLATE | {"prompt_template": words}, product=PRODUCT)
    assert (await asked(entry)).prompt == expected


async def test_a_template_says_what_the_video_does_not() -> None:
    template = TEMPLATE | {
        "default_duration": 10,
        "aspect_ratio": "16:9",
        "style_settings": {"style": "studio", "lighting": "soft", "seed": None},
    }
    own = {"duration_seconds": 0, "aspect_ratio": "", "resolution": ""}
    task = await asked(given(template=template, video=own))
    assert (task.duration_seconds, task.aspect_ratio) == (10, "16:9")
    assert task.prompt == "A lamp at dusk\n\nStyle: studio; lighting: soft"
    task = await asked(given(template=template, video={"style": "noir"}))
    assert (task.duration_seconds, task.aspect_ratio) == (5, "9:16")
    assert task.prompt.endswith("Style: noir; lighting: soft")
    preferences = {"default_video_duration": 10, "default_aspect_ratio": "1:1"}
    task = await asked(given(preferences=preferences, video=own))
    assert (task.duration_seconds, task.aspect_ratio) == (10, "1:1")


@pytest.mark.parametrize(
    ("template", "plan", "says"),
    [
        ({"is_active": False}, STUDIO, "template_id: the template 'Turntable' is not active"),
        ({"is_premium": True}, STARTER, "template_id: 'Turntable' is a premium template"),
        ({"is_premium": True}, None, "template_id: 'Turntable' is a premium template"),
        ({"prompt_template": "{colour}"}, STUDIO, "prompt_template: nothing is called 'colour'"),
    ],
)
async def test_a_template_that_may_not_be_used(
    template: dict[str, Any], plan: dict[str, Any] | None, says: str
) -> None:
    assert (await refusal(given(plan, template=TEMPLATE | template))).startswith(says)


async def test_premium_templates_are_for_plans_that_have_them() -> None:
    premium = TEMPLATE | {"is_premium": True}
    for features in (["Premium Templates"], {"premium_templates": True}):
        plan = STUDIO | {"features": features}
        assert await steps(given(plan, template=premium))
