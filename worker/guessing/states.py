"""Which column is the status, what its words mean, and what becomes of priorities."""

from __future__ import annotations

from collections.abc import Sequence

from worker.guessing import vocabulary as known
from worker.guessing.proposal import Confidence, Guess, Section
from worker.guessing.table import Column, Table
from worker.guessing.vocabulary import bare

NEEDED = ("ready", "running", "succeeded", "failed")
STATE_OF = {word: state for state, words in known.STATES.items() for word in words}
RANK_OF = {word: rank for rank, words in known.RANKS.items() for word in words}
USUAL_RANK = 10
SHOWN = 12
"""Words that are told of a column; more than that and it is hardly a state."""


# --------------------------------------------------------------------------- the column


def status_column(table: Table) -> Column | None:
    """By its name and by how many states its words name; None where nothing comes close."""
    candidates = [c for c in table.columns if c.usable and not c.generated and _score(c) > 0]
    return max(candidates, key=_score, default=None)


def _score(column: Column) -> int:
    if not (column.wordy or column.integer):
        return 0
    states = {STATE_OF.get(bare(word)) for word in column.words} - {None}
    name = bare(column.name)
    if name in known.STATUS:
        named = 30 - known.STATUS.index(name)
    elif name.endswith(("_status", "_state")) and column.wordy:
        named = 10
    else:
        named = 0
    if column.integer and not (named > 10 and name in known.STATUS[:2]):
        return 0
    return named + 10 * len(states) if named or len(states) >= 3 else 0


def told(words: Sequence[str]) -> str:
    shown = ", ".join(repr(word) for word in words[:SHOWN])
    return shown + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")


def _origin(column: Column) -> str:
    return {
        "enum": f"the enum {column.type} has",
        "check": "its CHECK allows",
        "domain": "its domain allows",
        "rows": "in its rows there are",
        None: "nothing says which words it holds",
    }[column.origin]


# --------------------------------------------------------------------------- its words


def status_section(column: Column, *, scheduled: bool) -> tuple[Section, list[str]]:
    """The section, and what the column lacks: a state it has no word for."""
    words = _by_state(column, scheduled=scheduled)
    free = [w for w in _known(column) if bare(w) not in STATE_OF and bare(w) not in known.ASIDE]
    if column.default in free:
        free.remove(column.default)
        words["ready"].insert(0, column.default)
    saw = f"{_origin(column)} {told(column.words)}".rstrip()
    at = [Guess("column", column.name, "sure" if words["ready"] else "likely", saw)]
    lacking = []
    for state in NEEDED:
        guess = _word_for(column, state, words[state], free)
        at.append(guess)
        if column.closed and not words[state] and guess.value not in column.words:
            lacking.append(
                f"{column.name} has no word for a job that {_MEANS[state]} ({saw}): allow one "
                f"there (such as {guess.value!r}) and name it as status.{state}"
            )
    at.append(_cancelled(column, words["cancelled"]))
    if not column.required:
        ready = at[1].value
        at.append(Guess("default", ready[0], "likely", "what NULL means"))
    return Section("status", tuple(at)), lacking


_MEANS = {
    "ready": "waits to be run",
    "running": "is running",
    "succeeded": "is done",
    "failed": "has failed",
}


def _known(column: Column) -> tuple[str, ...]:
    """Its words, and its DEFAULT's, which no row may have any more."""
    extra = column.default and column.default not in column.words and not column.closed
    return (*column.words, column.default) if column.default and extra else column.words


def _by_state(column: Column, *, scheduled: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {state: [] for state in known.STATES}
    for word in _known(column):
        state = STATE_OF.get(bare(word))
        if state and not (state == "ready" and _too_early(word, scheduled=scheduled)):
            found[state].append(word)
    for state, words in found.items():
        words.sort(key=lambda word, state=state: known.STATES[state].index(bare(word)))  # type: ignore[misc]
    if column.default in found["ready"]:
        found["ready"].remove(column.default)
        found["ready"].insert(0, column.default)
    return found


def _too_early(word: str, *, scheduled: bool) -> bool:
    """A word for rows that wait for a time, in a table without a column for that time."""
    return bare(word) in known.WAITS_FOR_TIME and not scheduled


def _word_for(column: Column, state: str, words: list[str], free: list[str]) -> Guess:
    confidence: Confidence = "sure" if column.closed else "likely"
    if words:
        if state == "ready":
            return Guess(state, words, confidence, "the first is written when a job goes back")
        others = f"{told(words[1:])} could be it, too: such rows are left alone"
        return Guess(state, words[0], confidence, others if words[1:] else "")
    if free:
        why = f"nothing says which word means that a job {_MEANS[state]}; taken by its place"
        word = free.pop(0)
    else:
        why = f"no word for a job that {_MEANS[state]} was seen: fill in yours"
        word = _styled(known.STATES[state][0], _known(column))
    return Guess(state, [word] if state == "ready" else word, "unsure", why)


def _cancelled(column: Column, words: list[str]) -> Guess:
    if words:
        others = f"or {told(words[1:])}" if words[1:] else ""
        return Guess("cancelled", words[0], "sure" if column.closed else "likely", others)
    why = "optional: the word that cancels a job when someone writes it; none was seen"
    return Guess("cancelled", None, "unsure", why, ('cancelled = "cancelled"',))


def _styled(word: str, like: Sequence[str]) -> str:
    """In the casing of the words around it."""
    if like and all(other.isupper() for other in like):
        return word.upper()
    if like and all(other[:1].isupper() for other in like):
        return word.capitalize()
    return word


# --------------------------------------------------------------------------- priorities


def priority_section(table: Table) -> Section | None:
    for name in (*known.PRIORITY, *known.URGENT_FLAG):
        for column in table.columns:
            if bare(column.name) == name and column.usable:
                section = _priority(column)
                if section is not None:
                    return section
    return None


def _priority(column: Column) -> Section | None:
    if column.type == "boolean":
        words = {"true": 16, "false": USUAL_RANK}
        return _in_words(column, words, "sure", "true goes first")
    if bare(column.name) in known.URGENT_FLAG:
        return None
    if column.wordy:
        return _worded(column)
    return _numbered(column) if column.integer else None


def _bounds(column: Column) -> str:
    match column.low, column.high:
        case None, None:
            return "any number"
        case low, None:
            return f"{low} and more"
        case None, high:
            return f"{high} and less"
        case low, high:
            return f"{low} to {high}"


def _numbered(column: Column) -> Section:
    default = int(column.default) if column.default else None
    other = (
        'scale = "words"',
        'words = { "1" = 18, "2" = 14, "3" = 10 }   # where 1 is the most urgent',
    )
    if (column.low, column.high) == (1, 10):
        scale, confidence, why = "1-10", "sure", "its CHECK allows 1 to 10; 10 goes first"
    elif column.low is None and column.high is None and default and 1 <= default <= 10:
        scale, confidence = "1-10", "unsure"
        why = f'its DEFAULT is {default} and nothing bounds it: "any" if it isn\'t 1 to 10'
    else:
        bounds = _bounds(column)
        scale, confidence = "any", "likely"
        why = f"{bounds}; higher goes first, the usual is 0, what is above 10 counts as 10"
    usual = default if default is not None else (5 if scale == "1-10" else 0)
    sure: Confidence = "sure" if confidence == "sure" else "unsure"
    if confidence == "likely":
        sure = "likely"
    return Section(
        "priority",
        (
            Guess("column", column.name, "likely"),
            Guess("scale", scale, sure, why, other),
            Guess("default", usual, "likely", "what NULL means, on the same scale"),
        ),
    )


def _worded(column: Column) -> Section:
    ranks = {word: RANK_OF[bare(word)] for word in column.words if bare(word) in RANK_OF}
    unknown = [word for word in column.words if word not in ranks]
    if column.words and not ranks and column.origin == "enum":
        why = f"{_origin(column)} {told(column.words)}: taken as last to first"
        return _in_words(column, _spread(column.words), "unsure", why)
    if not ranks:
        saw = f"{_origin(column)} {told(column.words)}".rstrip()
        return _in_words(column, {"low": 6, "normal": 10, "high": 15}, "unsure", f"{saw}: fill in")
    why = f"{_origin(column)} {told(column.words)}"
    if unknown:
        between = {word: ranks.get(word, USUAL_RANK) for word in column.words}
        return _in_words(column, between, "unsure", f"{why}: where do {told(unknown)} belong?")
    return _in_words(column, ranks, "sure" if column.closed else "likely", why)


def _spread(words: Sequence[str]) -> dict[str, int]:
    """Evenly from 6 to 16, the first word last."""
    steps = max(1, len(words) - 1)
    return {word: 6 + round(10 * place / steps) for place, word in enumerate(words[:100])}


def _in_words(column: Column, words: dict[str, int], confidence: Confidence, why: str) -> Section:
    usual = words.get(column.default or "", USUAL_RANK)
    return Section(
        "priority",
        (
            Guess("column", column.name, confidence),
            Guess("scale", "words", confidence),
            Guess("words", words, confidence, f"word = rank, 20 goes first; {why}"),
            Guess("default", usual, "likely", "the rank of NULL and of other words"),
        ),
    )
