"""Replicate: predictions. Asynchronous; the account's list of them answers for lost requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote, urlsplit

from jobs.contract import Failure, FailureKind, Json, MediaTask, Task, Usage
from jobs.providers.adapter import (
    Account,
    Listed,
    Op,
    Page,
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
from jobs.providers.inline import from_data_url
from jobs.providers.prices import PriceTable

PHASES: Mapping[str, Phase] = {
    "starting": "queued",
    "processing": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "cancelled",
    "aborted": "cancelled",
}
# Replicate gives no code for a failed prediction, only the model's own words.
KIND_BY_WORDS = (
    (re.compile(r"(?i)nsfw|sensitive|moderat|content polic|safety"), FailureKind.POLICY),
    (re.compile(r"(?i)code: PA|interrupted|please retry|queue is full"), FailureKind.TRANSIENT),
)
RATIO = re.compile(r"\d{1,4}:\d{1,4}")
PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)%")


class Replicate:
    name = "replicate"
    base_url = "https://api.replicate.com/v1"
    poll_seconds = 2.0
    models: Mapping[str, str] = {
        "video": "minimax/video-01",
        "image": "black-forest-labs/flux-schnell",
        "audio": "meta/musicgen",
    }

    def model(self, task: Task, account: Account) -> str:
        if not isinstance(task, MediaTask):
            raise invalid(self.name, "only media are made here, not text or embeddings")
        model = task.model or account.models.get(task.medium)
        if not model:
            raise invalid(self.name, f"no model is named, and none is configured for {task.medium}")
        return model

    def check(self, task: Task, account: Account, prices: PriceTable) -> None:
        longest = prices.of(self.name, self.model(task, account)).max_seconds
        problem = _problem(_media(task))
        seconds = _media(task).duration_seconds
        if longest is not None and seconds is not None and seconds > longest:
            problem = f"the model makes at most {longest} seconds, not {seconds}"
        if problem:
            raise invalid(self.name, problem)

    def estimate(self, task: Task, model: str, prices: PriceTable) -> Decimal:
        price = prices.of(self.name, model)
        length = Decimal(_media(task).duration_seconds or price.default_seconds)
        ran = price.run_second * price.typical_run_seconds
        return price.item + price.output_second * length + ran

    def cost(self, model: str, state: State, prices: PriceTable, _task: Task | None) -> Decimal:
        """A failed or aborted prediction costs nothing, a cancelled one what it ran."""
        price = prices.of(self.name, model)
        succeeded = state.phase == "succeeded"
        seconds = state.usage.seconds
        if seconds is None:
            seconds = price.typical_run_seconds if succeeded else Decimal(0)
        if not succeeded:
            return price.run_second * seconds if state.phase == "cancelled" else Decimal(0)
        length = _decimal(state.metadata.get("duration")) or price.default_seconds
        made = price.item + price.output_second * length
        return price.run_second * seconds + made * state.usage.items

    def submit(self, task: Task, account: Account) -> Request:
        return self._order(self.model(task, account), _input(_media(task)), account)

    def ref(self, external_id: str, _model: str) -> Ref | None:
        return {"id": external_id} if is_id(external_id) else None

    def poll(self, ref: Ref, account: Account) -> Request | None:
        return self._request("GET", f"/predictions/{ref['id']}", account)

    def cancel(self, ref: Ref, account: Account) -> Request | None:
        return self._request("POST", f"/predictions/{ref['id']}/cancel", account)

    def find(self, account: Account) -> Request | None:
        return self._request("GET", "/predictions", account)

    def listed(self, since: datetime, response: Response, account: Account) -> Page:
        """An hour after its end Replicate forgets a prediction's input."""
        try:
            body = response.object()
            items = [item for item in body["results"] if _created(item) >= since]
            more = body.get("next") if len(items) == len(body["results"]) else None
            return Page(
                tasks=tuple(self._listed(item, account) for item in items),
                next=self._next(more, account) if more else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"not a list of predictions: {error!r}") from error

    def parse(self, _op: Op, response: Response) -> State:
        body = response.object()
        try:
            return _state(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Garbled(f"not a prediction: {error!r}") from error

    def classify(self, op: Op, response: Response) -> Failure:
        try:
            body = response.object()
        except Garbled:
            body = {}
        return failure_of(
            op,
            response,
            provider=self.name,
            kind=None,  # the bodies carry no codes of their own
            code="",
            message=str(body.get("detail") or body.get("title") or ""),
        )

    def _request(self, method: str, path: str, account: Account, body: Any = None) -> Request:
        headers = account.over({"Authorization": f"Bearer {account.api_key}"})
        return Request(method, account.base_url + path, headers, body)

    def _order(self, model: str, given: Json, account: Account) -> Request:
        kind, name = _target(model)
        body: dict[str, Any] = {"input": given}
        if kind == "version":
            return self._request("POST", "/predictions", account, {"version": name, **body})
        return self._request("POST", f"/models/{quote(name)}/predictions", account, body)

    def _listed(self, item: Mapping[str, Any], account: Account) -> Listed:
        models = tuple(str(item[kind]) for kind in ("model", "version") if item.get(kind))
        given = None if item.get("data_removed") else item.get("input")
        return Listed(
            external_id=str(item["id"]),
            ref={"id": str(item["id"])},
            created=_created(item),
            models=models,
            requests=()
            if given is None
            else tuple(self._order(model, given, account) for model in models),
            state=_readable(item),
        )

    def _next(self, url: str, account: Account) -> Request:
        """Only the cursor is taken from the answer: our key goes nowhere else."""
        return self._request("GET", f"/predictions?{urlsplit(url).query}", account)


# --------------------------------------------------------------------------- requests


def _media(task: Task) -> MediaTask:
    assert isinstance(task, MediaTask), "`model` refuses the others"
    return task


def _problem(task: MediaTask) -> str | None:
    if not task.prompt.strip() and not task.images:
        return "there is neither a prompt nor an image"
    if task.duration_seconds is not None and task.duration_seconds < 1:
        return f"the duration must be at least a second, not {task.duration_seconds}"
    if task.aspect_ratio and not RATIO.fullmatch(task.aspect_ratio):
        return f"the aspect ratio must be like 16:9, not {task.aspect_ratio!r}"
    for image in task.images:
        if not image.startswith(("https://", "http://", "data:")):
            return f"an image must be an http or data URL, not {image[:80]!r}"
    return None


def _input(task: MediaTask) -> Json:
    """As JSON brings it back, so that it can be compared with what the list tells."""
    given = {
        "prompt": task.prompt,
        "image": task.images[0] if task.images else None,
        "images": list(task.images) if len(task.images) > 1 else None,
        "duration": task.duration_seconds,
        "aspect_ratio": task.aspect_ratio,
        "resolution": task.resolution,
    }
    present = {key: value for key, value in given.items() if value not in (None, "")}
    body: Json = json.loads(json.dumps({**present, **task.options}))
    return body


def _target(model: str) -> tuple[str, str]:
    """`owner/name` runs by name; `owner/name:version` and a bare version id run by version."""
    name, _, version = model.partition(":")
    if version:
        return "version", version
    return ("model", name) if "/" in name else ("version", name)


# --------------------------------------------------------------------------- responses


def _state(body: Mapping[str, Any]) -> State:
    status, name = str(body["status"]), checked_id(body["id"])
    phase = PHASES.get(status, "unknown")
    outputs = tuple(_files(body.get("output")))
    ran = (body.get("metrics") or {}).get("predict_time")
    return State(
        phase=phase,
        ref={"id": name},
        external_id=name,
        progress=_progress(body.get("logs")),
        outputs=outputs,
        usage=Usage(seconds=_decimal(ran), items=len(outputs)),
        failure=_failure(body) if phase == "failed" else None,
        metadata={
            "status": status,
            "model": body.get("model"),
            "version": body.get("version"),
            "duration": (body.get("input") or {}).get("duration"),
        },
    )


def _files(output: Any) -> Iterator[RemoteOutput]:
    """`output` is any JSON, as the model's author liked it: the files are the URLs in it."""
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, list):
        for item in output:
            yield from _files(item)
    elif isinstance(output, str) and output.startswith(("https://", "http://")):
        yield RemoteOutput(url=output)
    elif isinstance(output, str) and output.startswith("data:"):
        yield RemoteOutput(data=from_data_url(output))


def _failure(body: Mapping[str, Any]) -> Failure:
    message = str(body.get("error") or "the prediction failed without a reason")[:500]
    kind = next((kind for words, kind in KIND_BY_WORDS if words.search(message)), None)
    return Failure(kind or FailureKind.UNKNOWN, message, "failed", Replicate.name, accepted="yes")


def _progress(logs: Any) -> float | None:
    """Models print it; the last figure is the newest."""
    found = PERCENT.findall(logs[-2000:]) if isinstance(logs, str) else []
    return min(100.0, float(found[-1])) if found else None


def _decimal(value: Any) -> Decimal | None:
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError(f"not a number: {value!r}") from error


def _created(item: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(str(item["created_at"]))


def _readable(item: Mapping[str, Any]) -> State:
    """Any model of the account may be in the list; one we can't read hides no other."""
    try:
        return _state(item)
    except (KeyError, TypeError, ValueError, AttributeError, Garbled):
        return State("unknown")
