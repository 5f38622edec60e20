"""Whether there is anything to draw on, and with; asked before anything of it is loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec


def missing(environment: Mapping[str, str] = os.environ) -> str | None:
    """What is missing, and what to do instead; None where all is there."""
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        return "watch needs a terminal; in a pipe or a script, use `rowmill status --json`"
    if environment.get("TERM", "") in {"", "dumb", "unknown"}:
        return (
            "watch can't draw on a dumb terminal, which TERM says this is: use `rowmill status`, "
            "or set TERM to what it really is"
        )
    if find_spec("textual") is None:
        return "watch needs the package textual: pip install 'textual>=8', or use `rowmill status`"
    return None
