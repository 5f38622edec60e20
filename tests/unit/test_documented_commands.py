"""Every `rowmill …` line of the documentation is one that the real command understands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.commandline import ROOT
from worker.cli import app

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "sql" / "platforms").glob("*/README.md"))

PROSE = re.compile(r"`(rowmill [^`]+)`")
WAYS = re.compile(r"[A-Za-z_.=\"$-]*=\S+\s+")
"""Settings before a command."""


ENDS = {"|", ">", "2>", "<", "&", "&&", ";"}


def commands_of(text: str) -> Iterator[str]:
    """Of code blocks, fenced or indented, and between backquotes; as far as the first pipe."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            bare = line.strip().removeprefix("$ ")
            while WAYS.match(bare):
                bare = WAYS.sub("", bare, count=1)
            if bare.startswith("rowmill ") and not bare.startswith("rowmill 0"):
                yield bare
        else:
            yield from PROSE.findall(line)


def words_of(command: str) -> list[str]:
    """Without comments, and what the shell does with it."""
    words = shlex.split(command.replace("…", ""), comments=True)
    ends = [n for n, word in enumerate(words) if word in ENDS]
    return words[1 : min(ends, default=len(words))]


def problem_with(words: list[str]) -> str | None:
    """Walks as the parser does: commands, then options it knows, with the values they take."""
    command: Any = typer.main.get_command(app)
    if words[0].isupper():  # `rowmill COMMAND --help` is about all of them
        return None
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts)}
    takes = [p for p in command.params if not p.opts[0].startswith("-")]
    bare = 0
    rest = iter(words)
    for word in rest:
        name, equals, _ = word.partition("=")
        if not word.startswith("-"):
            bare += 1
        elif name == "--help":
            continue
        elif name not in options:
            return f"no option {name!r}"
        elif not options[name].is_flag and not equals:
            next(rest, None)
    if bare > len(takes) and all(p.nargs == 1 for p in takes):
        return f"{bare} arguments, where there are {len(takes)}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_pages_tell_to_run(page: Path) -> None:
    told = list(dict.fromkeys(commands_of(page.read_text(encoding="utf-8"))))
    usages = {line for line in told if "[" in line}  # of docs/cli.md: made from the code itself
    wrong = {
        line: problem
        for line in told
        if line not in usages
        if (problem := problem_with(words_of(line)))
    }
    assert wrong == {}


def test_it_sees_what_is_wrong() -> None:
    text = (
        "Say `rowmill pauze x`.\n```sh\n$ A=b rowmill pause x --al\nrowmill limit a 5 6 # c\n```\n"
    )
    assert [problem_with(words_of(line)) for line in commands_of(text)] == [
        "no command 'pauze'",
        "no option '--al'",
        "3 arguments, where there are 2",
    ]


def test_symptoms_lead_somewhere() -> None:
    """Each link into a page of ours has its heading."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\(([a-z/.]*?\.md)?#([\w-]+)\)", text):
            other = (page.parent / target).resolve() if target else page
            assert anchor in anchors(other.read_text(encoding="utf-8")), (page.name, target, anchor)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}
