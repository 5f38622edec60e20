"""The HTTP server: the vendors' routes, a shop to scrape, a letterbox, the bill, the controls."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, Field, ValidationError

from jobs.sandbox import samples
from jobs.sandbox.bill import Bill, plain
from jobs.sandbox.faults import Faults, UnknownFaultError
from jobs.sandbox.gate import Gate, RefusalError, Vendor
from jobs.sandbox.letterbox import Letterbox
from jobs.sandbox.predictions import Pace
from jobs.sandbox.shop import Shop
from jobs.sandbox.vendors.anthropic import Anthropic
from jobs.sandbox.vendors.elevenlabs import ElevenLabs
from jobs.sandbox.vendors.freepik import Freepik
from jobs.sandbox.vendors.gemini import Gemini
from jobs.sandbox.vendors.openai import OpenAI
from jobs.sandbox.vendors.replicate import Replicate
from jobs.sandbox.vendors.runway import Runway
from jobs.sandbox.vendors.stability import Stability

MAX_BODY = 64 * 1024 * 1024  # inputs may hold whole images
DRAIN_SECONDS = 5.0


class NewFault(BaseModel):
    fault: str
    match: str = ""
    times: int | None = Field(None, ge=1)


class NewOutage(BaseModel):
    on: bool


class Sandbox:
    """`async with Sandbox(...) as sandbox` serves on `sandbox.url` until the block ends."""

    def __init__(
        self,
        bill: Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        latency: float = 0.0,
        duration: float = 0.3,
        steps: int | None = None,
    ) -> None:
        self.bill = Bill(bill)
        self.faults = Faults()
        self.outage = False
        self.url = ""
        self._host, self._port, self._latency = host, port, latency
        gate = Gate(self.bill, self.faults)
        pace = Pace(duration, steps)
        vendors: list[Vendor] = [
            Anthropic(gate, seed),
            ElevenLabs(gate, seed),
            Freepik(gate, pace, seed),
            Gemini(gate, seed),
            OpenAI(gate, pace, seed),
            Replicate(gate, pace, seed),
            Runway(gate, pace, seed),
            Stability(gate, pace, seed),
        ]
        self._vendors = {vendor.name: vendor for vendor in vendors}
        self.letterbox = Letterbox()
        self._runner = web.AppRunner(
            self._app(),
            access_log=None,
            handler_cancellation=True,  # a hanging request ends when its client goes away
            shutdown_timeout=DRAIN_SECONDS,
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        await self.letterbox.open(self._host)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.letterbox.close()
        await self._runner.cleanup()
        for vendor in self._vendors.values():
            vendor.close()
        self.bill.close()

    def _app(self) -> web.Application:
        app = web.Application(
            middlewares=[self._errors(), self._weather()], client_max_size=MAX_BODY
        )
        for vendor in self._vendors.values():
            app.add_routes(vendor.routes())
        app.add_routes(Shop().routes())
        app.add_routes(self.letterbox.routes())
        app.add_routes(
            [
                web.get("/samples/{name}", samples.show),
                web.get("/bill", self._show_bill),
                web.get("/bill/summary", self._show_summary),
                web.get("/control/faults", self._show_faults),
                web.post("/control/faults", self._add_fault),
                web.delete("/control/faults", self._clear_faults),
                web.post("/control/outage", self._set_outage),
            ]
        )
        app.on_shutdown.append(self._release)
        return app

    def _vendor_of(self, request: web.Request) -> Vendor | None:
        """Whose path it is, by its first part."""
        return self._vendors.get(request.path.split("/")[1])

    def _errors(self) -> Middleware:
        @web.middleware
        async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except RefusalError as refused:
                return refused.response
            except (UnknownFaultError, ValidationError) as problem:
                return web.json_response({"error": str(problem)}, status=400)
            except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
                vendor = self._vendor_of(request)
                return vendor.no_such_path(request) if vendor else web.Response(status=404)

        return errors

    def _weather(self) -> Middleware:
        @web.middleware
        async def weather(request: web.Request, handler: Handler) -> web.StreamResponse:
            vendor = self._vendor_of(request)
            if vendor is not None:
                if self._latency:
                    await asyncio.sleep(self._latency)
                if self.outage:
                    return vendor.refuse("503", 1)
            return await handler(request)

        return weather

    async def _release(self, _: web.Application) -> None:
        self.faults.clear()

    async def _show_bill(self, _: web.Request) -> web.Response:
        charges = [charge.as_json() for charge in self.bill.charges]
        total = plain(self.bill.total_cents)
        return web.json_response({"charges": charges, "total_cents": total})

    async def _show_summary(self, _: web.Request) -> web.Response:
        return web.json_response(self.bill.summary())

    async def _show_faults(self, _: web.Request) -> web.Response:
        rules, hanging, met = self.faults.rules(), self.faults.hanging_now, self.faults.met()
        return web.json_response({"faults": rules, "hanging": hanging, "met": met})

    async def _add_fault(self, request: web.Request) -> web.Response:
        new = NewFault.model_validate_json(await request.read())
        self.faults.add(new.fault, match=new.match, times=new.times)
        return web.json_response({"faults": self.faults.rules()}, status=201)

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self.faults.clear()
        return web.json_response({"faults": []})

    async def _set_outage(self, request: web.Request) -> web.Response:
        self.outage = NewOutage.model_validate_json(await request.read()).on
        return web.json_response({"outage": self.outage})
