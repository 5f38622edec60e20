"""What a map can't work with in a live database is said before anything is changed, all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.database.platform_samples import NewDatabase, run
from tests.database.studio import SCHEMA, written
from tests.database.support import Connect
from worker.maps import MapError
from worker.store.attaching import attach
from worker.store.checking import Problem, problems
from worker.store.migrations import migrate


@pytest.fixture
async def dsn(new_database: NewDatabase) -> str:
    made = await new_database()
    await migrate(made)
    await run(made, SCHEMA)
    return made


async def test_nothing_to_say(dsn: str, connect: Connect, tmp_path: Path) -> None:
    assert await problems(await connect(dsn), written(tmp_path)) == []


async def test_all_of_it_at_once(dsn: str, connect: Connect, tmp_path: Path) -> None:
    """And the connection is good for more: nothing that failed is left behind."""
    platform = written(
        tmp_path,
        ('column = "state"', 'column = "stat"'),
        ('column = "urgency"', 'column = "prio"'),
        attach="SELECT 'refuse' AS severity, 'no good' AS message;",
    )
    connection = await connect(dsn)
    async with connection.transaction():
        found = await problems(connection, platform)
        assert await connection.fetchval("SELECT 1") == 1
    assert [problem.severity for problem in found] == ["refuse"] * 3
    with pytest.raises(MapError) as caught:
        await attach(dsn, platform)
    status, priority, own = str(caught.value).splitlines()
    assert "status.column: table public.shoots has no column 'stat'" in status
    assert "priority.column: table public.shoots has no column 'prio'" in priority
    assert own == "no good"
    assert await connection.fetchval("SELECT count(*) FROM rowmill.sources") == 0


async def test_before_the_first_migration(
    new_database: NewDatabase, connect: Connect, tmp_path: Path
) -> None:
    bare = await new_database()
    await run(bare, SCHEMA)
    assert await problems(await connect(bare), written(tmp_path)) == []


# --------------------------------------------------------------------------- a platform's own rule


async def test_what_it_refuses_and_warns_of(dsn: str, connect: Connect, tmp_path: Path) -> None:
    rule = """
-- What the live database says.
SELECT CASE WHEN n > 1 THEN 'refuse' ELSE 'warn' END AS severity, 'row ' || n AS message
FROM generate_series(1, (SELECT count(*)::integer FROM public.studios)) AS n;
"""
    platform, connection = written(tmp_path, attach=rule), await connect(dsn)
    await connection.execute("INSERT INTO public.studios DEFAULT VALUES")
    said: list[str] = []
    await attach(dsn, platform, report=said.append)
    assert said[0] == "warning: row 1"
    await connection.execute("INSERT INTO public.studios DEFAULT VALUES")
    assert await problems(connection, platform) == [
        Problem("warn", "row 1"),
        Problem("refuse", "row 2"),
    ]
    with pytest.raises(MapError, match=r"^row 2$"):
        await attach(dsn, platform)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("SELECT 1 / 0 AS severity, 'x' AS message;", "attach.sql: division by zero"),
        ("SELECT 'x' AS message;", "attach.sql: column a.severity does not exist"),
        ("SELECT 'no' AS severity, 'x' AS message;", "attach.sql answered .*'no'.*: wanted are"),
        ("SELECT 1;\nSELECT 2;", "attach.sql: one SELECT is wanted, there are 2 statements"),
        ("SELECT * FROM public.nowhere;", "attach.sql: relation .*nowhere.* does not exist"),
    ],
)
async def test_one_that_fails_is_named(rule: str, message: str, dsn: str, tmp_path: Path) -> None:
    with pytest.raises(MapError, match=message):
        await attach(dsn, written(tmp_path, attach=rule))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"shoots__stop": "SELECT id AS key FROM public.shoots;"}, "shoots.stop.sql: .*verdict"),
        ({"shoots__stop": "SELECT * FROM public.nowhere;"}, "shoots.stop.sql: .*nowhere"),
        ({"shoots__rank": "SELECT id AS key, 1 AS bonus FROM shoots;"}, "shoots.rank.sql: .*shoot"),
        ({"shoots__rank": "SELECT 1;\nSELECT 2;"}, "shoots.rank.sql: one SELECT is wanted"),
        ({"limits": "SELECT 1 AS lane;"}, "limits.sql: "),
    ],
)
async def test_other_rules_are_tried_too(
    rules: dict[str, str], message: str, dsn: str, tmp_path: Path
) -> None:
    with pytest.raises(MapError, match=message):
        await attach(dsn, written(tmp_path, **rules))


# --------------------------------------------------------------------------- clocks


async def zone_of(connection: Any, of: str, zone: str) -> None:
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER {of.format(name)} SET timezone TO '{zone}'")


@pytest.mark.parametrize(
    ("default", "warned"),
    [
        ("CURRENT_TIMESTAMP", True),
        ("now()", True),
        ("clock_timestamp()", True),
        ("LOCALTIMESTAMP", True),
        ("(now() AT TIME ZONE 'UTC')", False),
        ("timezone('utc', now())", False),
        ("'2020-01-01'", False),
    ],
)
async def test_columns_without_a_zone(
    default: str, warned: bool, dsn: str, connect: Connect, tmp_path: Path
) -> None:
    connection = await connect(dsn)
    column = f"made_at timestamp DEFAULT {default}"
    await connection.execute(f"ALTER TABLE public.shoots ADD COLUMN {column}")
    platform = written(tmp_path)
    assert await problems(connection, platform) == []  # the test's server is in UTC
    await zone_of(connection, "DATABASE {}", "America/New_York")
    found = await problems(connection, platform)
    assert [problem.severity for problem in found] == ["warn"] * warned
    if warned:
        (problem,) = found
        assert "public.shoots fills made_at without a time zone" in problem.message
        assert "this database has America/New_York" in problem.message
        assert "ALTER DATABASE … SET timezone TO 'UTC'" in problem.message
    there = written(tmp_path, more="").map.model_copy(update={"timezone": "America/New_York"})
    assert await problems(connection, type(platform)(there, {}, "map.toml")) == []


async def test_the_same_time_by_another_name(dsn: str, connect: Connect, tmp_path: Path) -> None:
    connection = await connect(dsn)
    await connection.execute("ALTER TABLE public.shoots ADD made_at timestamp DEFAULT now()")
    await zone_of(connection, "DATABASE {}", "Etc/UCT")
    assert await problems(connection, written(tmp_path)) == []


async def test_a_role_with_a_zone_of_its_own(
    dsn: str, connect: Connect, tmp_path: Path, producer: Any
) -> None:
    connection = await connect(dsn)
    await connection.execute("ALTER TABLE public.shoots ADD made_at timestamp DEFAULT now()")
    await zone_of(connection, f"ROLE {producer.name} IN DATABASE {{}}", "Asia/Tokyo")
    (problem,) = await problems(connection, written(tmp_path))
    assert f"role {producer.name} has Asia/Tokyo" in problem.message


async def test_without_any_right(dsn: str, connect: Connect, tmp_path: Path, producer: Any) -> None:
    """What is looked at is everyone's to see."""
    connection = await connect(dsn, producer)
    assert await problems(connection, written(tmp_path)) == []


async def test_a_zone_nobody_knows(dsn: str, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    platform = written(tmp_path)
    wrong = platform.map.model_copy(update={"timezone": "Mars/Olympus"})
    (problem,) = await problems(await connect(dsn), type(platform)(wrong, {}, path.name))
    assert problem.severity == "refuse"
    assert "timezone" in problem.message
