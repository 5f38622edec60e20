"""Uploads and computations with real workers: a short lease, kills, cancels and a drain."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.database.conftest import attached
from tests.database.platform_samples import CloneDatabase, sql_file
from tests.database.support import add
from tests.process.conftest import OpenFleet
from tests.process.fleet import Fleet, Sandbox, Worker, until, until_sql
from tests.unit.filming import film
from tests.unit.test_outputs import make_image

pytestmark = pytest.mark.process

TEACHER = "f0000000-0000-4000-8000-000000000001"
HANDLERS = "tests.process.uploads"


@pytest.fixture
async def school(clone_database: CloneDatabase) -> str:
    """Education, and the ebook platform for its plain background jobs."""
    return await clone_database("school-process", attached("education", "ebook"))


@pytest.fixture
async def pupils(school: str) -> Any:
    connection = await asyncpg.connect(school)
    yield connection
    connection.terminate()


@pytest.fixture
async def staff(school: str, open_fleet: OpenFleet) -> Fleet:
    return await open_fleet(school)


async def upload(
    connection: Any, staff: Fleet, content: bytes, mime_type: str, **columns: Any
) -> str:
    """Put a file into the storage, as an upload service does, and insert its row."""
    folder = staff.directory / "outputs" / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{len(list(folder.iterdir()))}.bin"
    (folder / name).write_bytes(content)
    (key,) = await add(
        connection,
        "public.media_files",
        user_id=TEACHER,
        filename=name,
        original_filename=name,
        file_path=f"uploads/{name}",
        file_size=len(content),
        mime_type=mime_type,
        **columns,
    )
    return key


async def finished(connection: Any, key: str, status: str = "completed") -> Any:
    await until_sql(
        connection,
        "SELECT processing_status = $2 FROM public.media_files WHERE id = $1",
        key,
        status,
        within=60,
    )
    return await connection.fetchrow("SELECT * FROM public.media_files WHERE id = $1", key)


def stored(staff: Fleet) -> dict[str, bytes]:
    """What the workers made, by storage key."""
    folder = staff.directory / "outputs"
    found = (path for path in (folder / "media_files").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def listed(file: Any) -> list[str]:
    """The keys of all variants of a row."""
    variants = json.loads(file["processed_variants"])
    lists = [v for v in variants.values() if isinstance(v, list)]
    singles = [v for v in variants.values() if isinstance(v, dict)]
    return sorted(entry["key"] for entry in [*singles, *(e for found in lists for e in found)])


async def consistent(connection: Any) -> bool:
    rows = await connection.fetch(sql_file("education", "verdict.sql").rstrip().rstrip(";"))
    return all(row["consistent"] for row in rows)


async def test_a_picture_and_a_video_and_what_is_neither(
    pupils: Any, staff: Fleet, tmp_path: Path
) -> None:
    await staff.hire("a", PUBLIC_BASE_URL="https://cdn.example.com")
    picture = make_image("PNG", (700, 350))
    clip = film(tmp_path / "a.webm", (640, 360), codec="libvpx", sound="libopus").read_bytes()
    keys = {
        "image": await upload(pupils, staff, picture, "image/jpeg", visibility="public"),
        "video": await upload(pupils, staff, clip, "video/webm", visibility="course_only"),
        "broken": await upload(pupils, staff, b"no film", "video/mp4"),
    }
    image, video = [await finished(pupils, keys[name]) for name in ("image", "video")]
    await finished(pupils, keys["broken"], "failed")
    assert (image["mime_type"], image["width"], image["height"]) == ("image/png", 700, 350)
    assert image["cdn_url"] == f"https://cdn.example.com/media_files/{keys['image']}/700.webp"
    assert (video["width"], video["height"], video["duration"]) == (640, 360, 1)
    assert (video["cdn_url"], video["visibility"]) == (None, "course_only")
    assert sorted([*listed(image), *listed(video)]) == sorted(stored(staff))
    told = await pupils.fetchval(
        "SELECT message FROM rowmill.failures WHERE row_key = $1", keys["broken"]
    )
    assert "not a readable" in told
    assert await consistent(pupils)


async def test_an_upload_by_url(pupils: Any, staff: Fleet, sandbox: Sandbox) -> None:
    await staff.hire("a")
    url = f"{sandbox.url}/samples/video.mp4?label=x&bytes=120000"
    (key,) = await add(
        pupils,
        "public.media_files",
        user_id=TEACHER,
        filename="x",
        original_filename="x",
        file_path=url,
        file_size=120_000,
        mime_type="video/mp4",
    )
    file = await finished(pupils, key)
    assert (file["width"], file["height"], file["duration"]) == (320, 180, 2)


async def test_the_demos_uploads(pupils: Any, staff: Fleet, sandbox: Sandbox) -> None:
    await staff.hire("a", PUBLIC_BASE_URL="https://cdn.example.com")
    script = sql_file("education", "demo.sql").replace(":sandbox", sandbox.url)
    await pupils.execute(script.replace(":jobs", "18"))
    left = "SELECT count(*) = 0 FROM public.media_files WHERE processing_status <> 'completed'"
    await until_sql(pupils, left, within=90)
    assert await pupils.fetchval("SELECT count(*) FROM public.media_files") == 18
    assert await pupils.fetchval("SELECT count(DISTINCT file_hash) FROM public.media_files") == 18
    assert await consistent(pupils)


# --------------------------------------------------------------------------- kills


def children_of(pid: int) -> list[int]:
    """All processes below one, however deep."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            below.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    queue = [pid]
    while queue:
        found += (here := below.get(queue.pop(), []))
        queue += here
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(*pids: int) -> None:
    async def look() -> bool:
        return not any(alive(pid) for pid in pids)

    await until(look, what=f"the end of {pids}")


LONG = {"size": (1280, 720), "seconds": 30.0, "rate": 12}
"""Work for long enough that a kill meets it in the middle."""


async def test_a_killed_worker_leaves_no_process_and_no_second_file(
    pupils: Any, staff: Fleet, tmp_path: Path
) -> None:
    content = film(tmp_path / "a.mp4", **LONG).read_bytes()  # type: ignore[arg-type]
    key = await upload(pupils, staff, content, "video/mp4")
    first = await staff.hire("a")

    async def half_done() -> bool:
        return any(name.endswith("360p.mp4") for name in stored(staff))

    await until(half_done, within=60)
    children = children_of(first.process.pid)
    assert children
    await first.kill()
    await gone(*children)
    assert (await pupils.fetchval("SELECT processing_status FROM public.media_files")) != (
        "completed"
    )
    before = stored(staff)
    await staff.hire("b")
    file = await finished(pupils, key)
    after = stored(staff)
    assert sorted(after) == listed(file)
    assert {name: after[name] for name in before if "360p" in name} == {
        name: content for name, content in before.items() if "360p" in name
    }
    assert await consistent(pupils)


_BUSY = """
INSERT INTO system.background_jobs (job_type, payload, max_retries)
VALUES ('webhook_delivery', $1::jsonb, $2) RETURNING id::text
"""


async def computing(
    connection: Any, tmp_path: Path, seconds: float, *, retries: int = 0
) -> tuple[str, Path]:
    """A job that computes for so long, and where it writes which process does."""
    file = tmp_path / "pid"
    payload = json.dumps({"seconds": seconds, "file": str(file)})
    return await connection.fetchval(_BUSY, payload, retries), file


async def pid_in(file: Path) -> int:
    async def look() -> int:
        return int(file.read_text() or 0) if file.exists() else 0

    return await until(look, what="the computation's process")


async def state_of(connection: Any, key: str, status: str) -> Any:
    sql = "SELECT status = $2 FROM system.background_jobs WHERE id = $1"
    await until_sql(connection, sql, key, status, within=40)
    return await connection.fetchrow("SELECT * FROM system.background_jobs WHERE id = $1", key)


async def hired(staff: Fleet, name: str, **settings: Any) -> Worker:
    return await staff.hire(name, HANDLERS=HANDLERS, **settings)


async def test_heartbeats_go_on_while_something_is_computed(
    pupils: Any, staff: Fleet, tmp_path: Path
) -> None:
    """It ends only after another worker had time to take the job of one that fell silent."""
    await hired(staff, "a", COMPUTE_PROCESSES=1)
    key, file = await computing(pupils, tmp_path, 300.0)
    await pid_in(file)
    file.unlink()
    await hired(staff, "b")
    lived = "SELECT now() - started_at > $1 FROM rowmill.workers WHERE name = 'b'"
    await until_sql(pupils, lived, timedelta(seconds=4 * staff.lease), within=60)
    assert not file.exists(), "it was begun a second time"
    (tmp_path / "pid.stop").touch()
    assert (await state_of(pupils, key, "completed"))["retry_count"] == 0
    assert not file.exists(), "it was begun a second time"
    assert await pupils.fetchval("SELECT count(*) FROM rowmill.failures") == 0


async def test_a_cancelled_jobs_computation_is_killed(
    pupils: Any, staff: Fleet, tmp_path: Path
) -> None:
    await hired(staff, "a")
    key, file = await computing(pupils, tmp_path, 90.0)
    pid = await pid_in(file)
    await pupils.execute("UPDATE system.background_jobs SET status = 'cancelled'")
    await gone(pid)
    assert (await state_of(pupils, key, "cancelled"))["completed_at"] is None


async def test_a_child_that_is_killed_costs_its_job_a_try_and_nobody_else(
    pupils: Any, staff: Fleet, tmp_path: Path
) -> None:
    worker = await hired(staff, "a")
    key, file = await computing(pupils, tmp_path, 90.0)
    os.kill(await pid_in(file), signal.SIGKILL)
    failed = await state_of(pupils, key, "failed")
    assert "signal 9" in failed["error_message"]
    file.unlink()
    again, _ = await computing(pupils, tmp_path, 0.1)
    await state_of(pupils, again, "completed")
    assert worker.alive


async def test_a_signal_to_the_whole_group_costs_no_try(
    pupils: Any, staff: Fleet, tmp_path: Path
) -> None:
    """As service managers end one: worker, fork server and children, all at once."""
    worker = await hired(staff, "a", GRACE_SECONDS=20)
    key, file = await computing(pupils, tmp_path, 90.0)
    busy, children = await pid_in(file), children_of(worker.process.pid)
    assert busy in children
    for pid in (worker.process.pid, *children):
        os.kill(pid, signal.SIGTERM)
    assert await worker.ended() == 0
    await gone(*children)
    row = await pupils.fetchrow("SELECT * FROM system.background_jobs WHERE id = $1", key)
    assert (row["status"], row["retry_count"]) == ("pending", 0)
    assert await pupils.fetchval("SELECT count(*) FROM rowmill.failures") == 0


async def test_a_drain_beyond_its_grace_hands_the_job_back(
    pupils: Any, staff: Fleet, tmp_path: Path
) -> None:
    worker = await hired(staff, "a", GRACE_SECONDS=0.5)
    key, file = await computing(pupils, tmp_path, 90.0)
    pid = await pid_in(file)
    children = children_of(worker.process.pid)
    assert pid in children
    assert await worker.drain() == 0
    await gone(*children)
    row = await pupils.fetchrow("SELECT * FROM system.background_jobs WHERE id = $1", key)
    assert (row["status"], row["retry_count"]) == ("pending", 0)


async def test_a_drain_waits_for_what_is_done_in_time(
    pupils: Any, staff: Fleet, tmp_path: Path
) -> None:
    worker = await hired(staff, "a", GRACE_SECONDS=20)
    key, file = await computing(pupils, tmp_path, 1.5)
    await pid_in(file)
    children = children_of(worker.process.pid)
    assert await worker.drain() == 0
    await gone(*children)
    await state_of(pupils, key, "completed")
