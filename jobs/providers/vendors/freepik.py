"""Freepik, which is Magnific by now: images by Mystic, videos by Kling and others. Asynchronous.

No task can be cancelled, and a list of tasks tells nothing but ids. An item's price depends on its
length or size, which no answer repeats: so these are a part of the model's name (`mystic:4k`,
`kling-v2-1-pro:10`), and what was ordered can be priced without the order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

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
from jobs.providers.failures import failure_of
from jobs.providers.media_tasks import as_media, media_model, problem_of_media
from jobs.providers.prices import PriceTable
from jobs.providers.vendors.freepik_models import LOOK, Model, model_named
from jobs.providers.vendors.unlisted import Unlisted

SCHEMES = ("https://", "http://", "data:image/")
MAX_PROMPT = 2500
PATH = re.compile(r"[\w-]+(?:/[\w-]+)*")

PHASES: Mapping[str, Phase] = {
    "CREATED": "queued",
    "IN_PROGRESS": "running",
    "COMPLETED": "succeeded",
    "FAILED": "failed",
}
QUOTA = re.compile(r"(?i)free trial|(?:not enough|insufficient) credits")


class Freepik(Unlisted):
    name = "freepik"
    base_url = "https://api.magnific.com/v1/ai"
    poll_seconds = 3.0
    models: Mapping[str, str] = {"video": "kling-v2-1-pro", "image": "mystic"}

    def model(self, task: Task, account: Account) -> str:
        named = media_model(self.name, task, account, ("video", "image"))
        name, _, size = named.partition(":")
        media = as_media(task)
        model = model_named(name, media.medium)
        size = _size(media, model) or size or next(iter(model.sizes), "")
        return f"{name}:{size}" if size else name

    def check(self, task: Task, account: Account, prices: PriceTable) -> None:
        model = self.model(task, account)
        media = as_media(task)
        problem = problem_of_media(media, SCHEMES) or _problem(media, model)
        if problem:
            raise invalid(self.name, problem)
        prices.of(self.name, model)

    def estimate(self, task: Task, model: str, prices: PriceTable) -> Decimal:
        count = as_media(task).options.get("num_images")
        return self._price(model, prices, count if isinstance(count, int) else 1)

    def cost(self, model: str, state: State, prices: PriceTable, _task: Task | None) -> Decimal:
        succeeded = state.phase == "succeeded"
        return self._price(model, prices, max(1, state.usage.items) if succeeded else 0)

    def submit(self, task: Task, account: Account) -> Request:
        media = as_media(task)
        name, _, size = self.model(task, account).partition(":")
        model = model_named(name, media.medium)
        return self._request("POST", f"/{model.order}", account, _body(media, model, size))

    def ref(self, external_id: str, model: str) -> Ref | None:
        if not is_id(external_id):
            return None
        path = model_named(model.partition(":")[0], "video").order
        return {"id": external_id, "path": LOOK.get(path, path)}

    def poll(self, ref: Ref, account: Account) -> Request | None:
        return self._request("GET", f"/{ref['path']}/{ref['id']}", account)

    def cancel(self, _ref: Ref, _account: Account) -> Request | None:
        return None

    def parse(self, op: Op, response: Response) -> State:
        body = response.object()
        try:
            return _state(body, _look(op, response.asked))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"not a task: {error!r}") from error

    def classify(self, op: Op, response: Response) -> Failure:
        message = _message(response)
        quota = response.status < 500 and QUOTA.search(message)
        return failure_of(
            op,
            response,
            provider=self.name,
            kind=FailureKind.QUOTA if quota else None,  # the bodies carry no codes
            code="",
            message=message,
        )

    def _price(self, model: str, prices: PriceTable, count: int) -> Decimal:
        price = prices.of(self.name, model)
        size = model.partition(":")[2]
        seconds = Decimal(size) if size.isdecimal() else price.default_seconds
        return (price.item + price.output_second * seconds) * count

    def _request(self, method: str, path: str, account: Account, body: Any = None) -> Request:
        """The old host takes the same key by its old name."""
        old = (urlsplit(account.base_url).hostname or "").endswith("freepik.com")
        headers = {f"x-{'freepik' if old else 'magnific'}-api-key": account.api_key}
        return Request(method, account.base_url + path, account.over(headers), body)


# --------------------------------------------------------------------------- requests


def _size(task: MediaTask, model: Model) -> str:
    """The length or the pixels that the task names."""
    own = task.duration_seconds if model.medium == "video" else task.resolution
    return str(task.options.get(model.size_field) or own or "").lower()


def _problem(task: MediaTask, named: str) -> str | None:
    name, _, size = named.partition(":")
    model = model_named(name, task.medium)
    if not PATH.fullmatch(model.order):
        return f"no path to a model: {name!r}"
    if model.medium != task.medium:
        return f"{name} doesn't make {task.medium}"
    if model.sizes and size not in model.sizes:
        return f"the {model.size_field} of {name} can be {', '.join(model.sizes)}, not {size!r}"
    if model.sizes and model.medium == "video" and task.resolution:
        return f"{name} has one resolution, {task.resolution} can't be chosen"
    if model.needs_image and not task.images:
        return f"{name} needs an image"
    if len(task.images) > model.most_images:
        return f"{name} takes at most {model.most_images} images, not {len(task.images)}"
    if any(_encoded(image) == "" for image in task.images):
        return "a data URL has to be base64"
    if model.sizes and model.medium == "video" and len(task.prompt) > MAX_PROMPT:
        return f"the prompt may have {MAX_PROMPT} characters, not {len(task.prompt)}"
    ratio = task.aspect_ratio
    if model.sizes and model.ratios is not None and ratio and ratio not in model.ratios:
        return f"{name} makes {', '.join(model.ratios)}, not {ratio}"
    return None


def _encoded(image: str) -> str:
    """Images are sent by their URL, or as bare base64."""
    return image.partition(";base64,")[2] if image.startswith("data:") else image


def _body(task: MediaTask, model: Model, size: str) -> dict[str, Any]:
    ratio = task.aspect_ratio or ""
    given = {
        "prompt": task.prompt,
        model.image_field: _encoded(task.images[0]) if task.images else None,
        "aspect_ratio": model.ratios.get(ratio, ratio) if model.ratios else None,
        model.size_field: size,
    }
    return {key: value for key, value in given.items() if value} | dict(task.options)


# --------------------------------------------------------------------------- responses


def _look(op: Op, asked: str) -> str:
    """Below which path the task is that was ordered, or looked at, at `asked`."""
    path = urlsplit(asked).path.strip("/")
    look = LOOK.get(path, path) if op == "submit" else path.rpartition("/")[0]
    if not PATH.fullmatch(look):
        raise Garbled(f"the answer to {asked!r} can't be one")
    return look


def _state(body: Mapping[str, Any], look: str) -> State:
    data = body.get("data", body)  # some answers are not wrapped
    name = checked_id(data["task_id"])
    status = data.get("status") or data["task_status"]
    phase = PHASES.get(str(status), "unknown")
    outputs = tuple(RemoteOutput(url=checked_url(url)) for url in data.get("generated") or ())
    return State(
        phase=phase,
        ref={"id": name, "path": look},
        external_id=name,
        outputs=outputs,
        usage=Usage(items=len(outputs)),
        failure=_failure() if phase == "failed" else None,
        metadata={"status": status, "has_nsfw": data.get("has_nsfw")},
    )


def _failure() -> Failure:
    message = "the task failed; Freepik gives no reasons"
    return Failure(FailureKind.UNKNOWN, message, "failed", Freepik.name, accepted="yes")


def _message(response: Response) -> str:
    """The error in words, and which fields it is about."""
    try:
        body = response.object()
    except Garbled:
        return ""
    problem = body.get("problem")
    told = problem if isinstance(problem, dict) else body
    fields = told.get("invalid_params")
    details = [_field(field) for field in fields] if isinstance(fields, list) else []
    return "; ".join(text for text in (told.get("message"), *details) if isinstance(text, str))


def _field(field: Any) -> str:
    return f"{field.get('name')}: {field.get('reason')}" if isinstance(field, dict) else str(field)
