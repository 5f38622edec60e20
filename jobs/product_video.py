"""A product's video: from words, from a picture, or from a shop's page.

    Text    a picture is made, and the video from it       steps `image`, `video`
    Image   the video is made from the picture that is given
    Url     the page is read first, unless it was already; then from its main picture, or as Text

Each paid call is a step of its own, so a crash between them pays for nothing twice. Whatever can be
known to fail fails before the first.
"""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.contract import (
    CallResult,
    Context,
    Job,
    JobEnds,
    MediaTask,
    Outcome,
    Output,
    Succeeded,
    Yield,
)
from jobs.payload import Payload, invalid, takes, useless
from jobs.providers.errors import ProviderError
from jobs.registry import kind
from jobs.scrape import rule_of, scrape
from jobs.video_order import (
    Makers,
    Refused,
    Size,
    Video,
    VideoInput,
    check_template,
    makers,
    prompt,
    size,
)

STANDS_IN = "https://example.com/picture.jpg"
"""For a picture that isn't made yet, when a task is only checked."""
MAX_INLINE = 3_500_000
"""Bytes of a picture inside a request: five million as base64, which providers take."""
MAX_SIDE = 2048
FRESH = "_fresh"
"""Marks a product that was read just now, for `finish.sql` to write."""


class Named(Payload):
    """What a payload may say besides ids, which are looked up in SQL. Anything may stand there."""

    video_id: Any = None
    url: Any = None
    product_url: Any = None


@kind("background:generate_video", timeout=3600)
@takes(VideoInput)
async def generate_video(_job: Job, ctx: Context, given: VideoInput) -> Outcome:
    """Make a product's video."""
    video = given.video
    if video is None:
        return invalid(_no_video(given.payload))
    if given.overtaken:
        return invalid(
            "another job has completed this video since this one failed: nothing more is bought; "
            "make it Pending again to have it made anew",
            "overtaken",
        )
    try:
        check_template(given)
        made_by, wanted = makers(given, video), size(given, video)
        product = await _product(ctx, given, video)
        words = prompt(given, video, product)
        picture = _picture(video, product)
        if picture is None and "video" in given.made_by and "image" not in given.made_by:
            picture = STANDS_IN  # its page is gone; what was asked for then is what is delivered
        image = _image_task(ctx, made_by, words, wanted) if picture is None else None
        task = _video_task(ctx, made_by, words, wanted, picture or STANDS_IN)
    except Refused as error:
        return invalid(str(error))
    still: CallResult | None = None
    ctx.progress(10)
    if image is not None:
        still = await ctx.call("image", made_by.image.provider, image)
        main = _main(still)
        if main is None:
            return useless(still, "the provider made no picture", "no_output")
        task = replace(task, images=(await _reachable(ctx, main),))
    ctx.progress(50)
    film = await ctx.call("video", made_by.video.provider, task)
    if _main(film) is None:
        return useless(film, "the provider made no video", "no_output")
    return _succeeded(video, film, made_by.video.word, still=still, product=product)


def _no_video(payload: Any) -> str:
    if not isinstance(payload, dict):
        return 'job_data: has to be an object that names a video: {"video_id": "…"}'
    said = Named.model_validate(payload).video_id
    return "payload.video_id: is missing" if said is None else f"payload.video_id: no video {said}"


# --------------------------------------------------------------------------- what it is made from


async def _product(ctx: Context, given: VideoInput, video: Video) -> dict[str, Any] | None:
    """What is known of the product; of a shop's page that nobody read yet, it is read now."""
    known = given.product
    if video.input_type.lower() != "url" or (known or {}).get("scraping_status") == "Success":
        return known
    named = Named.model_validate(given.payload if isinstance(given.payload, dict) else {})
    url = named.url or named.product_url or (known or {}).get("original_url")
    if not url:
        raise Refused("payload.url: a video of input type Url needs one, or a product that has one")
    if not isinstance(url, str):
        raise Refused("payload.url: has to be the address of a page, as a text")
    try:
        page = await _scraped(ctx, url, given.rule)
    except JobEnds as end:
        # The video is paid for: it doesn't need the page any more, whatever became of that.
        if "video" in given.made_by and not isinstance(end.outcome, Yield):
            return known
        raise
    return {**(known or {}), **page, FRESH: True}


async def _scraped(ctx: Context, url: str, rule: dict[str, Any] | None) -> dict[str, Any]:
    return (await scrape(ctx, url, rule_of(rule))).as_json()


def _picture(video: Video, product: dict[str, Any] | None) -> str | None:
    """The one to start from; None where it has to be made."""
    match video.input_type.lower():
        case "text":
            return None
        case "image":
            if not video.image_url:
                raise Refused("image_url: a video of input type Image needs one")
            return video.image_url
        case "url":
            return _of_product(product or {})
    raise Refused(f"input_type: {video.input_type!r} is none of Text, Image, Url")


def _of_product(product: dict[str, Any]) -> str | None:
    if product.get("main_image_url"):
        return str(product["main_image_url"])
    images = [image for image in product.get("images") or () if image.get("url")]
    images.sort(key=lambda image: not image.get("is_primary"))
    return str(images[0]["url"]) if images else None


async def _reachable(ctx: Context, picture: Output) -> str:
    """How a provider gets it: by its address if that is public, else inside the request."""
    if picture.url.startswith("https://"):
        return picture.url
    async with ctx.file(picture.key) as path:
        return await ctx.offload(inline, path, picture.mime_type)


def inline(path: Path, mime_type: str) -> str:
    """As a data URL, smaller where it is too large for one."""
    content = path.read_bytes()
    if len(content) > MAX_INLINE:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((MAX_SIDE, MAX_SIDE))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=85)
        content, mime_type = buffer.getvalue(), "image/jpeg"
    return f"data:{mime_type};base64,{base64.b64encode(content).decode()}"


# --------------------------------------------------------------------------- what to ask for


def _image_task(ctx: Context, made_by: Makers, words: str, wanted: Size) -> MediaTask:
    task = MediaTask("image", words, aspect_ratio=wanted.aspect_ratio)
    ctx.check(made_by.image.provider, task)
    return task


def _video_task(ctx: Context, made_by: Makers, words: str, wanted: Size, picture: str) -> MediaTask:
    """Providers that make one resolution only are asked for none."""
    plain = MediaTask(
        "video",
        words,
        images=(picture,),
        duration_seconds=wanted.seconds,
        aspect_ratio=wanted.aspect_ratio,
    )
    exact = replace(plain, resolution=f"{wanted.lines}p")
    try:
        ctx.check(made_by.video.provider, exact)
    except ProviderError:
        ctx.check(made_by.video.provider, plain)
        return plain
    return exact


# --------------------------------------------------------------------------- what came back


def _main(result: CallResult) -> Output | None:
    return next((output for output in result.outputs if output.role == "main"), None)


def _succeeded(
    video: Video,
    film: CallResult,
    ai_provider: str,
    *,
    still: CallResult | None,
    product: dict[str, Any] | None,
) -> Succeeded:
    picture = _main(still) if still else None
    fresh = product is not None and FRESH in product
    data = {
        "video_id": str(video.id),
        "ai_provider": ai_provider,
        "image_url": picture.url if picture else None,
        "product": product if fresh else None,
    }
    return Succeeded(
        outputs=film.outputs,
        data={name: value for name, value in data.items() if value is not None},
        cost_cents=film.cost_cents + (still.cost_cents if still else Decimal(0)),
        provider=film.provider,
        model=film.model,
        external_id=film.external_id,
    )
