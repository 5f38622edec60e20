"""A table as the catalog and a few of its rows describe it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

Origin = Literal["enum", "check", "domain", "rows"]

USABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
"""Names a map can hold; see `worker.maps.Ident`."""

TEXTS = {"text", "character varying", "character", "citext"}
INTEGERS = {"smallint", "integer", "bigint"}
NUMBERS = {*INTEGERS, "numeric", "real", "double precision"}
MOMENTS = {"timestamp with time zone", "timestamp without time zone"}


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    """The base type of a domain; of an enum its own name."""
    required: bool = False
    default: str | None = None
    """The word or number its DEFAULT is, where it is one."""
    generated: bool = False
    """The database writes it: nobody else may."""
    enum: bool = False
    words: tuple[str, ...] = ()
    """What may stand in it, or what was seen there; `origin` tells which."""
    origin: Origin | None = None
    low: int | None = None
    high: int | None = None
    """What a CHECK says of a number."""
    scale: int | None = None
    parent: tuple[str, str] | None = None
    """The table and column a foreign key leads to."""

    @property
    def usable(self) -> bool:
        return bool(USABLE.match(self.name))

    @property
    def text(self) -> bool:
        return self.type in TEXTS

    @property
    def wordy(self) -> bool:
        return self.text or self.enum

    @property
    def integer(self) -> bool:
        return self.type in INTEGERS

    @property
    def number(self) -> bool:
        return self.type in NUMBERS

    @property
    def moment(self) -> bool:
        return self.type in MOMENTS

    @property
    def closed(self) -> bool:
        """Whether no other word can be written."""
        return self.origin in ("enum", "check", "domain")


@dataclass(frozen=True, slots=True)
class Tie:
    """A CHECK over several columns."""

    name: str
    columns: tuple[str, ...]
    definition: str


@dataclass(frozen=True, slots=True)
class Table:
    schema: str
    name: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...] = ()
    """Columns that name a row, the best first."""
    partitioned: bool = False
    row_security: bool = False
    about_rows: int = 0
    unnamed_keys: tuple[str, ...] = ()
    """Unique indexes over several columns, as `a, b`: none of them can name a job alone."""
    ties: tuple[Tie, ...] = ()

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)

    def with_words(self, seen: dict[str, tuple[str, ...]]) -> Table:
        """The same, with what was found in rows of columns that allow any word."""
        columns = tuple(
            replace(column, words=seen[column.name], origin="rows")
            if seen.get(column.name) and not column.words
            else column
            for column in self.columns
        )
        return replace(self, columns=columns)
