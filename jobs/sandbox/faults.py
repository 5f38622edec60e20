"""Faults on demand, by words in a prompt or by a rule set through the control endpoint.

A fault reads `[STAGE-]NAME[-before|-after][=VALUE]`; in a prompt `[fault:SPEC]`, or
`[fault:SPEC*N]` for the first N times it is met for that job marker (for that text when there is
no marker). Several may stand in one prompt: the first that still has something left is taken.

    STAGE   submit (when absent), poll, cancel, list, download
    NAME    400…599   that status, with the vendor's error body (429=3: Retry-After 3)
            quota     no money left            auth      key refused
            invalid   request refused          hang      no answer until released
            disconnect  connection closed      cut       half the body, then closed
            garbled   half the body as a whole answer    slow=5  answers after 5 seconds
            policy    refused for its content  refusal   (chat) refuses in words, billed
            fail      the prediction fails     stall     the prediction never gets done
            expired   outputs are gone (= download-404; expired=410 for that status)
    before / after   the submission was accepted and billed: slow, cut and garbled are `after`,
            all others `before` unless told; `disconnect-after` is billed, `disconnect` is not.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jobs.sandbox.bill import marker_in

Stage = Literal["submit", "poll", "cancel", "list", "download"]

CONTENT = frozenset({"policy", "refusal", "fail", "stall"})  # the vendor's answer itself changes
AFTER = frozenset({"slow", "cut", "garbled"})
NAMES = CONTENT | AFTER | {"quota", "auth", "invalid", "hang", "disconnect"}

IN_PROMPT = re.compile(r"\[fault:([^\]*]*)(?:\*(\d+))?\]")
SPEC = re.compile(
    r"(?:(?P<stage>submit|poll|cancel|list|download)-)?(?P<name>[a-z]+|[45]\d\d)"
    r"(?:-(?P<when>before|after))?(?:=(?P<value>\d+(?:\.\d+)?))?"
)


class UnknownFaultError(ValueError):
    """A misspelt fault must be heard of: a test that asks for none of them can't fail."""


@dataclass(frozen=True, slots=True)
class Fault:
    stage: str
    name: str
    after: bool
    value: float

    @property
    def changes_content(self) -> bool:
        return self.name in CONTENT


def parse(spec: str) -> Fault:
    name, _, status = spec.partition("=")
    if name == "expired":
        spec = f"download-{status or 404}"
    found = SPEC.fullmatch(spec)
    if found is None or not (found["name"] in NAMES or found["name"].isdigit()):
        raise UnknownFaultError(f"unknown fault {spec!r}; known are the statuses 400-599, expired, "
                           + ", ".join(sorted(NAMES)))  # fmt: skip
    after = found["when"] == "after" if found["when"] else found["name"] in AFTER
    return Fault(found["stage"] or "submit", found["name"], after, float(found["value"] or 1))


@dataclass(slots=True)
class Rule:
    """A fault for requests whose text holds `match`; `times` counts down, None is for ever."""

    fault: str
    match: str = ""
    times: int | None = None


class Faults:
    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._met: Counter[tuple[str, str]] = Counter()
        self._release = asyncio.Event()
        self.hanging_now = 0
        self._changed = asyncio.Condition()

    def add(self, fault: str, *, match: str = "", times: int | None = None) -> None:
        parse(fault)
        self._rules.append(Rule(fault, match, times))

    def rules(self) -> list[dict[str, Any]]:
        return [asdict(rule) for rule in self._rules]

    def met(self) -> list[dict[str, Any]]:
        """What was asked for in words and really done: by job marker, or text where it has none."""
        return [
            {"whose": whose, "fault": spec, "times": times}
            for (whose, spec), times in self._met.items()
        ]

    def clear(self) -> None:
        """Forget all rules and let every hanging request go on."""
        self._rules.clear()
        self._release.set()
        self._release = asyncio.Event()

    def take(self, stage: Stage, words: str) -> Fault | None:
        """The fault that is due for this request, counted as met."""
        return self._from_rules(stage, words) or self._from_words(stage, words)

    async def hang(self) -> None:
        """Wait until `clear`, or until the client goes away (the server cancels us then)."""
        release = self._release
        await self._count_hanging(1)
        try:
            await release.wait()
        finally:
            await self._count_hanging(-1)

    async def hanging(self, count: int) -> None:
        """Wait until exactly `count` requests hang."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.hanging_now == count)

    async def _count_hanging(self, change: int) -> None:
        self.hanging_now += change
        async with self._changed:
            self._changed.notify_all()

    def _from_rules(self, stage: Stage, words: str) -> Fault | None:
        for rule in self._rules:
            fault = parse(rule.fault)
            if fault.stage == stage and rule.match in words and rule.times != 0:
                rule.times = None if rule.times is None else rule.times - 1
                return fault
        return None

    def _from_words(self, stage: Stage, words: str) -> Fault | None:
        whose = marker_in(words) or words
        for spec, times in IN_PROMPT.findall(words):
            fault = parse(spec)
            if fault.stage != stage or (times and self._met[whose, spec] >= int(times)):
                continue
            self._met[whose, spec] += 1
            return fault
        return None
