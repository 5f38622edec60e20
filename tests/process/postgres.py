"""Postgres as it is on a bad day: restarted, frozen, cutting connections; and behind a pooler."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import pytest

from worker import embedded_places as place
from worker.embedded import SUPERUSER, EmbeddedPostgres, embedded_postgres

PGBOUNCER = shutil.which(
    "pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
)


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
def standby_of(primary: EmbeddedPostgres, directory: Path) -> Iterator[EmbeddedPostgres]:
    """A server that follows it by streaming, with a slot of its own (`standby`)."""
    standby = EmbeddedPostgres(
        directory / "standby", binaries=primary._binaries, settings={"fsync": "off"}
    )
    source = ["-h", str(primary._sockets), "-p", str(primary._port), "-U", SUPERUSER]
    slot = ["--create-slot", "--slot=standby", "--checkpoint=fast", "--write-recovery-conf"]
    made = standby._run(["pg_basebackup", "-D", str(standby._data), *source, *slot])
    assert made.returncode == 0, made.stderr
    standby.start()
    try:
        yield standby
    finally:
        standby.stop("immediate")
        standby.delete()


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
   AND pid <> pg_backend_pid() AND pid <> ALL ($1)
"""


async def cut_connections(dsn: str, *spared: Any) -> int:
    """End every connection to this database but those; how many there were."""
    connection = await asyncpg.connect(dsn)
    try:
        pids = [other.get_server_pid() for other in spared]
        return int(await connection.fetchval(CUT, pids))
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
        ini = Path(name) / "pgbouncer.ini"
        ini.write_text(PGBOUNCER_INI.format(target=_target(dsn), port=port, size=size))
        for path in (ini.parent, ini):
            place.own(path, user)
        process = _launch(ini, user)
        try:
            _await_start(process, port, ini.with_suffix(".log"))
            yield f"postgresql://rowmill@127.0.0.1:{port}{urlsplit(dsn).path}"
        finally:
            process.kill()
            process.wait()


def _launch(ini: Path, user: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
    as_user: dict[str, Any] = {}
    if user is not None:
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with ini.with_suffix(".log").open("wb") as log:
        return subprocess.Popen([str(PGBOUNCER), str(ini)], stderr=log, **as_user)


def _await_start(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"pgbouncer didn't start: {log.read_text()}")


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
