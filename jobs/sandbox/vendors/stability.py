"""The Stability protocol: pictures at once, the creative upscale by polling for its result.

The fault `policy` refuses with 403 and bills nothing; `refusal` makes a picture that counts as
filtered, and bills it. A filtered picture is not really blurred here, and an upscaled one not
really larger than the others.
"""

from __future__ import annotations

import base64
import io
import secrets
from decimal import Decimal
from typing import Literal, TypeVar

from aiohttp import web
from aiohttp.web_request import FileField
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.sandbox.faults import UnknownFaultError
from jobs.sandbox.formats import image_as
from jobs.sandbox.gate import BAD_KEY, Gate, RefusalError, account_of, key_of
from jobs.sandbox.media import render
from jobs.sandbox.predictions import Ask, Order, Pace, Prediction, Predictions
from jobs.sandbox.prices import STABILITY_PRICES
from jobs.sandbox.text import dice
from jobs.sandbox.vendors.stability_errors import bad_request, error, refuse, validation_error

BASE = "/stability/v2beta"
ACCEPTED = ("image/*", "*/*", "application/json")


class Drawing(BaseModel):
    """What all take. Fields that are not named here are refused."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=10_000)
    negative_prompt: str | None = Field(None, max_length=10_000)
    seed: int = Field(0, ge=0, le=4294967294)
    style_preset: str | None = None
    output_format: Literal["png", "jpeg", "webp"] = "png"


class Core(Drawing):
    aspect_ratio: Literal["21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21"] = "1:1"


class Ultra(Core):
    image: bytes | None = None
    strength: float | None = Field(None, ge=0, le=1)


class Diffusion(Ultra):
    model: Literal["sd3.5-large", "sd3.5-medium"] = "sd3.5-large"
    mode: Literal["text-to-image", "image-to-image"] = "text-to-image"
    cfg_scale: float | None = Field(None, ge=1, le=10)


class Creative(Drawing):
    image: bytes
    creativity: float = Field(0.3, ge=0.1, le=0.5)


Form = TypeVar("Form", bound=BaseModel)
SHAPES: dict[str, type[Core]] = {"core": Core, "ultra": Ultra, "sd3": Diffusion}


class Stability:
    name = "stability"
    refuse = staticmethod(refuse)

    def __init__(self, gate: Gate, pace: Pace, seed: int) -> None:
        self._gate = gate
        self._pace = pace
        self._seed = seed
        self._tasks = Predictions()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(BASE + "/stable-image/generate/{model:core|ultra|sd3}", self.generate),
            web.post(BASE + "/stable-image/upscale/creative", self.upscale),
            web.get(BASE + "/results/{id}", self.result),
        ]

    def no_such_path(self, request: web.Request) -> web.Response:
        return error(404, "not_found", f"{request.method} {request.path}: no such path")

    def close(self) -> None:
        pass

    async def generate(self, request: web.Request) -> web.StreamResponse:
        key, accept, model = authenticated(request), accepted(request), request.match_info["model"]
        form = await read(request, SHAPES[model])
        if isinstance(form, Diffusion):
            model = form.model
        ask = ask_for(key, model, form, ratio_for(form))

        def work(twist: str | None) -> web.Response:
            if twist == "policy":
                return refuse("policy", 0)
            if twist not in (None, "refusal"):
                raise UnknownFaultError(f"fault {twist!r} means nothing to a picture at once")
            return self._picture(self._accept(ask, twist), "image", accept)

        return await self._gate.answer(request, "submit", ask.words, refuse, work)

    async def upscale(self, request: web.Request) -> web.StreamResponse:
        key = authenticated(request)
        form = await read(request, Creative)
        ask = ask_for(key, "upscale/creative", form, ratio_of(form.image))

        def work(twist: str | None) -> web.Response:
            if twist == "policy":
                return refuse("policy", 0)
            if twist == "fail":
                raise UnknownFaultError("fault 'fail' means nothing here; 'poll-500' does")
            task = self._accept(ask, twist)
            self._tasks.add(task)
            return web.json_response({"id": task.id})

        return await self._gate.answer(request, "submit", ask.words, refuse, work)

    async def result(self, request: web.Request) -> web.StreamResponse:
        key, accept = authenticated(request), accepted(request)
        task = self._tasks.get(request.match_info["id"], key)
        if task is None:
            raise RefusalError(refuse("404", 0))

        def work(_: str | None) -> web.Response:
            task.polls += 1
            task.observe()
            if not task.over:
                return web.json_response({"id": task.id, "status": "in-progress"}, status=202)
            return self._picture(task, "result", accept)

        return await self._gate.answer(request, "poll", task.ask.words, refuse, work)

    def _accept(self, ask: Ask, twist: str | None) -> Prediction:
        name = secrets.token_hex(32)
        charge = self._gate.bill.charge(
            provider="stability", operation="stable-image", model=ask.model,
            cents=STABILITY_PRICES[ask.model],
            words=ask.words, external_id=name, account=account_of(ask.key),
        )  # fmt: skip
        number = self._tasks.next_number()
        return Prediction(name, number, ask, charge.charge_id, twist, self._pace)

    def _picture(self, task: Prediction, field: str, accept: str) -> web.Response:
        """As bytes that are described by headers, or as JSON."""
        kind = task.ask.input["output_format"]
        picture = image_as(kind, render(task.picture("image", self._seed)), task.id)
        finish = "CONTENT_FILTERED" if task.twist == "refusal" else "SUCCESS"
        seed = task.ask.input["seed"] or dice(task.id).randrange(1, 1 << 32)
        if accept == "application/json":
            text = base64.b64encode(picture).decode()
            return web.json_response({field: text, "finish_reason": finish, "seed": seed})
        headers = {"finish-reason": finish, "seed": str(seed)}
        return web.Response(body=picture, content_type=f"image/{kind}", headers=headers)


def authenticated(request: web.Request) -> str:
    key = key_of(request, "Bearer")
    if not key or key == BAD_KEY:
        raise RefusalError(refuse("auth", 0))
    return key


def accepted(request: web.Request) -> str:
    accept = request.headers.get("Accept", "*/*")
    if accept not in ACCEPTED:
        raise RefusalError(bad_request(f"accept: must be one of {', '.join(ACCEPTED)}"))
    return accept


async def read(request: web.Request, shape: type[Form]) -> Form:
    if request.content_type != "multipart/form-data":
        raise RefusalError(bad_request("content-type: must be multipart/form-data"))
    given = {
        name: value.file.read() if isinstance(value, FileField) else value
        for name, value in (await request.post()).items()
    }
    try:
        return shape.model_validate(given)
    except ValidationError as problem:
        raise RefusalError(validation_error(problem)) from None


def ratio_for(form: Core) -> str:
    """What was asked for, or the ratio of the image to start from."""
    image, problem = None, None
    if isinstance(form, Ultra) and form.image is not None:
        image = form.image
        problem = "strength: required with an image" if form.strength is None else None
    if isinstance(form, Diffusion):
        if (form.mode == "image-to-image") != (image is not None):
            problem = f"image: does not go with mode {form.mode}"
        elif image is not None and "aspect_ratio" in form.model_fields_set:
            problem = "aspect_ratio: not with an image"
    if problem:
        raise RefusalError(bad_request(problem))
    return form.aspect_ratio if image is None else ratio_of(image)


def ratio_of(image: bytes) -> str:
    try:
        width, height = Image.open(io.BytesIO(image)).size
    except OSError:
        raise RefusalError(bad_request("image: not a readable picture")) from None
    return f"{width}:{height}"


def ask_for(key: str, model: str, form: Drawing, ratio: str) -> Ask:
    given = form.model_dump(exclude={"image"})
    words = f"{form.prompt}\n{form.negative_prompt or ''}"
    return Ask(key, model, "", given, words, Order("image", ratio, Decimal(0), 1))
