"""A handler's context over real HTTP and SMTP on loopback; turns are only noted."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, TypeVar, cast

from jobs import pages
from jobs.contract import MAX_PAGE, CallResult, Fetched, Job, JobEnds, Outcome, Task
from jobs.mail import Mailer
from jobs.network import HostPolicy, post
from jobs.providers.errors import HeldForPerson
from jobs.providers.transport import Client
from jobs.registry import load

T = TypeVar("T")
LOOPBACK = ("127.0.0.1",)
NO_MAILER = Mailer(None, None)


@dataclass
class Web:
    client: Client
    mailer: Mailer = NO_MAILER
    allowed: tuple[str, ...] = LOOPBACK
    turns: list[tuple[str, float]] = field(default_factory=list)

    async def call(self, step: str, provider: str, task: Task) -> CallResult:
        raise HeldForPerson(f"nothing is paid here: {step} {provider} {task}")

    def progress(self, percent: float) -> None:
        pass

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        return await post(self.client, HostPolicy(self.allowed), url, body, headers)

    async def fetch(
        self, url: str, headers: Mapping[str, str] | None = None, *, max_bytes: int = MAX_PAGE
    ) -> Fetched:
        policy = HostPolicy(self.allowed)
        return await pages.get(self.client, policy, url, headers or {}, max_bytes)

    async def turn(self, name: str, gap_seconds: float) -> None:
        self.turns.append((name, gap_seconds))

    async def mail(self, message: EmailMessage) -> None:
        await self.mailer.send(message, ("video_jobs", "42", "1"))

    async def offload(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(work, *args)

    async def compute(self, work: Callable[..., T], *args: Any, timeout: float) -> T:  # noqa: ASYNC109
        async with asyncio.timeout(timeout):
            made = await asyncio.to_thread(work, *args)
            back: T = pickle.loads(pickle.dumps(made))
            return back


async def run(ctx: Web, kind: str, given: Mapping[str, Any], *, tries: int = 0) -> Outcome:
    """As the executor does it."""
    found = load().get(kind)
    assert found is not None
    job = Job("video_jobs", "42", kind, kind, 1, tries, 3, "user", given)
    try:
        return await found.handler(job, cast("Any", ctx))
    except JobEnds as ending:
        return ending.outcome
