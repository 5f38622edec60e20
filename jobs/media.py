"""Videos, previews, thumbnails and sound: one paid call each, plus a soundtrack when asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from jobs.contract import (
    CallResult,
    Context,
    Failed,
    Job,
    MediaTask,
    Outcome,
    Output,
    Succeeded,
)
from jobs.deliver import PATIENCE, supported
from jobs.payload import Payload, invalid, takes, useless
from jobs.providers.errors import ProviderError
from jobs.registry import kind

Medium = Literal["video", "image", "audio"]

MEDIUM: dict[str, Medium] = {
    "media:video": "video",
    "media:preview": "video",
    "media:thumbnail": "image",
    "media:audio": "audio",
}
PREVIEW_SECONDS = 5
CALLS_SECONDS = 1800.0


def _object_or_empty(value: Any) -> Any:
    """Settings are free-form JSON in the row: an array or a string there sets nothing."""
    return value if isinstance(value, dict) else {}


def _list_or_empty(value: Any) -> Any:
    return () if value is None else value


def _texts(value: Any) -> Any:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _text_or_empty(value: Any) -> Any:
    return "" if value is None else value


def _is_true(value: Any) -> bool:
    return value is True


Text = Annotated[str, BeforeValidator(_text_or_empty)]
Seconds = Annotated[int, Field(gt=0)]


class Settings(Payload):
    model: str | None = None
    duration_seconds: Seconds | None = None
    soundtrack: Annotated[bool, BeforeValidator(_is_true)] = False
    """Only a plain `true` orders a second paid call; other products may keep a title here."""
    soundtrack_model: str | None = None
    options: Annotated[dict[str, Any], BeforeValidator(_object_or_empty)] = Field(
        default_factory=dict
    )
    """Handed to the provider as they are."""


class MediaInput(Payload):
    prompt: Text = ""
    title: Text = ""
    style: Text = ""
    photos: Annotated[tuple[str, ...], BeforeValidator(_list_or_empty)] = ()
    duration_seconds: Seconds | None = None
    aspect_ratio: str | None = None
    resolution: str | None = None
    formats: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ()
    """What the platform supports for videos, in its order; none given, none refused."""
    generation_settings: Annotated[Settings, BeforeValidator(_object_or_empty)] = Settings()


@kind(*MEDIUM, timeout=CALLS_SECONDS + PATIENCE)
@takes(MediaInput)
async def media(job: Job, ctx: Context, given: MediaInput) -> Outcome:
    """Generate a video, a preview, a thumbnail or sound."""
    if not given.prompt.strip() and not given.photos:
        return invalid("prompt: the job has neither a prompt nor photos to work from")
    try:
        async with asyncio.timeout(CALLS_SECONDS):
            made = await _made(job, ctx, given)
    except TimeoutError as error:
        raise TimeoutError(f"not made within {CALLS_SECONDS:g} s") from error
    if not isinstance(made, Succeeded) or MEDIUM[job.kind] != "video":
        return made
    main = next(output for output in made.outputs if output.role == "main")
    return await _delivered(ctx, made, main, given.formats)


async def _made(job: Job, ctx: Context, given: MediaInput) -> Succeeded | Failed:
    result = await ctx.call("main", job.lane, _makeable(job, ctx, _task(job.kind, given)))
    main = _main(result)
    if main is None:
        return _no_file(result)
    if MEDIUM[job.kind] != "video" or not given.generation_settings.soundtrack:
        return _succeeded(result, main)
    sound = await ctx.call("soundtrack", job.lane, _soundtrack(given, main))
    track = _main(sound)
    if track is None:
        return _no_file(sound)
    return _succeeded(result, main, sound, track)


# --------------------------------------------------------------------------- what to ask for


def _task(kind_name: str, given: MediaInput) -> MediaTask:
    """What the provider can't make is refused by its adapter, before anything is paid.

    A project's resolution is its film's: of a picture it says nothing, and no provider of pictures
    takes it. `options` hold a picture's size.
    """
    medium, settings = MEDIUM[kind_name], given.generation_settings
    return MediaTask(
        medium=medium,
        prompt=_prompt(given),
        model=settings.model,
        images=() if medium == "audio" else given.photos,
        duration_seconds=None if medium == "image" else _duration(kind_name, given),
        aspect_ratio=None if medium == "audio" else given.aspect_ratio,
        resolution=given.resolution if medium == "video" else None,
        options=settings.options,
    )


def _makeable(job: Job, ctx: Context, task: MediaTask) -> MediaTask:
    """With as many of the first photos as this provider takes: a project has many, most models one.

    A video is made of one at least; without any it would show something else.
    """
    fewest = 1 if task.medium == "video" else 0
    for count in range(len(task.images), fewest - 1, -1):
        fewer = replace(task, images=task.images[:count])
        try:
            ctx.check(job.lane, fewer)
        except ProviderError:
            continue
        return fewer
    return task  # it says why


def _prompt(given: MediaInput) -> str:
    """Photos alone are enough to go on; the title then says what they show."""
    subject = given.prompt.strip() or given.title.strip()
    style = given.style.strip()
    return "\n\n".join(part for part in (subject, style and f"Style: {style}") if part)


def _duration(kind_name: str, given: MediaInput) -> int | None:
    """A project's `duration_minutes` is its film's length; one call makes one clip of it."""
    asked = given.duration_seconds or given.generation_settings.duration_seconds
    return asked or (PREVIEW_SECONDS if kind_name == "media:preview" else None)


def _soundtrack(given: MediaInput, video: Output) -> MediaTask:
    seconds = video.duration_seconds
    return MediaTask(
        medium="audio",
        prompt=f"Soundtrack for a video. {_prompt(given)}",
        model=given.generation_settings.soundtrack_model,
        duration_seconds=max(1, round(seconds)) if seconds else None,
    )


# --------------------------------------------------------------------------- what came back


def _main(result: CallResult) -> Output | None:
    return next((output for output in result.outputs if output.role == "main"), None)


def _no_file(result: CallResult) -> Failed:
    return useless(result, "the provider reported success but returned no file", "no_output")


def _succeeded(
    result: CallResult,
    main: Output,
    sound: CallResult | None = None,
    track: Output | None = None,
) -> Succeeded:
    metadata = {
        **result.metadata,
        **_describe(main),
        **_origin(result),
        "thumbnail": _thumbnail_url(result, main),
    }
    if sound and track:
        metadata["soundtrack"] = {**_describe(track), **_origin(sound)}
    return Succeeded(
        outputs=result.outputs,
        metadata=metadata,
        cost_cents=result.cost_cents + (sound.cost_cents if sound else Decimal(0)),
        provider=result.provider,
        model=result.model,
        external_id=result.external_id,
    )


async def _delivered(
    ctx: Context, done: Succeeded, main: Output, formats: tuple[str, ...]
) -> Succeeded:
    """In a format the platform supports; what was paid for stays known beside it."""
    output, problem = await supported(ctx, main, formats)
    if problem is not None:
        return replace(done, metadata={**done.metadata, "not_converted": problem})
    if output is main:
        return done
    rest = tuple(other for other in done.outputs if other is not main)
    metadata = {**done.metadata, **_describe(output), "original": _describe(main)}
    return replace(done, outputs=(output, *rest), metadata=metadata)


def _describe(output: Output) -> dict[str, Any]:
    return {
        "url": output.url,
        "key": output.key,
        "format": output.key.rpartition(".")[2],
        "mime_type": output.mime_type,
        "size": output.size,
        "width": output.width,
        "height": output.height,
        "duration": output.duration_seconds,
    }


def _origin(result: CallResult) -> dict[str, Any]:
    return {
        "provider": result.provider,
        "model": result.model,
        "external_id": result.external_id,
    }


def _thumbnail_url(result: CallResult, main: Output) -> str | None:
    """A picture made by its provider is its own best thumbnail only if none was stored."""
    thumbnails = (output.url for output in result.outputs if output.role == "thumbnail")
    return next(thumbnails, main.url if main.file_type == "image" else None)
