"""Numbers as shops write them: `1.299,00 €`, `$1,299.00`, `USD 12`, `4,5 / 5`, `(1.2k)`."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

MAX_TEXT = 200
CENTS = Decimal("0.01")
TOO_MUCH = Decimal(10) ** 8
"""More than the platform's columns hold."""

# Longer signs first: C$ is no US dollar.
SIGNS = {
    "US$": "USD", "CA$": "CAD", "AU$": "AUD", "NZ$": "NZD", "HK$": "HKD", "MX$": "MXN",
    "C$": "CAD", "A$": "AUD", "R$": "BRL", "S$": "SGD", "zł": "PLN", "Kč": "CZK", "Ft": "HUF",
    "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₺": "TRY", "₽": "RUB", "₩": "KRW",
    "₪": "ILS", "฿": "THB", "₫": "VND", "₴": "UAH", "$": "USD",
}  # fmt: skip
CODES = frozenset(SIGNS.values()) | {
    "AED", "ARS", "CHF", "CLP", "CNY", "COP", "DKK", "EGP", "IDR", "MYR", "NOK", "PHP", "RON",
    "SAR", "SEK", "TWD", "ZAR",
}  # fmt: skip
NUMBER = re.compile(r"[0-9](?:[0-9.,'’\s\u00a0\u202f]*[0-9])?")
SPACES = re.compile(r"['’\s\u00a0\u202f]")
WORD = re.compile(r"\b[A-Z]{3}(?![A-Za-z])")


def amount(text: str) -> Decimal | None:
    """The first number, whichever way round its points and commas are."""
    found = NUMBER.search(text[:MAX_TEXT])
    if found is None:
        return None
    digits = SPACES.sub("", found.group())
    point = _decimal_point(digits)
    whole, _, rest = digits.rpartition(point) if point else (digits, "", "")
    whole = re.sub(r"[.,]", "", whole)
    try:
        return Decimal(f"{whole or 0}.{rest or 0}")
    except InvalidOperation:
        return None


def _decimal_point(digits: str) -> str:
    """The sign before the cents; `1.299` and `1,299` have none, `1.29` and `0,299` have."""
    signs = [sign for sign in digits if sign in ".,"]
    if not signs:
        return ""
    last = signs[-1]
    if len(set(signs)) == 2:
        return last
    if len(signs) > 1:
        return ""
    head, _, tail = digits.partition(last)
    thousands = len(tail) == 3 and len(head) <= 3 and head != "0"
    return "" if thousands else last


def plain(value: object) -> Decimal | None:
    """A number as a program writes it (`1299.000`); else as people do."""
    text = str(value).strip()
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text):
        return Decimal(text)
    return amount(text)


def price(number: Decimal | None) -> Decimal | None:
    """Rounded to cents; None for what no column can hold."""
    return None if number is None or number >= TOO_MUCH - 1 else number.quantize(CENTS)


def currency(text: str) -> str | None:
    text = text[:MAX_TEXT]
    for word in WORD.findall(text):
        if word in CODES:
            return str(word)
    return next((code for sign, code in SIGNS.items() if sign in text), None)


def count(text: str) -> int | None:
    """`1,234 reviews` and `(1.2k)`; a count has no cents."""
    found = re.search(r"([0-9][0-9.,'’\s\u00a0\u202f]*)([kK]?)", text[:MAX_TEXT])
    if found is None:
        return None
    if found.group(2):
        number = amount(found.group(1).replace(",", "."))
        whole = int(number * 1000) if number is not None else None
    else:
        whole = int(re.sub(r"[^0-9]", "", found.group(1)) or 0)
    return whole if whole is not None and whole < 2**31 else None


def rating(text: str, best: Decimal | None = None) -> Decimal | None:
    """Of five; `9/10` and `45 out of 50` are brought to that."""
    number = amount(text)
    if number is None:
        return None
    scale = re.search(r"(?:/|of|von|sur|de)\s*([0-9]{1,3})", text[:MAX_TEXT])
    best = best or (Decimal(scale.group(1)) if scale else Decimal(5))
    if best <= 0 or number > best:
        return None
    return (number * 5 / best).quantize(CENTS)
