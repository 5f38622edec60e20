"""Text that others wrote, for a terminal."""

from __future__ import annotations


def on_one_line(text: str) -> str:
    """Nothing in it moves a cursor, changes a colour or begins a line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
