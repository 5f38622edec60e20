"""Kinds of work: name → handler, time-out, retry policy.

A kind's name is what the platform's map makes of a row: `media:video`, `text`,
`background:embed_content`. Built-in kinds register here; adopters add theirs through the
`rowmill.handlers` entry point or `ROWMILL_HANDLERS=myapp.jobs,…` (modules imported for their
`@kind(...)` decorations).
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from jobs.contract import Context, Job, Outcome

Handler = Callable[[Job, Context], Awaitable[Outcome]]

BUILT_IN = (
    "jobs.media",
    "jobs.text",
    "jobs.embed",
    "jobs.statistics",
    "jobs.template",
    "jobs.webhook",
    "jobs.scrape",
    "jobs.notify",
    "jobs.product_video",
    "jobs.process_media",
    "jobs.thumbnail",
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Delay before try n+1: base × factor^n seconds, at most cap, ± jitter (a share of it)."""

    base: float = 2.0
    factor: float = 2.0
    cap: float = 300.0
    jitter: float = 0.25


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    handler: Handler
    timeout: float
    """Hard deadline of one try, in seconds."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    summary: str = ""


class Registry:
    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}

    def add(self, kind: Kind) -> None:
        if kind.name in self._kinds and self._kinds[kind.name].handler is not kind.handler:
            raise ValueError(
                f"two handlers for kind {kind.name!r}: "
                f"{self._kinds[kind.name].handler.__module__} and {kind.handler.__module__}"
            )
        self._kinds[kind.name] = kind

    def get(self, name: str) -> Kind | None:
        return self._kinds.get(name)

    def names(self) -> list[str]:
        return sorted(self._kinds)


REGISTRY = Registry()


def kind(
    *names: str,
    timeout: float = 600.0,
    retry: RetryPolicy | None = None,
    registry: Registry = REGISTRY,
) -> Callable[[Handler], Handler]:
    """Register the decorated coroutine as the handler of these kinds."""

    def register(handler: Handler) -> Handler:
        summary = (handler.__doc__ or "").strip().split("\n")[0]
        for name in names:
            registry.add(Kind(name, handler, timeout, retry or RetryPolicy(), summary))
        return handler

    return register


def load(extra: Iterable[str] = ()) -> Registry:
    """Import the built-in kinds, the entry points, and the modules named in `extra`."""
    for module in BUILT_IN:
        importlib.import_module(module)
    for entry in entry_points(group="rowmill.handlers"):
        entry.load()
    for module in extra:
        _import_own(module)
    return REGISTRY


OURS = ("jobs", "worker", "sql", "bench")


def _import_own(module: str) -> None:
    """An adopter's module, from wherever Python looks, or from the current directory."""
    named = f"ROWMILL_HANDLERS names {module!r}, "
    if module in OURS:
        raise ImportError(
            f"{named}which is a package of Rowmill's own: call yours otherwise (myapp.{module})"
        )
    # A console script's path doesn't have it. Last, so that nothing of ours is hidden.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{named}which cannot be imported: {error} (looked in the current directory, {here}, "
            "and where Python finds its packages)"
        ) from error
    except Exception as error:
        raise ImportError(
            f"{named}which fails while it is imported: {type(error).__name__}: {error}{_at(error)}"
        ) from error


def _at(error: Exception) -> str:
    """The last line of the adopter's own code, for an error that is told in one line."""
    trace = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in trace if "importlib" not in frame.filename]
    if isinstance(error, SyntaxError) or not frames:
        return ""  # its message names them
    return f" ({frames[-1].filename}, line {frames[-1].lineno})"
