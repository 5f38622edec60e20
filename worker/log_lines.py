"""Log lines for people: what happened, to which job, and only then the rest."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any

WORDS = {"debug": "debug", "info": "info", "warning": "WARN", "error": "ERROR", "critical": "FATAL"}
COLORS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
QUIET = {"source", "key", "job", "kind", "lane", "worker", "run", "try", "claim"}
"""Told once in front, or of no use to someone who watches one worker."""


class Console:
    """Such as: 14:03:07 WARN  job.failed  generation_jobs/4f… replicate, try 2  error="…"."""

    def __init__(self, *, colors: bool) -> None:
        self._colors = colors

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        line = dict(event)
        level = str(line.pop("level", "info"))
        head = [
            self._paint("2", _time(line.pop("timestamp", None))),
            self._paint(COLORS.get(level, "0"), f"{WORDS.get(level, level):5}"),
            self._paint("1", _plain(line.pop("event", ""))),
        ]
        if "logger" in line:
            head.insert(2, self._paint("2", _plain(line.pop("logger"))))
        if line.get("job"):
            head.append(self._paint("36", _about(line)))
        trace = line.pop("exception", None)
        rest = [f"{_plain(k)}={_value(v)}" for k, v in line.items() if k not in QUIET]
        text = "  ".join([head[0] + " " + head[1], *head[2:], *([" ".join(rest)] if rest else [])])
        return text if trace is None else f"{text}\n{_lines(str(trace))}"

    def _paint(self, color: str, text: str) -> str:
        return f"\x1b[{color}m{text}\x1b[0m" if self._colors else text


def _time(stamp: Any) -> str:
    """By this terminal's clock."""
    try:
        return datetime.fromisoformat(str(stamp)).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return _plain(stamp)


def _about(line: MutableMapping[str, Any]) -> str:
    """The job, its lane, and its try where it isn't the first."""
    said = _plain(line["job"])
    if line.get("lane"):
        said += f" {_plain(line['lane'])}"
    if (line.get("try") or 1) > 1:
        said += f", try {line['try']}"
    return said


def _value(value: Any) -> str:
    if isinstance(value, str):
        bare = value.isprintable() and not set(" \"'=") & set(value)
        return value if value and bare else json.dumps(value, ensure_ascii=not value.isprintable())
    return _plain(json.dumps(value, default=str, ensure_ascii=False))


def _plain(value: Any) -> str:
    """What comes from rows moves no cursor and paints nothing."""
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _lines(text: str) -> str:
    return "\n".join(_plain(line) for line in text.splitlines())
