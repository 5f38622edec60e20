"""rowmill status."""

from __future__ import annotations

from rich.console import Console

from worker.text.values import Row, duration, money, ms, new_console, table

LANE_COLUMNS = (
    *("lane", "table", " ready", " scheduled", " running", " held", " failed 1h", " oldest"),
    *(" per min", " wait p50", " p95", " run p50", " p95", " today", "paused"),
)


def print_status(report: Row) -> None:
    console, database = new_console(), report["database"]
    pooler = " behind a pooler" if database["pooler"] else ""
    console.print(
        f"rowmill {report['version']}, database {database['name']} "
        f"(PostgreSQL {database['server_version']}{pooler}), {report['at'][:19]}Z"
    )
    if report["lanes"]:
        console.print(table("Lanes", LANE_COLUMNS, map(_lane, report["lanes"])))
    else:
        console.print("\nNo jobs waiting, running, or lately done.")
    columns = ("worker", "version", " running", " slots", " heartbeat", "", "lanes")
    console.print(table("Workers", columns, map(_worker, report["workers"])))
    for title, items in (("Needs a person", "needs_person"), ("Good to know", "notices")):
        _print_items(console, title, report[items])
    if not report["needs_person"]:
        console.print("Nothing needs a person.")


def _lane(lane: Row) -> tuple[str, ...]:
    limit = "" if lane["limit"] is None else f"/{lane['limit']}"
    return (
        lane["lane"],
        lane["source"],
        str(lane["ready"]),
        str(lane["scheduled"]),
        f"{lane['running']}{limit}",
        str(lane["held"]),
        str(lane["failed_last_hour"]),
        duration(lane["oldest_wait_s"]),
        str(lane["per_minute_out"]),
        *(ms(lane[name]) for name in ("wait_p50_ms", "wait_p95_ms", "run_p50_ms", "run_p95_ms")),
        money(lane["spend_cents_today"]),
        _closed(lane),
    )


def _closed(lane: Row) -> str:
    if lane["paused"]:
        return lane["pause_reason"] or "yes"
    if lane["broken_until"]:
        return f"left alone: {lane['broken_why']}"
    return f"rate used up until {lane['slow_until'][11:19]}Z" if lane["slow_until"] else ""


def _worker(worker: Row) -> tuple[str, ...]:
    state = "draining" if worker["draining"] else "" if worker["alive"] else "silent"
    return (
        worker["name"],
        worker["version"],
        str(worker["running"]),
        str(worker["slots"]),
        duration(worker["heartbeat_age_s"]),
        state,
        ", ".join(worker["lanes"]),
    )


def _print_items(console: Console, title: str, items: list[Row]) -> None:
    if not items:
        return
    console.print(f"{title}:")
    for item in items:
        console.print(f"  {item['subject']}: {item['message']}", soft_wrap=True)
        for command in item["commands"]:
            console.print(f"      {command}", soft_wrap=True)
    console.print()
