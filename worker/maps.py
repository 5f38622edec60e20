"""A platform's map: which tables hold jobs, and what their columns mean.

TOML holds names, words and scales, never operators, functions or conditions; a rule that needs one
is a SQL file beside the map (`<source>.<rule>.sql`). Everything here is data: `worker.generate`
turns it into SQL.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from worker import __version__
from worker.relocating import PLAIN, relocated, relocated_map

__all__ = [
    "PUBLIC",
    "MapError",
    "Platform",
    "PlatformMap",
    "Source",
    "builtin_platforms",
    "load",
    "relocated",
]

RULES = (
    "tenant",
    "rank",
    "stop",
    "input",
    "start",
    "reserve",
    "release",
    "output",
    "finish",
    "usage",
    "charged",
    "fail",
    "follow",
)
PLATFORM_RULES = ("limits", "attach", "audit")
KIND_RULES = (".output", ".finish")
"""Rules that may exist for one kind alone: `<source>.<kind>.finish.sql`."""
PUBLIC = "public"
NO_RULES = {"schema", "sample", "demo", "verdict"}
"""What else lies beside a map: how to try the platform, and how to judge what became of it."""

Ident = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Table = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*$")
]

Field_ = Literal[
    "now",  # the database's clock
    "first_now",  # the same, unless the column already has a value
    "null",
    "zero",
    "full",  # 100
    "progress",  # 0-100, never going back
    "error",  # clipped to the column
    "external_id",  # never clipped
    "media_id",  # the main output's id
    "url",
    "thumbnail_url",
    "metadata",  # merged into the column's object
    "text",
    "tokens",
    "cost_cents",  # whole cents, rounded half-even
    "cost_usd",  # dollars, rounded half-even to the column's scale
    "duration_ms",
    "duration_seconds",
    "provider",
    "model",
]
Assignments = dict[Ident, Field_]

PROGRESS_FIELDS = {"progress", "external_id", "now", "null", "zero", "full"}


class MapError(Exception):
    """A map that can't work; the message names file, key, table and column."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Hop:
    """One step along a foreign key: `table(key).column`."""

    table: str
    key: str
    column: str


_HOP = re.compile(r"^(?P<table>\w+\.\w+)\((?P<key>\w+)\)\.(?P<column>\w+)$")


def parse_path(path: str) -> tuple[str, list[Hop]]:
    """`model_id > ai.models(id).provider_id > ai.providers(id).name` → column and hops."""
    column, *rest = [part.strip() for part in path.split(">")]
    hops = []
    for part in rest:
        match = _HOP.match(part)
        if match is None:
            raise ValueError(f"{part!r} is not of the form schema.table(key).column")
        hops.append(Hop(match["table"], match["key"], match["column"]))
    if not re.match(r"^[A-Za-z_]\w*$", column) or not hops:
        raise ValueError("a path is `column > schema.table(key).column`, with one hop or more")
    return column, hops


def _checked_path(path: str) -> str:
    parse_path(path)
    return path


Path_ = Annotated[str, AfterValidator(_checked_path)]


class Value(Strict):
    """A text taken from a constant, a column, or along one foreign-key path."""

    constant: str | None = None
    column: Ident | None = None
    path: Path_ | None = None
    prefix: str = ""
    default: str | None = None
    """What NULL (or a path that leads nowhere) means."""
    words: dict[str, str] = {}
    """The platform's word → ours, before the prefix; what isn't there stays as it is."""

    @model_validator(mode="after")
    def _one(self) -> Value:
        given = [v for v in (self.constant, self.column, self.path) if v is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of constant, column, path")
        if self.words and self.constant is not None:
            raise ValueError("words = {…} goes with column or path: a constant needs no other word")
        return self


class Status(Strict):
    column: Ident
    ready: list[str] = Field(min_length=1)
    """Words of a row that wants to run; the first is written when a job goes back."""
    running: str
    succeeded: str
    failed: str
    cancelled: str | None = None
    default: str | None = None
    """What NULL means, in a column that allows it."""


class Tries(Strict):
    column: Ident
    counts: Literal["retries", "attempts"] = "retries"
    max: Ident
    default_max: int = Field(default=3, ge=0)


class Priority(Strict):
    column: Ident | None = None
    path: Path_ | None = None
    scale: Literal["1-10", "any", "words"] = "any"
    words: dict[str, Annotated[int, Field(ge=1, le=20)]] = {}
    default: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Priority:
        if (self.column is None) == (self.path is None):
            raise ValueError("give exactly one of column, path")
        if (self.scale == "words") != bool(self.words):
            raise ValueError('words = {…} goes with scale = "words", and only with it')
        return self


class Lock(Strict):
    """A parent row shared by several jobs: locked in key order before the follow rule runs."""

    table: Table
    key: Ident = "id"
    column: Ident


class Sets(Strict):
    start: Assignments = {}
    progress: Assignments = {}
    success: Assignments = {}
    retry: Assignments = {}
    failure: Assignments = {}
    cancel: Assignments = {}
    requeue: Assignments = {}
    """Written when an operator retries or requeues a finished row (its try count is set to 0)."""


class Source(Strict):
    name: SourceName
    table: Table
    key: Ident = "id"
    kind: Value
    lane: Value
    tenant: Value | None = None
    schedule: Ident | None = None
    status: Status
    tries: Tries | None = None
    max_retries: int = Field(default=3, ge=0)
    """For tables without try columns."""
    priority: Priority | None = None
    locks: list[Lock] = []
    metered: list[str] = []
    """Kinds a customer is charged for (`*` = all); rows need a tenant."""
    requires: dict[str, str] = {}
    """Kind → table that must exist, or rows of that kind wait with this reason."""
    set: Sets = Sets()


class Partitions(Strict):
    table: Table
    function: Annotated[str, StringConstraints(pattern=r"^\w+\.\w+$")]
    """Makes one month's partition: function(argument, any day of the month)."""
    argument: str
    ahead: int = Field(default=2, ge=1, le=24)


Every = Annotated[
    str, StringConstraints(pattern=r"^[1-9][0-9]{0,3} (minute|hour|day|week|month)s?$")
]
Keep = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3} (hour|day|week|month|year)s?$")]
"""Both are what Postgres reads as an interval."""


class Refresh(Strict):
    """A materialized view that is made anew once per period, by one worker of the fleet."""

    view: Table
    every: Every


class Retention(Strict):
    """Rows that are removed once they are old."""

    table: Table | None = None
    source: SourceName | None = None
    """In place of a table: a source's finished rows."""
    column: Ident | Annotated[list[Ident], Field(min_length=1)]
    """Their age; of several columns the first that isn't null says it."""
    keep: Keep
    every: Every = "1 day"

    @model_validator(mode="after")
    def _one(self) -> Retention:
        if (self.table is None) == (self.source is None):
            raise ValueError("give exactly one of table, source")
        return self

    @property
    def subject(self) -> str:
        return self.table or self.source or ""

    @property
    def columns(self) -> list[str]:
        return [self.column] if isinstance(self.column, str) else self.column


class PlatformMap(Strict):
    platform: SourceName
    title: str = ""
    timezone: str = "UTC"
    sources: list[Source] = Field(min_length=1)
    partitions: list[Partitions] = []
    refreshes: list[Refresh] = []
    retention: list[Retention] = []

    @model_validator(mode="after")
    def _unique(self) -> PlatformMap:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError("two sources have the same name")
        views = [refresh.view for refresh in self.refreshes]
        if len(set(views)) != len(views):
            raise ValueError("two refreshes name the same view")
        return self

    @model_validator(mode="after")
    def _retained(self) -> PlatformMap:
        subjects = [entry.subject for entry in self.retention]
        if len(set(subjects)) != len(subjects):
            raise ValueError("two retentions name the same table")
        tables = {source.table: source.name for source in self.sources}
        for entry in self.retention:
            if entry.table in tables:
                raise ValueError(
                    f"retention: {entry.table} holds jobs; say source = "
                    f'"{tables[entry.table]}", which keeps those that aren\'t finished'
                )
            if entry.source is not None and entry.source not in tables.values():
                raise ValueError(f"retention: there is no source {entry.source!r} in this map")
        return self


@dataclass(frozen=True, slots=True)
class Platform:
    """A map and the rule files that lie beside it."""

    map: PlatformMap
    rules: dict[str, str]
    """`generation_jobs.input` → SQL; `limits` → SQL."""
    origin: str
    schema: str = PUBLIC
    """Where the objects are that its files call `public.`"""

    def rule(self, source: str, name: str) -> str | None:
        return self.rules.get(f"{source}.{name}")

    def kind_rules(self, source: str, name: str) -> dict[str, str]:
        """`<source>.<word>.<name>.sql`: rules for the kinds named word, or `prefix:word`, alone."""
        found = {}
        for stem, sql in self.rules.items():
            parts = stem.split(".")
            if len(parts) == 3 and (parts[0], parts[2]) == (source, name):
                found[parts[1]] = sql
        return found

    def definition(self, source: Source) -> dict[str, Any]:
        """What `rowmill.sources` keeps, enough to generate everything again."""
        return {
            "map": self.map.model_dump(mode="json", exclude_defaults=True),
            "rules": self.rules,
            "origin": self.origin,
            "schema": self.schema,
            "source": source.name,
        }

    @staticmethod
    def from_definition(definition: dict[str, Any]) -> Platform:
        """Raises `MapError` for a form that only a newer version knows."""
        try:
            model = PlatformMap.model_validate(definition["map"])
        except ValidationError as error:
            raise MapError(
                f"{definition['origin']} was attached by a version that knows more than this one "
                f"({__version__}); upgrade this one: {_first(error)}"
            ) from error
        return Platform(
            model,
            definition["rules"],
            definition["origin"],
            definition.get("schema", PUBLIC),
        )


def builtin_platforms() -> list[str]:
    root = files("sql") / "platforms"
    return sorted(p.name for p in root.iterdir() if (p / "map.toml").is_file())


def load(reference: str, schema: str = PUBLIC) -> Platform:
    """A built-in platform by name, or anyone's by the path of its map file.

    `schema` is where its objects are: it stands in for `public.` in the map and in every rule.
    """
    if not PLAIN.fullmatch(schema):
        raise MapError(
            f"schema {schema!r}: give a name of lower-case letters, digits and underscores "
            "(ALTER SCHEMA … RENAME TO … makes one)"
        )
    if reference.endswith(".toml"):
        path = Path(reference)
        if not path.is_file():
            raise MapError(f"{reference}: no such file")
        return _read(path, schema)
    if reference not in builtin_platforms():
        raise MapError(
            f"no platform {reference!r}; there are {', '.join(builtin_platforms())}, "
            "or give the path of a map file (….toml)"
        )
    return _read(Path(str(files("sql") / "platforms" / reference / "map.toml")), schema)


def _read(path: Path, schema: str) -> Platform:
    try:
        data = relocated_map(tomllib.loads(path.read_text(encoding="utf-8")), schema)
    except tomllib.TOMLDecodeError as error:
        raise MapError(f"{path.name}: {error}") from error
    try:
        model = PlatformMap.model_validate(data)
    except ValidationError as error:
        raise MapError(_explain(path, data, error)) from error
    rules = {stem: relocated(sql, schema) for stem, sql in _rules(path, model).items()}
    return Platform(model, rules, path.name, schema)


def _rules(path: Path, model: PlatformMap) -> dict[str, str]:
    known = {f"{s.name}.{rule}" for s in model.sources for rule in RULES} | {*PLATFORM_RULES}
    by_kind = tuple(f"{s.name}." for s in model.sources)
    found = {}
    for file in sorted(path.parent.glob("*.sql")):
        if file.stem in known or (
            file.stem.startswith(by_kind)
            and file.stem.count(".") == 2
            and file.stem.endswith(KIND_RULES)
        ):
            found[file.stem] = file.read_text(encoding="utf-8")
        elif file.stem not in NO_RULES:
            raise MapError(
                f"{file.name}: not a rule of this map; rules are <source>.<rule>.sql with rule one "
                f"of {', '.join(RULES)}, and {', '.join(f'{rule}.sql' for rule in PLATFORM_RULES)}"
            )
    for source in model.sources:
        _check_allowance(source, found)
    return found


def _check_allowance(source: Source, rules: dict[str, str]) -> None:
    name = source.name
    if f"{name}.reserve" not in rules and f"{name}.release" in rules:
        raise MapError(
            f"{name}.release.sql: it gives back what {name}.reserve.sql reserves, "
            "and there is no such file"
        )
    asked = f"{name}.tenant" in rules
    if asked and source.tenant is not None:
        raise MapError(f"{name}.tenant.sql: the map says already whose jobs these are (tenant)")
    if f"{name}.reserve" in rules and source.tenant is None and not asked:
        raise MapError(
            f"{name}.reserve.sql: the map doesn't say whose jobs these are "
            f"(tenant = {{…}}, or {name}.tenant.sql)"
        )


def _first(error: ValidationError) -> str:
    detail = error.errors()[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"


def _explain(path: Path, data: dict[str, Any], error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where, table, node = "", None, data
        for step in problem["loc"]:
            where += f"[{step}]" if isinstance(step, int) else f".{step}" if where else str(step)
            node = _step(node, step)
            if isinstance(node, dict) and isinstance(node.get("table"), str):
                table = node["table"]
        at = f" (table {table})" if table else ""
        lines.append(f"{path.name}: {where or 'the file'}{at}: {problem['msg']}")
    return "\n".join(lines)


def _step(node: Any, step: int | str) -> Any:
    try:
        return node[step]
    except (KeyError, IndexError, TypeError):
        return None
