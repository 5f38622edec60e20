"""What stands between the network and a vendor's protocol: faults, keys, request bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.sandbox.bill import Bill
from jobs.sandbox.faults import Fault, Faults, Stage

BAD_KEY = "bad-key"

Body = TypeVar("Body", bound=BaseModel)

Refuse = Callable[[str, float], web.Response]
"""(fault name, value) → the vendor's error response."""
Work = Callable[[str | None], web.Response]
"""Accepts, bills and answers; is told when a fault changes the content of the answer."""


class Vendor(Protocol):
    """One vendor's protocol; its paths begin with `/{name}/`."""

    @property
    def name(self) -> str: ...

    @property
    def refuse(self) -> Refuse: ...

    def routes(self) -> list[web.RouteDef]: ...

    def no_such_path(self, request: web.Request) -> web.Response: ...

    def close(self) -> None: ...


class Strict(BaseModel):
    """A request body whose unknown fields are refused, as most vendors refuse them."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RefusalError(Exception):
    """Carries a vendor's error response out of the checks that come before the work."""

    def __init__(self, response: web.Response) -> None:
        self.response = response


class Gate:
    """Runs a vendor's work with the fault that is due, if any, before or after it."""

    def __init__(self, bill: Bill, faults: Faults) -> None:
        self.bill = bill
        self.faults = faults

    async def answer(
        self, request: web.Request, stage: Stage, words: str, refuse: Refuse, work: Work
    ) -> web.StreamResponse:
        fault = self.faults.take(stage, words)
        if fault is not None and not fault.after and not fault.changes_content:
            disturbed = await self._disturb(request, fault, refuse, None)
            if disturbed is not None:
                return disturbed
        before = self.bill.latest
        response = work(fault.name if fault and fault.changes_content else None)
        charge = None if self.bill.latest is before else self.bill.latest
        await self.bill.announce()
        if fault is not None and fault.after and not fault.changes_content:
            disturbed = await self._disturb(request, fault, refuse, response)
            if disturbed is not None:
                return disturbed
        if charge is not None:
            await deliver(request, response)
            self.bill.told(charge)
        return response

    async def _disturb(
        self, request: web.Request, fault: Fault, refuse: Refuse, response: web.Response | None
    ) -> web.StreamResponse | None:
        """What the client gets instead of `response`; None: nothing but the delay."""
        match fault.name:
            case "hang":
                await self.faults.hang()
                return None
            case "slow":
                await asyncio.sleep(fault.value)
                return None
            case "disconnect":
                return hang_up(request)
            case "cut":
                return await cut_short(request, response)
            case "garbled":
                return garble(response)
            case name:
                return refuse(name, fault.value)


async def deliver(request: web.Request, response: web.Response) -> None:
    """Send it now, and not when the handler has returned: raises if the client is gone."""
    await response.prepare(request)
    await response.write_eof()


def half(response: web.Response | None) -> bytes:
    body = response.body if response is not None else None
    return body[: len(body) // 2] if isinstance(body, bytes) else b'{"id": "'


def hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.close()
    return web.Response()  # goes nowhere: the connection is closed


def garble(response: web.Response | None) -> web.Response:
    """Half the body as if it were all of it: complete HTTP, broken content."""
    return web.Response(
        body=half(response),
        status=response.status if response is not None else 200,
        content_type=response.content_type if response is not None else "application/json",
    )


async def cut_short(request: web.Request, response: web.Response | None) -> web.StreamResponse:
    """Promises the whole body, sends half, closes."""
    body = half(response)
    partial = web.StreamResponse()
    partial.content_length = len(body) * 2 + 1
    await partial.prepare(request)
    await partial.write(body)
    hang_up(request)
    return partial


def key_of(request: web.Request, *schemes: str) -> str:
    """The key a request carries, or "" when there is none."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme in schemes else ""


def account_of(key: str) -> str:
    """Tells accounts apart on the bill without writing whole keys into a file."""
    return f"...{key[-4:]}"


async def json_object(request: web.Request) -> dict[str, Any] | None:
    """The request's JSON object, or None when the body is anything else."""
    try:
        body = json.loads(await request.read())
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


async def body_of(
    request: web.Request,
    shape: type[Body],
    not_json: Callable[[], web.Response],
    unfit: Callable[[ValidationError], web.Response],
) -> Body:
    """The request's body in that shape, or the vendor's words for what is wrong with it."""
    body = await json_object(request)
    if body is None:
        raise RefusalError(not_json())
    try:
        return shape.model_validate(body)
    except ValidationError as problem:
        raise RefusalError(unfit(problem)) from None
