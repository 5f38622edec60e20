"""The Runway protocol: tasks from text and images, polled and deleted; and their files.

Nothing here is ever THROTTLED: the sandbox takes as many tasks at once as it gets.
"""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from aiohttp import web

from jobs.sandbox.bill import strings_in
from jobs.sandbox.gate import BAD_KEY, Gate, RefusalError, json_object, key_of
from jobs.sandbox.predictions import Ask, Order, Pace, Prediction, stamp
from jobs.sandbox.prices import runway_credits
from jobs.sandbox.studio import Studio
from jobs.sandbox.vendors.runway_requests import OFFERS, Asked, error, read, refuse

VERSIONS = ("2024-09-13", "2024-11-06")
TASK = "/runway/v1/tasks/{id}"

STATUSES = {
    "starting": "PENDING",
    "processing": "RUNNING",
    "succeeded": "SUCCEEDED",
    "failed": "FAILED",
}
# twist → failureCode, failure
FAILURES = {
    "fail": ("INTERNAL.BAD_OUTPUT.CODE01", "An unexpected error occurred."),
    "policy": ("SAFETY.INPUT.TEXT", "Content moderation: the input was rejected."),
}


class Runway:
    name = "runway"
    refuse = staticmethod(refuse)

    def __init__(self, gate: Gate, pace: Pace, seed: int) -> None:
        self._gate = gate
        self._studio = Studio(self.name, gate, pace, seed)

    def routes(self) -> list[web.RouteDef]:
        return [
            *(web.post(f"/runway/v1/{endpoint}", self.create) for endpoint in OFFERS),
            web.get(TASK, self.get),
            web.delete(TASK, self.delete),
            web.get("/runway/files/{id}/{file}", self.file),
        ]

    def no_such_path(self, request: web.Request) -> web.Response:
        return error(404, f"Cannot {request.method} {request.path}")

    def close(self) -> None:
        self._studio.close()

    async def create(self, request: web.Request) -> web.StreamResponse:
        key = admitted(request)
        endpoint = request.path.rpartition("/")[2]
        asked = read(endpoint, await json_object(request))
        given = asked.model_dump(exclude_unset=True)
        words = "\n".join(strings_in(given))
        ask = Ask(key, asked.model, "", given, words, order_of(endpoint, asked))

        def work(twist: str | None) -> web.Response:
            task = self._studio.accept(
                ask, twist, operation=endpoint, cents=credits_of(ask), name=str(uuid.uuid4())
            )
            return web.json_response({"id": task.id, "estimatedCost": told(credits_of(ask))})

        return await self._gate.answer(request, "submit", words, refuse, work)

    async def get(self, request: web.Request) -> web.StreamResponse:
        task = self._find(request)

        def work(_: str | None) -> web.Response:
            task.polls += 1
            return web.json_response(as_json(task, str(request.url.origin())))

        return await self._gate.answer(request, "poll", task.ask.words, refuse, work)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Nothing is known of it afterwards. Only what had not begun is paid back."""
        task = self._find(request)

        def work(_: str | None) -> web.Response:
            if task.stop() and task.status == "aborted":
                self._studio.take_back(task, credits_of(task.ask))
            self._studio.predictions.remove(task)
            return web.Response(status=204)

        return await self._gate.answer(request, "cancel", task.ask.words, refuse, work)

    async def file(self, request: web.Request) -> web.StreamResponse:
        return await self._studio.file(request, refuse)

    def _find(self, request: web.Request) -> Prediction:
        found = self._studio.predictions.get(request.match_info["id"], admitted(request))
        if found is None:
            raise RefusalError(refuse("404", 0))
        return found


def admitted(request: web.Request) -> str:
    """The key of a request that names a version of the protocol."""
    key = key_of(request, "Bearer")
    if not key or key == BAD_KEY:
        raise RefusalError(refuse("auth", 0))
    if request.headers.get("X-Runway-Version") not in VERSIONS:
        message = f"X-Runway-Version must be one of {', '.join(VERSIONS)}"
        raise RefusalError(error(400, message))
    return key


def order_of(endpoint: str, asked: Asked) -> Order:
    medium = endpoint.rpartition("_")[2]
    return Order(medium, asked.ratio, asked.seconds, 1)


def credits_of(ask: Ask) -> Decimal:
    return runway_credits(ask.model, ask.order.aspect_ratio, ask.order.seconds)


def told(credit: Decimal) -> dict[str, int]:
    return {"credits": int(credit)}


def as_json(task: Prediction, base: str) -> dict[str, Any]:
    task.observe()
    status = STATUSES[task.status]
    body: dict[str, Any] = {"id": task.id, "status": status, "createdAt": stamp(task.created)}
    match status:
        case "SUCCEEDED":
            urls = [f"{base}/runway/files/{task.id}/{name}" for name in task.files()]
            return body | {"output": urls, "cost": told(credits_of(task.ask))}
        case "FAILED":
            code, failure = FAILURES[task.twist or "fail"]
            return body | {"failureCode": code, "failure": failure, "cost": told(Decimal(0))}
        case "RUNNING":
            body["progress"] = task.percent / 100
    return body | {"estimatedCost": told(credits_of(task.ask))}
