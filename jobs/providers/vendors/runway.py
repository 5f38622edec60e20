"""Runway: tasks that make videos and images. Asynchronous, and without a list of tasks.

Shapes as in the `runwayml` SDK 5.24. A credit is a US cent. An ended task tells what it cost, which
goes before the price table: pending tasks, surcharges and refunds need no rules here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from jobs.contract import Failure, FailureKind, MediaTask, Task, Usage
from jobs.providers.adapter import (
    Account,
    Op,
    Phase,
    Ref,
    RemoteOutput,
    Request,
    Response,
    State,
)
from jobs.providers.checked import checked_id, checked_url, is_id
from jobs.providers.errors import Garbled, invalid
from jobs.providers.failures import LONG_WAIT, failure_of
from jobs.providers.media_tasks import as_media, media_model, problem_of_media
from jobs.providers.prices import Price, PriceTable
from jobs.providers.vendors.runway_models import ANY, LISTED, MODES, Mode
from jobs.providers.vendors.unlisted import Unlisted

VERSION = "2024-11-06"
CENTS_PER_CREDIT = Decimal(1)
SCHEMES = ("https://", "data:image/", "runway://")
MAX_PROMPT = 1000
MAX_URL = 2048
MAX_DATA_URL = 5 * 1024 * 1024
POSITIONS = ("first", "last")

PHASES: Mapping[str, Phase] = {
    "PENDING": "queued",
    "THROTTLED": "queued",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}
# The first that fits; the codes are paths with dots.
KIND_BY_FAILURE_CODE = (
    ("SAFETY", FailureKind.POLICY),
    ("INPUT_PREPROCESSING.SAFETY", FailureKind.POLICY),
    ("ASSET.INVALID", FailureKind.INVALID),
    ("INTERNAL.BAD_OUTPUT", FailureKind.UNKNOWN),  # the same input may well fail again
    ("INTERNAL", FailureKind.TRANSIENT),
    ("INPUT_PREPROCESSING.INTERNAL", FailureKind.TRANSIENT),
    ("THIRD_PARTY.UNAVAILABLE", FailureKind.TRANSIENT),
)
# An HTTP error has no code, only words.
KIND_BY_WORDS = (
    (re.compile(r"(?i)enough credits"), FailureKind.QUOTA),
    (re.compile(r"(?i)model variant .* not available"), FailureKind.INVALID),
)


class Runway(Unlisted):
    name = "runway"
    base_url = "https://api.dev.runwayml.com/v1"
    poll_seconds = 5.0
    models: Mapping[str, str] = {"video": "gen4.5", "image": "gen4_image"}

    def model(self, task: Task, account: Account) -> str:
        return media_model(self.name, task, account, ("video", "image"))

    def check(self, task: Task, account: Account, prices: PriceTable) -> None:
        model = self.model(task, account)
        longest = prices.of(self.name, model).max_seconds
        media = as_media(task)
        problem = problem_of_media(media, SCHEMES) or _problem(media, model)
        seconds = media.duration_seconds
        if longest is not None and seconds is not None and seconds > longest:
            problem = f"the model makes at most {longest} seconds, not {seconds}"
        if problem:
            raise invalid(self.name, problem)

    def estimate(self, task: Task, model: str, prices: PriceTable) -> Decimal:
        body = _body(as_media(task), model)
        price, count = prices.of(self.name, model), body.get("outputCount")
        return _full(price, body.get("duration"), count if isinstance(count, int) else 1)

    def cost(self, model: str, state: State, prices: PriceTable, task: Task | None) -> Decimal:
        """What Runway says; should it say nothing, all but a failed task counts in full."""
        told = state.metadata.get("credits")
        if told is not None:
            return Decimal(str(told)) * CENTS_PER_CREDIT
        if state.phase == "failed":
            return Decimal(0)
        if task is not None:
            return self.estimate(task, model, prices)
        return _full(prices.of(self.name, model), None, max(1, state.usage.items))

    def submit(self, task: Task, account: Account) -> Request:
        media = as_media(task)
        body = _body(media, self.model(task, account))
        return self._request("POST", f"/{_endpoint(media)}", account, body)

    def ref(self, external_id: str, _model: str) -> Ref | None:
        return {"id": external_id} if is_id(external_id) else None

    def poll(self, ref: Ref, account: Account) -> Request | None:
        return self._request("GET", f"/tasks/{ref['id']}", account)

    def cancel(self, ref: Ref, account: Account) -> Request | None:
        """Deletes the task, even one that has ended: only for what nobody wants any more.

        Afterwards Runway no longer knows it, so its cost can't be learnt: one that ran was billed.
        """
        return self._request("DELETE", f"/tasks/{ref['id']}", account)

    def parse(self, op: Op, response: Response) -> State:
        body = response.object()
        try:
            return _state(body, None if op == "submit" else str(body["status"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"not a task: {error!r}") from error

    def classify(self, op: Op, response: Response) -> Failure:
        message = _message(response)
        by_words = response.status < 500 and response.status != 429
        kinds = (kind for words, kind in KIND_BY_WORDS if by_words and words.search(message))
        failure = failure_of(
            op, response, provider=self.name, kind=next(kinds, None), code="", message=message
        )
        if failure.kind is FailureKind.RATE_LIMIT and failure.retry_after is None:
            # Too many at once are only throttled: this is the limit of a day.
            return replace(failure, retry_after=LONG_WAIT)
        return failure

    def _request(self, method: str, path: str, account: Account, body: Any = None) -> Request:
        headers = {"Authorization": f"Bearer {account.api_key}", "X-Runway-Version": VERSION}
        return Request(method, account.base_url + path, account.over(headers), body)


# --------------------------------------------------------------------------- requests


def _endpoint(task: MediaTask) -> str:
    if task.medium == "image":
        return "text_to_image"
    return "image_to_video" if task.images else "text_to_video"


def _mode(task: MediaTask, model: str) -> Mode | None:
    """None: this model is known, but not for such tasks."""
    return MODES.get((_endpoint(task), model), None if model in LISTED else ANY)


def _problem(task: MediaTask, model: str) -> str | None:
    mode = _mode(task, model)
    if mode is None:
        return f"{model} can't do {_endpoint(task)}"
    if not mode.least_images <= len(task.images) <= mode.most_images:
        return (
            f"{model} takes {mode.least_images} to {mode.most_images} images here, "
            f"not {len(task.images)}"
        )
    if mode.needs_prompt and not task.prompt.strip():
        return f"{model} needs a prompt"
    if len(task.prompt.encode("utf-16-le")) // 2 > MAX_PROMPT and mode is not ANY:
        return f"the prompt may have {MAX_PROMPT} characters"
    if any(len(image) > _longest(image) for image in task.images):
        return f"an image may have {MAX_URL} characters as a URL, {MAX_DATA_URL} as a data URL"
    seconds = task.duration_seconds
    if mode.seconds and seconds is not None and seconds not in mode.seconds:
        return f"{model} makes {', '.join(map(str, mode.seconds))} seconds, not {seconds}"
    if mode.ratios and mode.pixels(task.aspect_ratio, task.resolution) is None:
        return f"{model} makes {', '.join(mode.ratios)}: nothing that is {_wanted(task)}"
    return None


def _longest(image: str) -> int:
    return MAX_DATA_URL if image.startswith("data:") else MAX_URL


def _wanted(task: MediaTask) -> str:
    return " and ".join(word for word in (task.aspect_ratio, task.resolution) if word)


def _body(task: MediaTask, model: str) -> dict[str, Any]:
    mode = _mode(task, model) or ANY
    video = task.medium == "video"
    given = {
        "model": model,
        "promptText": task.prompt,
        "promptImage": _frames(task.images) if video else None,
        "referenceImages": [{"uri": image} for image in task.images] if not video else None,
        "ratio": mode.pixels(task.aspect_ratio, task.resolution),
        # Always said: what Runway makes otherwise isn't told, and has another price.
        "duration": task.duration_seconds or mode.usual_seconds if video else None,
    }
    return {key: value for key, value in given.items() if value} | dict(task.options)


def _frames(images: tuple[str, ...]) -> str | list[dict[str, str]]:
    """A single picture is the first frame."""
    if len(images) < 2:
        return "".join(images)
    pairs = zip(images, POSITIONS, strict=False)
    return [{"uri": image, "position": position} for image, position in pairs]


def _full(price: Price, seconds: Any, count: int) -> Decimal:
    """`seconds` may be a word (`auto`) for a length that Runway chooses, up to the longest."""
    if not isinstance(seconds, int):
        seconds = price.default_seconds if seconds is None else price.max_seconds
    return price.item * count + price.output_second * (seconds or price.default_seconds)


# --------------------------------------------------------------------------- responses


def _state(body: Mapping[str, Any], status: str | None) -> State:
    """`status`: None for a task that was just taken; its answer tells none."""
    name = checked_id(body["id"])
    phase = "queued" if status is None else PHASES.get(status, "unknown")
    outputs = tuple(RemoteOutput(url=checked_url(url)) for url in body.get("output") or ())
    credit = _number((body.get("cost") or {}).get("credits"))
    progress = _number(body.get("progress"))
    code = body.get("failureCode")
    return State(
        phase=phase,
        ref={"id": name},
        external_id=name,
        progress=None if progress is None else min(100.0, progress * 100),
        outputs=outputs,
        usage=Usage(items=len(outputs)),
        failure=_failure(body, str(code or ""), bool(credit)) if phase == "failed" else None,
        metadata={"status": status, "credits": credit, "failure_code": code},
    )


def _failure(body: Mapping[str, Any], code: str, billed: bool) -> Failure:
    named = (kind for start, kind in KIND_BY_FAILURE_CODE if f"{code}.".startswith(f"{start}."))
    kind = next(named, FailureKind.UNKNOWN) if code else FailureKind.TRANSIENT
    if kind is FailureKind.TRANSIENT and billed:
        kind = FailureKind.UNKNOWN  # another try costs money, so it has to cost a try
    message = str(body.get("failure") or "the task failed without a reason")[:500]
    return Failure(kind, message, code or "failed", Runway.name, accepted="yes")


def _number(value: Any) -> float | None:
    """Whole credits stay whole numbers, so that they stay exact."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise ValueError(f"not an amount: {value!r}")
    return value


def _message(response: Response) -> str:
    """The error in words, and which fields it is about."""
    try:
        body = response.object()
    except Garbled:
        return ""
    issues = body.get("issues")
    told = [_issue(issue) for issue in issues] if isinstance(issues, list) else []
    return "; ".join(text for text in (body.get("error"), *told) if isinstance(text, str))


def _issue(issue: Any) -> str:
    if not isinstance(issue, dict):
        return str(issue)
    path = issue.get("path")
    where = ".".join(map(str, path)) if isinstance(path, list) else "body"
    return f"{where}: {issue.get('message')}"
