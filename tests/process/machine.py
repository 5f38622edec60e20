"""A worker's endpoint, as a machine sees it."""

from __future__ import annotations

from typing import Any

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.process.fleet import Worker, until


async def address(worker: Worker) -> str:
    listening = await worker.says("endpoint.listening")
    return f"http://127.0.0.1:{listening['port']}"


class Machine:
    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=url, timeout=5)

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        answer = await self.client.get(path)
        return answer.status_code, answer.json()

    async def metrics(self) -> dict[str, Metric]:
        text = (await self.client.get("/metrics")).text
        return {family.name: family for family in text_string_to_metric_families(text)}

    async def until(self, path: str, status: int) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            seen, told = await self.get(path)
            return told if seen == status else None

        found = await until(look, what=f"{path} {status}")
        assert found is not None
        return found

    async def gone(self) -> bool:
        try:
            await self.client.get("/healthz")
        except httpx.TransportError:
            return True
        return False


async def seen(worker: Worker) -> Machine:
    return Machine(await address(worker))
