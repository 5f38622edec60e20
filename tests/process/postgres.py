"""Postgres as it is on a bad day: restarted, frozen, cutting connections; and behind a pooler."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import pytest

from worker import embedded_places as place
from worker.embedded import EmbeddedPostgres, embedded_postgres

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def own_postgres(directory: Path) -> Iterator[EmbeddedPostgres]:
    """A server that no other test uses. Without fsync: its processes die here, no machine does."""
    binaries = os.environ.get("ROWMILL_TEST_POSTGRES")
    with embedded_postgres(
        directory / "postgres",
        binaries=Path(binaries) if binaries else None,
        settings={"fsync": "off"},
    ) as server:
        yield server


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """All its processes stand still: connections stay open, and nobody is answered."""
    stopped = [server.pid]
    os.kill(server.pid, signal.SIGSTOP)  # first: from now on it starts no others
    try:
        for pid in _children(server.pid):
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                continue  # it had just ended
            stopped.append(pid)
        yield
    finally:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    pairs = (line.split() for line in listed.stdout.splitlines())
    return [int(child) for child, parent in pairs if int(parent) == pid]


CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend'
   AND pid <> pg_backend_pid()
"""


async def cut_connections(dsn: str) -> int:
    """End every connection to this database; how many there were."""
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(CUT))
    finally:
        await connection.close()


# --------------------------------------------------------------------------- a pooler

PGBOUNCER_INI = """
[databases]
* = {target}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
"""


@contextmanager
def pooler(dsn: str, *, size: int) -> Iterator[str]:
    """A pgbouncer in transaction mode before the server of `dsn`; gives the way through it."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    port = place.free_port()
    user = place.unprivileged() if os.geteuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="rowmill-pooler-") as name:
        directory = Path(name)
        ini = directory / "pgbouncer.ini"
        ini.write_text(PGBOUNCER_INI.format(target=_target(dsn), port=port, size=size))
        for path in (directory, ini):
            place.own(path, user)
        process = subprocess.Popen(
            [PGBOUNCER, str(ini)],
            stderr=subprocess.PIPE,
            text=True,
            **({"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}),
        )
        try:
            _await_start(process)
            yield f"postgresql://rowmill@127.0.0.1:{port}{urlsplit(dsn).path}"
        finally:
            process.kill()
            process.communicate()


def _target(dsn: str) -> str:
    """The server and user of a DSN in pgbouncer's words."""
    parts = urlsplit(dsn)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    words = {
        "host": parts.hostname or query.get("host"),
        "port": parts.port or query.get("port"),
        "user": parts.username and unquote(parts.username),
        "password": parts.password and unquote(parts.password),
    }
    return " ".join(f"{name}='{value}'" for name, value in words.items() if value)


def _await_start(process: subprocess.Popen[str]) -> None:
    """It logs one line once it listens; its log then runs on into a pipe nobody needs to read."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "process up" in line:
            return
    raise RuntimeError(f"pgbouncer didn't start: {''.join(said)}")
