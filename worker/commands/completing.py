"""What a shell offers for an argument: names that the database or the configuration knows.

Never in the way: a database that is away, slow or not ours, and a wrong setting, offer nothing.
"""
# ruff: noqa: PLC0415 - a command pays only for what it uses

from __future__ import annotations

import re
from collections.abc import Iterable

HARMLESS = re.compile(r"[\w.:@/+=-]+", re.ASCII)
"""Names come from rows, and shells read more into a line than names: no others are offered."""


def lanes(incomplete: str) -> list[str]:
    return _offered([*_known("lanes", incomplete), *_configured()], incomplete)


def listed_lanes(incomplete: str) -> list[str]:
    """Of a list with commas, its last."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{lane}" for lane in lanes(last)]


def tables(incomplete: str) -> list[str]:
    return _offered(_known("tables", incomplete), incomplete)


def jobs(incomplete: str) -> list[str]:
    """Those that wait or run, and those that failed lately."""
    return _offered(_known("jobs", incomplete), incomplete)


def workers(incomplete: str) -> list[str]:
    return _offered(_known("workers", incomplete), incomplete)


def hosts(incomplete: str) -> list[str]:
    return _offered(_known("hosts", incomplete), incomplete)


def attached(incomplete: str) -> list[str]:
    """Platforms that can be detached."""
    return _offered(_known("attached", incomplete), incomplete)


def platforms(incomplete: str) -> list[str]:
    """Those that come with Rowmill."""
    from worker.maps import builtin_platforms

    return _offered(builtin_platforms(), incomplete)


def providers(incomplete: str) -> list[str]:
    return _offered(_configured(), incomplete)


def states(incomplete: str) -> list[str]:
    from worker.generate.lists import STATE_WORDS

    return _offered(STATE_WORDS, incomplete)


def error_kinds(incomplete: str) -> list[str]:
    from jobs.contract import FailureKind

    return _offered(FailureKind, incomplete)


def _offered(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(n for n in set(names) if n.startswith(incomplete) and HARMLESS.fullmatch(n))


def _known(what: str, incomplete: str) -> list[str]:
    try:
        import asyncio

        from worker.settings import EMBEDDED, Settings
        from worker.store.naming import names

        dsn = Settings().database_url
        if not dsn or dsn.startswith(EMBEDDED):  # it would have to be started first
            return []
        return asyncio.run(names(dsn, what, incomplete))
    except Exception:  # noqa: BLE001 - a shell waits for names and has no place for errors
        return []


def _configured() -> tuple[str, ...]:
    try:
        from worker.commands.common import configured_providers

        return configured_providers()
    except Exception:  # noqa: BLE001 - as above
        return ()
