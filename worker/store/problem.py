"""Something in a live database that a map can't work with, or that its adopter should know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Problem:
    severity: Literal["refuse", "warn"]
    message: str
