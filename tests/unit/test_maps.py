"""Maps: what is refused, and that the message names file, key and table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.maps import (
    Hop,
    MapError,
    Platform,
    PlatformMap,
    builtin_platforms,
    load,
    parse_path,
)

GOOD = """
platform = "shop"
[[sources]]
name = "jobs"
table = "public.jobs"
kind = { constant = "text" }
lane = { column = "service" }
[sources.status]
column = "status"
ready = ["new"]
running = "busy"
succeeded = "done"
failed = "broken"
"""


def written(folder: Path, text: str = GOOD, **rules: str) -> str:
    path = folder / "map.toml"
    path.write_text(text, encoding="utf-8")
    for name, sql in rules.items():
        (folder / f"{name.replace('__', '.')}.sql").write_text(sql, encoding="utf-8")
    return str(path)


def test_a_small_map(tmp_path: Path) -> None:
    platform = load(written(tmp_path, jobs__finish="SELECT 1;", limits="SELECT 2;"))
    (source,) = platform.map.sources
    assert (source.name, source.key, source.max_retries) == ("jobs", "id", 3)
    assert (source.tries, source.priority, source.schedule) == (None, None, None)
    assert platform.rules == {"jobs.finish": "SELECT 1;", "limits": "SELECT 2;"}
    assert platform.rule("jobs", "finish") == "SELECT 1;"
    assert platform.rule("jobs", "input") is None


def test_rules_of_one_kind(tmp_path: Path) -> None:
    platform = load(written(tmp_path, jobs__embed__finish="SELECT 1;", jobs__finish="SELECT 2;"))
    assert platform.kind_rules("jobs", "finish") == {"embed": "SELECT 1;"}
    assert platform.kind_rules("jobs", "output") == {}


@pytest.mark.parametrize("name", ["jobs__poem", "nobody__finish", "jobs__embed__usage"])
def test_a_stray_sql_file_is_an_error(tmp_path: Path, name: str) -> None:
    """A rule with a typing error in its name would silently never run."""
    with pytest.raises(MapError, match=rf"{name.replace('__', '.')}\.sql: not a rule of this map"):
        load(written(tmp_path, **{name: "SELECT 1;"}))


def test_schema_and_sample_are_no_rules(tmp_path: Path) -> None:
    assert load(written(tmp_path, schema="x", sample="y")).rules == {}


# --------------------------------------------------------------------------- errors

WRONG = {
    "a table without schema": (
        ('"public.jobs"', '"jobs"'),
        r"map\.toml: sources\[0\]\.table \(table jobs\): ",
    ),
    "an injected name": (('"service"', '"x\'; DROP"'), r"sources\[0\]\.lane\.column \(table pub"),
    "two ways at once": (('{ column = "service" }', '{ column = "a", constant = "b" }'), "exactly"),
    "no way at all": (('{ column = "service" }', "{ }"), "exactly one of constant, column, path"),
    "a path without hops": (('column = "service"', 'path = "service"'), "one hop or more"),
    "a crooked path": (('column = "service"', 'path = "a > b.c"'), r"'b\.c' is not of the form"),
    "no ready words": (('["new"]', "[]"), r"sources\[0\]\.status\.ready"),
    "an unknown key": (('running = "busy"', 'runing = "busy"'), r"sources\[0\]\.status\.runing"),
    "an upper-case name": (('name = "jobs"', 'name = "Jobs"'), r"sources\[0\]\.name"),
    "not TOML": (('platform = "shop"', "platform = shop"), r"map\.toml: Invalid"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(MapError, match=message):
        load(written(tmp_path, GOOD.replace(*change)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[sources.set.success]\nx = 'answer'", r"sources\[0\]\.set\.success\.x \(table pub.*\)"),
        ("[sources.priority]\nscale = 'words'\ncolumn = 'p'", "goes with scale"),
        ("[sources.priority]\nwords = {a = 1}\ncolumn = 'p'", "goes with scale"),
        ("[sources.priority]\nscale = 'words'\ncolumn = 'p'\nwords = {a = 21}", "less than"),
        ("[sources.priority]\nscale = 'any'", "exactly one of column, path"),
        ("[sources.tries]\ncolumn = 'a'\nmax = 'b'\ncounts = 'hops'", r"tries\.counts"),
        ("[[sources.locks]]\ntable = 'parent'\ncolumn = 'c'", r"locks\[0\]\.table"),
        ("[[partitions]]\ntable = 'a.b'\nfunction = 'f'\nargument = 'x'", r"partitions\[0\]\.fun"),
    ],
)
def test_what_is_wrong_further_down(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(MapError, match=message):
        load(written(tmp_path, f"{GOOD}\n{more}\n"))


def test_two_sources_of_one_name(tmp_path: Path) -> None:
    twice = GOOD + GOOD.partition("\n")[2].partition("\n")[2]
    with pytest.raises(MapError, match="two sources have the same name"):
        load(written(tmp_path, twice))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('"public.jobs"', '"jobs"').replace('running = "busy"\n', "")
    with pytest.raises(MapError) as caught:
        load(written(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("reference", ["nobody", "no/such/map.toml"])
def test_a_map_that_is_not_there(reference: str) -> None:
    with pytest.raises(MapError, match=reference):
        load(reference)


# --------------------------------------------------------------------------- paths and definitions


def test_a_path_over_two_tables() -> None:
    assert parse_path("model_id > ai.models(id).provider_id > ai.providers(pk).name") == (
        "model_id",
        [Hop("ai.models", "id", "provider_id"), Hop("ai.providers", "pk", "name")],
    )


def test_built_in_maps_come_back_from_their_definition() -> None:
    """What rowmill.sources keeps is all an upgrade has to make the functions again."""
    assert set(builtin_platforms()) >= {"ebook", "photomemory"}
    for name in builtin_platforms():
        platform = load(name)
        for source in platform.map.sources:
            kept: dict[str, Any] = platform.definition(source)
            again = Platform.from_definition(kept)
            assert (again.map, again.rules) == (platform.map, platform.rules)
            assert kept["source"] == source.name
            assert isinstance(again.map, PlatformMap)


CHORES = """
[[refreshes]]
view = "public.totals"
every = "4 hours"
[[retention]]
source = "jobs"
column = ["ended_at", "made_at"]
keep = "30 days"
[[retention]]
table = "public.visits"
column = "seen_at"
keep = "1 year"
every = "1 hour"
"""


def test_what_is_done_now_and_then(tmp_path: Path) -> None:
    platform = load(written(tmp_path, GOOD + CHORES, audit="SELECT 1;"))
    assert [(view.view, view.every) for view in platform.map.refreshes] == [
        ("public.totals", "4 hours")
    ]
    assert [(e.subject, e.columns, e.keep, e.every) for e in platform.map.retention] == [
        ("jobs", ["ended_at", "made_at"], "30 days", "1 day"),
        ("public.visits", ["seen_at"], "1 year", "1 hour"),
    ]
    definition = platform.definition(platform.map.sources[0])
    assert Platform.from_definition(definition).map == platform.map


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('every = "4 hours"', 'every = "often"', r"refreshes\[0\].every"),
        ('every = "4 hours"', 'every = "10 seconds"', r"refreshes\[0\].every"),
        ('keep = "30 days"', 'keep = "0 days"', r"retention\[0\].keep"),
        ('keep = "1 year"', 'keep = "> 1 year"', r"retention\[1\].keep"),
        ('"public.visits"', '"public.jobs"', 'say source = "jobs"'),
        ('source = "jobs"', 'source = "tasks"', "no source 'tasks'"),
        (
            'source = "jobs"',
            'source = "jobs"\ntable = "public.old"',
            "exactly one of table, source",
        ),
        ('column = "seen_at"', "column = []", r"retention\[1\].column"),
        ('source = "jobs"', 'table = "public.visits"', "same table"),
    ],
)
def test_what_can_not_be_done_now_and_then(old: str, new: str, why: str, tmp_path: Path) -> None:
    assert CHORES.count(old) == 1
    with pytest.raises(MapError, match=why):
        load(written(tmp_path, GOOD + CHORES.replace(old, new)))
