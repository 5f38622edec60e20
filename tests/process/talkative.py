"""Handlers that say much, from everywhere, and let slip what they should keep; for test_logs.py."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import BaseModel, SecretStr

from jobs.contract import Context, Failed, Failure, FailureKind, Job, Outcome, Succeeded
from jobs.registry import kind
from tests.process.planted import PLANTED

log = structlog.get_logger()
library = logging.getLogger("some.library")


@dataclass
class Account:
    name: str
    api_key: str


class Model(BaseModel):
    password: str
    kept: SecretStr


@kind("note")
async def note(job: Job, _ctx: Context) -> Outcome:
    match job.key:
        case "talks":
            await _talk()
            return Succeeded(text="done")
        case "crashes":
            _crash()
        case "fails":
            url = f"https://{PLANTED}@shop.example/?api_key={PLANTED}"
            return Failed(Failure(FailureKind.INVALID, f"no such page: {url}", "gone"))
    return Succeeded(text="forbidden")


async def _talk() -> None:
    log.info("said.inside")

    async def in_a_task() -> None:
        await asyncio.sleep(0)
        log.info("said.in_a_task")

    async with asyncio.TaskGroup() as group:
        group.create_task(in_a_task())
        group.create_task(asyncio.to_thread(log.info, "said.in_a_thread"))
    library.warning("said.by_a_library to %s", f"redis://:{PLANTED}@cache/0")
    await asyncio.to_thread(library.error, "said.by_a_library with %r", {"token": PLANTED})
    _let_slip()


def _let_slip() -> None:
    secrets: dict[str, Any] = {
        "headers": {"X-Api-Key": PLANTED, "Accept": "x", b"cookie": PLANTED},
        "nested": [{"deep": ({"client_secret": PLANTED},)}],
        "raw": f"Authorization: Bearer {PLANTED}".encode(),
        "account": Account("ours", PLANTED),
        "model": Model(password=PLANTED, kept=SecretStr(PLANTED)),
        "url": f"https://user:{PLANTED}@host/a?b=1&X-Amz-Signature={PLANTED}",
        "error": ValueError(f"password={PLANTED} is wrong"),
    }
    log.warning("said.too_much", **secrets, access_token=PLANTED, tokens=12)


def _login() -> None:
    raise ValueError(f"no login with Basic {PLANTED}")


def _crash() -> None:
    try:
        _login()
    except ValueError as error:
        raise RuntimeError(f"postgresql://me:{PLANTED}@db/app said no") from error
