"""`python -m bench.doomed`: a worker that kills itself when it gets to one of the places it is given.

The only way to turn a failpoint on: an entry of its own, told by its command line alone, which
serves no provider that isn't on this machine.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from urllib.parse import urlsplit

from jobs import failpoints
from worker.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.doomed", description=__doc__)
    parser.add_argument("--unlock", required=True, help="the words of jobs.failpoints.UNLOCK")
    parser.add_argument("points", nargs="+", metavar="POINT=PASSES")
    options = parser.parse_args()
    settings = Settings()
    strangers = [name for name, url in _providers(settings).items() if not _is_here(url)]
    if strangers:
        sys.exit(f"bench.doomed: {', '.join(strangers)} would cost real money: not started")
    for point in options.points:
        name, _, passes = point.partition("=")
        failpoints.arm(name, int(passes or 1), options.unlock)
    _work(settings)


def _providers(settings: Settings) -> dict[str, str]:
    from worker.paying import providers_of  # noqa: PLC0415 - not before the settings are read

    return {name: p.account.base_url for name, p in providers_of(settings).items()}


def _is_here(url: str) -> bool:
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_loopback
    except ValueError:
        return False


def _work(settings: Settings) -> None:
    """As `rowmill run` does."""
    import uvloop  # noqa: PLC0415 - what is refused above needs none of it

    from worker import logs  # noqa: PLC0415
    from worker.commands.serving import serve  # noqa: PLC0415

    logs.configure(settings.log_level, settings.log_format)
    uvloop.run(serve(settings, burst=False, migrate_first=False))


if __name__ == "__main__":
    main()
