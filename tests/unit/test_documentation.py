"""The documentation knows every setting and every command; help is quick."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer

from jobs.providers.registry import ProviderSettings
from worker import cli, reference
from worker.cli import app
from worker.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
SETTINGS = [f"ROWMILL_{name.upper()}" for name in Settings.model_fields]
PROVIDER = [f"ROWMILL_PROVIDERS__<NAME>__{name.upper()}" for name in ProviderSettings.model_fields]


ENTRIES = {entry.words: entry for entry in reference.entries(typer.main.get_command(app))}
"""Every command as it is typed, such as `rowmill job show`."""

WITHOUT_RESULT = {
    *("rowmill run", "rowmill sandbox", "rowmill watch", "rowmill completion"),
    *("rowmill dev schema", "rowmill dev docs", "rowmill dev pictures"),
}
"""Commands that serve, draw, write a file or print a script: they have no --json."""


@pytest.mark.parametrize("setting", SETTINGS + PROVIDER)
def test_every_setting_is_documented(setting: str) -> None:
    assert f"`{setting}`" in (DOCS / "configuration.md").read_text(encoding="utf-8")


def test_no_setting_is_documented_that_is_none() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted([*(s for s in SETTINGS if s != "ROWMILL_PROVIDERS"), *PROVIDER])


def test_defaults_are_the_codes() -> None:
    """A number or a word in the column is what the setting is without the variable."""
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| `")]
    told = {name.strip("|` "): default for name, default in rows}
    models = ((Settings, "ROWMILL_"), (ProviderSettings, "ROWMILL_PROVIDERS__<NAME>__"))
    fields = {f"{p}{n.upper()}": f for m, p in models for n, f in m.model_fields.items()}
    plain = {name: fields[name].default for name in told if _is_plain(fields[name].default)}
    assert {name: told[name] for name in plain} == {n: _written(d) for n, d in plain.items()}
    assert {told[name] for name in told.keys() - plain.keys()} <= DESCRIBED


DESCRIBED = {
    *("–", "all", "host:pid", "the name", "the vendor's", "the adapter's", "processors − 1"),
    *("`.rowmill/outputs` here", "the storage's own URL", "refuse", "2"),
}
"""Defaults that are told in words: what the code makes of none."""


def _is_plain(default: Any) -> bool:
    """Written as it is; folders depend on where the test runs."""
    if isinstance(default, str):
        return default != "" and "/" not in default
    return isinstance(default, int | float | Decimal)


def _written(default: Any) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


# --------------------------------------------------------------------------- commands


def test_the_reference_is_what_the_commands_say() -> None:
    page = reference.page(typer.main.get_command(app))
    found = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert found == page, "run `rowmill dev docs`"


@pytest.mark.parametrize("words", sorted(ENTRIES))
def test_every_command_teaches(words: str) -> None:
    """With an example that is one of this command, and a text for every option."""
    command = ENTRIES[words].command
    told, _ = reference.texts(command)
    examples = [p for p in reference.paragraphs(told) if reference.is_example(p)]
    assert any(example.startswith(words) for example in examples) or words == "rowmill version"
    silent = [param.name for param in command.params if not param.help]
    assert not silent
    names = {option for param in command.params for option in param.opts}
    assert ("--json" in names) == (words not in WITHOUT_RESULT)


@pytest.mark.parametrize("words", sorted(ENTRIES))
def test_help_shows_what_is_written_and_no_more(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets aren't taken for markup; what stands after the form feed is for the page alone."""
    told, more = reference.texts(ENTRIES[words].command)
    with pytest.raises(SystemExit) as done:
        cli.command()([*words.split()[1:], "--help"])
    assert done.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for paragraph in reference.paragraphs(told):
        assert " ".join(paragraph.split()) in shown
    assert not more or " ".join(more.split())[:60] not in shown


def test_the_contents_lead_to_every_section() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    for entry in ENTRIES.values():
        assert f"[`{entry.words}`](#{entry.anchor})" in text
        assert f"\n### `{entry.words}`\n" in text


def test_help_waits_for_no_driver() -> None:
    heavy = ("asyncpg", "pydantic", "structlog", "httpx", "rich.table")
    program = f"import sys, worker.cli; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
