"""docs/metrics.md lists every metric with its type and labels, and none that isn't there."""

from __future__ import annotations

from pathlib import Path

from tests.golden_metrics import GOLDEN

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_lists_them_all() -> None:
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith(("| `rowmill_", "| `process_")):
            name, kind, labels, meaning = (cell.strip() for cell in line.strip("|").split(" |")[:4])
            rows[name.strip("`")] = (kind, tuple(label for label in labels.split(", ") if label))
            assert meaning
    assert rows == GOLDEN
