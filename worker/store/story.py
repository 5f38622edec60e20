"""What `job show` tells of one job, from its row to what was paid for it. Reads only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from worker.maps import Platform, Source
from worker.store import inbox
from worker.store.explaining import explain
from worker.store.finding import Found, platform_row
from worker.store.reading import Row, read, seconds_between
from worker.store.store import Store

_QUEUED = """
SELECT q.id::text AS id, q.state::text AS state, q.lane, q.rank, q.run, q.tries, q.yields,
       q.ready_at, q.enqueued_at, q.claimed_at, w.name AS worker, q.tenant, q.note,
       extract(epoch FROM clock_timestamp() - w.heartbeat_at)::double precision AS heartbeat_age_s
  FROM rowmill.queue q
  JOIN rowmill.sources s ON s.id = q.source
  LEFT JOIN rowmill.workers w ON w.id = q.worker
 WHERE s.name = $1 AND q.row_key = $2
"""

_FAILURES = """
SELECT at, lane, run, try, final, kind, code, provider, message
  FROM rowmill.failures WHERE source = $1 AND row_key = $2 ORDER BY id
"""

_SUBMISSIONS = """
SELECT id::text AS id, run, step, attempt, provider, account, model, state::text AS state,
       external_id, estimate_cents, cost_cents, error,
       intended_at, accepted_at, ended_at, delivered_at,
       extract(epoch FROM ended_at - intended_at)::double precision AS took_s
  FROM rowmill.submissions WHERE source = $1 AND row_key = $2 ORDER BY id
"""

_ACTIONS = "SELECT at, who, action, detail FROM rowmill.actions WHERE subject = $1 ORDER BY id"

DELIVERED = ("media_id", "url", "thumbnail_url", "text")
"""Fields of a map that say where in the row a result is."""


async def job(store: Store, source: str, key: str) -> Row:
    """The whole story of one job; its shape is in the docstring of `job show`."""
    (info,) = [s for s in await store.sources() if s.name == source]
    platform = Platform.from_definition(info.definition)
    (mapped,) = [s for s in platform.map.sources if s.name == source]
    found = await platform_row(store, info, key)
    row = found.data if found else None
    queued = await read(store, _QUEUED, source, key)
    failures = await read(store, _FAILURES, source, key)
    submissions = await read(store, _SUBMISSIONS, source, key)
    actions = await read(store, _ACTIONS, Found(source, key).subject)
    explanation = await explain(store, source, key)
    queue = queued[0] if queued else None
    now: datetime = await store.value("SELECT clock_timestamp()")
    return {
        "source": source,
        "key": key,
        "platform": info.platform,
        "relation": info.relation,
        **_state(mapped, row or {}),
        "why": explanation["why"],
        "ahead": explanation["ahead"],
        "explanation": explanation,
        "queue": queue,
        "timings": _timings(mapped, platform.map.timezone, row or {}, queue, now),
        "runs": _runs(submissions, failures),
        "failures": failures,
        "submissions": submissions,
        "spent_cents": _sum(submissions),
        "open_cents": _open(submissions),
        "outputs": await inbox.outputs(store, source, key),
        "delivered": _delivered(mapped, row or {}),
        "actions": [{**a, "detail": json.loads(a["detail"])} for a in actions],
        "row": row,
    }


def _state(source: Source, row: Mapping[str, Any]) -> Row:
    """`status` is null where the row is gone."""
    words = source.status
    return {
        "status": (row.get(words.column) or words.default) if row else None,
        "progress": inbox.field_of(source, row, "progress"),
        "error": inbox.field_of(source, row, "error"),
    }


def _delivered(source: Source, row: Mapping[str, Any]) -> Row:
    """The columns that hold what it made."""
    filled = source.set.success.items()
    return {
        column: row[column] for column, field in filled if field in DELIVERED and row.get(column)
    }


# --------------------------------------------------------------------------- times


def _timings(
    source: Source, timezone: str, row: Mapping[str, Any], queue: Row | None, now: datetime
) -> Row:
    """Of the latest run, as far as they are recorded: by the queue, else by the row's columns."""
    queue = queue or {}
    enqueued, claimed = _time(queue.get("enqueued_at")), _time(queue.get("claimed_at"))
    started, ended = claimed, None
    if not queue:
        zone = ZoneInfo(timezone)
        started = _of_row(source.set.start, row, ("first_now", "now"), zone)
        word = row.get(source.status.column)
        group = source.set.success if word == source.status.succeeded else source.set.failure
        ended = _of_row(group, row, ("now",), zone)
    ready = _time(queue.get("ready_at"))
    return {
        "enqueued_at": enqueued and enqueued.isoformat(),
        "started_at": started and started.isoformat(),
        "ended_at": ended and ended.isoformat(),
        "waited_s": seconds_between(ready, started or now),
        "ran_s": seconds_between(started, ended or (now if claimed else None)),
    }


def _of_row(
    columns: Mapping[str, str], row: Mapping[str, Any], fields: tuple[str, ...], zone: ZoneInfo
) -> datetime | None:
    for column, field in columns.items():
        if field in fields and row.get(column):
            return _time(row[column], zone)
    return None


def _time(text: str | None, zone: ZoneInfo | None = None) -> datetime | None:
    """None also for what Postgres can keep and Python can't tell: infinity, years BC or beyond 9999."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _runs(submissions: list[Row], failures: list[Row]) -> list[Row]:
    """What each run did and cost, from its calls and its failed tries."""
    return [
        _run(
            number,
            [call for call in submissions if call["run"] == number],
            [failure for failure in failures if failure["run"] == number],
        )
        for number in sorted({entry["run"] for entry in (*submissions, *failures)})
    ]


def _run(number: int, calls: list[Row], failures: list[Row]) -> Row:
    times = [*(call["intended_at"] for call in calls), *(f["at"] for f in failures)]
    ends = [*(call["ended_at"] for call in calls), *(f["at"] for f in failures)]
    began, ended = min(times), None if None in ends else max(ends)
    return {
        "run": number,
        "began_at": began,
        "ended_at": ended,
        "ran_s": seconds_between(_time(began), _time(ended)),
        "calls": len(calls),
        "failed_tries": len(failures),
        "cost_cents": _sum(calls),
    }


def _open(calls: list[Row]) -> str | None:
    """What calls that haven't ended are expected to cost; None where there are none."""
    open_ = [call for call in calls if call["state"] in ("intent", "accepted", "unknown")]
    total = sum((Decimal(call["estimate_cents"]) for call in open_), Decimal(0))
    return f"{total:f}" if open_ else None


def _sum(calls: Iterable[Row]) -> str:
    """What is known to have been paid."""
    return f"{sum((Decimal(call['cost_cents'] or 0) for call in calls), Decimal(0)):f}"
