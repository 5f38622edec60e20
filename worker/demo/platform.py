"""The platforms in one database, and what their front ends would insert: `demo.sql`, plain SQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Self

from worker.maps import PUBLIC, Platform, builtin_platforms, load, relocated
from worker.store import Store
from worker.store.attaching import attach
from worker.store.migrations import migrate

DEFAULT = ("photomemory", "ebook")
ALL = "all"
PRODUCER = "rowmill_demo_producer"
NEEDED = ("schema.sql", "sample.sql", "demo.sql", "verdict.sql")

_FOLDER = Path(str(files("sql"))) / "platforms"
_IN_PUBLIC = re.compile(r"\bpublic\.")


class NoDemo(Exception):
    """What was asked for can't be shown; the message says what can."""


@dataclass(frozen=True)
class Shown:
    """A platform as the demo has it: its folder, and the schema its `public.` tables lie in."""

    name: str
    schema: str = PUBLIC

    @classmethod
    def among(cls, names: Sequence[str]) -> list[Self]:
        """Platforms that would share `public` get a schema of their name each."""
        at_home = [name for name in names if _IN_PUBLIC.search(_text(name, "map.toml"))]
        return [
            cls(name, name if name in at_home and len(at_home) > 1 else PUBLIC) for name in names
        ]

    @cached_property
    def platform(self) -> Platform:
        return load(self.name, schema=self.schema)

    def sql(self, file: str) -> str:
        return relocated(_text(self.name, file), self.schema)


def _text(name: str, file: str) -> str:
    return (_FOLDER / name / file).read_text(encoding="utf-8")


def missing(name: str) -> list[str]:
    """The files without which a platform can't be shown."""
    return [file for file in NEEDED if not (_FOLDER / name / file).is_file()]


def showable() -> list[str]:
    return [name for name in builtin_platforms() if not missing(name)]


def choose(names: Sequence[str]) -> list[Shown]:
    """None given: the two of the first tour. `all`: every platform that has what a demo needs."""
    if ALL in names:
        return Shown.among(showable())
    for name in names:
        if name not in builtin_platforms():
            raise NoDemo(f"no platform {name!r}: give one of {', '.join(showable())}, or {ALL}")
        if lacks := missing(name):
            raise NoDemo(
                f"{name} can't be shown: sql/platforms/{name} has no {', '.join(lacks)}; "
                f"give one of {', '.join(showable())}, or {ALL}"
            )
    return Shown.among(list(dict.fromkeys(names)) or DEFAULT)


async def prepare(dsn: str, shown: Sequence[Shown] | None = None) -> None:
    """Schemas and sample customers first, as if they had always been there; then Rowmill."""
    shown = choose(()) if shown is None else shown
    store = await Store.open(dsn)
    try:
        for one in shown:
            if one.schema != PUBLIC:
                await store.script(f"CREATE SCHEMA IF NOT EXISTS {one.schema}")
            await store.script(one.sql("schema.sql"))
            await store.script(one.sql("sample.sql"))
        await store.script(_PRODUCER)
    finally:
        await store.close()
    await migrate(dsn)
    for one in shown:
        await attach(dsn, one.platform)


async def produce(store: Store, shown: Sequence[Shown], jobs: int, sandbox: str) -> None:
    """Each platform's share of the jobs, by a role that has no right on the rowmill schema.

    An INSERT is all it takes. In one transaction, so that no order of insertion helps the queue.
    """
    share, more = divmod(max(jobs, len(shown)), len(shown))
    scripts = [
        filled(one.sql("demo.sql"), share + (number < more), sandbox)
        for number, one in enumerate(shown)
    ]
    await store.script("\n".join([f"BEGIN; SET LOCAL ROLE {PRODUCER};", *scripts, "COMMIT;"]))


def filled(sql: str, jobs: int, sandbox: str) -> str:
    """`:jobs` and `:sandbox` are replaced wherever they stand, but not in a `::jobs`."""
    sql = re.sub(r"(?<!:):jobs\b", str(jobs), sql)
    return re.sub(r"(?<!:):sandbox\b", sandbox, sql)


# A front end's rights: its platform's tables, and nothing of ours. Row-level security is the
# platforms' own; the demo's one producer stands for all of their services.
_PRODUCER = f"""
DO $$
DECLARE
    place text;
BEGIN
    BEGIN
        CREATE ROLE {PRODUCER} NOLOGIN BYPASSRLS;
    EXCEPTION WHEN duplicate_object THEN NULL;
    END;
    FOR place IN
        SELECT nspname FROM pg_namespace
         WHERE nspname NOT IN ('rowmill', 'information_schema') AND nspname NOT LIKE 'pg\\_%'
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO {PRODUCER}', place);
        CONTINUE WHEN place = 'auth';
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA %I TO {PRODUCER}', place);
        EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO {PRODUCER}', place);
    END LOOP;
END $$;
"""
