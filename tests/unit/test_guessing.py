"""What is proposed for tables of many styles; tests/database/test_map_new.py asks live ones."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest

from worker.guessing import Column, Table, propose, render, worth_sampling
from worker.guessing.vocabulary import bare
from worker.maps import PlatformMap

TEXT, STAMP, INT = "text", "timestamp with time zone", "integer"


def table(*columns: Column, name: str = "jobs", **more: Any) -> Table:
    return Table("public", name, (Column("id", "uuid", required=True), *columns), ("id",), **more)


def state(*words: str, default: str | None = None, origin: Any = "check", **more: Any) -> Column:
    return Column(
        "status", TEXT, required=True, default=default, words=words, origin=origin, **more
    )


USUAL = state("queued", "running", "done", "failed", "cancelled", default="queued")


def source_of(described: Table) -> Any:
    """What stands in the file, read as `rowmill attach` reads it."""
    text = render("shop", [propose(described)])
    return PlatformMap.model_validate(tomllib.loads(text)).sources[0]


@pytest.mark.parametrize(
    "words",
    [
        ("pending", "processing", "completed", "failed", "cancelled"),
        ("Pending", "InProgress", "Completed", "Failed", "Cancelled"),
        ("NEW", "IN_PROGRESS", "DONE", "ERROR", "CANCELED"),
        ("to do", "in-work", "finished", "broken", "withdrawn"),
    ],
)
def test_words_of_many_styles_in_any_order(words: tuple[str, ...]) -> None:
    for described in (state(*words), state(*reversed(words), default=words[0])):
        status = source_of(table(described)).status
        assert status.ready == [words[0]]
        ends = (status.running, status.succeeded, status.failed, status.cancelled)
        assert ends == words[1:]


def test_several_words_for_one_state() -> None:
    words = ("new", "queued", "processing", "uploading", "done", "completed", "failed", "archived")
    proposal = propose(table(state(*words, default="new")))
    status = source_of(table(state(*words, default="new"))).status
    assert status.ready == ["new", "queued"]
    assert (status.succeeded, status.cancelled) == ("completed", None)
    assert "'done' could be it, too" in render("shop", [proposal])


def test_an_unknown_word_fills_its_place_and_says_so() -> None:
    described = table(state("open", "busy", "settled", "broken"))
    proposal = propose(described)
    assert proposal.unsure == ["status.succeeded"]
    assert source_of(described).status.succeeded == "settled"
    assert "UNSURE: nothing says which word means that a job is done" in render("x", [proposal])


def test_a_draft_fills_no_place() -> None:
    """A closed set of words without one for failures: said precisely, and not papered over."""
    proposal = propose(table(state("draft", "new", "running", "done", "archived")))
    assert len(proposal.lacking) == 1
    assert "status has no word for a job that has failed" in proposal.lacking[0]
    assert "'failed'" in proposal.lacking[0]


def test_an_open_column_may_get_words_it_never_had() -> None:
    described = table(state("NEW", "DONE", origin="rows", default="NEW"))
    proposal = propose(described)
    assert proposal.lacking == []
    assert source_of(described).status.failed == "FAILED"
    assert set(proposal.unsure) == {"status.running", "status.failed"}


def test_the_default_is_a_word_even_if_no_row_has_it() -> None:
    """All rows of a quiet table are done."""
    status = source_of(table(state("done", origin="rows", default="fresh"))).status
    assert (status.ready, status.succeeded) == (["fresh"], "done")
    status = source_of(table(state("done", origin="rows", default="new"))).status
    assert (status.ready, status.succeeded) == (["new"], "done")
    status = source_of(table(state(origin=None, default="Pending"))).status
    assert (status.ready, status.running, status.failed) == (["Pending"], "Processing", "Failed")


def test_which_column_is_the_status() -> None:
    payment = replace(USUAL, name="payment_status", words=("paid", "unpaid"))
    assert source_of(table(payment, USUAL)).status.column == "status"
    processing = replace(USUAL, name="processing_status")
    assert source_of(table(payment, processing)).status.column == "processing_status"
    odd = replace(USUAL, name="where_it_is")
    assert source_of(table(odd)).status.column == "where_it_is"
    null = replace(USUAL, required=False)
    assert source_of(table(null)).status.default == "queued"


def test_what_is_lacking_is_said() -> None:
    flags = table(Column("done", "boolean"), Column("My Status", TEXT))
    proposal = propose(replace(flags, keys=(), unnamed_keys=("a, b",)))
    assert not proposal.usable
    status, key = proposal.lacking
    assert "no column that looks like a status" in status
    assert "'done'" in status
    assert "'My Status'" in status
    assert "ADD COLUMN status text" in status
    assert "no unique index over a single column (it has one over a, b)" in key
    (name,) = propose(replace(table(USUAL), name="My jobs")).lacking
    assert "a map can't name table 'My jobs'" in name


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0, None, "0 and more"),
        (None, 9, "9 and less"),
        (0, 9, "0 to 9"),
        (None, None, "any number"),
    ],
)
def test_bounds_of_a_priority(low: int | None, high: int | None, said: str) -> None:
    rendered = render("x", [propose(table(USUAL, Column("prio", INT, low=low, high=high)))])
    assert f"# {said}; higher goes first" in rendered


@pytest.mark.parametrize(
    ("column", "scale", "words", "default"),
    [
        (Column("priority", INT, low=1, high=10, default="5"), "1-10", {}, 5),
        (Column("priority", INT, default="5"), "1-10", {}, 5),
        (Column("priority", "smallint", default="0"), "any", {}, 0),
        (Column("prio", INT, low=0, high=100), "any", {}, 0),
        (
            Column("urgency", "mood", enum=True, words=("low", "normal", "urgent"), origin="enum"),
            "words",
            {"low": 6, "normal": 10, "urgent": 18},
            10,
        ),
        (
            Column("Urgency", TEXT, words=("High", "Low"), origin="rows", default="Low"),
            "words",
            {"High": 15, "Low": 6},
            6,
        ),
        (
            Column("priority", "p", enum=True, words=("p3", "p2", "p1"), origin="enum"),
            "words",
            {"p3": 6, "p2": 11, "p1": 16},
            10,
        ),
        (
            Column("priority", TEXT, words=("high", "odd one"), origin="check"),
            "words",
            {"high": 15, "odd one": 10},
            10,
        ),
        (Column("is_urgent", "boolean"), "words", {"true": 16, "false": 10}, 10),
    ],
)
def test_priorities(column: Column, scale: str, words: dict[str, int], default: int) -> None:
    priority = source_of(table(USUAL, column)).priority
    assert priority.column == column.name
    assert (priority.scale, priority.words, priority.default) == (scale, words, default)


def test_no_priority_no_tries() -> None:
    source = source_of(table(USUAL, Column("priority", "jsonb")))
    assert (source.priority, source.tries, source.max_retries) == (None, None, 3)


def test_tries() -> None:
    attempts = Column("attempts", INT), Column("max_attempts", INT, default="5")
    tries = source_of(table(USUAL, *attempts)).tries
    assert (tries.column, tries.counts, tries.max, tries.default_max) == (
        *("attempts", "attempts", "max_attempts"),
        4,
    )
    alone = source_of(table(USUAL, Column("retry_count", INT)))
    assert (alone.tries, alone.max_retries) == (None, 3)


def test_columns_by_name_and_type() -> None:
    source = source_of(
        table(
            USUAL,
            *(Column(name, STAMP) for name in ("started_at", "finished_at", "updated_at")),
            *(Column(name, TEXT) for name in ("last_error", "job_type", "customer_id")),
            Column("run_at", STAMP),
            Column("progress", INT),
            Column("cost_usd", "numeric", scale=6),
            Column("error", "jsonb"),
            Column("result_url", TEXT, required=True),
            Column("file_url", TEXT),
            Column("duration_ms", "bigint", generated=True),
        )
    )
    sets = source.set
    assert source.schedule == "run_at"
    assert source.tenant.column == "customer_id"
    assert (source.kind.column, source.kind.prefix) == ("job_type", "background:")
    assert sets.success["finished_at"] == sets.failure["finished_at"] == "now"
    assert sets.failure["last_error"] == "error"
    assert sets.success["cost_usd"] == sets.failure["cost_usd"] == "cost_usd"
    assert sets.progress == {"progress": "progress"}
    assert sets.success["result_url"] == "url"
    assert sets.requeue["updated_at"] == "now"
    everything = sets.model_dump().values()
    assert not {"error", "file_url", "duration_ms"} & {c for group in everything for c in group}


def test_a_column_that_must_not_be_null_is_not_cleared() -> None:
    source = source_of(table(USUAL, Column("error", TEXT, required=True)))
    assert "error" not in source.set.success
    assert source.set.failure["error"] == "error"


def test_whatever_stands_in_a_table_the_file_can_be_read() -> None:
    """Words come from anyone's rows: quotes, line ends and control characters stay inside."""
    hostile = ("a\nb = 1", 'say "x"', "back\\slash", "[[sources]]", "\x7f\x01", "ü 🚀", "'''")
    described = table(
        replace(USUAL, default='q"\n[x]', words=('q"\n[x]', *USUAL.words)),
        Column("urgency", "mood", enum=True, words=hostile, origin="enum"),
        Column("kind", TEXT, words=hostile, origin="rows"),
        Column('odd "name"\n[y]', TEXT),
        name="jobs",
    )
    source = source_of(described)
    assert source.status.ready[0] == 'q"\n[x]'
    assert set(source.priority.words) == set(hostile)


def test_what_is_sampled_is_bounded() -> None:
    wide = [Column(f"c{number}", TEXT) for number in range(1500)]
    assert len(worth_sampling(table(*wide))) == 16
    named = table(*wide, Column("status", TEXT), Column("priority", INT), Column("job_type", TEXT))
    assert worth_sampling(named) == ["status", "job_type"]
    assert worth_sampling(table(USUAL)) == []
    assert len(propose(table(USUAL, *wide)).sections) == 2


@pytest.mark.parametrize(
    "word", ["InProgress", "in-progress", "IN_PROGRESS", "In progress", "inProgress"]
)
def test_bare(word: str) -> None:
    assert bare(word) == "in_progress"
