"""Proposals as a commented map.toml, which says of each guess where it is from."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from worker.guessing.proposal import Guess, Proposal, Section

WIDTH = 96
COMMENT_AT = 44
UNSURE = "UNSURE"


def render(platform: str, proposals: Sequence[Proposal], *, zoneless: bool = False) -> str:
    lines = [
        *_comment(
            "Proposed by `rowmill map new`, from the tables as they are. Read each line; what is "
            f"marked {UNSURE} needs you. Then: rowmill map check map.toml. What all of it means: "
            "docs/platforms.md; from here to a running fleet: docs/adopt.md.",
            "",
        ),
        "",
        f"platform = {_toml(platform)}",
    ]
    if zoneless:
        lines.append(
            _line('timezone = "UTC"', f"{UNSURE}: where timestamps without a zone are meant", "")
        )
    for proposal in proposals:
        lines += ["", *_source(proposal)]
    return "\n".join(lines) + "\n"


def _source(proposal: Proposal) -> list[str]:
    lines = ["[[sources]]"]
    for note in proposal.notes:
        lines += _comment(f"Note: {note}", "")
    lines += [
        _line(f"name = {_toml(proposal.name)}", "how commands call it; unique in the database", ""),
        f"table = {_toml(proposal.table)}",
    ]
    for section in proposal.sections:
        lines += _section(section)
    return lines


def _section(section: Section) -> list[str]:
    indent, lines = "", []
    if section.name:
        indent = "  "
        header = f"[sources.{section.name}]"
        empty = all(guess.value is None for guess in section.guesses)
        lines = ["", f"{indent}# {header}" if empty else f"{indent}{header}"]
    for guess in section.guesses:
        lines += _guess(guess, indent)
    return lines


def _guess(guess: Guess, indent: str) -> list[str]:
    unsure = guess.confidence == "unsure"
    why = f"{UNSURE}: {guess.why}" if unsure and guess.value is not None else guess.why
    if guess.value is None:
        return [line for text in guess.instead[:1] for line in _lines(f"# {text}", why, indent)]
    lines = _lines(f"{guess.key} = {_toml(guess.value)}", why, indent)
    return lines + [f"{indent}# or: {line}" for line in guess.instead]


def _lines(text: str, why: str, indent: str) -> list[str]:
    """The comment stands behind, or above where it has no room."""
    line = _line(text, why, indent)
    return [line] if len(line) <= WIDTH else [*_comment(why, indent), indent + text]


def _line(text: str, why: str, indent: str) -> str:
    if not why:
        return indent + text
    return f"{(indent + text).ljust(COMMENT_AT)} # {_plain(why)}"


def _comment(text: str, indent: str) -> list[str]:
    wrapped = textwrap.wrap(_plain(text), WIDTH - len(indent) - 2, break_on_hyphens=False)
    return [f"{indent}# {line}" for line in wrapped]


def _plain(text: str) -> str:
    """On one line: words come from anyone's table, and a comment ends where its line does."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", text)


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case list():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case dict():
            pairs = (f"{_key(key)} = {_toml(item)}" for key, item in value.items())
            return "{ " + ", ".join(pairs) + " }"
    return str(value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _text(text: str) -> str:
    """JSON's strings are TOML's basic strings, but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
