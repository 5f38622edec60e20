"""`rowmill doctor` on what lies outside the database, and as the command that people type."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from jobs.providers.greeting import greeting
from jobs.providers.registry import ADAPTERS, ProviderSettings, build_providers
from tests.commandline import Rowmill
from tests.database.doctoring import all_found, found, provokes
from tests.database.support import Connect, OpenStore, add_videos
from tests.unit.mailbox import Mailbox, mailbox
from worker.settings import Settings
from worker.store import Store

__all__ = ["mailbox"]


@pytest.fixture
async def store(photomemory: str, open_store: OpenStore) -> Store:
    return await open_store(photomemory)


@asynccontextmanager
async def answering(status: int, body: str = "{}") -> AsyncIterator[tuple[str, list[str]]]:
    """A provider that says this to everything; what it was asked, with the headers."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        head = f"HTTP/1.1 {status} So\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write((head + body).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        await server.wait_closed()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def outside(tmp_path: Path, **given: Any) -> Settings:
    local = {"storage_url": f"file://{tmp_path}/outputs", "providers": {}}
    return Settings.model_construct(**{**local, **given})


def openai(url: str) -> dict[str, ProviderSettings]:
    return {"openai": ProviderSettings.model_validate({"api_key": "sk-secret", "base_url": url})}


NETWORK = ("providers.unreachable", "providers.refused", "storage", "redis", "mail")


async def asked_outside(store: Store, given: Settings) -> dict[str, Any]:
    return await found(store, given, network=True, only=NETWORK, ask=1.0)


@provokes("providers.unreachable", "providers.refused")
async def test_providers(store: Store, tmp_path: Path) -> None:
    async with answering(200) as (url, asked):
        assert await asked_outside(store, outside(tmp_path, providers=openai(url))) == {}
        assert len(asked) == 1
        assert asked[0].startswith("GET /models HTTP/1.1")
        assert "Bearer sk-secret" in asked[0]
    async with answering(401, '{"error": "no such key: sk-secret"}') as (url, _):
        findings = await asked_outside(store, outside(tmp_path, providers=openai(url)))
        assert findings["providers.refused"]["severity"] == "error"
        assert "sk-secret" not in str(findings)
    async with answering(401, '{"detail": {"status": "missing_permissions"}}') as (url, _):
        assert await asked_outside(store, outside(tmp_path, providers=openai(url))) == {}
    async with answering(503) as (url, _):
        findings = await asked_outside(store, outside(tmp_path, providers=openai(url)))
        assert findings["providers.unreachable"]["evidence"].endswith("answers 503")
    nowhere = openai(f"http://127.0.0.1:{closed_port()}/v1")
    findings = await asked_outside(store, outside(tmp_path, providers=nowhere))
    assert findings["providers.unreachable"]["severity"] == "warning"
    assert "can't be reached from here" in findings["providers.unreachable"]["evidence"]
    offline = await all_found(store, outside(tmp_path, providers=nowhere))
    assert not [f for f in offline if f["id"].startswith("providers")]


def test_nothing_that_is_asked_is_paid_for() -> None:
    given = {name: ProviderSettings.model_validate({"api_key": "k-1"}) for name in ADAPTERS}
    for provider in build_providers(given).values():
        request = greeting(provider)
        if request is not None:
            assert (request.method, request.json, request.form) == ("GET", None, None)
            assert any("k-1" in value for value in request.headers.values())


@provokes("storage.unreachable")
async def test_the_storage(store: Store, tmp_path: Path) -> None:
    assert await asked_outside(store, outside(tmp_path)) == {}
    left = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert left == [], "the probe is gone again"
    (tmp_path / "file").write_text("")
    broken = outside(tmp_path, storage_url=f"file://{tmp_path}/file/below")
    finding = (await asked_outside(store, broken))["storage.unreachable"]
    assert finding["severity"] == "error"
    assert f"{tmp_path}/file/below: " in finding["evidence"]


@provokes("redis.unreachable", "mail.unreachable")
async def test_redis_and_mail(store: Store, tmp_path: Path, mailbox: Mailbox) -> None:
    away = outside(
        tmp_path,
        redis_url=f"redis://:hush@127.0.0.1:{closed_port()}",
        smtp_url=SecretStr(f"smtp://127.0.0.1:{closed_port()}"),
    )
    findings = await asked_outside(store, away)
    assert {f["severity"] for f in findings.values()} == {"warning"}
    assert set(findings) == {"redis.unreachable", "mail.unreachable"}
    assert "hush" not in str(findings)
    there = outside(tmp_path, smtp_url=SecretStr(mailbox.url))
    assert await asked_outside(store, there) == {}
    assert mailbox.got == []


# --------------------------------------------------------------------------- the command


async def test_the_command(rowmill: Rowmill, photomemory: str, connect: Connect) -> None:
    connection = await connect(photomemory)
    await connection.execute("ALTER TABLE generation_jobs DISABLE TRIGGER rowmill_enqueue")
    await add_videos(connection)
    only = ("--only", "tables", "--only", "rows")
    said = await rowmill(photomemory, "doctor", *only, ROWMILL_SLOT="3")
    assert (said.code, said.err) == (2, "")
    assert "error: generation_jobs: public.generation_jobs lacks rowmill_enqueue" in said.out
    assert "1 error, 1 warning; rowmill doctor --repair mends 2 of them" in said.out
    assert "\x1b" not in said.out
    said = await rowmill(photomemory, "doctor", "--repair", "--json", *only)
    assert said.code == 0
    assert (said.json["findings"], said.json["worst"]) == ([], None)
    assert [row["id"] for row in said.json["repaired"]] == ["tables.triggers", "rows.unqueued"]
    said = await rowmill(photomemory, "doctor", "--only", "nonsense")
    assert (said.code, "no finding's id begins with 'nonsense'" in said.err) == (2, True)
