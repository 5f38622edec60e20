"""The sandbox's sample files: what they are, as long as asked, and every label another file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from jobs.probe import inspect
from jobs.sandbox import Sandbox


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with Sandbox() as sandbox, httpx.AsyncClient(base_url=sandbox.url) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "mime_type", "size"),
    [
        ("video.mp4", "video/mp4", 120_000),
        ("video.webm", "video/webm", 150_001),
        ("image.jpg", "image/jpeg", 200_001),
        ("image.png", "image/png", 50_001),
        ("audio.wav", "audio/wav", 100_000),
        ("document.pdf", "application/pdf", 3000),
    ],
)
async def test_samples(
    http: httpx.AsyncClient, tmp_path: Path, name: str, mime_type: str, size: int
) -> None:
    plain = await http.get(f"/samples/{name}")
    assert (plain.status_code, plain.headers["content-type"]) == (200, mime_type)
    seen = {plain.content}
    for label in ("a", "b"):
        padded = await http.get(f"/samples/{name}", params={"label": label, "bytes": size})
        assert len(padded.content) == size
        seen.add(padded.content)
    assert len(seen) == 3
    for content in seen if name != "document.pdf" else ():
        (tmp_path / "file").write_bytes(content)
        assert inspect(tmp_path / "file", tmp_path / "t.jpg").mime_type == mime_type


async def test_size_and_length_of_a_sample(http: httpx.AsyncClient, tmp_path: Path) -> None:
    wanted = {"width": 640, "height": 360, "seconds": 3}
    (tmp_path / "file").write_bytes((await http.get("/samples/video.mp4", params=wanted)).content)
    media = inspect(tmp_path / "file", tmp_path / "t.jpg")
    assert (media.width, media.height, media.duration_seconds) == (640, 360, 3)


async def test_what_can_not_be_made_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.get("/samples/video.mp4?bytes=10")).status_code == 400
    assert (await http.get("/samples/audio.wav?bytes=100001")).status_code == 400
    assert (await http.get("/samples/video.mp4?seconds=many")).status_code == 400
    assert (await http.get("/samples/none.mp4")).status_code == 404
