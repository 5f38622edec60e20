"""What the vendors of media have in common here: orders are billed, made, and handed out as files.

Each vendor adds its own routes, requests and answers.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from aiohttp import web

from jobs.sandbox.faults import UnknownFaultError
from jobs.sandbox.gate import Gate, Refuse, account_of
from jobs.sandbox.media import MIME, label, render
from jobs.sandbox.predictions import ERRORS, Ask, Pace, Prediction, Predictions, new_id


class Studio:
    def __init__(self, provider: str, gate: Gate, pace: Pace, seed: int) -> None:
        self.predictions = Predictions()
        self._provider, self._gate, self._pace, self._seed = provider, gate, pace, seed
        # One thread: a rendering is never done twice at a time, and a small machine stays quick.
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="sandbox-render")

    def close(self) -> None:
        self._renderer.shutdown()

    def accept(
        self, ask: Ask, twist: str | None, *, operation: str, cents: Decimal, name: str = ""
    ) -> Prediction:
        """Bill what was ordered and begin with it."""
        if twist == "refusal":
            raise UnknownFaultError("fault 'refusal' means nothing to media; 'policy' does")
        name = name or new_id()
        charge = self._gate.bill.charge(
            provider=self._provider,
            operation=operation,
            model=ask.model or ask.version,
            cents=cents,
            words=ask.words,
            external_id=name,
            account=account_of(ask.key),
        )
        if twist in ERRORS:  # it will fail, and what fails costs nothing
            self._gate.bill.refund(charge.charge_id, cents, "failed")
        number = self.predictions.next_number()
        prediction = Prediction(name, number, ask, charge.charge_id, twist, self._pace)
        self.predictions.add(prediction)
        return prediction

    def take_back(self, prediction: Prediction, cents: Decimal) -> None:
        """A part of the charge, unless all of it was taken back at the start."""
        if prediction.twist not in ERRORS:
            self._gate.bill.refund(prediction.charge_id, cents, prediction.status)

    async def file(self, request: web.Request, refuse: Refuse) -> web.StreamResponse:
        """An output. It needs no key, as with the real ones: the path is the secret."""
        prediction = self.predictions.get(request.match_info["id"])
        name = request.match_info["file"]
        if prediction is None or name not in prediction.delivered():
            return web.Response(status=404, text="not found")
        picture = prediction.picture(name, self._seed)
        loop = asyncio.get_running_loop()
        content = await loop.run_in_executor(self._renderer, render, picture)
        content = label(picture.medium, content, f"{prediction.id}/{name}")

        def work(_: str | None) -> web.Response:
            return web.Response(body=content, content_type=MIME[picture.medium])

        return await self._gate.answer(request, "download", prediction.ask.words, refuse, work)
