"""What is proposed for one table: sections of guesses, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Confidence = Literal["sure", "likely", "unsure"]


@dataclass(frozen=True, slots=True)
class Guess:
    """One line of the map."""

    key: str
    value: Any
    """None where nothing is proposed, and `why` and `instead` say what could stand there."""
    confidence: Confidence
    why: str = ""
    instead: tuple[str, ...] = ()
    """Other lines that could stand here."""


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the TOML file; the source's own lines have the name ''."""

    name: str
    guesses: tuple[Guess, ...]

    def value(self, key: str) -> Any:
        return next((guess.value for guess in self.guesses if guess.key == key), None)


@dataclass(slots=True)
class Proposal:
    """A source of the map, or what keeps the table from being one."""

    name: str
    table: str
    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Worth knowing, and nothing to fill in."""
    lacking: list[str] = field(default_factory=list)
    """Why a map of it can't work as it is: what the table lacks."""
    usable: bool = True
    """Whether there is anything to write at all."""

    @property
    def unsure(self) -> list[str]:
        return [
            f"{section.name}.{guess.key}".removeprefix(".")
            for section in self.sections
            for guess in section.guesses
            if guess.value is not None and guess.confidence == "unsure"
        ]
