"""The demo's processes: a sandbox provider that bills, and workers that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

LEASE_SECONDS = 4
VENDORS = {
    "openai": "openai/v1",
    "replicate": "replicate/v1",
    "freepik": "freepik/v1/ai",
    "runway": "runway/v1",
    "stability": "stability/v2beta",
    "elevenlabs": "elevenlabs/v1",
}
"""Where the sandbox speaks each provider's protocol. Their usual models are in its price list."""


@dataclass(slots=True)
class Sandbox:
    process: asyncio.subprocess.Process
    url: str
    smtp: str | None
    """None without the demo extra: jobs that send mail are then held."""

    @classmethod
    async def start(cls, directory: Path, *, duration: float = 1.5) -> Sandbox:
        bill = directory / "bill.jsonl"
        with (directory / "sandbox.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "jobs.sandbox", "--port", "0", "--bill", str(bill)),
                *("--duration", str(duration), "--latency", "0.02"),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"the sandbox did not start: see {directory / 'sandbox.log'}")
        where = json.loads(line)
        return cls(process, where["url"], where["smtp"])

    def mail(self) -> dict[str, str]:
        """How a worker sends its mail here."""
        if self.smtp is None:
            return {}
        return {
            "ROWMILL_SMTP_URL": self.smtp,
            "ROWMILL_MAIL_FROM": "Rowmill demo <demo@example.com>",
        }

    async def bill(self) -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            charges = (await client.get(f"{self.url}/bill")).json()
            summary = (await client.get(f"{self.url}/bill/summary")).json()
        return {**charges, **summary, "charges": charges["charges"]}

    async def faults_met(self) -> list[dict[str, Any]]:
        async with httpx.AsyncClient() as client:
            told = (await client.get(f"{self.url}/control/faults")).json()
        return list(told["met"])

    async def stop(self) -> None:
        await _end(self.process)


@dataclass(slots=True)
class Fleet:
    dsn: str
    sandbox_url: str
    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """Over what a worker of the demo is configured with."""
    workers: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """What a worker of this demo is configured with; also for the commands to go on with."""
        return {
            "ROWMILL_DATABASE_URL": self.dsn,
            "ROWMILL_STORAGE_URL": f"file://{self.directory / 'outputs'}",
            "ROWMILL_ALLOW_PRIVATE_HOSTS": "127.0.0.1",
            "ROWMILL_LEASE_SECONDS": str(LEASE_SECONDS),
            **{
                f"ROWMILL_PROVIDERS__{vendor.upper()}__BASE_URL": f"{self.sandbox_url}/{base}"
                for vendor, base in VENDORS.items()
            },
            **{f"ROWMILL_PROVIDERS__{vendor.upper()}__API_KEY": "demo" for vendor in VENDORS},
            "ROWMILL_PROVIDERS__REPLICATE__REQUEST_TIMEOUT": "5",
            **{
                f"ROWMILL_PROVIDERS__REPLICATE__MODELS__{medium.upper()}": f"sandbox/{medium}"
                for medium in ("video", "image", "audio")
            },
            **self.settings,
        }

    async def hire(
        self, name: str, *, slots: int = 12, main: Sequence[str] = ("worker.cli", "run")
    ) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
        environment = {
            **inherited,
            **self.environment(),
            "ROWMILL_WORKER_NAME": name,
            "ROWMILL_SLOTS": str(slots),
            "ROWMILL_LOG_FORMAT": "json",
        }
        with self.log_of(name).open("ab") as log:
            self.workers[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *main),
                env=environment,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )

    def log_of(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def stop(self, name: str) -> None:
        self.workers[name].send_signal(signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        self.workers[name].send_signal(signal.SIGCONT)

    async def kill(self, name: str) -> None:
        process = self.workers.pop(name)
        process.kill()
        await process.wait()

    async def dismiss(self) -> None:
        await asyncio.gather(*(_end(process) for process in self.workers.values()))
        self.workers.clear()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
