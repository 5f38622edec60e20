"""`rowmill map new` on live tables: what is read of them, what is refused, and that it works."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.commandline import Rowmill
from tests.database.platform_samples import CloneDatabase, NewDatabase, run, sql_file
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_background,
    add_texts,
    add_videos,
    queued,
)
from worker import maps
from worker.guessing import Column, Table, propose, render
from worker.maps import MapError, Source
from worker.store.attaching import attach
from worker.store.catalog import describe
from worker.store.migrations import migrate


async def described(dsn: str, table: str, *ddl: str) -> Table:
    await run(dsn, *ddl)
    (found,) = await describe(dsn, [table])
    return found


# --------------------------------------------------------------------------- the catalog

MANY_WAYS = """
CREATE SCHEMA shop;
CREATE TYPE shop."Mood" AS ENUM ('low', 'it''s urgent');
CREATE DOMAIN shop.state AS varchar(20) NOT NULL DEFAULT 'new'
       CHECK (VALUE IN ('new', 'working', 'done', 'broken'));
CREATE DOMAIN shop.worse AS shop."Mood";
CREATE TABLE shop.customers (id bigint PRIMARY KEY);
CREATE TABLE shop.jobs (
    number    bigint GENERATED ALWAYS AS IDENTITY,
    code      text NOT NULL UNIQUE,
    state     shop.state,
    mood      shop."Mood" NOT NULL DEFAULT 'it''s urgent',
    worse     shop.worse,
    phase     varchar(10) CHECK (phase IN ('a', 'b') OR phase IS NULL),
    grade     smallint DEFAULT 3 CHECK (grade BETWEEN 1 AND 10 AND grade <> 7),
    buyer     bigint REFERENCES shop.customers (id),
    price     numeric(10, 4),
    doubled   int GENERATED ALWAYS AS (4 * 2) STORED,
    a int, b int,
    PRIMARY KEY (number), UNIQUE (a, b)
);
CREATE UNIQUE INDEX ON shop.jobs (a) WHERE b > 0;
CREATE UNIQUE INDEX ON shop.jobs (lower(code));
"""


async def test_what_the_catalog_says(new_database: NewDatabase) -> None:
    table = await described(await new_database(), "shop.jobs", MANY_WAYS)
    assert (table.keys, table.unnamed_keys) == (("number", "code"), ("a, b",))
    state = Column(
        *("state", "character varying"),
        required=True,
        default="new",
        words=("new", "working", "done", "broken"),
        origin="domain",
    )
    assert table.column("state") == state
    mood = table.column("mood")
    assert mood is not None
    assert (mood.enum, mood.words, mood.default) == (True, ("low", "it's urgent"), "it's urgent")
    worse = table.column("worse")
    assert worse is not None
    assert (worse.words, worse.origin) == (("low", "it's urgent"), "enum")
    phase = table.column("phase")
    assert phase is not None
    assert (phase.words, phase.origin, phase.required) == (("a", "b"), "check", False)
    grade = table.column("grade")
    assert grade is not None
    assert (grade.low, grade.high, grade.default) == (1, 10, "3")
    assert table.column("buyer") == Column("buyer", "bigint", parent=("shop.customers", "id"))
    price, doubled, number = (table.column(name) for name in ("price", "doubled", "number"))
    assert price is not None
    assert price.scale == 4
    assert doubled is not None
    assert number is not None
    assert (doubled.generated, number.generated) == (True, True)


async def test_words_of_an_open_column_are_those_of_its_rows(new_database: NewDatabase) -> None:
    """The oldest rows, the newest, and the server's statistics; no more of a large table."""
    dsn = await new_database()
    table = await described(
        dsn,
        "jobs",
        "CREATE TABLE jobs (id bigint PRIMARY KEY, status text)",
        "INSERT INTO jobs SELECT n, 'done' FROM generate_series(1, 30000) n",
        "UPDATE jobs SET status = 'failed' WHERE id BETWEEN 15000 AND 17000",
        "UPDATE jobs SET status = 'waiting' WHERE id > 29990",
        "UPDATE jobs SET status = '' WHERE id = 1",
        "ANALYZE jobs",
    )
    status = table.column("status")
    assert status is not None
    assert set(status.words) == {"done", "failed", "waiting"}
    assert (status.origin, status.closed) == ("rows", False)


async def test_a_column_of_many_words_is_no_state(new_database: NewDatabase) -> None:
    table = await described(
        await new_database(),
        "jobs",
        "CREATE TABLE jobs (id bigint PRIMARY KEY, status text)",
        "INSERT INTO jobs SELECT n, md5(n::text) FROM generate_series(1, 100) n",
    )
    assert (table.column("status") or Column("", "")).words == ()


async def test_a_table_is_found_as_sql_would_find_it(new_database: NewDatabase) -> None:
    dsn = await new_database()
    await run(
        dsn,
        'CREATE SCHEMA "My Shop"; CREATE TABLE "My Shop"."The.Jobs" (id int PRIMARY KEY)',
        "CREATE TABLE plain (id int PRIMARY KEY)",
    )
    (odd,) = await describe(dsn, ['"My Shop"."The.Jobs"'])
    assert (odd.schema, odd.name) == ("My Shop", "The.Jobs")
    assert [t.qualified for t in await describe(dsn, ["Plain", "public.PLAIN"])] == [
        "public.plain",
        "public.plain",
    ]
    for missing in ("nowhere", "shop.plain", "a.b.c", ""):
        with pytest.raises(MapError, match=r"no table|schema\.table"):
            await describe(dsn, [missing])


async def test_what_can_be_no_job_table_is_refused(new_database: NewDatabase) -> None:
    dsn = await new_database()
    await run(
        dsn,
        "CREATE TABLE whole (id int, at date, state text) PARTITION BY RANGE (at)",
        "CREATE TABLE leaf PARTITION OF whole FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        "CREATE VIEW seen AS SELECT * FROM whole",
        "CREATE MATERIALIZED VIEW kept AS SELECT * FROM whole",
        "CREATE FOREIGN DATA WRAPPER away; CREATE SERVER there FOREIGN DATA WRAPPER away",
        "CREATE FOREIGN TABLE afar (id int, state text) SERVER there",
    )
    await migrate(dsn)
    for table, why in {
        "leaf": "a partition",
        "seen": "a view",
        "kept": "materialized",
        "afar": "foreign table",
        "rowmill.queue": "isn't yours",
        "pg_catalog.pg_class": "isn't yours",
    }.items():
        with pytest.raises(MapError, match=why):
            await describe(dsn, [table])


async def test_a_partitioned_table_and_a_very_wide_one(
    rowmill: Rowmill, new_database: NewDatabase, connect: Connect, tmp_path: Path
) -> None:
    dsn = await new_database()
    columns = ", ".join(f"c{number} text" for number in range(1400))
    await migrate(dsn)
    await run(
        dsn,
        "CREATE TABLE whole (id bigint, at date, state text DEFAULT 'new', PRIMARY KEY (id, at))"
        " PARTITION BY RANGE (at)",
        "CREATE TABLE leaf PARTITION OF whole FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        f"CREATE TABLE wide (code text PRIMARY KEY, {columns}, state text DEFAULT 'new')",
        "INSERT INTO whole VALUES (1, '2026-05-05', 'done')",
    )
    tables = ("--table", "whole", "--table", "wide", "--platform", "both")
    said = await rowmill(dsn, "map", "new", *tables, "--output", "map.toml")
    assert said.code == 0, said.err
    assert len((tmp_path / "map.toml").read_text().splitlines()) < 100
    assert (await rowmill(dsn, "map", "check", "map.toml")).code == 0
    await attach(dsn, maps.load(str(tmp_path / "map.toml")))
    connection = await connect(dsn)
    await connection.execute("INSERT INTO whole VALUES (7, '2026-06-06')")
    await connection.execute("INSERT INTO wide (code) VALUES ('w')")
    assert set(await queued(connection)) == {"7", "w"}


# --------------------------------------------------------------------------- the command


async def test_the_command(rowmill: Rowmill, new_database: NewDatabase, tmp_path: Path) -> None:
    dsn = await new_database()
    await run(dsn, MANY_WAYS)
    printed = await rowmill(dsn, "map", "new", "--table", "shop.jobs")
    assert printed.code == 0
    assert tomllib.loads(printed.out)["platform"] == "shop"
    output = ("--output", "maps/map.toml")
    written = await rowmill(dsn, "map", "new", "--table", "shop.jobs", *output)
    assert (written.code, written.out) == (0, "")
    assert (tmp_path / "maps" / "map.toml").read_text() == printed.out
    again = await rowmill(dsn, "map", "new", "--table", "shop.jobs", *output)
    assert again.code == 1
    assert "--force" in again.err
    named = ("--platform", "emporium", "--force", "--json")
    forced = await rowmill(dsn, "map", "new", "--table", "shop.jobs", *output, *named)
    assert forced.code == 0
    assert (tmp_path / "maps" / "map.toml").read_text() == forced.json["map"]
    assert tomllib.loads(forced.json["map"])["platform"] == "emporium"
    guesses = {g["key"]: g for g in forced.json["sources"][0]["guesses"]}
    assert guesses["status.ready"]["value"] == ["new"]
    assert guesses["status.column"]["confidence"] == "sure"
    checked = await rowmill(dsn, "map", "check", "maps/map.toml")
    assert checked.code == 0, checked.err


async def test_what_is_missing_is_said_and_nothing_written(
    rowmill: Rowmill, new_database: NewDatabase, tmp_path: Path
) -> None:
    dsn = await new_database()
    await run(dsn, 'CREATE TABLE facts (what text); CREATE TABLE "my jobs" (id int, status text)')
    said = await rowmill(dsn, "map", "new", "--table", "facts", "--output", "map.toml")
    assert (said.code, said.out) == (1, "")
    assert "no column that looks like a status" in said.err
    assert "no unique index" in said.err
    assert not (tmp_path / "map.toml").exists()
    said = await rowmill(dsn, "map", "new", "--table", "my jobs")
    assert said.code == 1
    assert "a map can't name table 'my jobs'" in said.err
    assert (await rowmill(dsn, "map", "new", "--table", "nowhere")).code == 1
    bad = await rowmill(dsn, "map", "new", "--table", "facts", "--platform", "No Name")
    assert "--platform" in bad.err


async def test_two_tables_of_one_name(rowmill: Rowmill, new_database: NewDatabase) -> None:
    dsn = await new_database()
    one = "(id int PRIMARY KEY, status text)"
    await run(dsn, f"CREATE SCHEMA shop; CREATE TABLE shop.jobs {one}; CREATE TABLE jobs {one}")
    said = await rowmill(dsn, "map", "new", "--table", "shop.jobs", "--table", "public.jobs")
    names = [source["name"] for source in tomllib.loads(said.out)["sources"]]
    assert names == ["shop_jobs", "jobs"]


# --------------------------------------------------------------------------- how good it is

TABLES = {
    "photomemory": ["public.generation_jobs"],
    "ebook": ["ai_processing.ai_generations", "system.background_jobs"],
}
SAME = {
    "generation_jobs": {"name", "table", "key", "kind", "lane", "tenant", "status", "tries"}
    | {"priority", "schedule"},
    "ai_generations": {"name", "table", "key", "tenant", "status", "tries", "schedule"},
    "background_jobs": {"name", "table", "key", "kind", "lane", "tenant", "status", "tries"}
    | {"priority", "schedule"},
}
"""What is guessed as we wrote it by hand; a path along foreign keys is nobody's to guess."""


def guessed(tables: list[Table], folder: Path) -> maps.Platform:
    kinds = ["media:video", "media:thumbnail"]
    path = folder / "map.toml"
    path.write_text(render("guessed", [propose(table, kinds) for table in tables]))
    return maps.load(str(path))


@pytest.mark.parametrize("platform", TABLES)
async def test_guesses_come_close_to_the_maps_that_are_written_by_hand(
    platform: str, new_database: NewDatabase, tmp_path: Path
) -> None:
    dsn = await new_database()
    await run(dsn, sql_file(platform, "schema.sql"))
    ours = {source.table: source for source in maps.load(platform).map.sources}
    for source in guessed(await describe(dsn, TABLES[platform]), tmp_path).map.sources:
        written = ours[source.table]
        for field in SAME[source.name]:
            assert _meaning(source, field) == _meaning(written, field), field
        guesses = {f"{g}.{c}": f for g, s in source.set.model_dump().items() for c, f in s.items()}
        wanted = {f"{g}.{c}": f for g, s in written.set.model_dump().items() for c, f in s.items()}
        assert guesses.items() <= wanted.items()
        missed = wanted.keys() - guesses.keys()
        assert missed <= {"success.output_file_id"}, "it needs an output.sql"


def _meaning(source: Source, field: str) -> Any:
    value = getattr(source, field)
    if field == "kind" and value.default is not None:
        return value.model_copy(update={"default": None})
    if field == "status":
        return value.model_copy(update={"default": None})
    return value


async def test_guessed_maps_run_jobs(
    clone_database: CloneDatabase, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    """Each seed's table, by nothing but what was guessed of it."""

    async def build(dsn: str) -> None:
        await migrate(dsn)
        for platform in TABLES:
            await run(dsn, sql_file(platform, "schema.sql"), sql_file(platform, "sample.sql"))

    dsn = await clone_database("guessed", build)
    tables = await describe(dsn, [table for names in TABLES.values() for table in names])
    text = render("guessed", [propose(table, ["media:video"]) for table in tables])
    # The one thing that is left to do: a note says that a CHECK asks for a completed row's file.
    assert "its CHECK status_consistency ties status to other columns" in text
    text = text.replace('# output_file_id = "media_id"', 'output_file_id = "media_id"')
    (tmp_path / "map.toml").write_text(text)
    output = sql_file("photomemory", "generation_jobs.output.sql")
    (tmp_path / "generation_jobs.output.sql").write_text(output)
    await attach(dsn, maps.load(str(tmp_path / "map.toml")))
    connection = await connect(dsn)
    keys = [
        *await add_videos(connection),
        *await add_texts(connection),
        *await add_background(connection, kind="count"),
    ]
    lanes = ("replicate", "background:ai_generations", "background:count")
    hand = await Hand.hire(await open_store(dsn), lanes)
    works = await hand.take(3)
    assert sorted(work.key for work in works) == sorted(keys)
    await hand.succeed(works)
    for table in (name for names in TABLES.values() for name in names):
        rows = await connection.fetch(f"SELECT status, completed_at FROM {table}")
        assert [(row["status"], row["completed_at"] is not None) for row in rows] == [
            ("completed", True)
        ]
