"""Listings of jobs: filters, sorts and pages, on five platforms and on tables of anyone's."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.database import studio
from tests.database.conftest import attached
from tests.database.listings import BROKEN, Known, all_of, jobs_of
from tests.database.platform_samples import PLATFORMS, CloneDatabase, NewDatabase, run
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    add,
    add_background,
    add_texts,
    add_videos,
    new_keys,
)
from worker import maps
from worker.generate.lists import STATES, UNFINISHED
from worker.relocating import relocated
from worker.store import Refused, Store
from worker.store.attaching import attach
from worker.store.finding import UnknownName
from worker.store.listing import (
    SORTS,
    BadCursor,
    BadSort,
    Filter,
    Page,
    TooSlow,
    counted,
    found,
    know_lanes,
    listed,
    pages,
)
from worker.store.migrations import migrate

WAITING = tuple(UNFINISHED)


@pytest.fixture(params=PLATFORMS)
async def platform(
    request: pytest.FixtureRequest,
    clone_database: CloneDatabase,
    connect: Connect,
    open_store: OpenStore,
) -> tuple[Store, dict[str, Known]]:
    name = str(request.param)
    dsn = await clone_database(f"{name}-attached", attached(name))
    store = await open_store(dsn)
    return store, await jobs_of(name, await connect(dsn), store)


def filters_of(jobs: dict[str, Known]) -> list[Filter]:
    """Each filter alone, and each with every other one."""
    some = list(jobs.values())
    tenant = next((job.tenant for job in some if job.tenant), "nobody")
    alone: list[dict[str, Any]] = [
        *({"states": (state,)} for state in STATES),
        {"states": ("failed", "scheduled")},
        {"lanes": (some[0].lane,)},
        {"lanes": (some[0].lane, some[-1].lane)},
        {"lanes": ("nowhere",)},
        {"sources": (some[-1].source,)},
        {"kinds": (some[0].kind,)},
        {"kinds": (some[-1].kind, "nothing")},
        {"tenant": tenant},
        {"tenant": tenant.upper()},
        {"tenant": "nobody"},
        {"error_kind": "auth"},
        {"error_kind": "cancelled"},
        {"error_text": "TOO many"},
        {"error_text": "100% broken"},
        {"error_text": BROKEN[-30:]},
        {"error_text": "10_% broken"},
        {"newer_than": timedelta(hours=1)},
        {"older_than": timedelta(hours=1)},
    ]
    pairs = [a | b for a, b in combinations(alone, 2) if not a.keys() & b.keys()]
    return [Filter(), *(Filter(**one) for one in (*alone, *pairs))]


def meant(which: Filter, job: Known) -> bool:
    """The oracle; every job is a few seconds old."""
    return (
        (not which.states or job.state in which.states)
        and (not which.lanes or job.lane in which.lanes)
        and (not which.sources or job.source in which.sources)
        and (not which.kinds or job.kind in which.kinds)
        and (which.tenant is None or (job.tenant or "") == which.tenant.lower())
        and (which.error_kind is None or job.error_kind == which.error_kind)
        and (which.error_text is None or which.error_text.lower() in job.error.lower())
        and which.older_than is None
    )


async def test_every_filter_finds_what_it_says(platform: tuple[Store, dict[str, Known]]) -> None:
    store, jobs = platform
    for which in filters_of(jobs):
        wanted = {key for key, job in jobs.items() if meant(which, job)}
        places, more = await found(store, which)
        keys = [place.key for place in places]
        assert sorted(keys) == sorted(wanted), which
        assert more is None
        assert all(place.state == jobs[place.key].state for place in places)
        assert all(place.source == jobs[place.key].source for place in places)


async def test_what_is_told_of_each_job(platform: tuple[Store, dict[str, Known]]) -> None:
    store, jobs = platform
    told = await all_of(store, Filter())
    assert sorted(job["key"] for job in told) == sorted(jobs)
    for job in told:
        known = jobs[job["key"]]
        error = job["error"] or {"kind": None, "message": ""}
        told_of = {name: job[name] for name in ("source", "key", "lane", "kind", "tenant", "state")}
        assert asdict(known) == told_of | {"error_kind": error["kind"], "error": error["message"]}
        assert 0 <= job["age_s"] < 600
        assert (job["worker"] == "hand") == (known.state == "running")
        assert (job["why"] is not None) == (known.state in UNFINISHED)
        assert (job["rank"] is not None) == (known.state in UNFINISHED)
        if known.state in UNFINISHED:
            assert job["tries"] == (known.state == "scheduled")
        json.dumps(job)


async def test_pages_in_every_order(platform: tuple[Store, dict[str, Known]]) -> None:
    """Each page goes on where the one before ended, both ways; and all are counted."""
    store, jobs = platform
    for sort in SORTS:
        which = Filter(states=WAITING) if sort == "order" else Filter()
        forth = [job["key"] for job in await all_of(store, which, sort=sort)]
        back = [job["key"] for job in await all_of(store, which, sort=sort, reverse=True)]
        assert forth == back[::-1]
        assert forth == [job["key"] for job in await all_of(store, which, sort=sort, limit=1000)]
        wanted = [key for key, job in jobs.items() if not which.states or job.state in WAITING]
        if sort == "failure":
            wanted = [key for key in wanted if jobs[key].error_kind is not None]
        else:
            assert await counted(store, which) == len(wanted)
        assert sorted(forth) == sorted(wanted)
    assert await counted(store, Filter(), most=4) == 5
    one = Filter(states=("ready",), sources=(next(iter(jobs.values())).source,))
    assert 0 < await counted(store, one) == len((await found(store, one))[0]), "a single SELECT"


# --------------------------------------------------------------------------- orders


@pytest.fixture
async def db(both: str, connect: Connect) -> Any:
    return await connect(both)


@pytest.fixture
async def store(both: str, open_store: OpenStore) -> Store:
    return await open_store(both)


async def keys_of(store: Store, which: Filter, **asked: Any) -> list[str]:
    return [job["key"] for job in await all_of(store, which, **asked)]


async def test_jobs_that_wait_are_told_in_the_order_of_claims(db: Any, store: Store) -> None:
    for priority in (3, 9, 5):
        await add_videos(db, 2, priority=priority)
        await add_texts(db, 2, of=priority % 4 + 1)
        await add_background(db, 2, priority=priority)
        await add_videos(db, 1, service="runway", priority=priority)
    told = await keys_of(store, Filter(states=("ready",)))
    kinds = Filter(states=("ready",), kinds=("media:video", "text"))
    some = await keys_of(store, kinds)
    hand = await Hand.hire(store)
    claimed = [claim.key for claim in await hand.claim(100)]
    assert len(claimed) == 21
    assert told == claimed
    rows = {row["id"] for row in await db.fetch("SELECT id::text FROM system.background_jobs")}
    assert some == [key for key in claimed if key not in rows]


async def test_by_time_cost_and_failure(db: Any, store: Store) -> None:
    keys = await add_videos(db, 5)
    hand = await Hand.hire(store)
    works = {work.key: work for work in await hand.take(5)}
    for number, key in enumerate(keys):
        await db.execute(
            "UPDATE rowmill.queue SET enqueued_at = enqueued_at - $2 * interval '1 hour',"
            " claimed_at = claimed_at - $3 * interval '1 minute' WHERE row_key = $1",
            *(key, number, (number * 3) % 5),
        )
        await db.execute(
            "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
            " account, model, state, estimate_cents, cost_cents) VALUES ('generation_jobs', $1, 1,"
            " 'main', 'replicate', 1, 'replicate', 'a', 'm', 'finished', 1, $2)",
            *(key, (number * 2) % 5),
        )
    every = Filter()
    assert await keys_of(store, every, sort="newest") == keys
    assert await keys_of(store, every, sort="oldest") == keys[::-1]
    assert await keys_of(store, every, sort="longest") == [keys[n] for n in (3, 1, 4, 2, 0)]
    assert await keys_of(store, every, sort="cost") == [keys[n] for n in (2, 4, 1, 3, 0)]
    hours = timedelta(hours=1, minutes=30)
    assert await keys_of(store, Filter(older_than=hours)) == keys[2:]
    assert await keys_of(store, Filter(newer_than=hours)) == keys[:2]
    for key in (keys[3], keys[0]):
        await hand.fail([works[key]])
    await hand.retry([works[keys[1]]])
    assert await keys_of(store, every, sort="failure") == [keys[1], keys[0], keys[3]]
    assert await keys_of(store, Filter(error_text="broke")) == [keys[1], keys[0], keys[3]]
    # What is over is as old as its end, whenever it was queued.
    failed = Filter(states=("failed",), newer_than=timedelta(minutes=5))
    assert sorted(await keys_of(store, failed)) == sorted([keys[3], keys[0]])
    await db.execute(
        "UPDATE public.generation_jobs SET failed_at = now() - interval '2 days' WHERE id = $1",
        keys[3],
    )
    assert await keys_of(store, failed) == [keys[0]]
    with pytest.raises(BadSort, match="--state unfinished"):
        await listed(store, every, sort="order")


# --------------------------------------------------------------------------- pages


async def test_pages_neither_skip_nor_repeat_what_stays(db: Any, store: Store) -> None:
    """Between two pages jobs come, run, end and are deleted, on both sides of the cursor."""
    for which, sort in (
        (Filter(states=WAITING), "order"),
        (Filter(), "newest"),
        (Filter(states=WAITING), "oldest"),
    ):
        stay = await add_videos(db, 12, priority=5)
        go = await add_videos(db, 12, priority=5)
        hand, moved = await Hand.hire(store), set[str]()
        told: list[str] = []
        page = Page([], None)
        while not told or page.next:
            page = await listed(store, which, sort=sort, limit=4, after=page.next)  # type: ignore[arg-type]
            told += [job["key"] for job in page.jobs]
            await add_videos(db, 1, priority=9)
            await add_background(db, 1)
            moved |= set(go)
            gone, ended = go.pop(), go.pop() if go else None
            await db.execute("DELETE FROM public.generation_jobs WHERE id = $1", gone)
            await db.execute(
                "UPDATE public.generation_jobs SET status = 'cancelled' WHERE id = $1", ended
            )
            go = go or await add_videos(db, 2, priority=1)
            claims = [c for c in await hand.claim(1) if c.key not in stay]
            moved |= {claim.key for claim in claims}
            await hand.fail(await hand.start(claims))
        assert sorted(key for key in told if key in stay) == sorted(stay)
        assert {key for key in told if told.count(key) > 1} <= moved
        await db.execute("TRUNCATE public.generation_jobs, system.background_jobs CASCADE")


async def test_the_jobs_of_one_state_are_counted(db: Any, store: Store) -> None:
    """One SELECT, where most filters make several."""
    await add_videos(db, 3)
    await add_background(db, 2)
    ready = Filter(states=("ready",))
    assert await listing.counted(store, ready) == 5
    assert await listing.counted(store, ready, most=3) == 4
    assert await listing.counted(store, Filter(), most=3) == 4


async def test_who_asks_only_which_jobs_gets_more_at_once(db: Any, store: Store) -> None:
    await db.execute(
        "INSERT INTO rowmill.queue (source, row_key, lane, rank, ready_at, state)"
        " SELECT s.id, gen_random_uuid()::text, 'replicate', 10, now(), 'ready'"
        " FROM rowmill.sources s, generate_series(1, 1100) WHERE s.name = 'generation_jobs'"
    )
    places, after = await found(store, Filter(), limit=listing.MANY)
    assert (len(places), after) == (1100, None)
    assert len((await listed(store, Filter(), limit=listing.MANY)).jobs) == listing.MOST


async def test_cursors_are_url_safe_and_of_one_listing(db: Any, store: Store) -> None:
    await add_videos(db, 5)
    which = Filter(states=WAITING)
    page = await listed(store, which, limit=2)
    assert page.next is not None
    assert page.next.replace("-", "").replace("_", "").isalnum()
    for other in (Filter(), Filter(states=WAITING, lanes=("replicate",))):
        with pytest.raises(BadCursor, match="other filters"):
            await listed(store, other, sort="newest", after=page.next)
    with pytest.raises(BadCursor, match="other filters"):
        await listed(store, which, reverse=True, after=page.next)
    for bad in ("", "x", "é", base64.urlsafe_b64encode(b'["a", 1, [], {}]').decode()):
        if bad:
            with pytest.raises(BadCursor, match="no cursor"):
                await listed(store, which, after=bad)


async def test_ages_stay_those_of_the_first_page(db: Any, store: Store) -> None:
    keys = await add_videos(db, 3)
    which = Filter(states=WAITING, older_than=timedelta(hours=1))
    old = (
        "UPDATE rowmill.queue SET enqueued_at = clock_timestamp() - interval '1 hour'"
        " + $2 * interval '1 second' WHERE row_key = $1"
    )
    await db.execute(old, keys[0], -9)
    await db.execute(old, keys[1], -9)
    page = await listed(store, which, limit=1)
    # Old enough a moment later, but not when the first page was read.
    await db.execute(old, keys[2], 0)
    rest = await listed(store, which, limit=5, after=page.next)
    assert [job["key"] for job in (*page.jobs, *rest.jobs)] == keys[:2]


# --------------------------------------------------------------------------- what is typed


HOSTILE = (
    "'",
    "''",
    '"',
    "\\",
    "%",
    "_",
    "$1",
    "$2::text",
    "'; DROP TABLE rowmill.queue; --",
    "é\u202e",
)


async def test_values_are_never_sql(db: Any, store: Store) -> None:
    (key,) = await add_videos(db)
    for word in HOSTILE:
        for name, value in (
            *(("lanes", (word,)), ("kinds", (word,)), ("sources", (word,)), ("tenant", word)),
            *(("error_kind", word), ("error_text", word)),
        ):
            which: dict[str, Any] = {name: value}
            assert await all_of(store, Filter(**which)) == []
            assert await counted(store, Filter(**which)) == 0
    assert await keys_of(store, Filter()) == [key]
    with pytest.raises(Refused):
        await listed(store, Filter(tenant="\0"))


async def test_misspelt_lanes_are_named(db: Any, store: Store) -> None:
    await add_videos(db, service="Luma")
    await db.execute("UPDATE public.generation_jobs SET status = 'cancelled'")
    await know_lanes(store, ["luma", "openai"], ["openai"])
    with pytest.raises(UnknownName, match=r"no lane 'replicat'; known lanes: .*openai"):
        await know_lanes(store, ["replicat"], ["openai"])


# --------------------------------------------------------------------------- anyone's tables

Change = Callable[[str], str]


async def test_capitals(new_database: NewDatabase, connect: Connect, open_store: OpenStore) -> None:
    folder = Path(__file__).parent / "data" / "atelier"
    dsn = await new_database()
    await migrate(dsn)
    await run(dsn, (folder / "schema.sql").read_text(encoding="utf-8"))
    await attach(dsn, maps.load(str(folder / "map.toml")))
    db, store = await connect(dsn), await open_store(dsn)
    one, two = new_keys(2)
    await db.execute('INSERT INTO "Atelier"."Orders" ("Id") VALUES ($1)', one)
    await db.execute('INSERT INTO "Atelier"."Orders" ("Id", "CustomerId") VALUES ($1, 2)', two)
    hand = await Hand.hire(store)
    (work,) = await hand.take(1)
    await hand.succeed([work])
    for which in (Filter(lanes=("replicate",)), Filter(kinds=("background:Paint",)), Filter()):
        told = await all_of(store, which)
        assert [job["state"] for job in told] == ["completed", "ready"]
        assert {job["priority"] for job in told} == {"5"}
    assert [job["status"] for job in await all_of(store, Filter(tenant="2"))] == ["Pending"]
    assert await all_of(store, Filter(tenant="99999999999999999999")) == []


@pytest.mark.parametrize("kind", ["integer", "enum"])
async def test_states_that_are_no_texts_in_another_schema(
    tmp_path: Path, new_database: NewDatabase, connect: Connect, open_store: OpenStore, kind: str
) -> None:
    dsn, schema = await new_database(), "film_set"
    tables = studio.SCHEMA
    changes: list[tuple[str, str]] = []
    if kind == "integer":
        tables = tables.replace(
            "state      text NOT NULL DEFAULT 'new'", "state integer NOT NULL DEFAULT 1"
        )
        words = {"new": "1", "busy": "2", "done": "3", "broken": "4", "cancelled": "5"}
        changes = [(f'"{word}"', f'"{number}"') for word, number in words.items()]
    else:
        made = "CREATE TYPE public.stage AS ENUM ('new', 'busy', 'done', 'broken', 'cancelled');\n"
        tables = made + tables.replace("state      text", "state      public.stage")
    platform = studio.written(tmp_path / "studio", *changes, schema=schema)
    await migrate(dsn)
    await run(dsn, f"CREATE SCHEMA {schema}", relocated(tables, schema))
    await attach(dsn, platform)
    db, store = await connect(dsn), await open_store(dsn)
    keys = await add(db, f"{schema}.shoots", 4, what="MakeVideo")
    hand = await Hand.hire(store, ("replicate",))
    works = await hand.take(3)
    await hand.fail(works[:1])
    await hand.cancel(works[1:2])
    states = {job["key"]: job["state"] for job in await all_of(store, Filter())}
    assert [states[key] for key in keys] == ["failed", "cancelled", "running", "ready"]
    assert len(await all_of(store, Filter(kinds=("background:make_video",)))) == 4
    # The map doesn't say when a job succeeded, nor the table when it was made.
    done = await add(db, f"{schema}.shoots", 2, state=3 if kind == "integer" else "done")
    for sort in ("newest", "oldest", "longest"):
        over = await all_of(store, Filter(states=("completed",)), sort=sort, limit=1)
        assert sorted(job["key"] for job in over) == sorted(done)
        assert {(job["age_s"], job["finished_at"]) for job in over} == {(None, None)}
    await db.execute(f"DELETE FROM {schema}.shoots WHERE id = ANY ($1::uuid[])", done)
    await db.execute(
        f"ALTER TABLE {schema}.shoots DROP COLUMN started_at, ALTER COLUMN what TYPE varchar"
    )
    assert len(await all_of(store, Filter())) == 4
    await db.execute(f"DROP TABLE {schema}.shoots")
    # What is still queued is told all the same.
    told = await all_of(store, Filter())
    assert [(job["state"], job["status"]) for job in told] == [("ready", None), ("running", None)]


# --------------------------------------------------------------------------- plans


async def plan_of(store: Store, which: Filter, sort: Any = None) -> str:
    """Of a page's statement, with what it read."""
    async with pages._looking(store, which) as look:
        by = sort or which.default_sort()
        selects = look._selects(by)
        ascending = by in {"order", "oldest"}
        parts = [pages._page(selects, one, ascending, 51, None) for one in selects.all()]
        sql = selects.arguments.named + " UNION ALL ".join(part for part in parts if part)
        rows = await look.connection.fetch(
            f"EXPLAIN (ANALYZE, TIMING OFF) {sql}", *selects.arguments.values
        )
        return "\n".join(row[0] for row in rows)


async def test_what_an_index_helps_with_reads_a_page_by_it(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    db, store = await connect(photomemory), await open_store(photomemory)
    await db.execute("SET session_replication_role = replica")
    await db.execute(
        "INSERT INTO public.generation_jobs (project_id, user_id, generation_service, status,"
        " output_file_id, completed_at) SELECT p.id, p.user_id, 'replicate', 'completed',"
        " gen_random_uuid(), now() - n * interval '1 minute'"
        " FROM (SELECT * FROM public.video_projects LIMIT 1) p, generate_series(1, 20000) n"
    )
    await db.execute(
        "INSERT INTO rowmill.failures"
        " (source, row_key, lane, run, try, final, kind, message, worker)"
        " SELECT 'generation_jobs', id::text, 'replicate', 1, 1, true, 'auth', 'no', 1"
        " FROM public.generation_jobs WHERE status = 'completed'"
    )
    await db.execute(
        "INSERT INTO rowmill.queue (source, row_key, lane, rank, ready_at, state)"
        " SELECT s.id, gen_random_uuid()::text, 'lane' || n % 3, n % 5 + 1, now(), 'ready'"
        " FROM rowmill.sources s, generate_series(1, 20000) n"
    )
    await db.execute("CREATE INDEX ended ON public.generation_jobs (status, completed_at)")
    await db.execute("VACUUM ANALYZE")
    waiting = await plan_of(store, Filter(states=WAITING))
    assert "Seq Scan on queue" not in waiting
    assert "queue_order" in waiting
    done = await plan_of(store, Filter(states=("completed",)))
    assert "Seq Scan" not in done
    assert "Index Scan Backward using ended" in done
    recent = await plan_of(store, Filter(states=("completed",), newer_than=timedelta(hours=1)))
    assert "Seq Scan" not in recent
    errors = await plan_of(store, Filter(states=("completed",), error_kind="auth"))
    assert "failures_at" in errors
    assert "Seq Scan" not in errors
    tenant = await db.fetchval("SELECT user_id::text FROM public.generation_jobs LIMIT 1")
    mine = await plan_of(store, Filter(states=("failed",), tenant=tenant))
    assert "Seq Scan" not in mine
    await db.execute("DROP INDEX public.ended")
    # Without one, the whole table is read, but no more is kept of it than a page.
    assert "top-N heapsort" in await plan_of(store, Filter(states=("completed",)))


async def test_what_takes_too_long_is_given_up(
    db: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_videos(db)
    monkeypatch.setattr(pages, "PATIENCE", 0.2)
    transaction = db.transaction()
    await transaction.start()
    await db.execute("LOCK TABLE public.generation_jobs IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(TooSlow, match=r"add --source, --state, --tenant, --newer-than"):
        await listed(store, Filter())
    await transaction.rollback()
    assert len((await listed(store, Filter())).jobs) == 1
