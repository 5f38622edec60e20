"""Errors in an operator's words: what is wrong, what to do next, and which exit code says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_settings import SettingsError

from worker.commands.exits import NOT_DONE, UNREACHABLE, USAGE
from worker.embedded_places import EmbeddedError
from worker.maps import MapError
from worker.redaction import SECRET_NAMES, without_secrets
from worker.settings import NoDatabase, Settings
from worker.store import LockTimeout, StoreError
from worker.store.acts import WrongPriority
from worker.store.finding import UnknownName
from worker.store.listing import BadCursor, BadSort, TooSlow
from worker.store.migrations import MigrationError
from worker.text.values import on_one_line

NO_SCHEMA = ("3F000", "42P01", "42703", "42883")
"""No such schema, table, column, function."""

NO_ENTRY = ("08", "28", "3D", "53", "57")
"""Connections lost, logins refused, a database that isn't there, a server that is full or ends."""


@dataclass(frozen=True, slots=True)
class Problem:
    message: str
    exit_code: int


class PlainError(Exception):
    """Already said in an operator's words."""


class WrongSetting(Exception):
    """A setting that only shows to be wrong when it is used."""


@contextmanager
def a_wrong_setting(*more: type[Exception]) -> Iterator[None]:
    """What is refused in here is a setting."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (ValueError, *more)):
            raise
        raise WrongSetting(f"{str(error).splitlines()[0]}: see docs/configuration.md") from error


def explain(error: Exception) -> Problem | None:
    """None for what we don't know: that is a bug, and its traceback is wanted."""
    problem = _explain(error)
    if problem is None:
        return None
    # Names come from rows: nothing of them moves a cursor.
    lines = map(on_one_line, without_secrets(problem.message).split("\n"))
    return Problem("\n".join(lines), problem.exit_code)


def _explain(error: Exception) -> Problem | None:
    match error:
        case StoreError():
            return _of_store(error)
        case WrongPriority() | NoDatabase() | SettingsError() | WrongSetting():
            return Problem(str(error), USAGE)
        case ValidationError() if error.title == Settings.__name__:
            return Problem(_of_settings(error), USAGE)
        case ImportError() if str(error).startswith("ROWMILL_HANDLERS"):
            return Problem(str(error), USAGE)
        case MapError() | MigrationError() | UnknownName() | EmbeddedError() | PlainError():
            return Problem(str(error), NOT_DONE)
        case TooSlow():
            return Problem(str(error), NOT_DONE)
        case BadCursor() | BadSort():
            return Problem(str(error), USAGE)
    return None


def _of_store(error: StoreError) -> Problem:
    state = error.sqlstate
    if isinstance(error, LockTimeout):
        message = f"{error}: someone's open transaction holds the table; try again when it is over"
        return Problem(message, NOT_DONE)
    if state in NO_SCHEMA and "rowmill." in str(error):
        message = f"no rowmill schema here, or an older one: run `rowmill migrate` ({error})"
        return Problem(message, NOT_DONE)
    if state in NO_SCHEMA:  # an older schema, or a platform's own table
        message = f"{error}: run `rowmill migrate`; if all is applied, `rowmill doctor` says more"
        return Problem(message, NOT_DONE)
    if state == "42501":
        message = f"{error}: connect as a role that owns schema rowmill and has BYPASSRLS"
        return Problem(message, NOT_DONE)
    if not state or state.startswith(NO_ENTRY):
        message = f"can't reach the database: {error} (see ROWMILL_DATABASE_URL)"
        return Problem(message, UNREACHABLE)
    return Problem(f"the database refused: {error}", NOT_DONE)


def _of_settings(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        name = "__".join(str(part) for part in problem["loc"]).upper()
        # What stands in a provider's wrong place may well be its key.
        secret = SECRET_NAMES.search(name) or name.startswith("PROVIDERS")
        given = "" if secret else f" (it is {problem['input']!r})"
        lines.append(f"ROWMILL_{name}: {problem['msg']}{given}")
    return "; ".join(lines) + ": see docs/configuration.md"
