"""The bill: one line per accepted submission, written before its response is sent.

The file is only ever appended to. A charge that is taken back, wholly or in part, gets a second
line that names it; so does one whose answer was given to its client. An existing file is read at
the start, so a restarted sandbox forgets nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

JOB_MARK = re.compile(r"\[job:([^\]]+)\]")


def marker_in(words: str) -> str | None:
    """The job a text belongs to, by the mark its sender put into it."""
    found = JOB_MARK.search(words)
    return found.group(1) if found else None


def strings_in(value: Any) -> Iterator[str]:
    """Every string inside a JSON value: a mark may stand anywhere in an input."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)


def plain(cents: Decimal) -> str:
    """Without exponent or trailing zeros, so that equal amounts are equal texts."""
    text = f"{cents:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(slots=True)
class Charge:
    charge_id: str
    at: str
    provider: str
    operation: str
    model: str
    cents: Decimal
    marker: str | None
    external_id: str
    account: str
    refunded: Decimal = Decimal(0)
    told_at: str | None = None
    """When its whole answer was handed to the network. Before that, nobody but us knows of it."""

    @property
    def net(self) -> Decimal:
        return self.cents - self.refunded

    def as_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {"cents": plain(self.cents), "refunded": plain(self.refunded)}


class Bill:
    def __init__(self, path: Path | None = None) -> None:
        self._charges: dict[str, Charge] = {}
        self._grown = asyncio.Condition()
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._read(path)
            self._file = path.open("a", encoding="utf-8")

    @property
    def charges(self) -> list[Charge]:
        return list(self._charges.values())

    @property
    def total_cents(self) -> Decimal:
        return sum((charge.net for charge in self._charges.values()), Decimal(0))

    def charge(
        self,
        *,
        provider: str,
        operation: str,
        model: str,
        cents: Decimal,
        words: str,
        external_id: str,
        account: str,
    ) -> Charge:
        """Bill an accepted submission. It is on the file when this returns."""
        charge = Charge(
            charge_id=f"ch_{secrets.token_hex(8)}",
            at=datetime.now(UTC).isoformat(),
            provider=provider,
            operation=operation,
            model=model,
            cents=cents,
            marker=marker_in(words),
            external_id=external_id,
            account=account,
        )
        self._write(charge.as_json())
        self._charges[charge.charge_id] = charge
        return charge

    def refund(self, charge_id: str, cents: Decimal, reason: str) -> None:
        at = datetime.now(UTC).isoformat()
        self._write({"refund_of": charge_id, "at": at, "cents": plain(cents), "reason": reason})
        self._charges[charge_id].refunded += cents

    def told(self, charge: Charge) -> None:
        """Its client has been sent the whole answer, as the vendor means it."""
        at = datetime.now(UTC).isoformat()
        self._write({"told_of": charge.charge_id, "at": at})
        charge.told_at = at

    @property
    def latest(self) -> Charge | None:
        return next(reversed(self._charges.values()), None)

    def duplicates(self) -> dict[tuple[str, str], list[Charge]]:
        """Work that was paid for more than once: several charges of one (marker, operation).

        A charge refunded in full was not paid, so a failed prediction that is tried again is no
        duplicate. One that was cancelled and billed for a part is.
        """
        groups: dict[tuple[str, str], list[Charge]] = defaultdict(list)
        for charge in self._charges.values():
            if charge.marker is not None and charge.net > 0:
                groups[charge.marker, charge.operation].append(charge)
        return {key: charges for key, charges in groups.items() if len(charges) > 1}

    def summary(self) -> dict[str, Any]:
        by_provider: dict[str, list[Charge]] = defaultdict(list)
        for charge in self._charges.values():
            by_provider[charge.provider].append(charge)
        duplicates = self.duplicates()
        return {
            "charges": len(self._charges),
            "total_cents": plain(self.total_cents),
            "providers": {
                name: {
                    "charges": len(charges),
                    "total_cents": plain(sum((c.net for c in charges), Decimal(0))),
                }
                for name, charges in sorted(by_provider.items())
            },
            "duplicate_charges": sum(len(charges) - 1 for charges in duplicates.values()),
            "duplicates": [
                {"marker": marker, "operation": operation, "charge_ids": [c.charge_id for c in cs]}
                for (marker, operation), cs in duplicates.items()
            ],
        }

    async def reaches(self, count: int) -> None:
        """Wait until at least `count` submissions were billed."""
        async with self._grown:
            await self._grown.wait_for(lambda: len(self._charges) >= count)

    async def announce(self) -> None:
        """Wake whoever waits in `reaches`."""
        async with self._grown:
            self._grown.notify_all()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        # Flushed to the kernel: a killed sandbox loses no line (a power cut is out of scope).
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if "refund_of" in line:
                self._charges[line["refund_of"]].refunded += Decimal(line["cents"])
                continue
            if "told_of" in line:
                self._charges[line["told_of"]].told_at = line["at"]
                continue
            line |= {name: Decimal(line[name]) for name in ("cents", "refunded")}
            self._charges[line["charge_id"]] = Charge(**line)
