"""What providers charge: a dated table, in exact US cents.

`prices.toml` beside this file is the default; an operator's own file of the same form goes over it.
What happens without a price stands in charges.py.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Any

from jobs.contract import TokenPrice, Usage
from jobs.providers.errors import invalid

MILLION = Decimal(1_000_000)
UNKNOWN_PRICE = "unknown_price"
"""The code of the failure."""
SNAPSHOT = re.compile(r"-\d{4}(-?)\d{2}\1\d{2}$")


@dataclass(frozen=True, slots=True)
class Price:
    """US cents. A model uses the units it is billed by and leaves the others at zero."""

    as_of: date = date.min
    """When somebody last looked it up; a platform's own price has no date."""
    input: Decimal = Decimal(0)
    """Per million tokens, as are `cached` and `output`."""
    cached: Decimal | None = None
    """Input tokens the provider had cached; None: no discount."""
    output: Decimal = Decimal(0)
    output_image: Decimal | None = None
    """Per million output tokens that are an image; None: they cost what others do."""
    run_second: Decimal = Decimal(0)
    """Per second the provider's machine ran."""
    output_second: Decimal = Decimal(0)
    """Per second of the video or sound that was made."""
    character: Decimal = Decimal(0)
    """Per thousand characters that were spoken."""
    item: Decimal = Decimal(0)
    """Per file."""
    typical_run_seconds: Decimal = Decimal(30)
    """For estimates only."""
    default_seconds: Decimal = Decimal(5)
    """How long an output is when the task doesn't say."""
    max_seconds: Decimal | None = None
    """The longest output the model can make."""

    @classmethod
    def per_token(cls, price: TokenPrice) -> Price:
        """A platform's own price of a model, in this table's terms."""
        return cls(input=price.input * MILLION, output=price.output * MILLION)

    def of_tokens(self, usage: Usage) -> Decimal:
        cached = self.input if self.cached is None else self.cached
        plain = usage.input_tokens - usage.cached_tokens
        cents = plain * self.input + usage.cached_tokens * cached
        return (cents + usage.output_tokens * self.output) / MILLION


class PriceTable:
    def __init__(self, prices: Mapping[tuple[str, str], Price]) -> None:
        self._prices = prices

    def of(self, provider: str, model: str) -> Price:
        """The price of a model, or of its undated (`-2024-07-18`) or unversioned (`:…`) name."""
        for name in (model, SNAPSHOT.sub("", model), model.partition(":")[0]):
            price = self._prices.get((provider, name))
            if price is not None:
                return price
        raise invalid(
            provider,
            f"no price is known for model {model!r} of {provider}; add it to the price table",
            UNKNOWN_PRICE,
        )


def load_prices(*more: Path) -> PriceTable:
    """The built-in table, with the entries of `more` over it."""
    default = files("jobs.providers").joinpath("prices.toml").read_text(encoding="utf-8")
    prices = _read(default, "prices.toml")
    for path in more:
        prices |= _read(_text(path), str(path))
    return PriceTable(prices)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8") from error


def _read(text: str, where: str) -> dict[tuple[str, str], Price]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where}: {error}") from error
    stray = [name for name, table in tables.items() if not isinstance(table, dict)]
    if stray:
        raise ValueError(f"{where}: {stray[0]}: must be a provider's table of models, [provider]")
    return {
        (provider, model): _price(entry, f"{where}: {provider}.{model!r}")
        for provider, models in tables.items()
        for model, entry in models.items()
    }


def _price(entry: Any, where: str) -> Price:
    as_of = entry.get("as_of") if isinstance(entry, dict) else None
    if type(as_of) is not date:
        raise ValueError(f"{where}: needs `as_of`, the date it was looked up")
    known = {field.name for field in fields(Price)} - {"as_of"}
    amounts = {key: value for key, value in entry.items() if key != "as_of"}
    for key, value in amounts.items():
        if key not in known:
            raise ValueError(f"{where}: unknown unit {key!r}; known: {', '.join(sorted(known))}")
        amounts[key] = _amount(value, f"{where}.{key}")
    return Price(as_of=as_of, **amounts)


def _amount(value: Any, where: str) -> Decimal:
    """Only strings: a TOML float has lost its cents before we see it."""
    try:
        amount = Decimal(value) if isinstance(value, str) else Decimal("NaN")
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{where}: must be a non-negative number in quotes, not {value!r}")
    return amount
