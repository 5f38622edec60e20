"""What AI Ebook's ai_providers say of a lane: closed, limited, open again; and wrong rules."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.database.arq_hosting import maintenance_of
from tests.database.gate import Gate, put_up
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add_background,
    add_texts,
    add_videos,
    queued,
)
from worker import maps
from worker.maps import MapError, Platform
from worker.store import Refused, Store, gates, limits, reports
from worker.store.attaching import attach, detach
from worker.store.explaining import explain

OURS = ("openai", "ai_generations")
EMBEDDING = ("background:embed_content", "background_jobs")
_STATUS = "UPDATE ai_processing.ai_providers SET status = $1"
_RATES = "UPDATE ai_processing.ai_providers SET rate_limit_config = $1"
_ROWS = """
SELECT lane, source, platform_max_running, platform_requests_per_minute,
       platform_tokens_per_minute, platform_paused_why
  FROM rowmill.lanes
"""


async def read(store: Store) -> None:
    """One round of what every worker does every other second."""
    await limits.apply(store, maps.load("ebook"))


async def said(connection: Any) -> dict[tuple[str, str], tuple[Any, ...]]:
    """(running, requests, tokens, why it is closed) of each gate the platform says something of."""
    rows = [tuple(row) for row in await connection.fetch(_ROWS)]
    return {row[:2]: row[2:] for row in rows if row[2:] != (None,) * 4}


# --------------------------------------------------------------------------- closed


@pytest.mark.parametrize("status", ["inactive", "maintenance"])
async def test_a_provider_that_is_not_active_is_left_alone_by_its_platform_only(
    both: str, connect: Connect, open_store: OpenStore, status: str
) -> None:
    connection, store = await connect(both), await open_store(both)
    hand = await Hand.hire(store)
    (text,), (embed,) = await add_texts(connection), await add_background(connection)
    await connection.execute(
        "UPDATE system.background_jobs SET job_type = 'embed_content' WHERE id = $1", embed
    )
    (video,) = await add_videos(connection, service="openai")
    (hook,) = await add_background(connection, kind="webhook_delivery")
    await connection.execute(_STATUS, status)
    await read(store)
    assert await said(connection) == {
        OURS: (None, None, None, f"ai_providers says {status}"),
        EMBEDDING: (None, None, None, f"ai_providers says {status} of openai"),
    }
    assert {work.key for work in await hand.take(10)} == {video, hook}
    why = f"lane openai of ai_generations is closed by its platform: ai_providers says {status}"
    told = await explain(store, "ai_generations", text)
    assert (told["why"], told["reason"]) == (why, "closed")

    await connection.execute(_STATUS, "active")
    await read(store)
    assert await said(connection) == {}
    rows = await queued(connection, text, embed)
    assert {work.key for work in await hand.take(10)} == set(rows)


async def test_a_null_status_is_active_and_a_name_may_be_spelled_in_any_case(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    await connection.execute("UPDATE ai_processing.ai_providers SET status = NULL, name = 'OpenAI'")
    await read(store)
    assert await said(connection) == {}
    await connection.execute(
        "INSERT INTO ai_processing.ai_providers (name, status, rate_limit_config)"
        """ VALUES ('OPENAI', 'inactive', '{"rpm": 5}'), ('Mistral', 'active', '{"rpm": 7}')"""
    )
    await connection.execute(_RATES + " WHERE name = 'OpenAI'", '{"rpm": 9, "tpm": 90}')
    await read(store)
    assert await said(connection) == {
        OURS: (None, 5, 90, "ai_providers says inactive"),
        EMBEDDING: (None, None, None, "ai_providers says inactive of openai"),
        ("mistral", "ai_generations"): (None, 7, None, None),
    }


async def test_status_tells_it_and_resume_names_it(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    await add_texts(connection, 3)
    await connection.execute(_STATUS, "maintenance")
    await read(store)
    report = await reports.status(store)
    (lane,) = [row for row in report["lanes"] if row["lane"] == "openai"]
    assert (lane["paused"], lane["pause_reason"]) == (True, "ai_providers says maintenance")
    (notice,) = report["notices"]
    assert notice == {
        "kind": "closed",
        "subject": "lane openai of ai_generations",
        "message": "closed by its platform: ai_providers says maintenance; 3 jobs wait",
        "commands": [],
    }
    assert report["needs_person"] == [], "it is meant"
    await gates.pause(store, lane="openai", who="me", reason="saving")
    await gates.resume(store, lane="openai", who="me")
    assert gates.Gate(*OURS) in await gates.paused_gates(store)


# --------------------------------------------------------------------------- limited


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"max_concurrent": 4, "requests_per_minute": 60, "tokens_per_minute": 900}, (4, 60, 900)),
        ({"concurrent_requests": 4, "rpm": 60, "tpm": 900}, (4, 60, 900)),
        ({"maxConcurrentRequests": "4", "RequestsPerMinute": " 60 "}, (4, 60, None)),
        ({"rpm": 60, "requests_per_minute": 50}, (None, 50, None)),
        ({"rpm": 0, "tpm": -1, "max_concurrent": 0}, None),
        ({"rpm": 2.5, "tpm": 10**12, "max_concurrent": "many"}, None),
        ({"rpm": None, "tpm": [60], "max_concurrent": {"rpm": 4}}, None),
        ({"rpm": True, "window": "1m", "burst": 5}, None),
        (["rpm", 60], None),
        ("60 rpm", None),
        (60, None),
        (None, None),
    ],
)  # fmt: skip
async def test_the_rate_limit_config_is_read_as_it_may_be_meant(
    ebook: str, connect: Connect, open_store: OpenStore, config: Any, wanted: Any
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    await connection.execute(_RATES, '{"rpm": 1, "tpm": 1, "max_concurrent": 1}')
    await read(store)
    assert await said(connection) == {OURS: (1, 1, 1, None)}
    await connection.execute(_RATES, json.dumps(config))
    await read(store)
    assert await said(connection) == ({OURS: (*wanted, None)} if wanted else {})
    await connection.execute(_RATES, None)
    await read(store)
    assert await said(connection) == {}


async def test_its_limit_holds_at_the_claim_beside_the_operators(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    hand = await Hand.hire(store)
    await add_texts(connection, 9)
    await connection.execute(_RATES, '{"max_concurrent": 4}')
    await put_up(connection, Gate(*OURS, most=6))
    await read(store)
    assert len(await hand.take(9)) == 4
    await connection.execute(_RATES, "{}")
    await read(store)
    assert len(await hand.take(9)) == 2, "the operator's limit stays when the platform's goes"


async def test_a_round_in_which_nothing_changed_writes_nothing(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    """Not even a row lock: it runs on every worker every other second."""
    connection, store = await connect(ebook), await open_store(ebook)
    await connection.execute(_STATUS, "maintenance")
    await connection.execute(_RATES, '{"rpm": 5}')
    await read(store)
    versions = "SELECT lane, ctid, xmin::text, xmax::text FROM rowmill.lanes ORDER BY lane"
    before = await connection.fetch(versions)
    await read(store)
    assert await connection.fetch(versions) == before
    await connection.execute(_RATES, '{"rpm": 6}')
    await read(store)
    after = {row["lane"]: row for row in await connection.fetch(versions)}
    changed = [row["lane"] for row in before if after[row["lane"]] != row]
    assert changed == ["openai"]


async def test_what_a_platform_said_is_over_when_it_or_its_rule_is_gone(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    await connection.execute(_STATUS, "inactive")
    await read(store)
    mute = maps.load("ebook")
    del mute.rules["limits"]
    await limits.apply(store, mute)
    assert await said(connection) == {}
    await read(store)
    assert OURS in await said(connection)
    await detach(ebook, "ebook")
    assert await said(connection) == {}


# --------------------------------------------------------------------------- rules that are wrong


def ruled(folder: Path, rule: str) -> Platform:
    """AI Ebook with another limits.sql."""
    home = files("sql") / "platforms" / "ebook"
    shutil.copytree(str(home), folder, dirs_exist_ok=True)
    (folder / "limits.sql").write_text(rule, encoding="utf-8")
    return maps.load(str(folder / "map.toml"))


WRONG = {
    "an unknown column": (
        "SELECT 'openai' AS lane, 'ai_generations' AS source, 5 AS rpm",
        r"'rpm' is no column of this rule; it may return lane, source, max_running",
    ),
    "a wrong type": (
        "SELECT 'openai' AS lane, 'ai_generations' AS source, '5' AS requests_per_minute",
        "requests_per_minute is text, and must be integer",
    ),
    "no reason": (
        "SELECT 'openai' AS lane, 'ai_generations' AS source, true AS paused",
        "paused is boolean, and must be text",
    ),
    "no source": ("SELECT 'openai' AS lane, 5 AS max_running", "must return lane and source"),
    "two": ("SELECT 1;\nSELECT 2;", "one SELECT is wanted, there are 2 statements"),
    "nothing": ("-- nothing yet\n", "one SELECT is wanted, there are 0 statements"),
    "no table": ("SELECT * FROM public.nowhere", r'relation "public\.nowhere" does not exist'),
}


@pytest.mark.parametrize("what", WRONG)
async def test_attach_refuses_a_rule_that_can_not_work(
    what: str, ebook: str, connect: Connect, tmp_path: Path
) -> None:
    rule, message = WRONG[what]
    connection = await connect(ebook)
    before = await connection.fetch("SELECT * FROM rowmill.sources")
    with pytest.raises(MapError, match=rf"^limits\.sql: {message}"):
        await attach(ebook, ruled(tmp_path, rule))
    assert await connection.fetch("SELECT * FROM rowmill.sources") == before


async def test_absent_columns_are_null_and_the_strictest_of_several_rows_holds(
    ebook: str, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    rule = (
        "WITH said (lane, paused, tokens_per_minute) AS (\n"
        "  VALUES ('openai', NULL, 9::bigint), ('openai', 'so', 7), ('quiet', NULL, NULL))\n"
        "SELECT lane::varchar(20), 'ai_generations'::text AS source, paused, tokens_per_minute\n"
        "FROM said;\n-- that is all"
    )
    platform = ruled(tmp_path, rule)
    await attach(ebook, platform)
    await limits.apply(store, platform)
    assert await said(connection) == {OURS: (None, None, 7, "so")}
    assert await connection.fetchval("SELECT count(*) FROM rowmill.lanes") == 1


STRANGE = """
SELECT 'openai' AS lane, 'ai_generations' AS source, amount AS requests_per_minute
  FROM public.amounts
UNION ALL SELECT 'openai', other, 1 FROM public.others;
"""


async def test_a_value_that_can_not_be_kept_keeps_the_last_and_stops_no_other_platform(
    both: str, connect: Connect, open_store: OpenStore, tmp_path: Path
) -> None:
    connection, store = await connect(both), await open_store(both)
    await connection.execute(
        "CREATE TABLE public.amounts AS SELECT 5::bigint AS amount;"
        "CREATE TABLE public.others (other text)"
    )
    platform = ruled(tmp_path, STRANGE)
    await attach(both, platform)
    chores = await maintenance_of(store)
    await chores.limits()
    videos = ("*", "generation_jobs")
    assert await said(connection) == {OURS: (None, 5, None, None), videos: (5, None, None, None)}
    for amount in (2**40, 0, -1):
        await connection.execute("UPDATE public.amounts SET amount = $1", amount)
        with pytest.raises(Refused):
            await limits.apply(store, platform)
    await connection.execute(
        "UPDATE public.system_settings SET value = '8'"
        " WHERE key = 'generation_queue_max_concurrent'"
    )
    await chores.limits()
    assert await said(connection) == {OURS: (None, 5, None, None), videos: (8, None, None, None)}

    await connection.execute(
        "UPDATE public.amounts SET amount = 6;"
        "INSERT INTO public.others VALUES ('generation_jobs'), ('*'), (NULL)"
    )
    with pytest.raises(Refused, match=r"not \*, generation_jobs, null; those rows are left out"):
        await limits.apply(store, platform)
    assert await said(connection) == {OURS: (None, 6, None, None), videos: (8, None, None, None)}
    await connection.execute("DROP TABLE public.amounts")
    await connection.execute("DELETE FROM public.system_settings")
    await chores.limits()
    assert await said(connection) == {OURS: (None, 6, None, None)}
