"""What `rowmill doctor` found, for people."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Any

from rich.console import Console
from rich.text import Text

from worker.text.values import new_console

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def print_report(report: dict[str, Any]) -> None:
    console = new_console()
    for done in report["repaired"]:
        said = done["did"] if done["failed"] is None else f"could not be repaired: {done['failed']}"
        style = "green" if done["failed"] is None else "bold red"
        _say(
            console,
            Text.assemble(("repaired" if done["failed"] is None else "failed", style)),
            f": {done['subject']}: {said}",
        )
    for finding in report["findings"]:
        severity = finding["severity"]
        said = f": {finding['subject']}: {finding['evidence']}"
        _say(console, Text(severity, STYLES[severity]), said)
        _say(console, Text(f"  {finding['id']}", "dim"), f": {finding['fix']}")
    _say(console, Text(), _summary(report))


def _summary(report: dict[str, Any]) -> str:
    findings = report["findings"]
    if not findings:
        return "Nothing is left." if report["repaired"] else "Nothing found."
    count = Counter(finding["severity"] for finding in findings)
    said = ", ".join(
        f"{count[name]} {name}{'s' if count[name] > 1 and name != 'info' else ''}"
        for name in STYLES
        if count[name]
    )
    mendable = sum(finding["repairable"] for finding in findings)
    if mendable and not report["repaired"]:
        said += f"; rowmill doctor --repair mends {mendable} of them"
    return said


def _say(console: Console, head: Text, rest: str) -> None:
    # Evidence quotes rows and servers: nothing in it may move the cursor or colour the screen.
    console.print(head.append(_plain(rest), style="default"), soft_wrap=True)


def _plain(text: str) -> str:
    return "".join(" " if unicodedata.category(mark) in ("Cc", "Cf") else mark for mark in text)
