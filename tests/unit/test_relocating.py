"""A platform in another schema: `public.` is replaced where it is one, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_maps import GOOD, written
from worker.generate import Column, Target, attach_sql
from worker.maps import MapError, Platform, Value, builtin_platforms, load, relocated


@pytest.mark.parametrize(
    ("sql", "moved"),
    [
        ("SELECT * FROM public.jobs", "SELECT * FROM shop.jobs"),
        ("to_regclass('public.jobs')", "to_regclass('shop.jobs')"),
        ("public.a.b = ANY(public.f())", "shop.a.b = ANY(shop.f())"),
        ("$1::public.word[]", "$1::shop.word[]"),
        ("format('public.%I')", "format('shop.%I')"),
        ('public."Jobs"', 'shop."Jobs"'),
        ("my_public.jobs, x.public.jobs", "my_public.jobs, x.public.jobs"),
        ("GRANT USAGE TO public; -- made public. All of it", None),
        ("publication.jobs", None),
    ],
)
def test_the_token(sql: str, moved: str | None) -> None:
    assert relocated(sql, "shop") == (moved or sql)


def test_a_reserved_word_is_quoted() -> None:
    assert relocated("public.jobs", "order") == '"order".jobs'
    assert relocated("public.jobs", "public") == "public.jobs"


def test_map_and_rules_move_together(tmp_path: Path) -> None:
    lane = 'lane = { path = "model > public.models(id).name" }'
    text = GOOD.replace('lane = { column = "service" }', lane) + (
        '[[partitions]]\ntable = "public.usage"\nfunction = "public.make"\nargument = "usage"\n'
    )
    platform = load(written(tmp_path, text, jobs__finish="DELETE FROM public.x;"), "order")
    (source,), (partitions,) = platform.map.sources, platform.map.partitions
    assert (source.table, partitions.table, partitions.function) == (
        "order.jobs",
        "order.usage",
        "order.make",
    )
    assert source.lane.path == "model > order.models(id).name"
    assert platform.rules == {"jobs.finish": 'DELETE FROM "order".x;'}
    # What is kept in the database is the moved form, so an upgrade makes the same functions again.
    assert Platform.from_definition(platform.definition(source)) == platform
    columns = {name: Column("text") for name in ("id", "service", "status", "model")}
    for statement in attach_sql(Target(platform, source, 1, columns, partitioned=False)):
        assert "public." not in statement


@pytest.mark.parametrize("name", builtin_platforms())
def test_built_in_platforms_leave_nothing_behind(name: str) -> None:
    platform = load(name, "elsewhere")
    assert "public." not in platform.map.model_dump_json()
    for stem, sql in platform.rules.items():
        assert "public." not in sql, stem


@pytest.mark.parametrize("schema", ["Shop", "my-schema", "", "a.b", 'x"'])
def test_names_that_are_spelled_in_several_ways(schema: str, tmp_path: Path) -> None:
    with pytest.raises(MapError, match="give a name of lower-case letters"):
        load(written(tmp_path), schema)


def test_words_go_with_what_has_words() -> None:
    with pytest.raises(ValueError, match="a constant needs no other word"):
        Value(constant="text", words={"a": "b"})
