"""Failpoints: each stands in the code, and nothing but the proof can arm one."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import failpoints

ROOT = Path(__file__).parents[2]
SOURCES = [path for part in ("jobs", "worker") for path in (ROOT / part).rglob("*.py")]
DIE = f"""
from jobs import failpoints
failpoints.arm("post.due", 2, {failpoints.UNLOCK!r})
failpoints.reached("post.answered")
failpoints.reached("post.due")
print("still here", flush=True)
failpoints.reached("post.due")
print("too late", flush=True)
"""


def calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name):
                yield path, node


def test_every_point_stands_in_the_code_and_no_other() -> None:
    named = {ast.literal_eval(call.args[0]) for _, call in calls("failpoints.reached")}
    assert named == set(failpoints.POINTS)


def test_nothing_in_a_worker_arms_one() -> None:
    assert list(calls("failpoints.arm")) == []
    text = (ROOT / "jobs" / "failpoints.py").read_text(encoding="utf-8")
    assert not re.search(r"environ|getenv|open\(|argv", text)


def test_unarmed_they_do_nothing() -> None:
    for point in failpoints.POINTS:
        failpoints.reached(point)


@pytest.mark.parametrize("words", ["", "yes", failpoints.UNLOCK.upper()])
def test_arming_needs_the_words(words: str) -> None:
    with pytest.raises(PermissionError):
        failpoints.arm("post.due", 1, words)


@pytest.mark.parametrize(("point", "passes"), [("post.dew", 1), ("post.due", 0)])
def test_arming_needs_a_place(point: str, passes: int) -> None:
    with pytest.raises(ValueError, match="no failpoint"):
        failpoints.arm(point, passes, failpoints.UNLOCK)


def test_an_armed_process_dies_at_the_place_and_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIE], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "still here\n"
    assert done.stderr == "failpoint post.due None/None\n"


@pytest.mark.parametrize(
    ("url", "words", "says"),
    [
        ("https://api.replicate.com/v1", failpoints.UNLOCK, "real money"),
        ("http://127.0.0.1:9/v1", "please", "PermissionError"),
    ],
)
def test_the_doomed_worker_refuses(url: str, words: str, says: str) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
    provider = "ROWMILL_PROVIDERS__REPLICATE__"
    done = subprocess.run(
        [sys.executable, "-m", "bench.doomed", "--unlock", words, "post.due=1"],
        env=clean | {f"{provider}BASE_URL": url, f"{provider}API_KEY": "none"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode not in (0, -signal.SIGKILL)
    assert says in done.stderr
