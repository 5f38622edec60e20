"""What the tests of EcomVideo's rules are written with: its rows, and a worker that pays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from jobs.contract import Output, Succeeded
from jobs.providers.journal import NotAllowed, Submission
from tests.database.hand import video_file
from tests.database.journaling import journal_of
from tests.database.support import Hand, Work, add, new_keys
from worker.store import Store

KINDS = ("generate_video", "scrape_product", "generate_thumbnail", "send_notification")
SHOP_LANES = tuple(f"background:{kind}" for kind in KINDS)
SOURCE = "video_jobs"


def shopper(number: int) -> str:
    """1 has no subscription, 2 Starter, 3 Studio; 4 is inactive; 5 wants nothing that follows."""
    return f"f0000000-0000-4000-8000-{number:012}"


async def hire(store: Store) -> Hand:
    return await Hand.hire(store, SHOP_LANES)


async def add_job(
    connection: Any, payload: Any, *, kind: str = "generate_video", **columns: Any
) -> str:
    given = {"job_type": kind, "job_data": json.dumps(payload)}
    (key,) = await add(connection, "public.background_jobs", **(given | columns))
    return key


async def add_video(connection: Any, of: int = 2, **columns: Any) -> str:
    given: dict[str, Any] = {
        "user_id": shopper(of),
        "title": "Lamp",
        "text_prompt": "A lamp at dusk",
        "input_type": "Text",
        "status": "Pending",
        "resolution": "1080x1920",
        "aspect_ratio": "9:16",
    }
    (key,) = await add(connection, "public.videos", **(given | columns))
    return key


async def begin(connection: Any, hand: Hand, of: int = 2, **columns: Any) -> tuple[str, Work]:
    """A new video, and its job that runs."""
    video = await add_video(connection, of, **columns)
    key = await add_job(connection, {"videoId": video})
    (work,) = [w for w in await hand.take(20) if w.key == key]
    return video, work


async def video_row(connection: Any, key: str) -> Any:
    return await connection.fetchrow("SELECT * FROM public.videos WHERE id = $1", key)


async def status_of(connection: Any, key: str) -> str:
    return str(await connection.fetchval("SELECT status FROM public.videos WHERE id = $1", key))


async def job_row(connection: Any, key: str) -> Any:
    return await connection.fetchrow("SELECT * FROM public.background_jobs WHERE id = $1", key)


async def follow_ups(connection: Any, *, but: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    rows = await connection.fetch(
        "SELECT job_type, job_data FROM public.background_jobs WHERE id <> ALL ($1::uuid[])"
        " ORDER BY job_type",
        list(but),
    )
    return [(row["job_type"], json.loads(row["job_data"])) for row in rows]


async def pay(
    store: Store, hand: Hand, work: Work, step: str = "image", provider: str = "freepik"
) -> Submission:
    """Raises `NotAllowed` where the user has no credits left."""
    return await journal_of(store, work, hand).intend(
        step,
        provider=provider,
        account="acct",
        model="m",
        estimate_cents=Decimal(10),
        fingerprint="f",
    )


async def may_pay(store: Store, hand: Hand, work: Work) -> bool:
    try:
        await pay(store, hand, work)
    except NotAllowed:
        return False
    return True


async def tick(store: Store, *works: Work, percent: int = 10) -> None:
    """What a worker writes of its jobs every two seconds."""
    entries = [
        {"queue_id": w.queue_id, "token": w.token, "key": w.key, "progress": percent} for w in works
    ]
    await store.progress(SOURCE, entries)


def film(work: Work, **changes: Any) -> Succeeded:
    main = replace(
        video_file(f"{work.key}-{work.claimed.run}"),
        codec="h264",
        frame_rate=30.0,
        bit_rate=2000000,
    )
    small = Output(
        "thumbnail", "t.jpg", "https://files.example.com/t.jpg", "image/jpeg", "image", 9, "0", "t"
    )  # fmt: skip
    given: dict[str, Any] = {
        "outputs": (main, small),
        "data": {"ai_provider": "Freepik", "image_url": "https://files.example.com/still.png"},
        "cost_cents": Decimal(55),
        "provider": "freepik",
        "model": "kling-v2-1-pro:5",
        "external_id": f"video-{work.key}",
    }
    return Succeeded(**(given | changes))


async def set_credits(
    connection: Any, of: int, *pots: int, days: Sequence[int | None] = (), **columns: Any
) -> None:
    """Instead of the sample's; a None of `days` never expires."""
    await connection.execute("DELETE FROM public.usage_credits WHERE user_id = $1", shopper(of))
    for number, (key, amount) in enumerate(zip(new_keys(len(pots)), pots, strict=True)):
        lasts = days[number] if number < len(days) else 30 + number
        expires = None if lasts is None else _utc() + timedelta(days=lasts)
        given = {"credit_type": "VideoGeneration", "source": "Purchase"} | columns
        names = "".join(f", {name}" for name in given)
        values = "".join(f", ${n}" for n in range(5, 5 + len(given)))
        await connection.execute(
            f"INSERT INTO public.usage_credits (id, user_id, amount, expires_at{names})"
            f" VALUES ($1, $2, $3, $4{values})",
            key,
            shopper(of),
            amount,
            expires,
            *given.values(),
        )


async def used(connection: Any, of: int) -> list[int]:
    """By expiry."""
    rows = await connection.fetch(
        "SELECT used_amount FROM public.usage_credits WHERE user_id = $1"
        " ORDER BY expires_at NULLS LAST, id",
        shopper(of),
    )
    return [row["used_amount"] for row in rows]


def _utc() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
