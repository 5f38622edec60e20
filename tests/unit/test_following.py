"""What `rowmill jobs --follow` prints of each change."""

from __future__ import annotations

import json

import pytest

from worker.commands.following import _print


def test_a_followed_job_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    job = {"key": "7", "error": {"message": "\x1b]0;a title\x07 \x9b2J \u202ereversed"}}
    _print([job], as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert json.loads(line) == job
