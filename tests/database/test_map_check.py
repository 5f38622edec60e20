"""`rowmill map check`: every problem, and what the triggers will make of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.commandline import Rowmill, rowmill_in
from tests.database.platform_samples import NewDatabase, run, sql_file
from tests.database.support import Connect, queued
from worker import maps
from worker.foretelling import rank_of
from worker.maps import Priority
from worker.store.attaching import attach
from worker.store.migrations import migrate

TABLE = """
CREATE TYPE urgency AS ENUM ('whenever', 'soon', 'now', 'unheard of');
CREATE TABLE public.letters (
    number  bigint PRIMARY KEY,
    state   text DEFAULT 'open' CHECK (state IN ('open', 'busy', 'done', 'broken')),
    task    text,
    urgency {type},
    level   integer,
    trouble text NOT NULL DEFAULT '',
    half    integer GENERATED ALWAYS AS (level / 2) STORED
);
"""
MAP = """
platform = "letters"
[[sources]]
name = "letters"
table = "public.letters"
key = "number"
kind = { column = "task", prefix = "background:" }
lane = { column = "task", prefix = "background:" }
  [sources.status]
  column = "state"
  ready = ["open"]
  running = "busy"
  succeeded = "done"
  failed = "broken"
  default = "open"
  [sources.priority]
  column = "urgency"
  scale = "words"
  words = { whenever = 4, soon = 12, now = 18 }
  default = 9
"""


@pytest.fixture
def rowmill(tmp_path: Path) -> Rowmill:
    (tmp_path / "map.toml").write_text(MAP)
    return rowmill_in(tmp_path)


async def lettered(new_database: NewDatabase, type_: str = "urgency DEFAULT 'soon'") -> str:
    dsn = await new_database()
    await run(dsn, TABLE.format(type=type_))
    return dsn


# --------------------------------------------------------------------------- ranks


@pytest.mark.parametrize("type_", ["urgency DEFAULT 'soon'", "text DEFAULT 'soon'"])
async def test_words_become_ranks_as_they_are_told(
    type_: str, rowmill: Rowmill, new_database: NewDatabase, connect: Connect, tmp_path: Path
) -> None:
    """An enum's and a text's; unknown words and NULL get the default, whoever claims them."""
    dsn = await lettered(new_database, type_)
    connection = await connect(dsn)
    await connection.execute(
        "INSERT INTO letters (number, task, urgency) VALUES (1, 'count', 'whenever'),"
        " (2, 'count', 'now'), (3, 'count', 'now'), (4, 'count', 'unheard of'), (5, 'count', NULL);"
        " INSERT INTO letters (number, task) VALUES (6, 'count')"
    )
    said = await rowmill(dsn, "map", "check", "map.toml", "--json")
    assert said.code == 0
    (source,) = said.json["sources"]
    told = {rank["priority"]: (rank["rank"], rank["rows"]) for rank in source["ranks"]}
    assert told == {
        "now": (18, 2),
        "soon": (12, 1),
        "unheard of": (9, 1),
        None: (9, 1),
        "whenever": (4, 1),
    }
    assert [rank["rank"] for rank in source["ranks"]] == [18, 12, 9, 9, 4]
    assert source["without_priority"] == {"priority": "soon", "rank": 12}
    (warning,) = said.json["problems"]
    assert warning["severity"] == "warn"
    assert "no rank for 'unheard of'" in warning["message"]

    await migrate(dsn)
    await attach(dsn, maps.load(str(tmp_path / "map.toml")))
    await connection.execute("INSERT INTO letters (number, task) VALUES (7, 'count')")
    ranks = {key: row["rank"] for key, row in (await queued(connection)).items()}
    assert ranks == {"1": 4, "2": 18, "3": 18, "4": 9, "5": 9, "6": 12, "7": 12}


@pytest.mark.parametrize(
    ("scale", "default"), [("1-10", 5), ("1-10", 0), ("any", 0), ("any", 7), ("any", -99)]
)
async def test_numbers_become_ranks_as_they_are_told(
    scale: Any, default: int, new_database: NewDatabase, connect: Connect, tmp_path: Path
) -> None:
    """What is told offline is reckoned here; the triggers are SQL. They must not differ."""
    dsn = await lettered(new_database)
    old = MAP[MAP.index('  column = "urgency"') :]
    new = f'  column = "level"\n  scale = "{scale}"\n  default = {default}\n'
    (tmp_path / "map.toml").write_text(MAP.replace(old, new))
    await migrate(dsn)
    await attach(dsn, maps.load(str(tmp_path / "map.toml")))
    connection = await connect(dsn)
    levels = [None, -(2**31), -10, -9, -1, 0, 1, 2, 5, 9, 10, 11, 2**31 - 1]
    await connection.executemany(
        "INSERT INTO letters (number, task, level) VALUES ($1, 'count', $2)",
        list(enumerate(levels)),
    )
    priority = Priority(column="level", scale=scale, default=default)
    ranks = {key: row["rank"] for key, row in (await queued(connection)).items()}
    assert ranks == {
        str(number): rank_of(priority, None if level is None else str(level))
        for number, level in enumerate(levels)
    }


# --------------------------------------------------------------------------- all of it


async def test_what_it_tells(rowmill: Rowmill, new_database: NewDatabase, tmp_path: Path) -> None:
    dsn = await lettered(new_database)
    (tmp_path / "my_jobs.py").write_text(
        "from jobs.registry import kind\n"
        "@kind('background:count')\n"
        "async def count(job, ctx): ...\n"
    )
    await run(
        dsn,
        "INSERT INTO letters (number, task) VALUES (1, 'count'), (2, 'poem'), (3, 'poem');"
        "INSERT INTO letters (number, state, task) VALUES (4, 'done', NULL), (5, NULL, 'count')",
    )
    said = await rowmill(dsn, "map", "check", "map.toml", ROWMILL_HANDLERS="my_jobs")
    assert said.code == 0, said.err
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    for line in (
        "public.letters, as source letters; a job is named by number",
        "'open' waits: an INSERT with it is an enqueue 4",
        "'done' is done 1",
        "'background:count' has a handler 2",
        "'background:poem' no handler here: see ROWMILL_HANDLERS 2",
        "rank 18 'now' 0",
        "rank 12 'soon' 5",
        "an INSERT that names none gets rank 12 (its DEFAULT, 'soon')",
        "tries: 3 retries for every row; failed tries are counted in the queue",
        "written at success: state = 'done'",
    ):
        assert line in lines, line


async def test_every_problem_is_told(
    rowmill: Rowmill, new_database: NewDatabase, tmp_path: Path
) -> None:
    dsn = await lettered(new_database)
    path = tmp_path / "map.toml"
    path.write_text(
        MAP.replace('"done"', '"finished"').replace('"broken"', '"failed"')
        + '  [sources.set.success]\n  trouble = "null"\n  half = "zero"\n'
    )
    said = await rowmill(dsn, "map", "check", "map.toml", "--json")
    assert said.code == 1
    assert not said.json["ok"]
    messages = "\n".join(problem["message"] for problem in said.json["problems"])
    assert "status.succeeded = 'finished': public.letters.state allows only" in messages
    assert "status.failed = 'failed'" in messages
    assert 'set.success.trouble = "null": public.letters.trouble is NOT NULL' in messages
    assert "set.success.half: public.letters.half is generated" in messages

    path.write_text(MAP.replace('"state"', '"stat"').replace('"urgency"', '"urgent"'))
    said = await rowmill(dsn, "map", "check", "map.toml")
    assert said.code == 1
    assert "no column 'stat'" in said.err
    assert "no column 'urgent'" in said.err

    path.write_text(MAP.replace("ready = [", "reddy = [").replace("default = 9", 'default = "9x"'))
    said = await rowmill(dsn, "map", "check", "map.toml")
    assert said.code == 1
    for problem in ("sources[0].status.ready", "status.reddy", "priority.default"):
        assert problem in said.err
    assert "(table public.letters)" in said.err
    path.write_text(MAP.replace("public.letters", "public.Letters"))
    said = await rowmill(dsn, "map", "check", "map.toml")
    assert said.code == 1
    assert "there is no table public.Letters in this database" in said.err
    path.write_text("platform = ")
    assert (await rowmill(dsn, "map", "check", "map.toml")).code == 1


@pytest.mark.parametrize(
    ("type_", "said"),
    [
        ("smallint", "public.letters.state is smallint, which it can't be written to"),
        (
            "state",
            "public.letters.state is public.state and allows only 'open', 'busy', 'broken', '2'",
        ),
    ],
)
async def test_a_state_that_has_no_such_word(
    type_: str, said: str, rowmill: Rowmill, new_database: NewDatabase, tmp_path: Path
) -> None:
    """Attached, such a job would be held when it ends: its result can't be written."""
    dsn = await new_database()
    await migrate(dsn)
    await run(
        dsn,
        "CREATE TYPE state AS ENUM ('open', 'busy', 'broken', '2')",
        f"CREATE TABLE public.letters (number bigint PRIMARY KEY, task text, state {type_})",
    )
    words = {"open": "0", "busy": "1", "broken": "3"} if type_ == "smallint" else {}
    text = MAP.partition("  [sources.priority]")[0]
    for word, number in words.items():
        text = text.replace(f'"{word}"', f'"{number}"')
    (tmp_path / "map.toml").write_text(text)
    checked = await rowmill(dsn, "map", "check", "map.toml")
    assert checked.code == 1
    assert checked.err.count("'done'") == 1
    assert f"status.succeeded = 'done': {said}" in checked.err
    with pytest.raises(maps.MapError, match=r"status\.succeeded = 'done'"):
        await attach(dsn, maps.load(str(tmp_path / "map.toml")))
    (tmp_path / "map.toml").write_text(text.replace('"done"', '"2"'))
    assert (await rowmill(dsn, "map", "check", "map.toml")).code == 0
    await attach(dsn, maps.load(str(tmp_path / "map.toml")))


async def test_without_a_database(rowmill: Rowmill, tmp_path: Path) -> None:
    said = await rowmill(None, "map", "check", "map.toml", "--offline")
    assert said.code == 0
    assert "rank 18 'now'" in " ".join(said.out.split())
    assert "Not checked, without a database" in said.out
    as_json = await rowmill(None, "map", "check", "map.toml", "--offline", "--json")
    assert (as_json.json["offline"], as_json.json["ok"]) == (True, True)
    assert (await rowmill(None, "map", "check", "map.toml")).code == 2
    broken = await rowmill(
        None, "map", "check", "map.toml", "--offline", ROWMILL_HANDLERS="nowhere"
    )
    assert broken.code == 1
    assert "ROWMILL_HANDLERS names 'nowhere', which cannot be imported" in broken.err
    (tmp_path / "map.toml").unlink()
    assert "no such file" in (await rowmill(None, "map", "check", "map.toml", "--offline")).err


@pytest.mark.parametrize("platform", maps.builtin_platforms())
async def test_the_maps_that_come_with_rowmill(
    platform: str, rowmill: Rowmill, new_database: NewDatabase
) -> None:
    dsn = await new_database()
    await run(dsn, sql_file(platform, "schema.sql"), sql_file(platform, "sample.sql"))
    said = await rowmill(dsn, "map", "check", platform)
    assert said.code == 0, said.err
    offline = await rowmill(None, "map", "check", platform, "--offline")
    assert offline.code == 0, offline.err
