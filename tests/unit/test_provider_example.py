"""The worked example of docs/providers.md, followed to the letter, works; what it tells is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.providers.adapter import Account
from jobs.providers.registry import ADAPTERS
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
(PRICES,) = re.findall(r"```toml\n(\[lumen\]\n.*?)```", PAGE, re.DOTALL)


def put_in(path: Path, before: str, line: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{path.name} has changed: mend this test, and the page"
    path.write_text(text.replace(before, line + before), encoding="utf-8")


def followed(copy: Path) -> None:
    """Its three files, and the three places where they are added."""
    for part in ("jobs", "tests/contract"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        (copy / name).write_text(text, encoding="utf-8")
    registry, server = copy / "jobs/providers/registry.py", copy / "jobs/sandbox/server.py"
    put_in(registry, "\nALL:", "from jobs.providers.vendors.lumen import Lumen\n")
    put_in(registry, "    Stability(),\n", "    Lumen(),\n")
    put_in(server, "\nMAX_BODY", "from jobs.sandbox.vendors.lumen import Lumen\n")
    put_in(server, "            Stability(gate", "            Lumen(gate, seed),\n")
    put_in(copy / "jobs/providers/prices.toml", "[stability]\n", PRICES)


def test_the_example(tmp_path: Path) -> None:
    assert len(FILES) == 3
    followed(tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-o"),
            *("asyncio_mode=auto", "-p", "no:cacheprovider", "tests/contract/test_lumen.py"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_has_its_section(name: str) -> None:
    assert f"\n## {name}\n" in PAGE
    assert f"| [`{name}`](#{name}) |" in PAGE


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_the_table_says_of_lost_requests(name: str) -> None:
    account = Account("default", "https://x/v1", "k", ADAPTERS[name].models)
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| [`{name}`]")]
    assert ("is found" in row) == (ADAPTERS[name].find(account) is not None)


def test_the_page_names_only_settings_there_are() -> None:
    named = set(re.findall(r"ROWMILL_([A-Z_]+?)(?=__|[^A-Z_])", PAGE))
    assert named <= {field.upper() for field in Settings.model_fields}
