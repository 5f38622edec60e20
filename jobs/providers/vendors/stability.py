"""Stability: pictures, answered at once; and the creative upscale, which is asked for later.

Requests are multipart forms. A model is named by the end of its path (`core`, `ultra`,
`upscale/creative`) or, for the Stable Diffusion family, as its form field has it (`sd3.5-large`).

An image to start from must come as a data URL, for nothing is downloaded on the way to a provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

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
from jobs.providers.checked import checked_id, is_id
from jobs.providers.errors import Garbled, invalid
from jobs.providers.failures import failure_of
from jobs.providers.inline import from_base64, from_data_url
from jobs.providers.prices import PriceTable
from jobs.providers.vendors.unlisted import Unlisted

LOCK_OUT = 60.0
"""Seconds nobody is served after too many requests; the answer doesn't tell."""
MAX_PROMPT = 10_000
MAX_IMAGE = 10 * 1024 * 1024
RATIOS = ("21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21")
FORMATS = ("png", "jpeg", "webp")
# option → lowest, highest
RANGES: Mapping[str, tuple[float, float]] = {
    "seed": (0, 4294967294),
    "strength": (0, 1),
    "cfg_scale": (1, 10),
    "creativity": (0.1, 0.5),
}
PHASES: Mapping[str, Phase] = {"in-progress": "running"}
KIND_BY_NAME: Mapping[str, FailureKind] = {
    "content_moderation": FailureKind.POLICY,
    "payment_required": FailureKind.QUOTA,
    "insufficient_balance": FailureKind.QUOTA,
    "unauthorized": FailureKind.AUTH,
    "rate_limit_exceeded": FailureKind.RATE_LIMIT,
    "bad_request": FailureKind.INVALID,
    "payload_too_large": FailureKind.INVALID,
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    path: str
    image: Literal["none", "may", "must"] = "may"
    ratio: Literal["always", "without image", "never"] = "always"


ENDPOINTS: Mapping[str, Endpoint] = {
    "core": Endpoint("generate/core", image="none"),
    "ultra": Endpoint("generate/ultra"),
    "upscale/creative": Endpoint("upscale/creative", image="must", ratio="never"),
}
DIFFUSION = Endpoint("generate/sd3", ratio="without image")


class Stability(Unlisted):
    name = "stability"
    base_url = "https://api.stability.ai/v2beta"
    poll_seconds = 10.0
    models: Mapping[str, str] = {"image": "core"}

    def model(self, task: Task, account: Account) -> str:
        if not isinstance(task, MediaTask) or task.medium != "image":
            raise invalid(self.name, "only images are made here")
        model = task.model or account.models.get("image")
        if not model:
            raise invalid(self.name, "no model is named, and none is configured for image")
        return model

    def check(self, task: Task, account: Account, prices: PriceTable) -> None:
        model = self.model(task, account)
        prices.of(self.name, model)
        problem = _problem(_media(task), model)
        if problem:
            raise invalid(self.name, problem)

    def estimate(self, _task: Task, model: str, prices: PriceTable) -> Decimal:
        return prices.of(self.name, model).item

    def cost(self, model: str, state: State, prices: PriceTable, _task: Task | None) -> Decimal:
        """A picture is billed, even one that was blurred for its content; a failure is not."""
        return prices.of(self.name, model).item * state.usage.items

    def submit(self, task: Task, account: Account) -> Request:
        model = self.model(task, account)
        url = f"{account.base_url}/stable-image/{_endpoint(model).path}"
        return Request("POST", url, _headers(account), form=_form(_media(task), model))

    def ref(self, external_id: str, _model: str) -> Ref | None:
        return {"id": external_id} if is_id(external_id) else None

    def poll(self, ref: Ref, account: Account) -> Request | None:
        return Request("GET", f"{account.base_url}/results/{ref['id']}", _headers(account))

    def cancel(self, _ref: Ref, _account: Account) -> Request | None:
        return None

    def parse(self, _op: Op, response: Response) -> State:
        """The picture as bytes or as JSON, whichever `Accept` was sent; or where it will be."""
        headers = response.headers
        try:
            if headers.get("content-type", "").startswith("image/"):
                return _picture(response.body, headers.get("finish-reason"), headers.get("seed"))
            return _state(response.object(), response.status)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"neither a picture nor a task: {error!r}") from error

    def classify(self, op: Op, response: Response) -> Failure:
        try:
            body = response.object()
        except Garbled:
            body = {}
        failure = failure_of(
            op,
            response,
            provider=self.name,
            kind=KIND_BY_NAME.get(str(body.get("name"))),
            code=str(body.get("name") or ""),
            message=_said(body),
        )
        if response.status == 429 and failure.retry_after is None:
            return replace(failure, retry_after=LOCK_OUT)
        return failure


# --------------------------------------------------------------------------- requests


def _media(task: Task) -> MediaTask:
    assert isinstance(task, MediaTask), "`model` refuses the others"
    return task


def _endpoint(model: str) -> Endpoint:
    if model.startswith("sd"):
        return DIFFUSION
    try:
        return ENDPOINTS[model]
    except KeyError:
        known = ", ".join([*ENDPOINTS, "sd3.5-…"])
        raise invalid(Stability.name, f"no model {model!r}; there are {known}") from None


def _headers(account: Account) -> dict[str, str]:
    own = {"Authorization": f"Bearer {account.api_key}", "Accept": "application/json"}
    return account.over(own)


def _problem(task: MediaTask, model: str) -> str | None:
    if not task.prompt.strip():
        return "the prompt is empty"
    if len(task.prompt) > MAX_PROMPT:
        return f"a prompt has at most {MAX_PROMPT} characters, not {len(task.prompt)}"
    if task.duration_seconds is not None or task.resolution:
        return "neither a duration nor a resolution can be asked for"
    endpoint = _endpoint(model)
    return (
        _image_problem(task, model, endpoint)
        or _ratio_problem(task, model, endpoint)
        or _option_problem(task.options)
    )


def _image_problem(task: MediaTask, model: str, endpoint: Endpoint) -> str | None:
    most, least = int(endpoint.image != "none"), int(endpoint.image == "must")
    if not least <= len(task.images) <= most:
        needs = "exactly one image" if least else f"at most {most} images"
        return f"{model} takes {needs}, not {len(task.images)}"
    try:
        sizes = [len(from_data_url(image)) for image in task.images]
    except ValueError:
        return "an image must come inline, as a data URL"
    if not all(0 < size <= MAX_IMAGE for size in sizes):
        return f"an image has from 1 to {MAX_IMAGE:,} bytes"
    if sizes and endpoint.image == "may" and task.options.get("strength") is None:
        return "an image to start from needs options.strength, between 0 and 1"
    return None


def _ratio_problem(task: MediaTask, model: str, endpoint: Endpoint) -> str | None:
    if not task.aspect_ratio:
        return None
    kept = endpoint.ratio == "never" or (endpoint.ratio == "without image" and task.images)
    if kept:
        return f"{model} keeps the image's aspect ratio: none can be asked for"
    if task.aspect_ratio not in RATIOS:
        return f"the aspect ratio must be one of {', '.join(RATIOS)}, not {task.aspect_ratio!r}"
    return None


def _option_problem(options: Mapping[str, Any]) -> str | None:
    for name, value in options.items():
        if not isinstance(value, str | int | float):
            return f"{name} must be a text or a number: a form has nothing else"
    for name, (lowest, highest) in RANGES.items():
        value = options.get(name, lowest)
        if isinstance(value, bool | str) or not lowest <= value <= highest:
            return f"{name} must be a number from {lowest} to {highest}, not {value!r}"
    if options.get("output_format", "png") not in FORMATS:
        return f"output_format must be one of {', '.join(FORMATS)}"
    return None


def _form(task: MediaTask, model: str) -> dict[str, str | bytes]:
    form: dict[str, str | bytes] = {key: _text(value) for key, value in task.options.items()}
    if task.aspect_ratio:
        form["aspect_ratio"] = task.aspect_ratio
    if _endpoint(model) is DIFFUSION:
        form |= {"model": model, "mode": "image-to-image" if task.images else "text-to-image"}
    if task.images:
        form["image"] = from_data_url(task.images[0])
    return {**form, "prompt": task.prompt}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --------------------------------------------------------------------------- responses


def _state(body: Mapping[str, Any], status: int) -> State:
    data = body.get("image") or body.get("result")
    if data:
        return _picture(from_base64(data), body.get("finish_reason"), body.get("seed"))
    if body.get("errors"):
        name = str(body.get("name") or "failed")
        kind = KIND_BY_NAME.get(name, FailureKind.UNKNOWN)
        failure = Failure(kind, _said(body), name, Stability.name, accepted="yes")
        return State(phase="failed", failure=failure)
    name, said = checked_id(body["id"]), body.get("status")
    default: Phase = "running" if status == 202 else "queued"
    return State(
        phase=default if said is None else PHASES.get(str(said), "unknown"),
        ref={"id": name},
        external_id=name,
        metadata={"status": said},
    )


def _picture(data: bytes, finish: Any, seed: Any) -> State:
    if not data:
        raise ValueError("an empty file")
    failure = None
    if finish not in (None, "SUCCESS"):
        filtered = finish == "CONTENT_FILTERED"
        kind = FailureKind.POLICY if filtered else FailureKind.UNKNOWN
        message = "the picture was blurred for its content" if filtered else f"ended as {finish}"
        failure = Failure(kind, message, str(finish).lower(), Stability.name, accepted="yes")
    return State(
        phase="failed" if failure else "succeeded",
        outputs=() if failure else (RemoteOutput(data=data),),
        usage=Usage(items=1),
        failure=failure,
        metadata={"finish_reason": finish, "seed": seed if seed is None else str(seed)},
    )


def _said(body: Mapping[str, Any]) -> str:
    errors = body.get("errors")
    listed = errors if isinstance(errors, list) else [errors or body.get("message") or ""]
    return "; ".join(str(item) for item in listed)
