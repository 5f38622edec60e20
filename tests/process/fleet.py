"""Real processes for the process tests: a provider that bills, workers to kill; and patience.

sandbox = await Sandbox.start(directory, duration=1.0)
fleet = Fleet(dsn, sandbox, directory)
worker = await fleet.hire("a", slots=10, RESUBMIT_UP_TO_CENTS=0)   # ROWMILL_ settings
worker.stop(); worker.go_on(); await worker.kill(); code = await worker.drain()
await until(look, within=10)          # look() is awaited until it gives something true
await until_sql(connection, "SELECT count(*) = 3 FROM …", within=10)
await fleet.dismiss(); await sandbox.stop()
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

LEASE = 3.0
LOOK = 0.05
WITHIN = 20.0

# --------------------------------------------------------------------------- patience


async def until(look: Callable[[], Awaitable[T]], *, within: float = WITHIN, what: str = "") -> T:
    """Look again and again until it is true: for what other processes do, which has no event."""
    deadline = time.monotonic() + within
    while True:
        seen = await look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            what = what or getattr(look, "__name__", "it")
            raise AssertionError(f"{what} is still {seen!r} after {within:g} s")
        await asyncio.sleep(LOOK)


async def until_sql(connection: Any, sql: str, *args: Any, within: float = WITHIN) -> Any:
    """Until the statement's one value is true."""

    async def look() -> Any:
        return await connection.fetchval(sql, *args)

    return await until(look, within=within, what=" ".join(sql.split()))


# --------------------------------------------------------------------------- the provider


@dataclass(frozen=True, slots=True)
class Charge:
    """A line of the provider's bill."""

    marker: str | None
    """`source/key` of the job it was for."""
    operation: str
    cents: Decimal
    refunded: Decimal
    external_id: str
    at: datetime
    """By the provider's clock."""

    @property
    def net(self) -> Decimal:
        return self.cents - self.refunded


class Sandbox:
    """`jobs.sandbox` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url
        self._client = httpx.AsyncClient(base_url=url)

    @classmethod
    async def start(
        cls, directory: Path, *, duration: float = 0.3, latency: float = 0.0
    ) -> Sandbox:
        with (directory / "sandbox.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "jobs.sandbox", "--port", "0"),
                *("--duration", str(duration), "--latency", str(latency)),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert process.stdout is not None
        line = await process.stdout.readline()
        assert line, f"the sandbox did not start: {(directory / 'sandbox.log').read_text()}"
        return cls(process, json.loads(line)["url"])

    async def bill(self) -> list[Charge]:
        charges = (await self._client.get("/bill")).json()["charges"]
        return [
            Charge(
                marker=charge["marker"],
                operation=charge["operation"],
                cents=Decimal(charge["cents"]),
                refunded=Decimal(charge["refunded"]),
                external_id=charge["external_id"],
                at=datetime.fromisoformat(charge["at"]),
            )
            for charge in charges
        ]

    async def visits(self, path: str) -> list[float]:
        """When pages below this path of its shop were asked for, in seconds of its clock."""
        visits = (await self._client.get("/control/visits")).json()["visits"]
        return sorted(
            at for where, times in visits.items() if where.startswith(path) for at in times
        )

    async def fault(self, fault: str, *, match: str = "", times: int | None = None) -> None:
        """A rule for requests whose text holds `match`; see `jobs.sandbox.faults`."""
        rule = {"fault": fault, "match": match, "times": times}
        (await self._client.post("/control/faults", json=rule)).raise_for_status()

    async def hanging(self) -> int:
        """Requests that hang at this moment."""
        return int((await self._client.get("/control/faults")).json()["hanging"])

    async def clear_faults(self) -> None:
        """Forget all rules, and let what hangs go on."""
        (await self._client.delete("/control/faults")).raise_for_status()

    async def outage(self, *, on: bool) -> None:
        (await self._client.post("/control/outage", json={"on": on})).raise_for_status()

    async def stop(self) -> None:
        await self._client.aclose()
        await _end(self.process)


def paid(charges: list[Charge]) -> Mapping[tuple[str, str], list[Charge]]:
    """What was really paid, by (marker, operation); refunded in full is not paid."""
    groups: dict[tuple[str, str], list[Charge]] = defaultdict(list)
    for charge in charges:
        if charge.net > 0:
            groups[charge.marker or "", charge.operation].append(charge)
    return groups


def paid_twice(charges: list[Charge]) -> dict[tuple[str, str], list[Charge]]:
    return {what: lines for what, lines in paid(charges).items() if len(lines) > 1}


# --------------------------------------------------------------------------- the workers


@dataclass(slots=True)
class Worker:
    """One worker process."""

    name: str
    process: asyncio.subprocess.Process
    log_file: Path

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def stop(self) -> None:
        """Freeze it: SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to drain: SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        self.process.kill()
        await self.process.wait()

    async def ended(self, *, within: float = WITHIN) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def drain(self, *, within: float = WITHIN) -> int:
        self.terminate()
        return await self.ended(within=within)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its log lines of that event."""
        lines = self.log_file.read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == name]

    async def says(self, name: str, *, within: float = WITHIN) -> dict[str, Any]:
        """Wait for its first log line of that event."""

        async def look() -> list[dict[str, Any]]:
            return self.events(name)

        return (await until(look, within=within, what=f"{self.name}'s {name}"))[0]


@dataclass(slots=True)
class Fleet:
    """Workers on one database, with one sandbox as every provider."""

    dsn: str
    sandbox: Sandbox
    directory: Path
    lease: float = LEASE
    workers: list[Worker] = field(default_factory=list)

    def environment(self, **settings: Any) -> dict[str, str]:
        """What a worker is configured with; `settings` are ROWMILL_ names without the prefix."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
        ours = {
            "DATABASE_URL": self.dsn,
            "STORAGE_URL": f"file://{self.directory / 'outputs'}",
            "ALLOW_PRIVATE_HOSTS": "127.0.0.1",
            "LEASE_SECONDS": self.lease,
            "POLL_SECONDS": 0.2,
            "LOG_FORMAT": "json",
            "PROVIDERS__OPENAI__BASE_URL": f"{self.sandbox.url}/openai/v1",
            "PROVIDERS__OPENAI__API_KEY": "test",
            "PROVIDERS__OPENAI__REQUEST_TIMEOUT": 5,
            "PROVIDERS__REPLICATE__BASE_URL": f"{self.sandbox.url}/replicate/v1",
            "PROVIDERS__REPLICATE__API_KEY": "test",
            "PROVIDERS__REPLICATE__REQUEST_TIMEOUT": 3,
            "PROVIDERS__REPLICATE__POLL_SECONDS": 0.2,
            **{
                f"PROVIDERS__REPLICATE__MODELS__{medium.upper()}": f"sandbox/{medium}"
                for medium in ("video", "image", "audio")
            },
            **settings,
        }
        return inherited | {f"ROWMILL_{name}": str(value) for name, value in ours.items()}

    async def hire(
        self, name: str = "a", *, slots: int = 20, options: tuple[str, ...] = (), **settings: Any
    ) -> Worker:
        """Start a worker; returns once it works, or has already ended well (`--burst`)."""
        words = (sys.executable, "-m", "worker.cli", "run", *options)
        worker = await self.start(name, *words, WORKER_NAME=name, SLOTS=slots, **settings)
        await self._started(worker)
        return worker

    async def start(self, name: str, *words: str, **settings: Any) -> Worker:
        """Any process with a worker's configuration; ended with the fleet."""
        log_file = self.directory / f"{name}-{len(self.workers)}.log"
        with log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *words,
                env=self.environment(**settings),
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )
        self.workers.append(Worker(name, process, log_file))
        return self.workers[-1]

    async def command(self, *words: str, **settings: Any) -> tuple[int, str]:
        """Run a `rowmill` command to its end: its exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker.cli", *words),
            env=self.environment(**settings),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()

    async def dismiss(self) -> None:
        """End every process this fleet started that still runs."""
        await asyncio.gather(*(_end(worker.process) for worker in self.workers))

    async def _started(self, worker: Worker) -> None:
        async def look() -> bool:
            return not worker.alive or bool(worker.events("worker.started"))

        await until(look, within=30, what=f"the start of {worker.name}")
        assert worker.process.returncode in (None, 0), worker.log_file.read_text()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing of it is needed any more, so it isn't asked nicely; a stopped one wouldn't hear."""
    if process.returncode is None:
        process.kill()
        await process.wait()
