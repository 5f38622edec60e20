"""The Freepik (Magnific) protocol: images and videos ordered and looked at; and their files.

Neither a way to cancel nor reasons for a failure, as with the real one. Not built: its lists of
tasks, which tell ids only, and webhooks.
"""

from __future__ import annotations

import uuid
from typing import Any

from aiohttp import web

from jobs.sandbox.bill import strings_in
from jobs.sandbox.gate import BAD_KEY, Gate, RefusalError, json_object
from jobs.sandbox.predictions import Ask, Pace, Prediction
from jobs.sandbox.prices import freepik_cents
from jobs.sandbox.studio import Studio
from jobs.sandbox.vendors.freepik_requests import OFFERS, error, order_of, read, refuse

ROOT = "/freepik/v1/ai/"
KEYS = ("x-magnific-api-key", "x-freepik-api-key")

STATUSES = {
    "starting": "CREATED",
    "processing": "IN_PROGRESS",
    "succeeded": "COMPLETED",
    "failed": "FAILED",
}


class Freepik:
    name = "freepik"
    refuse = staticmethod(refuse)

    def __init__(self, gate: Gate, pace: Pace, seed: int) -> None:
        self._gate = gate
        self._studio = Studio(self.name, gate, pace, seed)

    def routes(self) -> list[web.RouteDef]:
        families = sorted({offer.family for offer in OFFERS.values()})
        return [
            *(web.post(ROOT + path, self.create) for path in OFFERS),
            *(web.get(f"{ROOT}{family}/{{id}}", self.get) for family in families),
            web.get("/freepik/files/{id}/{file}", self.file),
        ]

    def no_such_path(self, _: web.Request) -> web.Response:
        return error(404, "Not Found")

    def close(self) -> None:
        self._studio.close()

    async def create(self, request: web.Request) -> web.StreamResponse:
        key = authenticated(request)
        path = request.path.removeprefix(ROOT)
        offer = OFFERS[path]
        body = read(offer, await json_object(request))
        operation, model = path.partition("/")[0], path.rpartition("/")[2]
        given = body.model_dump(exclude_unset=True)
        words = "\n".join(strings_in(given))
        ask = Ask(key, model, offer.family, given, words, order_of(offer, body))
        cents = freepik_cents(model, body.size)

        def work(twist: str | None) -> web.Response:
            task = self._studio.accept(
                ask, twist, operation=operation, cents=cents, name=str(uuid.uuid4())
            )
            return web.json_response({"data": as_json(task, str(request.url.origin()))})

        return await self._gate.answer(request, "submit", words, refuse, work)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """A task is found below its own family's path only."""
        key, name = authenticated(request), request.match_info["id"]
        task = self._studio.predictions.get(name, key)
        family = request.path.removeprefix(ROOT).rpartition("/")[0]
        if task is None or task.ask.version != family:
            raise RefusalError(refuse("404", 0))

        def work(_: str | None) -> web.Response:
            task.polls += 1
            return web.json_response({"data": as_json(task, str(request.url.origin()))})

        return await self._gate.answer(request, "poll", task.ask.words, refuse, work)

    async def file(self, request: web.Request) -> web.StreamResponse:
        return await self._studio.file(request, refuse)


def authenticated(request: web.Request) -> str:
    """By the header's new name or its old one."""
    key = next((request.headers[name] for name in KEYS if request.headers.get(name)), "")
    if not key:
        raise RefusalError(error(401, "Missing API key"))
    if key == BAD_KEY:
        raise RefusalError(refuse("auth", 0))
    return key


def as_json(task: Prediction, base: str) -> dict[str, Any]:
    names = task.delivered()
    body: dict[str, Any] = {
        "task_id": task.id,
        "status": STATUSES[task.status],
        "generated": [f"{base}/freepik/files/{task.id}/{name}" for name in names],
    }
    is_image = task.ask.order.medium == "image"
    return body | ({"has_nsfw": [False] * len(names)} if is_image and names else {})
