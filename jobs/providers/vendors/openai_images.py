"""OpenAI's images: made from a prompt alone, answered at once, inside the JSON.

A model of the first generation draws in three sizes; later ones in any that is made of whole tiles.
`options.size` or `resolution` (1536x864) names a size, an aspect ratio finds one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from jobs.contract import MediaTask, Usage
from jobs.providers.adapter import RemoteOutput, Response, State
from jobs.providers.inline import from_base64
from jobs.providers.texts import tokens

MAX_PROMPT = 32_000
MAX_IMAGES = 10
MAX_PIXELS = 3840 * 2160
TILE = 16
SIZE = re.compile(r"([1-9]\d{1,3})x([1-9]\d{1,3})")
THREE_SIZES = re.compile("gpt-image-1")
WITHOUT_BEST = re.compile(r"gpt-image-(1|2(-\d|$))")

FIXED = {"1:1": "1024x1024", "3:2": "1536x1024", "2:3": "1024x1536"}
FREE = FIXED | {
    "16:9": "1536x864",
    "9:16": "864x1536",
    "4:3": "1536x1152",
    "3:4": "1152x1536",
    "5:4": "1280x1024",
    "4:5": "1024x1280",
    "21:9": "1680x720",
    "9:21": "720x1680",
}
# quality → about how many tokens a picture of 1024x1024 has
TYPICAL = {"low": 272, "medium": 1056, "high": 4160, "xhigh": 6240, "max": 8320, "auto": 4160}
BEST = ("xhigh", "max")
FORMATS = ("png", "jpeg", "webp", "gif")  # an SVG is no picture yet


def problem_of(task: MediaTask, model: str) -> str | None:
    if not task.prompt.strip():
        return "the prompt is empty"
    if len(task.prompt) > MAX_PROMPT:
        return f"a prompt has at most {MAX_PROMPT} characters, not {len(task.prompt)}"
    if task.images:
        return "images are made from words here, not from other images"
    if task.duration_seconds is not None:
        return "an image has no duration"
    return _size_problem(task, model) or _option_problem(task.options, model)


def request_of(task: MediaTask, model: str) -> dict[str, Any]:
    size = _size(task)
    return {
        **task.options,
        **({"size": size} if size else {}),
        "model": model,
        "prompt": task.prompt,
    }


def expected(task: MediaTask) -> Usage:
    """About what it will use."""
    found = SIZE.fullmatch(_size(task) or "")
    tiles = Fraction(int(found[1]) * int(found[2]), 1024 * 1024) if found else Fraction(1)
    each = TYPICAL.get(str(task.options.get("quality")), TYPICAL["auto"])
    count = int(task.options.get("n") or 1)
    return Usage(
        input_tokens=tokens(task.prompt), output_tokens=round(tiles * each * count), items=count
    )


def are_in(body: Mapping[str, Any]) -> bool:
    """Chat completions have choices, and embeddings call themselves a list; some have a date."""
    return "created" in body and "choices" not in body and body.get("object") != "list"


def state_of(body: Mapping[str, Any], response: Response) -> State:
    """Raises KeyError, TypeError, ValueError or AttributeError for what it should not be."""
    outputs = tuple(_file(item) for item in body["data"] or ())
    usage = body.get("usage") or {"input_tokens": 0, "output_tokens": 0}
    return State(
        phase="succeeded",
        external_id=response.headers.get("x-request-id") or None,
        outputs=outputs,
        usage=Usage(
            input_tokens=int(usage["input_tokens"]),
            output_tokens=int(usage["output_tokens"]),
            items=len(outputs),
        ),
        metadata={name: body.get(name) for name in ("size", "quality", "output_format")},
    )


# --------------------------------------------------------------------------- requests


def _size(task: MediaTask) -> str | None:
    named = task.options.get("size") or task.resolution
    return str(named) if named else FREE.get(task.aspect_ratio or "")


def _size_problem(task: MediaTask, model: str) -> str | None:
    size, sizes = _size(task), FIXED if THREE_SIZES.match(model) else FREE
    if size is None or size == "auto":
        unknown = task.aspect_ratio and task.aspect_ratio not in sizes
        return (
            f"{model} draws in {', '.join(sizes)}, not in {task.aspect_ratio}" if unknown else None
        )
    if sizes is FIXED:
        known = size in FIXED.values()
        return None if known else f"{model} draws {', '.join(FIXED.values())}, not {size}"
    found = SIZE.fullmatch(size)
    if found is None:
        return f"a size must be like 1536x864, not {size[:80]!r}"
    width, height = int(found[1]), int(found[2])
    whole = width % TILE == 0 and height % TILE == 0
    if not whole or max(width, height) > 3 * min(width, height) or width * height > MAX_PIXELS:
        return (
            f"a size must be of multiples of {TILE}, no longer than 3:1 and no larger than "
            f"3840x2160, not {size}"
        )
    return None


def _option_problem(options: Mapping[str, Any], model: str) -> str | None:
    quality, count = str(options.get("quality", "auto")), options.get("n", 1)
    if quality not in TYPICAL or (quality in BEST and WITHOUT_BEST.match(model)):
        return f"{model} has no quality {quality!r}"
    if type(count) is not int or not 1 <= count <= MAX_IMAGES:
        return f"from 1 to {MAX_IMAGES} images can be made at once, not {count!r}"
    if options.get("output_format", "png") not in FORMATS:
        return f"output_format must be one of {', '.join(FORMATS)}"
    if options.get("stream"):
        return "an answer in pieces can't be read here"
    return None


# --------------------------------------------------------------------------- responses


def _file(item: Mapping[str, Any]) -> RemoteOutput:
    """OpenAI sends the picture itself; other servers of its protocol may send a link."""
    if item.get("b64_json"):
        return RemoteOutput(data=from_base64(item["b64_json"]))
    url = item["url"]
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"not a link to a picture: {url[:80]!r}")
    return RemoteOutput(url=url)
