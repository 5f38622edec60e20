"""EcomVideo's other files: what attach looks at, the demo and its verdict, and plans at a size."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.contract import Failed, Succeeded
from tests.database.platform_samples import CloneDatabase, run, sql_file
from tests.database.shop import add_job, begin, film, hire, may_pay, shopper, tick
from tests.database.support import Connect, Hand, OpenStore, failure
from worker.store import Store

# --------------------------------------------------------------------------- attach


async def found(connection: Any) -> list[tuple[str, str]]:
    rows = await connection.fetch(sql_file("ecomvideo", "attach.sql").rstrip().rstrip(";"))
    return [(row["severity"], row["message"]) for row in rows]


async def test_its_own_schema_lacks_nothing(ecomvideo: str, connect: Connect) -> None:
    assert await found(await connect(ecomvideo)) == []


@pytest.mark.parametrize(
    ("change", "severity", "says"),
    [
        ("DROP TABLE public.usage_credits", "refuse", "usage_credits has no column used_amount"),
        ("ALTER TABLE public.videos DROP COLUMN ai_provider", "refuse", "videos has no column"),
        ("ALTER TABLE public.background_jobs ALTER job_data TYPE json", "refuse", "need jsonb"),
        ("DROP INDEX public.ix_usage_credits_user_id", "warn", "CREATE INDEX CONCURRENTLY"),
    ],
)  # fmt: skip
async def test_what_the_rules_need_is_named_where_it_is_missing(
    change: str, severity: str, says: str, clone_database: CloneDatabase, connect: Connect
) -> None:
    async def build(dsn: str) -> None:
        await run(dsn, sql_file("ecomvideo", "schema.sql"))

    connection = await connect(await clone_database("ecomvideo-schema", build))
    await connection.execute(change)
    said = await found(connection)
    assert {what for what, _ in said} == {severity}
    assert any(says in message for _, message in said), said


async def test_it_says_something_of_an_empty_database(
    connect: Connect, clone_database: CloneDatabase
) -> None:
    async def nothing(_dsn: str) -> None: ...

    connection = await connect(await clone_database("nothing", nothing))
    assert {severity for severity, _ in await found(connection)} == {"refuse"}


# --------------------------------------------------------------------------- demo


async def verdicts(connection: Any) -> list[Any]:
    return list(await connection.fetch(sql_file("ecomvideo", "verdict.sql").rstrip().rstrip(";")))


async def test_the_demo_and_its_verdict(
    ecomvideo: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ecomvideo), await open_store(ecomvideo)
    hand = await hire(store)
    script = (
        sql_file("ecomvideo", "demo.sql").replace(":jobs", "30").replace(":sandbox", "http://x")
    )
    async with connection.transaction():
        await connection.execute(script)
    assert {(row["finished"], row["consistent"]) for row in await verdicts(connection)} == {
        (None, True)
    }
    works = await hand.take(100)
    assert 10 <= len(works) <= 12
    videos = [w for w in works if w.started.kind == "background:generate_video"]
    for work in videos:
        assert f"[job:video_jobs/{work.key}]" in work.started.input["video"]["text_prompt"]
        assert await may_pay(store, hand, work)
    await hand.settle(videos[1:], film)
    await hand.settle(videos[:1], lambda _: Failed(failure()))
    rest = await hand.take(100)
    assert rest
    rows = {row["key"]: row for row in await verdicts(connection)}
    assert {row["source"] for row in rows.values()} == {"video_jobs"}
    assert [row for row in rows.values() if not row["consistent"]] == []
    assert rows[videos[0].key]["finished"] == "failed"
    assert rows[videos[1].key]["url"].startswith("https://files.example.com/")
    # A credit too many, a notice too few: it sees them.
    await connection.execute("UPDATE public.usage_credits SET used_amount = used_amount + 1")
    assert not any(
        row["consistent"]
        for row in await verdicts(connection)
        if row["key"] in {w.key for w in videos}
    )


# --------------------------------------------------------------------------- plans

ROWS = 20_000
FETCHES = 200
"""Rows of any one table that may be read for each job of a batch."""
_LOAD = f"""
INSERT INTO public.users (email, password_hash)
SELECT 'crowd' || n || '@example.com', '-' FROM generate_series(1, {ROWS}) n;
INSERT INTO public.videos
  (user_id, title, text_prompt, input_type, status, resolution, aspect_ratio)
SELECT id, 'v', 'p', 'Text', 'Pending', '1080p', '9:16'
  FROM public.users WHERE email LIKE 'crowd%';
INSERT INTO public.usage_credits (user_id, credit_type, amount, source)
SELECT id, 'VideoGeneration', 5, 'Purchase' FROM public.users WHERE email LIKE 'crowd%';
INSERT INTO public.user_subscriptions
  (user_id, subscription_plan_id, status, billing_cycle, price_paid, started_at, ends_at)
SELECT id, 'f1000000-0000-4000-8000-000000000001', 'Active', 'Monthly', 1, '2026-01-01',
       '2099-01-01' FROM public.users WHERE email LIKE 'crowd%';
INSERT INTO public.product_data (user_id, original_url, name)
SELECT id, 'https://shop.example.com/' || id, 'p' FROM public.users WHERE email LIKE 'crowd%';
INSERT INTO public.product_images (product_data_id, url) SELECT id, 'x' FROM public.product_data;
INSERT INTO public.background_jobs (job_type, job_data, status)
SELECT 'generate_video', jsonb_build_object('videoId', id), 'Completed' FROM public.videos;
INSERT INTO rowmill.submissions
  (source, row_key, run, step, lane, worker, provider, account, model, estimate_cents)
SELECT 'video_jobs', id::text, 1, 'image', 'l', 1, 'freepik', 'a', 'm', 1
  FROM public.background_jobs WHERE status = 'Completed' ON CONFLICT DO NOTHING;
"""
WATCHED = (
    *("users", "videos", "usage_credits", "user_subscriptions", "product_data", "product_images"),
    *("background_jobs", "submissions", "queue"),
)
_READ = """
SELECT relname AS name, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS rows
  FROM pg_stat_xact_user_tables WHERE relname = ANY ($1)
"""


@pytest.mark.parametrize("seen_small", [True, False])
async def test_no_rule_reads_a_table_from_end_to_end(
    seen_small: bool, ecomvideo: str, connect: Connect
) -> None:
    """Plans that were made while the tables were small are kept when they have grown."""
    connection = await connect(ecomvideo)
    transaction = connection.transaction()
    await transaction.start()
    # One connection for all, in one transaction: only there reads are counted exactly.
    store = Store(connection, pooled=False, dsn=ecomvideo)
    store._line._connection = connection
    hand = await hire(store)
    if seen_small:
        for _ in range(7):
            await _life(connection, hand, store)
    await connection.execute(_LOAD)
    for _ in range(2):
        before = await _reads(connection)
        await _life(connection, hand, store)
        after = await _reads(connection)
        rows = {name: count - before.get(name, 0) for name, count in after.items()}
        assert rows["videos"] > 0
        assert {name: n for name, n in rows.items() if n > FETCHES * JOBS} == {}
    await transaction.rollback()


async def _reads(connection: Any) -> dict[str, int]:
    return {row["name"]: row["rows"] for row in await connection.fetch(_READ, list(WATCHED))}


JOBS = 8


async def _life(connection: Any, hand: Hand, store: Store) -> None:
    """Of a batch: two that are made, one that fails; one cancelled; a page; and what follows."""
    *works, cancelled = [(await begin(connection, hand, 3))[1] for _ in range(4)]
    for work in works:
        assert await may_pay(store, hand, work)
    await tick(store, *works)
    await store.stops("video_jobs", [{"queue_id": w.queue_id, "key": w.key} for w in works])
    page = {"name": "Chair", "images": [{"url": "https://x/1.jpg"}]}
    await hand.settle(works[:2], lambda w: film(w, data={"product": page}))
    await hand.fail(works[2:])
    await store.value("SELECT rowmill.cancel_video_jobs($1)", cancelled.key)
    await add_job(connection, {"url": "https://x/1", "user_id": shopper(3)}, kind="ScrapeProduct")
    follow = await hand.take(20)
    pages = [w for w in follow if w.started.kind == "background:scrape_product"]
    assert (len(pages), len(follow)) == (1, JOBS - 2)
    await hand.settle(pages, lambda _: Succeeded(data={"product": page}))
    await hand.fail([w for w in follow if w not in pages])
