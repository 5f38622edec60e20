"""`python -m bench NAME`: one benchmark, as text or as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from bench import http, journal, money, pickup, row_work, status


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Rowmill's benchmarks. Uses ROWMILL_DATABASE_URL's server, else an embedded one.",
    )
    commands = parser.add_subparsers(dest="name", required=True)
    work = commands.add_parser(
        "row-work", help="jobs per second through one worker, beside pgbench"
    )
    work.add_argument("--jobs", type=int, default=20_000)
    work.add_argument("--paid", action="store_true", help="journal a paid call for every job")
    work.add_argument("--runs", type=int, default=3, help="runs of each side; the median counts")
    pick = commands.add_parser("pickup", help="INSERT to handler start, beside a bare NOTIFY")
    pick.add_argument("--samples", type=int, default=200)
    entries = commands.add_parser("journal", help="entries of the ledger, beside single commits")
    entries.add_argument("--samples", type=int, default=500, help="calls one at a time")
    wire = commands.add_parser("http", help="requests per second beside aiohttp and httpx's own")
    wire.add_argument("--requests", type=int, default=1000, help="per round and side")
    wire.add_argument("--rounds", type=int, default=15, help="of each side; the median counts")
    report = commands.add_parser("status", help="the report of 1,000,000 jobs beside that of 1,000")
    report.add_argument("--samples", type=int, default=100, help="reports of each")
    proof = commands.add_parser("money", help="that nothing is lost or paid twice, whatever dies")
    proof.add_argument("--resubmit-up-to-cents", type=Decimal, metavar="N",
                       help="what a worker may risk; without it, its default")  # fmt: skip
    proof.add_argument("--jobs", type=int, default=600)
    proof.add_argument(
        "--seed", type=int, default=7, help="of the jobs, their faults and the kills"
    )
    for command in (work, pick, entries, wire, report, proof):
        command.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    if options.name == "row-work":
        result = asyncio.run(row_work.run(options.jobs, paid=options.paid, runs=options.runs))
    elif options.name == "journal":
        result = asyncio.run(journal.run(options.samples))
    elif options.name == "http":
        result = asyncio.run(http.run(options.requests, options.rounds))
    elif options.name == "status":
        result = asyncio.run(status.run(options.samples))
    elif options.name == "money":
        given = money.Plan(options.jobs, options.seed, options.resubmit_up_to_cents)
        result = asyncio.run(money.run(given))
    else:
        result = asyncio.run(pickup.run(options.samples))
    sound = result.pop("sound", True)
    _show(result, as_json=options.json)
    sys.exit(0 if sound else 1)


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    width = max(len(name) for name in result)
    for name, value in result.items():
        print(f"{name:<{width}}  {value}")


def progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
