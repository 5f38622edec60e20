"""Logs: JSON or console lines on stderr, ours and every library's, without secrets.

A line written inside a job says which: `bind_job` puts its source, key, lane and try into the
job's own context, and every later line of that task (and of its providers and handlers) has them.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import structlog
from structlog.typing import Processor

SECRET_NAMES = re.compile(
    r"(^|[_-])(api_?key|authorization|password|secret|smtp_url|token)$", re.IGNORECASE
)
"""`token` but not `tokens`: how many were used is no secret."""

SECRET_TEXTS = (
    (re.compile(r"(\w+://[^\s:/@]*:)[^\s/@]+@"), r"\1***@"),  # a DSN's password
    (re.compile(r"(\bpassword=)\S+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(Bearer|Basic) [\w.~+/=-]+"), r"\1 ***"),
    (
        re.compile(r"([?&][\w-]*(?:key|secret|token|signature|sig)=)[^\s&\"']+", re.IGNORECASE),
        r"\1***",
    ),
)

_handler: logging.Handler | None = None


def configure(level: str = "info", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Set up logging for this process; asked twice, the second time counts."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [redact]
    if console:
        last += [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    else:
        last += [structlog.processors.JSONRenderer(default=str)]
    trace = structlog.processors.format_exc_info
    structlog.configure(
        processors=[*shared, trace, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _libraries(level, [*shared, trace], last)


def _libraries(level: str, shared: list[Processor], last: list[Processor]) -> None:
    """Lines of arq, asyncio and others come through `logging`: the same form for them."""
    global _handler  # noqa: PLW0603 - the root logger is global too
    handler = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[remove, *last],
        )
    )
    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
    root.addHandler(handler)
    # It tells the URL of every request; those of outputs and webhooks often hold a secret.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    root.setLevel(max(_number(level), logging.INFO))  # a library's debug lines are rarely ours
    _handler = handler


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def bind_job(*, source: str, key: str, lane: str, attempt: int) -> None:
    """Say in every further line of this task which job it is about."""
    structlog.contextvars.bind_contextvars(source=source, key=key, lane=lane, **{"try": attempt})


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {name: _redacted(name, value) for name, value in event.items()}


def _redacted(name: str, value: Any) -> Any:
    if value is not None and SECRET_NAMES.search(name):
        return "***"
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: _redacted(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", item) for item in value]
    return value


def without_secrets(text: str) -> str:
    for pattern, instead in SECRET_TEXTS:
        text = pattern.sub(instead, text)
    return text
