"""Logs: one form for all, jobs named, secrets gone."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from worker import logs
from worker.transitions import Try

SECRETS = ("s3cr3t", "hunter2", "sk-12345")


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_secrets_are_replaced_wherever_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    log = structlog.get_logger()
    log.info("a", api_key="s3cr3t", headers={"Authorization": "Bearer s3cr3t"}, tokens=12)
    log.info("b", dsn="postgresql://me:hunter2@host/db", args=["password=hunter2 host=x"])
    try:
        int("postgresql://me:hunter2@host/db said no to Bearer sk-12345")
    except ValueError:
        log.exception("c", REPLICATE_API_TOKEN="s3cr3t")
    logging.getLogger("lib").warning("to %s", "redis://:hunter2@host/0")
    said = lines(capsys)
    text = json.dumps(said)
    assert not [secret for secret in SECRETS if secret in text]
    assert said[0]["tokens"] == 12
    assert said[1]["dsn"] == "postgresql://me:***@host/db"
    assert "postgresql://me:***@host/db said no to Bearer ***" in said[2]["exception"]
    assert (said[3]["logger"], said[3]["event"]) == ("lib", "to redis://:***@host/0")


def attempt(key: str) -> Try:
    return Try(
        queue_id=7,
        token=0x5123456789ABCDEF,
        source="generation_jobs",
        key=key,
        lane="replicate",
        kind="media:video",
        run=1,
        tries=1,
        max_retries=3,
        yields=0,
    )


async def test_a_line_inside_a_job_names_it_and_only_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "json", worker="w1")

    async def job(key: str) -> None:
        logs.bind_job(attempt(key))
        structlog.get_logger().info("inside")
        logging.getLogger("lib").warning("beside")
        await asyncio.to_thread(structlog.get_logger().info, "in a thread")

    await asyncio.gather(asyncio.create_task(job("k1")), asyncio.create_task(job("k2")))
    structlog.get_logger().info("outside")
    said = lines(capsys)
    assert sorted(line.get("key", "-") for line in said) == ["-", *3 * ["k1"], *3 * ["k2"]]
    assert {line["worker"] for line in said} == {"w1"}
    for line in said[:6]:
        about = {name: line[name] for name in ("job", "lane", "kind", "run", "try", "claim")}
        assert about == {
            "job": f"generation_jobs/{line['key']}",
            "lane": "replicate",
            "kind": "media:video",
            "run": 1,
            "try": 2,
            "claim": "7.abcdef",
        }


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console", worker="w1")
    log = structlog.get_logger()
    log.info("worker.started", lanes=["a", "b"], slots=3)
    evil = attempt("k\x1b[2J")
    log.warning("job.failed", **logs.about(evil), error="it's\x07 late", password="hunter2")
    log.error("odd", exc_info=ValueError("\x1b]0;title\x07"))
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert "\x07" not in text
    started, failed, odd, *trace = text.splitlines()
    assert re.fullmatch(r"[\d:]{8} info   worker.started  lanes=\[.a., .b.\] slots=3", started)
    assert failed.endswith(
        r"WARN   job.failed  generation_jobs/k\x1b[2J replicate, try 2  "
        r"""error="it's\u0007 late" password=***"""
    )
    assert odd.endswith("ERROR  odd")
    assert trace == [r"ValueError: \x1b]0;title\x07"]


def test_levels_and_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "console")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud", password="hunter2")
    told = capsys.readouterr().err
    assert "quiet" not in told
    assert "loud" in told
    assert "hunter2" not in told


def test_configured_twice_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logs.configure("info", "json")
    logging.getLogger("lib").warning("once")
    assert len(lines(capsys)) == 1
