"""Which values a CHECK lets into one column, read from `pg_get_constraintdef`.

The server prints conditions in a small, regular language: parentheses, casts, AND, OR, comparisons.
It is parsed, not searched: `status <> 'done' OR ended_at IS NOT NULL` names a word and allows all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DOMAIN = "VALUE"
"""What a domain's CHECK calls its value."""

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>[eE]?'(?:[^'\\]|''|\\.)*')
      | (?P<quoted>"(?:[^"]|"")*")
      | (?P<number>\d+(?:\.\d+)?)
      | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
      | (?P<cast>::)
      | (?P<sign>[()\[\],.])
      | (?P<operator>[-+*/<>=~!@\#%^&|?]+)
    )""",
    re.VERBOSE,
)
_TYPE_WORDS = {"character", "varying", "double", "precision", "bit", "timestamp", "time"}
_TYPE_ENDS = {"with", "without", "zone"}

Token = tuple[str, str]
Node = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Allowed:
    words: tuple[str, ...] = ()
    low: int | None = None
    high: int | None = None


def allowed(definition: str, column: str) -> Allowed:
    """What `CHECK (…)` lets into the column; empty where it says nothing simple about it."""
    try:
        tokens = _without_casts(_tokens(definition))
        condition = _Parser(tokens).whole()
    except _NotSimple:
        return Allowed()
    words = _words(condition, column)
    low, high = _bounds(condition, column)
    return Allowed(tuple(dict.fromkeys(words)) if words else (), low, high)


def literal(expression: str) -> str | None:
    """The word or number an expression such as a column's DEFAULT is."""
    try:
        node = _Parser([("word", "CHECK"), *_without_casts(_tokens(expression))]).whole()
    except _NotSimple:
        return None
    return str(node[1]) if node[0] in ("text", "number") else None


class _NotSimple(Exception):
    pass


# --------------------------------------------------------------------------- tokens


def _tokens(definition: str) -> list[Token]:
    found, at = [], 0
    rest = definition.rstrip()
    while at < len(rest):
        match = _TOKEN.match(rest, at)
        if match is None or match.lastgroup is None:
            raise _NotSimple
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


def _without_casts(tokens: list[Token]) -> list[Token]:
    kept, at = [], 0
    while at < len(tokens):
        if tokens[at][0] == "cast":
            at = _end_of_type(tokens, at + 1)
        else:
            kept.append(tokens[at])
            at += 1
    return kept


def _end_of_type(tokens: list[Token], at: int) -> int:
    def sign(offset: int) -> str:
        here = at + offset
        return tokens[here][1] if here < len(tokens) else ""

    while at < len(tokens) and tokens[at][1] in _TYPE_WORDS:
        at += 1
        at = _end_of_modifier(tokens, at)
        while at < len(tokens) and tokens[at][1] in _TYPE_ENDS:
            at += 1
    if tokens[at - 1][0] == "cast":  # none of the types of several words
        at += 1
        while sign(0) == ".":
            at += 2
        at = _end_of_modifier(tokens, at)
    while sign(0) == "[" and sign(1) == "]":
        at += 2
    return at


def _end_of_modifier(tokens: list[Token], at: int) -> int:
    if at + 1 < len(tokens) and tokens[at][1] == "(" and tokens[at + 1][0] == "number":
        while tokens[at][1] != ")":
            at += 1
        at += 1
    return at


# --------------------------------------------------------------------------- grammar


class _Parser:
    """Precedence climbing over what is left: OR, AND, NOT, comparisons, values."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.at = 0

    def whole(self) -> Node:
        self.take("CHECK")
        node = self.either()
        rest = [text for _, text in self.tokens[self.at :]]
        if rest not in ([], ["NOT", "VALID"], ["NO", "INHERIT"], ["NO", "INHERIT", "NOT", "VALID"]):
            raise _NotSimple
        return node

    def look(self) -> Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def next(self) -> Token:
        token = self.look()
        self.at += 1
        return token

    def take(self, text: str) -> None:
        if self.next()[1] != text:
            raise _NotSimple

    def took(self, *texts: str) -> bool:
        there = [text for _, text in self.tokens[self.at : self.at + len(texts)]]
        if there == list(texts):
            self.at += len(texts)
            return True
        return False

    def either(self) -> Node:
        parts = [self.both()]
        while self.took("OR"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else ("or", parts)

    def both(self) -> Node:
        parts = [self.unit()]
        while self.took("AND"):
            parts.append(self.unit())
        return parts[0] if len(parts) == 1 else ("and", parts)

    def unit(self) -> Node:
        if self.took("NOT"):
            return ("not", self.unit())
        left = self.value()
        while True:
            if self.took("IS", "NULL"):
                left = ("null", left)
            elif self.took("IS", "NOT", "NULL"):
                left = ("other",)
            elif self.look()[0] == "operator":
                left = (self.next()[1], left, self.value())
            else:
                return left

    def value(self) -> Node:
        kind, text = self.next()
        if text == "(":
            node = self.either()
            self.take(")")
            return node
        if text == "-" and self.look()[0] == "number":
            return ("number", "-" + self.next()[1])
        if kind == "text":
            return ("text", _unquoted(text))
        if kind == "number":
            return ("number", text)
        if kind == "quoted":
            return ("column", text[1:-1].replace('""', '"'))
        if kind == "word":
            return self.named(text)
        raise _NotSimple

    def named(self, word: str) -> Node:
        if word == "ARRAY" and self.look()[1] == "[":
            return ("array", self.listed("[", "]"))
        if self.look()[1] == "(":
            arguments = self.listed("(", ")")
            return ("any", *arguments) if word == "ANY" else ("other",)
        return ("column", word)

    def listed(self, first: str, last: str) -> list[Node]:
        self.take(first)
        parts: list[Node] = []
        while not self.took(last):
            parts.append(self.either())
            if not self.took(",") and self.look()[1] != last:
                raise _NotSimple
        return parts


def _unquoted(text: str) -> str:
    if text[0] in "eE":
        return re.sub(r"\\(.)", r"\1", text[2:-1].replace("''", "'"))
    return text[1:-1].replace("''", "'")


# --------------------------------------------------------------------------- meaning


def _words(node: Node, column: str) -> list[str] | None:
    """The only words a condition allows; None where it allows others."""
    match node:
        case ("or", parts):
            found = [_words(part, column) for part in parts]
            if any(words is None for words in found):
                return None
            return [word for words in found for word in words or ()]
        case ("and", parts):
            limits = [w for part in parts if (w := _words(part, column)) is not None]
            if not limits:
                return None
            return [word for word in limits[0] if all(word in other for other in limits)]
        case ("null", ("column", name)) if name == column:
            return []
        case ("=", ("column", name), ("text" | "number", word)) if name == column:
            return [word]
        case ("=", ("column", name), ("any", ("array", items))) if name == column:
            return _literals(items)
    return None


def _literals(items: list[Node]) -> list[str] | None:
    if all(item[0] in ("text", "number") for item in items):
        return [str(item[1]) for item in items]
    return None


def _whole(value: object) -> bool:
    """A negative number is printed as `'-5'::integer`."""
    return isinstance(value, str) and re.fullmatch(r"-?\d+", value) is not None


def _bounds(node: Node, column: str) -> tuple[int | None, int | None]:
    match node:
        case ("and", parts):
            found = [_bounds(part, column) for part in parts]
            lows = [low for low, _ in found if low is not None]
            highs = [high for _, high in found if high is not None]
            return max(lows, default=None), min(highs, default=None)
        case (operator, ("column", name), (_, str(text))) if name == column and _whole(text):
            number = int(text)
            low = {">=": number, ">": number + 1, "=": number}.get(operator)
            high = {"<=": number, "<": number - 1, "=": number}.get(operator)
            return low, high
        case ("=", ("column", name), ("any", ("array", items))) if name == column:
            numbers = [int(item[1]) for item in items if len(item) > 1 and _whole(item[1])]
            if numbers and len(numbers) == len(items):
                return min(numbers), max(numbers)
    return None, None
