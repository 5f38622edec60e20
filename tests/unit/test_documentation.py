"""The documentation knows every setting and every command; help is quick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from jobs.providers.registry import ProviderSettings
from worker.cli import app
from worker.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
SETTINGS = [f"ROWMILL_{name.upper()}" for name in Settings.model_fields]
PROVIDER = [f"ROWMILL_PROVIDERS__<NAME>__{name.upper()}" for name in ProviderSettings.model_fields]


def commands() -> Iterator[str]:
    """Every command as it is typed, such as `rowmill job show`."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        if inner is None:
            yield f"rowmill {name}"
        else:
            yield from (f"rowmill {name} {sub}" for sub in inner)


@pytest.mark.parametrize("setting", SETTINGS + PROVIDER)
def test_every_setting_is_documented(setting: str) -> None:
    assert f"`{setting}`" in (DOCS / "configuration.md").read_text(encoding="utf-8")


def test_no_setting_is_documented_that_is_none() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted([*(s for s in SETTINGS if s != "ROWMILL_PROVIDERS"), *PROVIDER])


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_is_documented_and_teaches(command: str) -> None:
    assert f"**`{command}" in (DOCS / "cli.md").read_text(encoding="utf-8")


def test_help_waits_for_no_driver() -> None:
    heavy = ("asyncpg", "pydantic", "structlog", "httpx", "rich.table")
    program = f"import sys, worker.cli; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
