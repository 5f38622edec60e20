"""What is read from a CHECK, in the words of `pg_get_constraintdef`."""

from __future__ import annotations

import pytest

from worker.guessing.constraints import allowed, literal

WORDS = {
    "CHECK ((state = ANY (ARRAY['a'::text, 'b'::text])))": ("a", "b"),
    "CHECK (((state)::text = ANY ((ARRAY['new'::character varying, 'done'::character varying])"
    "::text[])))": ("new", "done"),
    "CHECK (((state)::text = ANY (ARRAY[('a'::character varying(20))::text, "
    "('b'::character varying(20))::text])))": ("a", "b"),
    "CHECK ((state = 'only'::text))": ("only",),
    "CHECK (((state = 'a'::text) OR (state = 'b'::text)))": ("a", "b"),
    "CHECK (((state IS NULL) OR (state = ANY (ARRAY['a'::text]))))": ("a",),
    "CHECK (((state = ANY (ARRAY['a'::text, 'b'::text])) AND (length(state) < 9)))": ("a", "b"),
    "CHECK (((state = ANY (ARRAY['a'::text, 'b'::text])) AND (state = ANY "
    "(ARRAY['b'::text, 'c'::text]))))": ("b",),
    "CHECK ((state = ANY (ARRAY['it''s'::text, 'a, b)'::text, E'back\\\\slash'::text])))": (
        "it's",
        "a, b)",
        "back\\slash",
    ),
    "CHECK ((state = ANY (ARRAY['a'::app.\"Mood\", 'b'::app.\"Mood\"]))) NOT VALID": ("a", "b"),
    "CHECK ((state = ANY (ARRAY[0, 1, 2])))": ("0", "1", "2"),
    # Two words, and a rule about another column: still only these words.
    "CHECK ((((state = 'a'::text) AND (ended IS NULL)) OR (state = 'b'::text)))": ("a", "b"),
}
SAYS_NOTHING = [
    "CHECK (((state <> 'done'::text) OR (ended IS NOT NULL)))",
    "CHECK ((state <> ALL (ARRAY['a'::text, 'b'::text])))",
    "CHECK ((NOT (state = ANY (ARRAY['a'::text]))))",
    "CHECK ((lower(state) = ANY (ARRAY['a'::text])))",
    "CHECK ((state ~ '^[a-z]+$'::text))",
    "CHECK (((state = 'a'::text) OR (other = 'b'::text)))",
    "CHECK ((other = ANY (ARRAY['a'::text])))",
    "CHECK ((state = other))",
    "CHECK ((state = ANY (ARRAY['a'::text, other])))",
    "CHECK ((length(state) > 3))",
    "CHECK ((CASE WHEN (a > 1) THEN 'x'::text ELSE 'y'::text END = state))",
    "CHECK (",
    "",
]


@pytest.mark.parametrize("definition", WORDS)
def test_words(definition: str) -> None:
    assert allowed(definition, "state").words == WORDS[definition]


@pytest.mark.parametrize("definition", SAYS_NOTHING)
def test_what_allows_others_names_none(definition: str) -> None:
    assert allowed(definition, "state").words == ()


@pytest.mark.parametrize(
    ("definition", "low", "high"),
    [
        ("CHECK (((rank >= 1) AND (rank <= 10)))", 1, 10),
        ("CHECK (((rank > 0) AND (rank < 11)))", 1, 10),
        ("CHECK ((rank >= '-5'::integer))", -5, None),
        ("CHECK ((rank >= (-5)))", -5, None),
        ("CHECK ((rank = ANY (ARRAY[1, 2, 3])))", 1, 3),
        ("CHECK (((rank >= 1) OR (rank <= 10)))", None, None),
        ("CHECK (((other >= 1) AND (other <= 10)))", None, None),
    ],
)
def test_bounds(definition: str, low: int | None, high: int | None) -> None:
    found = allowed(definition, "rank")
    assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize(
    ("default", "word"),
    [
        ("'new'::text", "new"),
        ("'new'::public.\"Mood\"", "new"),
        ("('new'::character varying)::app.state", "new"),
        ("5", "5"),
        ("'-1'::integer", "-1"),
        ("now()", None),
        ("nextval('a_id_seq'::regclass)", None),
        ("NULL::text", None),
        ("CURRENT_TIMESTAMP", None),
        ("('a'::text || 'b'::text)", None),
    ],
)
def test_defaults(default: str, word: str | None) -> None:
    assert literal(default) == word
