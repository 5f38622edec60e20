"""Product videos and workers that die between their stages: what was paid for is resumed."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from jobs import failpoints
from tests.database.conftest import attached
from tests.database.platform_samples import CloneDatabase
from tests.database.shop import add_job, shopper, video_row
from tests.database.support import add, new_keys
from tests.process.conftest import OpenFleet
from tests.process.fleet import Fleet, Sandbox, paid, paid_twice, until_sql
from tests.process.rows import billed, ledger, submissions

pytestmark = pytest.mark.process

CREDITS = 3


@pytest.fixture
async def shop(clone_database: CloneDatabase) -> str:
    return await clone_database("ecomvideo-attached", attached("ecomvideo"))


@pytest.fixture
async def connection(shop: str) -> AsyncIterator[Any]:
    opened = await asyncpg.connect(shop)
    yield opened
    opened.terminate()


@pytest.fixture
async def crew(shop: str, open_fleet: OpenFleet) -> Fleet:
    return await open_fleet(shop)


def settings(sandbox: Sandbox) -> dict[str, Any]:
    """Nothing that is lost may be sent again, whatever it costs."""
    return {
        "RESUBMIT_UP_TO_CENTS": 0,
        "PROVIDERS__FREEPIK__BASE_URL": f"{sandbox.url}/freepik/v1/ai",
        "PROVIDERS__FREEPIK__API_KEY": "test",
        "PROVIDERS__FREEPIK__POLL_SECONDS": 0.2,
    }


async def ordered(connection: Any, of: int = 2, **columns: Any) -> tuple[str, str]:
    """A video of words, and its job."""
    video, job = new_keys(2)
    given = {
        "title": "Lamp",
        "text_prompt": f"A lamp at dusk [job:video_jobs/{job}]",
        "input_type": "Text",
        "status": "Pending",
        "resolution": "1080x1920",
        "aspect_ratio": "9:16",
        "generation_cost_credits": CREDITS,
    } | columns
    await connection.execute(
        f"INSERT INTO public.videos (id, user_id, {', '.join(given)})"
        f" VALUES ($1, $2, {', '.join(f'${n}' for n in range(3, 3 + len(given)))})",
        video,
        shopper(of),
        *given.values(),
    )
    await connection.execute(
        "INSERT INTO public.background_jobs (id, job_type, job_data)"
        " VALUES ($1, 'GenerateVideo', jsonb_build_object('VideoId', $2::text))",
        job,
        video,
    )
    return video, job


_ENDED = "SELECT status IN ('Completed', 'Failed') FROM public.background_jobs WHERE id = $1"


DEATHS = {
    "accepted.committed=1": 1,
    "finished.committed=1": 1,
    "accepted.committed=2": 2,
    "outcome.known=1": 2,
}
"""Where the worker dies, and how many tasks it has paid for by then."""


@pytest.mark.parametrize("point", DEATHS)
async def test_a_worker_that_dies_between_the_stages(
    point: str, connection: Any, crew: Fleet, sandbox: Sandbox
) -> None:
    video, job = await ordered(connection)
    words = (sys.executable, "-m", "bench.doomed", "--unlock", failpoints.UNLOCK, point)
    doomed = await crew.start("a", *words, WORKER_NAME="a", **settings(sandbox))
    assert await doomed.ended() == -signal.SIGKILL
    assert len(await sandbox.bill()) == DEATHS[point]
    await crew.hire("b", **settings(sandbox))
    await until_sql(connection, _ENDED, job, within=40)
    row = await video_row(connection, video)
    assert (row["status"], row["generation_cost_credits"]) == ("Completed", CREDITS)
    charges = await sandbox.bill()
    assert not paid_twice(charges)
    assert sorted(operation for _, operation in paid(charges)) == ["image-to-video", "mystic"]
    assert await ledger(connection) == billed(charges)
    made = {s["step"]: s for s in await submissions(connection, job)}
    assert {step: s["state"] for step, s in made.items()} == {
        "image": "finished",
        "video": "finished",
    }
    assert row["freepik_image_task_id"] == made["image"]["external_id"]
    assert row["freepik_task_id"] == made["video"]["external_id"]
    used = "SELECT sum(used_amount) FROM public.usage_credits WHERE user_id = $1"
    assert await connection.fetchval(used, shopper(2)) == CREDITS


async def test_who_takes_a_video_over_stays_with_the_provider_it_was_begun_with(
    connection: Any, crew: Fleet, sandbox: Sandbox
) -> None:
    """Its plan has no Freepik, which its user would prefer: neither before the crash nor after."""
    await connection.execute("UPDATE public.subscription_plans SET ai_providers = '{RunwayML}'")
    _, job = await ordered(connection)
    runway: dict[str, Any] = {
        "PROVIDERS__RUNWAY__BASE_URL": f"{sandbox.url}/runway/v1",
        "PROVIDERS__RUNWAY__API_KEY": "test",
        "PROVIDERS__RUNWAY__POLL_SECONDS": 0.2,
    }
    words = (sys.executable, "-m", "bench.doomed", "--unlock", failpoints.UNLOCK)
    doomed = await crew.start(
        "a", *words, "finished.committed=1", WORKER_NAME="a", **settings(sandbox), **runway
    )
    assert await doomed.ended() == -signal.SIGKILL
    await crew.hire("b", **settings(sandbox), **runway)
    await until_sql(connection, _ENDED, job, within=40)
    made = await submissions(connection, job)
    assert {(s["step"], s["provider"]) for s in made} == {("image", "runway"), ("video", "runway")}
    ai_provider = await connection.fetchval(
        "SELECT ai_provider FROM public.videos ORDER BY created_at DESC"
    )
    assert ai_provider == "RunwayML"


async def test_a_video_that_its_user_cancels_ends_with_its_credits_back(
    connection: Any, crew: Fleet, sandbox: Sandbox
) -> None:
    video, job = await ordered(connection)
    never = {"PROVIDERS__FREEPIK__POLL_SECONDS": 60}  # nothing is done before it is cancelled
    await crew.hire("a", **settings(sandbox) | never)
    await until_sql(
        connection, "SELECT status = 'GeneratingImage' FROM public.videos WHERE id = $1", video
    )
    await connection.execute("UPDATE public.videos SET status = 'Cancelled' WHERE id = $1", video)
    await until_sql(connection, _ENDED, job)
    row = await connection.fetchrow("SELECT * FROM public.background_jobs WHERE id = $1", job)
    assert (row["status"], row["error_message"]) == ("Failed", "its video was cancelled")
    assert (await video_row(connection, video))["status"] == "Cancelled"
    used = "SELECT sum(used_amount) FROM public.usage_credits WHERE user_id = $1"
    assert await connection.fetchval(used, shopper(2)) == 0


async def test_what_the_plan_or_the_credits_do_not_allow_costs_nothing(
    connection: Any, crew: Fleet, sandbox: Sandbox
) -> None:
    """Too long, too large, another's provider, no account, no credits; and nonsense."""
    jobs = {
        (await ordered(connection, 2, duration_seconds=20))[1]: "at most 10 seconds",
        (await ordered(connection, 2, resolution="4k"))[1]: "at most 1080p",
        (await ordered(connection, 2, ai_provider="RunwayML"))[1]: "has no RunwayML",
        (await ordered(connection, 4))[1]: "is not active",
        await add_job(connection, {"VideoId": 7}): "payload.video_id",
        await add_job(connection, [1], max_attempts=1): "job_data",
    }
    (poor,) = await add(connection, "public.users", email="poor@example.com", password_hash="-")
    (mine,) = [(await ordered(connection, 2, title="x"))]
    await connection.execute("UPDATE public.videos SET user_id = $2 WHERE id = $1", mine[0], poor)
    jobs[mine[1]] = "not enough video credits: 3 needed, 0 left"
    await crew.hire("a", **settings(sandbox), LANES="background:generate_video")
    for job in jobs:
        await until_sql(connection, _ENDED, job)
    said = {
        job: await connection.fetchval(
            "SELECT error_message FROM public.background_jobs WHERE id = $1", job
        )
        for job in jobs
    }
    assert [job for job, words in jobs.items() if words not in (said[job] or "")] == [], said
    assert await sandbox.bill() == []
    assert await connection.fetchval("SELECT sum(used_amount) FROM public.usage_credits") == 0
    left = "SELECT count(*) FROM rowmill.queue WHERE lane = 'background:generate_video'"
    assert await connection.fetchval(left) == 0
