"""The real `rowmill` as a process; the fixture `rowmill` (conftest.py) makes one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Rowmill = Callable[..., Awaitable[Said]]
"""(dsn or None, *arguments, **environment) → what it said."""


def rowmill_in(directory: Path, *command: str) -> Rowmill:
    """`command` starts it; a process of its own, away from any .env."""

    async def call(dsn: str | None, *arguments: str, **environment: str) -> Said:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
        named = {"ROWMILL_DATABASE_URL": dsn} if dsn else {}
        process = await asyncio.create_subprocess_exec(
            *(command or (sys.executable, "-m", "worker.cli")),
            *arguments,
            cwd=directory,
            env=clean | named | {"PYTHONPATH": str(ROOT)} | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        assert "Traceback" not in err.decode()
        return Said(process.returncode, out.decode(), err.decode())

    return call
