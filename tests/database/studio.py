"""A small platform for tests of rules: written into a folder, with the rule files a test wants."""

from __future__ import annotations

from pathlib import Path

from tests.database.platform_samples import run
from worker import maps
from worker.maps import Platform, relocated
from worker.store.attaching import attach
from worker.store.migrations import migrate

SCHEMA = """
CREATE TABLE public.studios (
    id     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    open   boolean NOT NULL DEFAULT true,
    bonus  integer NOT NULL DEFAULT 0,
    jobs   integer NOT NULL DEFAULT 0
);
CREATE TABLE public.shoots (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    studio_id  uuid REFERENCES public.studios(id),
    what       text NOT NULL DEFAULT 'MakeVideo',
    state      text NOT NULL DEFAULT 'new',
    urgency    integer NOT NULL DEFAULT 0,
    problem    text,
    ended_at   timestamptz,
    started_at timestamptz
);
CREATE TABLE public.notes (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shoot  uuid NOT NULL,
    said   text NOT NULL
);
"""

MAP = """
platform = "studio"
[[sources]]
name = "shoots"
table = "public.shoots"
kind = { column = "what", words = { MakeVideo = "make_video" }, prefix = "background:" }
lane = { constant = "replicate" }
tenant = { column = "studio_id" }
metered = ["background:make_video"]
max_retries = 0
  [sources.status]
  column = "state"
  ready = ["new"]
  running = "busy"
  succeeded = "done"
  failed = "broken"
  cancelled = "cancelled"
  [sources.priority]
  column = "urgency"
  [sources.set.start]
  started_at = "now"
  [sources.set.failure]
  problem = "error"
  ended_at = "now"
  [sources.set.cancel]
  problem = "error"
  ended_at = "now"
"""
LOCKS = """
  [[sources.locks]]
  table = "public.studios"
  column = "studio_id"
"""
WITHOUT_CANCELLED = ('  cancelled = "cancelled"\n', "")


def written(
    folder: Path, *changes: tuple[str, str], schema: str = "public", more: str = "", **rules: str
) -> Platform:
    """`shoots__stop="SELECT …"` is the rule file shoots.stop.sql."""
    text = MAP + more
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    folder.mkdir(exist_ok=True)
    for old_rule in folder.glob("*.sql"):
        old_rule.unlink()
    for name, sql in rules.items():
        (folder / f"{name.replace('__', '.')}.sql").write_text(sql, encoding="utf-8")
    path = folder / "map.toml"
    path.write_text(text, encoding="utf-8")
    return maps.load(str(path), schema)


async def built(dsn: str, platform: Platform) -> str:
    """The platform's tables in its schema, migrated and attached."""
    await migrate(dsn)
    await run(
        dsn,
        f'CREATE SCHEMA IF NOT EXISTS "{platform.schema}"',
        relocated(SCHEMA, platform.schema),
    )
    await attach(dsn, platform)
    return dsn
