"""What the tests of listings are written with: jobs of every state, and what is known of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.contract import Failed, FailureKind, RetryLater
from jobs.registry import RetryPolicy
from tests.database.hand import Hand, Work, failure
from tests.database.platform_samples import user
from tests.database.shop import SHOP_LANES, shopper
from tests.database.support import LANES, add, add_background, add_texts, add_v1_videos, add_videos
from worker.store import Store
from worker.store.listing import Filter, Sort, listed
from worker.store.reading import Row

LATER = RetryPolicy(base=600.0, factor=1.0, cap=600.0, jitter=0.0)
EVERY_LANE = (*LANES, *SHOP_LANES, "background:process_media")
BROKEN = "100% broken: it's \"O'Neill\"; DROP TABLE rowmill.queue; --"


@dataclass(frozen=True, slots=True)
class Known:
    """A job as the test made it: what any listing has to say of it."""

    source: str
    key: str
    lane: str
    kind: str
    tenant: str | None
    state: str = "ready"
    error_kind: str | None = None
    error: str = ""


READERS = [f"e0000000-0000-4000-8000-{number:012}" for number in range(1, 5)]


async def _photomemory(c: Any) -> list[Known]:
    made = []
    for of, service, job in ((4, "replicate", "video"), (5, "Runway", "audio")):
        keys = await add_videos(c, 8, of=of, service=service, job_type=job)
        known = ("generation_jobs", service.lower(), f"media:{job}", user(of))
        made += [Known(known[0], key, *known[1:]) for key in keys]
    return made


async def _photomemory_v1(c: Any) -> list[Known]:
    made = []
    for of, service in ((4, "replicate"), (2, "runway")):
        owner = await c.fetchval(
            "SELECT user_id::text FROM public.video_projects WHERE id::text LIKE $1", f"%{of:012}"
        )
        keys = await add_v1_videos(c, 8, of=of, service=service)
        made += [Known("generated_videos", key, service, "media:video", owner) for key in keys]
    return made


async def _ecomvideo(c: Any) -> list[Known]:
    made = []
    for word, kind in (
        ("GenerateVideo", "generate_video"),
        ("SendNotification", "send_notification"),
    ):
        for owner in (shopper(2), shopper(3)):
            payload = json.dumps({"user_id": owner})
            # What is prepared by a trigger is the platform's own; the kind is what matters here.
            for key in await add(c, "public.background_jobs", 4, job_type=word, job_data=payload):
                word_of = f"background:{kind}"
                made.append(Known("video_jobs", key, word_of, word_of, owner))
    return made


async def _education(c: Any) -> list[Known]:
    owners = [r[0] for r in await c.fetch("SELECT id::text FROM public.users ORDER BY id LIMIT 2")]
    made = []
    for owner in owners:
        columns = {"user_id": owner, "filename": "a.mp4", "original_filename": "a.mp4"}
        file = {"file_path": "/a.mp4", "file_size": 9, "mime_type": "video/mp4"}
        for key in await add(c, "public.media_files", 8, **columns, **file):
            word = "background:process_media"
            made.append(Known("media_files", key, word, word, owner))
    return made


async def _ebook(c: Any) -> list[Known]:
    made = [
        Known("ai_generations", key, "openai", "text", READERS[of - 1])
        for of in (1, 4)
        for key in await add_texts(c, 5, of=of)
    ]
    for kind in ("webhook_delivery", "content_statistics"):
        word = f"background:{kind}"
        keys = await add_background(c, 4, kind=kind)
        made += [Known("background_jobs", key, word, word, None) for key in keys]
    return made


MAKERS = {
    "photomemory": _photomemory,
    "photomemory_v1": _photomemory_v1,
    "ecomvideo": _ecomvideo,
    "education": _education,
    "ebook": _ebook,
}
TABLES = {
    "generation_jobs": ("public.generation_jobs", "status", "completed", "cancelled"),
    "generated_videos": ("public.generated_videos", "status", "completed", "cancelled"),
    "video_jobs": ("public.background_jobs", "status", "Completed", None),
    "media_files": ("public.media_files", "processing_status", "completed", None),
    "ai_generations": ("ai_processing.ai_generations", "status", "completed", "cancelled"),
    "background_jobs": ("system.background_jobs", "status", "completed", "cancelled"),
}
"""Table, status column, and the words for completed and cancelled."""


async def jobs_of(platform: str, connection: Any, store: Store) -> dict[str, Known]:
    """Jobs in every state, of each source and lane as many as there are."""
    known = {one.key: one for one in await MAKERS[platform](connection)}
    hand = await Hand.hire(store, EVERY_LANE)
    works = {work.key: work for work in await hand.take(500)}
    assert works.keys() == known.keys()
    turns: dict[int, list[str]] = {}
    for number, key in enumerate(known):
        turns.setdefault(number % 8, []).append(key)
    await _complete(connection, [known[key] for key in turns[1]])
    await hand.hold([works[key] for key in turns[2]])
    await _end(hand, works, turns[3], FailureKind.AUTH, "the key is refused")
    await _end(hand, works, turns[4], FailureKind.UNKNOWN, BROKEN)
    await hand.settle(
        [works[key] for key in turns[5]],
        lambda _: RetryLater(failure("Too Many Requests", FailureKind.RATE_LIMIT)),
        policy=LATER,
    )
    for key in turns[6]:
        await store.value(f"SELECT rowmill.cancel_{known[key].source}($1)", key)
    await hand.release([works[key] for key in turns[7]])
    what = {
        0: {"state": "running"},
        1: {"state": "completed"},
        2: {"state": "held"},
        3: {"state": "failed", "error_kind": "auth", "error": "the key is refused"},
        4: {"state": "failed", "error_kind": "unknown", "error": BROKEN},
        5: {"state": "scheduled", "error_kind": "rate_limit", "error": "Too Many Requests"},
        6: {"state": "cancelled"},
        7: {"state": "ready"},
    }
    for turn, keys in turns.items():
        for key in keys:
            known[key] = replace(known[key], **what[turn])
            if turn == 6 and TABLES[known[key].source][3] is None:
                said = {"error_kind": "cancelled", "error": "an operator cancelled it"}
                known[key] = replace(known[key], **said)
    return known


async def _end(
    hand: Hand, works: dict[str, Work], keys: Sequence[str], kind: FailureKind, message: str
) -> None:
    said = await hand.settle([works[key] for key in keys], lambda _: Failed(failure(message, kind)))
    assert set(said.values()) == {"settled"}


async def _complete(connection: Any, jobs: Sequence[Known]) -> None:
    """By the platform's own hand, whose triggers then take them off the queue."""
    for job in jobs:
        table, column, word, _ = TABLES[job.source]
        more = {
            "generation_jobs": ", completed_at = now(), output_file_id = ("
            "SELECT id FROM public.media_files LIMIT 1)",
            "generated_videos": ", completed_at = now(), file_url = 'https://files.example.com/v'",
        }.get(job.source, "")
        await connection.execute(
            f"UPDATE {table} SET {column} = '{word}'{more} WHERE id = $1::text::uuid", job.key
        )


async def all_of(
    store: Store,
    which: Filter,
    *,
    sort: Sort | None = None,
    reverse: bool = False,
    limit: int = 3,
) -> list[Row]:
    """Every page, one after the other."""
    told: list[Row] = []
    after = None
    while True:
        page = await listed(store, which, sort=sort, reverse=reverse, limit=limit, after=after)
        told += page.jobs
        after = page.next
        if after is None:
            return told
