"""Logs: JSON or console lines on stderr, ours and every library's, without secrets.

A line written inside a job says which: `bind_job` puts what names it into the job's own context,
and every later line has it, of its handler, its provider and their libraries, also in tasks and
threads they start. Lines about a job from elsewhere (settler, consumer) take `job_fields`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Literal

import structlog
from structlog.typing import Processor

from worker.log_lines import Console
from worker.redaction import redacted
from worker.transitions import Settlement, Try

_handler: logging.Handler | None = None
_job: ContextVar[Try | None] = ContextVar("job", default=None)


def configure(
    level: str = "info",
    style: Literal["auto", "json", "console"] = "auto",
    worker: str | None = None,
) -> None:
    """Set up logging for this process; asked twice, the second time counts.

    `worker` is said in every line, whoever writes it.
    """
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_job,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if worker is not None:
        shared.insert(1, _said_by(worker))
    last: list[Processor] = [redact]
    if console:
        last.append(Console(colors=sys.stderr.isatty()))
    else:
        last.append(structlog.processors.JSONRenderer(default=str))
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _libraries(level, shared, last)


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


def _said_by(worker: str) -> Processor:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        event.setdefault("worker", worker)
        return event

    return add


def job_fields(
    source: str,
    key: str,
    *,
    lane: str | None = None,
    kind: str | None = None,
    run: int | None = None,
    attempt: int | None = None,
    queue_id: int | None = None,
    token: int | None = None,
) -> dict[str, Any]:
    """What a line about a job says of it; all of them always, null where there is none."""
    claim = None if queue_id is None else f"{queue_id}.{(token or 0) & 0xFFFFFF:06x}"
    return {
        "job": f"{source}/{key}",
        "source": source,
        "key": key,
        "lane": lane,
        "kind": kind,
        "run": run,
        "try": attempt,
        "claim": claim,
    }


def about(job: Try | Settlement) -> dict[str, Any]:
    """The fields of a job that is, or was, in this worker's hands."""
    return job_fields(
        job.source,
        job.key,
        lane=job.lane,
        kind=job.kind,
        run=job.run,
        attempt=job.tries + 1 if isinstance(job, Try) else job.try_,
        queue_id=job.queue_id,
        token=job.token,
    )


def bind_job(job: Try) -> None:
    """Say in every further line of this task which job it is about.

    The fields are made when there is a line to write: most jobs write none.
    """
    _job.set(job)
    structlog.contextvars.bind_contextvars(source=job.source, key=job.key)  # for jobs/failpoints.py


def _add_job(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    job = _job.get()
    if job is not None:
        for name, value in about(job).items():
            event.setdefault(name, value)
    return event


FIRST = (
    *("timestamp", "level", "event", "logger", "worker"),
    *("job", "source", "key", "lane", "kind", "run", "try", "claim"),
)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """What every line has, then what only this one has; without secrets."""
    ordered = {name: event.pop(name) for name in FIRST if name in event}
    ordered |= event
    return {name: redacted(name, value) for name, value in ordered.items()}
