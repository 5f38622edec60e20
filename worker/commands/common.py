"""What commands share. Imports late: a command pays only for what it uses."""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import asyncio
import getpass
import json
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from worker.commands.exits import NOT_DONE, OK

if TYPE_CHECKING:
    from worker.store import Store

__all__ = [
    "NOT_DONE",
    "OK",
    "AsJson",
    "cents",
    "configured_providers",
    "dsn",
    "print_json",
    "who",
    "with_store",
]

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def dsn() -> str:
    from worker.settings import Settings, database_url

    return database_url(Settings())


def configured_providers() -> tuple[str, ...]:
    """By name: each is a lane, also while nothing has waited there and no worker serves it."""
    from worker.settings import Settings

    return tuple(Settings().providers)


def with_store(work: Callable[[Store], Awaitable[T]], *, size: int = 2) -> T:
    """Run `work` on a store over the configured database."""

    async def connected() -> T:
        from worker.store import Store

        store = await Store.open(dsn(), size=size)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(connected())


def print_json(value: Any) -> None:
    typer.echo(as_json_text(value, indent=2))


def as_json_text(value: Any, *, indent: int | None = None) -> str:
    """What a terminal would obey, or can't show, is escaped, beyond what JSON asks for."""
    everything = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    text = json.dumps(value, indent=indent, ensure_ascii=not everything, default=str)
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


_UNSEEN = re.compile("[\\x7f-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff]")


def cents(text: str) -> Decimal:
    """An amount of money as it is typed."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise typer.BadParameter(f"{text!r} is no amount of cents")
    return amount


def who() -> str:
    """The name under which this operator's actions are recorded."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "someone"
    return f"{user}@{socket.gethostname()}"
