"""The first thing a new user runs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

KEYS = (
    "jobs completed failed held media_files usage_expected usage_records charges"
    " duplicate_charges inconsistent_rows kills seconds"
)


async def test_the_demo_kills_a_worker_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker.cli", "demo", "--jobs", "24", "--json"),
        *("--directory", str(tmp_path / "demo")),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    result = json.loads(output)
    assert list(result) == KEYS.split()
    assert result["completed"] == result["jobs"] == 24
    assert result["usage_records"] == result["usage_expected"] > 0
    assert (result["kills"], result["duplicate_charges"], result["inconsistent_rows"]) == (1, 0, 0)
    assert len(list((tmp_path / "demo" / "outputs").rglob("*.mp4"))) > 0
