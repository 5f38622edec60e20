"""For the runner's tests: a vendor on a loopback port that fails on demand, and a ledger.

The vendor speaks just enough of both protocols, and counts what it accepted: whether something was
paid twice is read off its list, not off ours.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from aiohttp import web
from PIL import Image

from jobs.contract import Failure
from jobs.providers.journal import State, Submission


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 18), "teal").save(out, "PNG")
    return out.getvalue()


BEFORE = {"429": 429, "429-long": 429, "401": 401, "402": 402, "422": 422, "500-before": 500}
TERMINAL = {"succeeded", "failed", "canceled", "aborted"}


@dataclass
class Vendor:
    """Each deque holds what happens to the next requests; an empty one means all is well."""

    url: str = ""
    posts: deque[str] = field(default_factory=deque)
    polls: deque[str] = field(default_factory=deque)
    lists: deque[str] = field(default_factory=deque)
    files: deque[int] = field(default_factory=deque)
    requests: list[str] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 2
    content: bytes = field(default_factory=png)
    as_link: bool = False
    """Whether an answer names its files instead of bringing them."""
    answer: Mapping[str, Any] = field(
        default_factory=lambda: {"finish_reason": "stop", "message": {"content": "Once."}}
    )
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def sent(self) -> int:
        """Requests that ask for something to be made."""
        return sum(line.startswith("POST") and "cancel" not in line for line in self.requests)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/models/{owner}/{name}/predictions", self.predict),
            web.post("/v1/chat/completions", self.chat),
            web.post("/v1/images/generations", self.draw),
            web.get("/v1/predictions", self.list),
            web.get("/v1/predictions/{id}", self.poll),
            web.post("/v1/predictions/{id}/cancel", self.cancel),
            web.get("/files/{id}", self.file),
        ]

    def add(self, given: Any, model: str = "black-forest-labs/flux-1.1-pro") -> dict[str, Any]:
        """A prediction that is there, whoever asked for it."""
        item = {
            "id": f"p{len(self.accepted) + 1}",
            "model": model,
            "input": given,
            "status": "starting",
            "created_at": datetime.now(UTC).isoformat(),
        }
        self.accepted.append(item)
        return item

    async def predict(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        model = f"{request.match_info['owner']}/{request.match_info['name']}"
        return await self._submit(request, lambda: self.add(body["input"], model))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()

        def accept() -> dict[str, Any]:
            self.accepted.append(body)
            usage = {"prompt_tokens": 1000, "completion_tokens": 500}
            return {"id": f"c{len(self.accepted)}", "choices": [self.answer], "usage": usage}

        return await self._submit(request, accept)

    async def draw(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()

        def accept() -> dict[str, Any]:
            self.accepted.append(body)
            link = {"url": f"{self.url}/files/{len(self.accepted)}"}
            file = link if self.as_link else {"b64_json": base64.b64encode(self.content).decode()}
            usage = {"input_tokens": 100, "output_tokens": 1000}
            return {"created": 1795000000, "data": [file], "usage": usage}

        return await self._submit(request, accept)

    async def _submit(self, request: web.Request, accept: Any) -> web.StreamResponse:
        self.requests.append(f"POST {request.path}")
        what = self.posts.popleft() if self.posts else "ok"
        if what in BEFORE:
            headers = {"Retry-After": {"429": "0", "429-long": "120"}.get(what, "1")}
            return web.json_response({"detail": what}, status=BEFORE[what], headers=headers)
        if what == "drop-before":
            return self._drop(request)
        made = accept()
        if what == "drop-after":
            return self._drop(request)
        if what == "hang-after":
            self.hung.set()
            await self.over.wait()
        if what == "garbled":
            return web.Response(status=201, body=b'{"id": "p')
        return web.json_response(made, status=500 if what == "500-after" else 201)

    def _drop(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def poll(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"GET {request.path}")
        found = next(i for i in self.accepted if i.get("id") == request.match_info["id"])
        what = self.polls.popleft() if self.polls else "succeeded"
        if what == "hang":
            self.hung.set()
            await self.over.wait()
        if what == "drop":
            return self._drop(request)
        if what == "garbled":
            return web.Response(body=b"<html>")
        if what.isdigit():
            return web.json_response({"detail": what}, status=int(what))
        if found["status"] not in TERMINAL:
            found["status"] = what
        done = found["status"] == "succeeded"
        link = f"{self.url}/files/{found['id']}"
        extra = {"output": [link] if done else None, "logs": "50%", "error": "it broke"}
        return web.json_response(found | extra | {"metrics": {"predict_time": 1.5}})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"POST {request.path}")
        found = next(i for i in self.accepted if i.get("id") == request.match_info["id"])
        if self.polls and self.polls[0] == "uncancellable":
            self.polls.popleft()
            return web.json_response({"detail": "no"}, status=500)
        if found["status"] not in TERMINAL:
            found["status"] = "canceled"
        return web.json_response(found)

    async def list(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"GET {request.path}")
        what = self.lists.popleft() if self.lists else "ok"
        if what != "ok":
            return web.json_response({}, status=int(what)) if what.isdigit() else web.Response()
        start = int(request.query.get("cursor", "0"))
        newest = list(reversed(self.accepted))
        end = start + self.page_size
        more = f"{self.url}/v1/predictions?cursor={end}" if end < len(newest) else None
        return web.json_response({"results": newest[start:end], "next": more})

    async def file(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"GET {request.path}")
        status = self.files.popleft() if self.files else 200
        return web.Response(body=self.content, status=status)


@asynccontextmanager
async def vendor_running() -> AsyncIterator[Vendor]:
    vendor = Vendor()
    app = web.Application()
    app.add_routes(vendor.routes())
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    vendor.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield vendor
    finally:
        vendor.over.set()
        await runner.cleanup()


# --------------------------------------------------------------------------- the ledger

OPEN = {State.INTENT, State.ACCEPTED, State.UNKNOWN}
ENDED_WITHOUT = {State.FAILED, State.CANCELLED, State.WRITTEN_OFF}
MOVES = {
    State.ACCEPTED: {State.INTENT, State.UNKNOWN},
    State.UNKNOWN: {State.INTENT, State.UNKNOWN},
    State.FINISHED: OPEN,
    State.FAILED: OPEN,
    State.CANCELLED: OPEN,
    State.WRITTEN_OFF: {State.INTENT, State.UNKNOWN},
}


class Ledger:
    """The rules of rowmill.submissions for one job. A move they forbid fails the test."""

    def __init__(self) -> None:
        self.rows: dict[int, Submission] = {}
        self.steps: dict[int, str] = {}
        self.files: dict[int, list[bytes]] = {}
        self.ids: dict[tuple[str, str, str], int] = {}
        self.log: list[str] = []
        self.reasons: list[str] = []
        self.young = True
        self.age = 0.0
        """How long ago every intent seems to have been."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.writing = asyncio.Event()
        self.intents = asyncio.Event()
        self.intents.set()
        self.intending = asyncio.Event()
        self._numbers = itertools.count(1)

    @property
    def last(self) -> Submission:
        return self.rows[max(self.rows)]

    @property
    def states(self) -> list[str]:
        return [row.state.value for row in self.rows.values()]

    @property
    def ends(self) -> list[tuple[str, Any]]:
        """State and cost of each submission."""
        return [(row.state.value, row.cost_cents) for row in self.rows.values()]

    def of_step(self, step: str) -> Submission | None:
        for number, row in self.rows.items():
            if self.steps[number] == step and row.state not in ENDED_WITHOUT:
                return row
        return None

    async def begun(self, step: str) -> bool:
        return self.of_step(step) is not None

    async def intend(
        self,
        step: str,
        *,
        provider: str,
        account: str,
        model: str,
        estimate_cents: Decimal,
        fingerprint: str = "",
    ) -> Submission:
        self.intending.set()
        await self.intents.wait()
        found = self.of_step(step)
        if found is not None:
            intended = datetime.now(UTC) - timedelta(seconds=self.age)
            return replace(found, fresh=False, age_seconds=self.age, intended_at=intended)
        row = Submission(
            id=next(self._numbers),
            state=State.INTENT,
            provider=provider,
            account=account,
            model=model,
            estimate_cents=estimate_cents,
            cost_cents=None,
            ref=None,
            result=None,
            external_id=None,
            fingerprint=fingerprint or None,
            age_seconds=0.0,
            intended_at=datetime.now(UTC),
            fresh=True,
        )
        self.rows[row.id], self.steps[row.id] = row, step
        self.log.append("intent")
        return row

    def may_pay(self) -> bool:
        return self.young

    async def accepted(self, submission: int, *, ref: Mapping[str, Any], external_id: str) -> bool:
        row = self.rows[submission]
        key = (row.provider, row.account, external_id)
        if self.ids.setdefault(key, submission) != submission:
            return False
        await self._move(submission, State.ACCEPTED, ref=ref)
        return True

    async def unknown(self, submission: int, failure: Failure) -> None:
        self.reasons.append(failure.message)
        await self._move(submission, State.UNKNOWN)

    async def finished(
        self, submission: int, *, result: Mapping[str, Any], cost_cents: Decimal
    ) -> None:
        await self._move(submission, State.FINISHED, result=result, cost_cents=cost_cents)

    async def failed(self, submission: int, failure: Failure, *, cost_cents: Decimal) -> None:
        self.reasons.append(failure.message)
        await self._move(submission, State.FAILED, cost_cents=cost_cents)

    async def cancelled(self, submission: int, *, cost_cents: Decimal) -> None:
        await self._move(submission, State.CANCELLED, cost_cents=cost_cents)

    async def written_off(self, submission: int, reason: str, *, unpaid: bool) -> bool:
        self.reasons.append(reason)
        cost = {"cost_cents": Decimal(0)} if unpaid else {}
        await self._move(submission, State.WRITTEN_OFF, **cost)
        return True

    async def park(self, submission: int, contents: Sequence[bytes]) -> None:
        self.files[submission] = list(contents)

    async def parked(self, submission: int) -> list[bytes]:
        return self.files.get(submission, [])

    async def kept(self, submission: int, *, result: Mapping[str, Any]) -> None:
        row = self.rows[submission]
        assert row.state is State.FINISHED
        self.rows[submission] = replace(row, result=result)
        self.files.pop(submission, None)
        self.log.append("kept")

    async def spoiled(self, submission: int, failure: Failure, *, cost_cents: Decimal) -> None:
        row = self.rows[submission]
        assert (row.state, row.cost_cents) == (State.FINISHED, cost_cents)
        self.reasons.append(failure.message)
        self.rows[submission] = replace(row, state=State.FAILED)
        self.files.pop(submission, None)
        self.log.append("spoiled")

    async def known(self, provider: str, account: str, external_ids: Sequence[str]) -> set[str]:
        return {name for name in external_ids if (provider, account, name) in self.ids}

    async def _move(self, submission: int, state: State, **changes: Any) -> None:
        row = self.rows[submission]
        assert row.state in MOVES[state], f"{row.state} may not become {state}"
        self.writing.set()
        await self.gate.wait()
        self.rows[submission] = replace(row, state=state, **changes)
        self.log.append(state.value)
