"""`python -m jobs.sandbox`: serve until SIGTERM, telling its addresses as one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from jobs.sandbox.server import Sandbox


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jobs.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--bill", type=Path, help="append every charge to this JSON lines file")
    parser.add_argument("--seed", type=int, default=0, help="changes texts, vectors and pictures")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--duration", type=float, default=0.3, help="seconds a prediction takes")
    parser.add_argument("--steps", type=int, help="polls a prediction takes, instead of seconds")
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Sandbox(**vars(options)) as sandbox:
        where = {"url": sandbox.url, "smtp": sandbox.letterbox.url}
        sys.stdout.write(json.dumps(where) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(arguments()))
