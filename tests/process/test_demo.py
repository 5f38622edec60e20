"""The first thing a new user runs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.demo.platform import showable

pytestmark = pytest.mark.process

KEYS = (
    "jobs completed failed held media_files usage_expected usage_records charges"
    " duplicate_charges inconsistent_rows kills seconds platforms order"
)
SUMS = "jobs completed failed held media_files usage_expected usage_records inconsistent_rows"


async def run(*words: str) -> tuple[int | None, str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker.cli", "demo", *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def test_the_demo_kills_a_worker_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    code, output, errors = await run(
        "--jobs", "24", "--json", "--directory", str(tmp_path / "demo")
    )
    assert code == 0, errors
    result = json.loads(output)
    assert list(result) == KEYS.split()
    assert result["completed"] == result["jobs"] == 24
    assert result["usage_records"] == result["usage_expected"] > 0
    assert (result["kills"], result["duplicate_charges"], result["inconsistent_rows"]) == (1, 0, 0)
    assert len(list((tmp_path / "demo" / "outputs").rglob("*.mp4"))) > 0
    assert list(result["platforms"]) == ["photomemory", "ebook"]
    adds_up(result)


async def test_all_platforms_are_served_by_one_fleet_in_one_order(tmp_path: Path) -> None:
    words = ("--platform", "all", "--jobs", "40", "--json")
    code, output, errors = await run(*words, "--directory", str(tmp_path / "demo"))
    assert code == 0, errors + output
    result = json.loads(output)
    assert set(result["platforms"]) == set(showable())
    assert all(entry["jobs"] == entry["completed"] > 0 for entry in result["platforms"].values())
    adds_up(result)


def adds_up(result: dict[str, Any]) -> None:
    entries = result["platforms"].values()
    assert {name: sum(entry[name] for entry in entries) for name in SUMS.split()} == {
        name: result[name] for name in SUMS.split()
    }
    order = result["order"]
    assert list(order) == ["claims", "platforms", "inversions"]
    assert order["claims"] >= result["jobs"]  # the killed worker's were claimed twice
    assert (order["platforms"], order["inversions"]) == (len(entries), 0)


async def test_a_platform_that_is_not_there_is_refused_with_those_that_are() -> None:
    code, output, errors = await run("--platform", "nowhere")
    assert (code, output) == (1, "")
    assert "no platform 'nowhere': give one of " in errors
    assert "photomemory" in errors
    assert "Traceback" not in errors
