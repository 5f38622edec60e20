"""One request twice: by the vendor's own SDK and by our adapter, both against the sandbox.

The SDKs live in an environment of their own (`make sdks`), so their part runs as a process: a
script of `clients/` reads what to ask for from standard input and prints what the SDK made of the
answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from jobs.contract import Task
from jobs.providers.adapter import State
from jobs.providers.registry import Provider, ProviderSettings, build_providers
from jobs.providers.transport import AiohttpTransport
from jobs.providers.wire import Wire
from jobs.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-sdks" / "bin" / "python"
CLIENTS = Path(__file__).parent / "clients"
KEY = "sandbox-key"

needs_sdks = pytest.mark.skipif(
    not PYTHON.exists(), reason="the vendors' SDKs are not installed: make sdks"
)


async def by_sdk(script: str, url: str, **given: Any) -> Any:
    """What the SDK made of it, as clients/{script}.py prints it."""
    process = await asyncio.create_subprocess_exec(
        *(str(PYTHON), "-W", "ignore", str(CLIENTS / f"{script}.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONDONTWRITEBYTECODE": "1"},  # no key, no proxy, no user's configuration
    )
    said = json.dumps({"url": url, "key": KEY, **given}).encode()
    out, err = await process.communicate(said)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


def provider(name: str, url: str, **settings: Any) -> Provider:
    """As a worker would have it, at the sandbox."""
    given = ProviderSettings(
        base_url=url, api_key=SecretStr(KEY), poll_seconds=0.01, request_timeout=20, **settings
    )
    return build_providers({name: given})[name]


@asynccontextmanager
async def wire() -> AsyncIterator[Wire]:
    async with httpx.AsyncClient(transport=AiohttpTransport(limit=10)) as client:
        yield Wire(client)


async def by_adapter(asked: Provider, task: Task) -> State:
    """How the task ended, as the worker's own code reads it."""
    async with wire() as ours:
        request = asked.adapter.submit(task, asked.account)
        state = await ours.pay(asked, request, lambda: None)
        if state.ref is not None and not state.done:
            state = await ours.follow(asked, state.ref, 0.0, lambda _: None)
        return state


def billed(sandbox: Sandbox) -> list[Decimal]:
    return [charge.net for charge in sandbox.bill.charges]
