"""Texts that come from rows, for a terminal: nothing in them moves its cursor or hides the rest."""

from __future__ import annotations


def safe(text: str) -> str:
    """On one line; what isn't to be printed is spelt out."""
    return "".join(c if c.isprintable() else _spelt(c) for c in text)


def _spelt(character: str) -> str:
    if character.isspace():
        return " "
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
