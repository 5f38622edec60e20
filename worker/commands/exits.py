"""The exit codes of every command, and what each says: `--help` and docs/cli.md read it here."""

from __future__ import annotations

OK, NOT_DONE, USAGE, UNREACHABLE = 0, 1, 2, 3

MEANINGS = {
    str(OK): "done",
    str(NOT_DONE): "not found, refused, or something needs a person",
    str(USAGE): "wrong usage or settings; of `doctor`: an error was found",
    str(UNREACHABLE): "the database can't be reached",
    "130, 143": "ended by SIGINT or SIGTERM, which a worker has to be told twice; what was done stays done",
}

IN_SHORT = "Exit codes: " + ", ".join(
    f"{code} {meaning}" for code, meaning in MEANINGS.items() if code.isdecimal()
)
