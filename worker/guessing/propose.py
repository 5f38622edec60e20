"""One table's proposal: everything that is guessed of it, and what keeps it from being a source."""

from __future__ import annotations

import re
from collections.abc import Sequence

from worker.generate.words import relation
from worker.guessing import columns, states
from worker.guessing import vocabulary as known
from worker.guessing.proposal import Guess, Proposal, Section
from worker.guessing.states import told
from worker.guessing.table import USABLE, Column, Table
from worker.guessing.vocabulary import bare

SAMPLED = 16
"""Columns that are looked at in rows, at most: a table may have a thousand."""

__all__ = ["Proposal", "propose", "source_name", "worth_sampling"]


def worth_sampling(table: Table) -> list[str]:
    """Columns whose words only the rows can tell."""
    open_ones = [c for c in table.columns if not c.words and c.usable and not c.generated]
    of_interest = {*known.STATUS, *known.KIND, *known.LANE, *known.PRIORITY}
    named = [
        column.name
        for column in open_ones
        if (column.wordy and (bare(column.name) in of_interest or _like_a_state(column.name)))
        or (column.integer and bare(column.name) in known.STATUS)
    ]
    if states.status_column(table) is None and not any(_like_a_state(name) for name in named):
        named += [c.name for c in open_ones if c.text and c.name not in named]
    return named[:SAMPLED]


def _like_a_state(name: str) -> bool:
    return bare(name) in known.STATUS or bare(name).endswith(("_status", "_state"))


def propose(table: Table, kinds: Sequence[str] = ()) -> Proposal:
    """`kinds` are those a handler is known for; they only make some guesses likelier."""
    proposal = Proposal(source_name(table.name), table.qualified)
    proposal.lacking += _unusable_names(table)
    status = states.status_column(table)
    if status is None:
        proposal.lacking.append(_no_status(table))
    if not table.keys:
        proposal.lacking.append(_no_key(table))
    if proposal.lacking or status is None:
        proposal.usable = False
        return proposal
    planned = columns.schedule(table)
    words, lacking = states.status_section(status, scheduled=planned.value is not None)
    proposal.lacking += lacking
    tries, instead = columns.tries(table)
    priority = states.priority_section(table)
    own = [
        Guess("key", table.keys[0], "sure", _other_keys(table)),
        *columns.kind_and_lane(table, proposal.name, kinds),
        columns.tenant(table),
        planned,
        *([instead] if instead else []),
    ]
    sections = [Section("", tuple(own)), words, *([tries] if tries else [])]
    sections += [priority] if priority else []
    proposal.sections = sections + columns.sets(table, _taken(sections))
    proposal.notes = [*_ties(table, status), *_notes(table)]
    return proposal


def source_name(table: str) -> str:
    name = bare(table)
    return (name if re.match("[a-z]", name) else f"jobs_{name}".rstrip("_"))[:40]


def _taken(sections: Sequence[Section]) -> set[str]:
    """Columns that have a meaning already."""
    taken = set()
    for section in sections:
        for guess in section.guesses:
            if guess.key in ("key", "column", "max", "schedule"):
                taken.add(guess.value)
            elif isinstance(guess.value, dict) and "column" in guess.value:
                taken.add(guess.value["column"])
    return taken - {None}


# --------------------------------------------------------------------------- what is lacking


def _unusable_names(table: Table) -> list[str]:
    return [
        f"a map can't name {what} {name!r}: it may only have letters, digits and underscores "
        f"(ALTER {what.upper()} … RENAME TO, or a table of its own for the jobs)"
        for what, name in (("schema", table.schema), ("table", table.name))
        if not USABLE.match(name)
    ]


def _no_status(table: Table) -> str:
    flags = [c.name for c in table.columns if c.type == "boolean"]
    odd = [c.name for c in table.columns if not c.usable and (c.wordy or c.integer)]
    hint = ""
    if flags:
        hint += f"; {told(flags)} can say yes or no, and a job has four states or more"
    if odd:
        hint += f"; {told(odd)} can't be named by a map, which takes letters, digits, underscores"
    return (
        f"{table.qualified} has no column that looks like a status (text or an enum, with words "
        f"such as pending, running, done, failed){hint}. Add one: ALTER TABLE "
        f"{relation(table.qualified)} ADD COLUMN status text NOT NULL DEFAULT 'pending'"
    )


def _no_key(table: Table) -> str:
    several = f" (it has one over {'; '.join(table.unnamed_keys)})" if table.unnamed_keys else ""
    return (
        f"{table.qualified} has no unique index over a single column{several}, so nothing names "
        "a job. Add one: a primary key, or a unique index on a NOT NULL column without a WHERE"
    )


# --------------------------------------------------------------------------- notes


def _other_keys(table: Table) -> str:
    return f"{', '.join(table.keys[1:])} would do, too" if table.keys[1:] else ""


def _ties(table: Table, status: Column) -> list[str]:
    """Rules that a row with a new status has to keep, in the same UPDATE."""
    return [
        f"its CHECK {tie.name} ties {status.name} to other columns. What it asks of a row must be "
        f"written with the status, under set: {tie.definition.removeprefix('CHECK ')}"
        for tie in table.ties
        if status.name in tie.columns
    ]


def _notes(table: Table) -> list[str]:
    notes = []
    odd = [column.name for column in table.columns if not column.usable]
    if odd:
        notes.append(
            f"a map can't name these columns, which have more than letters, digits and "
            f"underscores: {told(odd)}. They are left alone; a rule file can quote them."
        )
    if table.row_security:
        notes.append("row-level security is on: the worker's role needs BYPASSRLS.")
    if table.partitioned:
        notes.append("it is partitioned: the key must be unique over all partitions.")
    if any(c.type == "timestamp without time zone" for c in table.columns):
        notes.append("it has timestamps without time zone: `timezone` says which one they are in.")
    parents = [f"{c.name} ({c.parent[0]})" for c in table.columns if c.parent]
    if parents:
        notes.append(
            f"it points to others: {', '.join(parents[: states.SHOWN])}. Handlers get the row as "
            "it is; a rule <source>.input.sql can add what the others say."
        )
    return notes
