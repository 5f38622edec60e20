"""The Replicate protocol: predictions made, polled, cancelled and listed; and their files.

Not built: webhooks (a `webhook` in the request is taken and never called, so clients have to
poll) and `Prefer: wait` (answered at once, as the vendor may).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from jobs.sandbox.bill import strings_in
from jobs.sandbox.gate import BAD_KEY, Gate, RefusalError, json_object, key_of
from jobs.sandbox.pages import page
from jobs.sandbox.predictions import Ask, Order, Pace, Prediction
from jobs.sandbox.prices import media_cents
from jobs.sandbox.studio import Studio
from jobs.sandbox.vendors.replicate_errors import NOT_FOUND, error, input_error, refuse

MEDIUM = re.compile("video|image|audio|music|speech", re.IGNORECASE)
MEDIA = {"music": "audio", "speech": "audio"}
DEFAULT_SECONDS = {"video": Decimal(2), "image": Decimal(0), "audio": Decimal(3)}
MAX_SECONDS = 60
MAX_IMAGES = 4
PREDICTIONS = "/replicate/v1/predictions"


class MediaInput(BaseModel):
    """The inputs that shape the output; the many others of real models are taken as they come."""

    duration: Decimal | None = Field(None, gt=0, le=MAX_SECONDS)
    aspect_ratio: str = Field("16:9", pattern=r"^([1-9]|[12]\d):([1-9]|[12]\d)$")
    num_outputs: int = Field(1, ge=1, le=MAX_IMAGES)


class Replicate:
    name = "replicate"
    refuse = staticmethod(refuse)

    def __init__(self, gate: Gate, pace: Pace, seed: int) -> None:
        self._gate = gate
        self._studio = Studio(self.name, gate, pace, seed)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(PREDICTIONS, self.create),
            web.get(PREDICTIONS, self.list),
            web.get(PREDICTIONS + "/{id}", self.get),
            web.post(PREDICTIONS + "/{id}/cancel", self.cancel),
            web.post("/replicate/v1/models/{owner}/{name}/predictions", self.create),
            web.get("/replicate/files/{id}/{file}", self.file),
        ]

    def no_such_path(self, _: web.Request) -> web.Response:
        return error(404, NOT_FOUND)

    def close(self) -> None:
        self._studio.close()

    async def create(self, request: web.Request) -> web.StreamResponse:
        key = authenticated(request)
        body = await json_object(request)
        if body is None:
            raise RefusalError(error(400, "The request body is not a JSON object."))
        given = body.get("input")
        if not isinstance(given, dict):
            raise RefusalError(input_error("input", "input is required"))
        words = "\n".join(strings_in(given))
        model, version = named_model(request, body)
        order = order_of(medium_of(f"{model} {version}", words), given)
        ask = Ask(key, model, version, given, words, order)

        def work(twist: str | None) -> web.Response:
            prediction = self._accept(ask, twist)
            return web.json_response(prediction.as_json(base_of(request)), status=201)

        return await self._gate.answer(request, "submit", words, refuse, work)

    async def get(self, request: web.Request) -> web.StreamResponse:
        prediction = self._find(request)

        def work(_: str | None) -> web.Response:
            prediction.polls += 1
            return web.json_response(prediction.as_json(base_of(request)))

        return await self._gate.answer(request, "poll", prediction.ask.words, refuse, work)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        prediction = self._find(request)

        def work(_: str | None) -> web.Response:
            self._stop(prediction)
            return web.json_response(prediction.as_json(base_of(request)))

        return await self._gate.answer(request, "cancel", prediction.ask.words, refuse, work)

    async def list(self, request: web.Request) -> web.StreamResponse:
        key = authenticated(request)

        def work(_: str | None) -> web.Response:
            try:
                body = page(
                    self._studio.predictions.newest_first(key), request.url, base_of(request)
                )
            except ValueError as problem:
                return error(400, str(problem))
            return web.json_response(body)

        return await self._gate.answer(request, "list", "", refuse, work)

    async def file(self, request: web.Request) -> web.StreamResponse:
        return await self._studio.file(request, refuse)

    def _accept(self, ask: Ask, twist: str | None) -> Prediction:
        order = ask.order
        cents = media_cents(order.medium, order.predict_time, order.items)
        operation = f"predictions.{order.medium}"
        return self._studio.accept(ask, twist, operation=operation, cents=cents)

    def _stop(self, prediction: Prediction) -> None:
        """Cancel, and take back what is not billed then: files are only billed when delivered."""
        if not prediction.stop():
            return
        order = prediction.ask.order
        full = media_cents(order.medium, order.predict_time, order.items)
        due = media_cents(order.medium, prediction.predict_time or Decimal(0), 0)
        self._studio.take_back(prediction, full - due)

    def _find(self, request: web.Request) -> Prediction:
        """Another account's prediction is as unknown as one that never was."""
        found = self._studio.predictions.get(request.match_info["id"], authenticated(request))
        if found is None:
            raise RefusalError(error(404, NOT_FOUND))
        return found


def authenticated(request: web.Request) -> str:
    key = key_of(request, "Bearer", "Token")
    if not key or key == BAD_KEY:
        raise RefusalError(refuse("auth", 0))
    return key


def base_of(request: web.Request) -> str:
    return str(request.url.origin())


def named_model(request: web.Request, body: dict[str, Any]) -> tuple[str, str]:
    """(model, version), from the path or from `version`: owner/name, owner/name:id, or id."""
    if "owner" in request.match_info:
        return f"{request.match_info['owner']}/{request.match_info['name']}", "hidden"
    version = body.get("version")
    if not isinstance(version, str) or not version:
        raise RefusalError(input_error("version", "version is required"))
    model, _, number = version.partition(":")
    if "/" not in version:
        return "", version
    return model, number or "hidden"


def medium_of(model: str, words: str) -> str:
    """From the model's name; a bare version id tells nothing, so then from the input."""
    found = MEDIUM.search(model) or MEDIUM.search(words)
    if found is None:
        raise RefusalError(error(422, "Invalid version or not permitted", title="Invalid version"))
    word = found.group().lower()
    return MEDIA.get(word, word)


def order_of(medium: str, given: dict[str, Any]) -> Order:
    present = {name: value for name, value in given.items() if value is not None}
    try:
        shape = MediaInput.model_validate(present)
    except ValidationError as problem:
        first = problem.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RefusalError(input_error(f"input.{field}", f"{field}: {first['msg']}")) from None
    seconds = DEFAULT_SECONDS[medium] if medium == "image" else shape.duration
    items = shape.num_outputs if medium == "image" else 1
    return Order(medium, shape.aspect_ratio, seconds or DEFAULT_SECONDS[medium], items)
